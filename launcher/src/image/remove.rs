//! Taking names and images off the list.

use std::path::Path;

use pellicle_store::Digest;

use super::{
    ImageError, Images, Record, Reference, familiar,
    find::{find_pulled, meant},
    short_id,
};
use crate::{
    events::{self, Event},
    registry,
};

/// What [`Images::remove`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Full names taken away.
    pub untagged: Vec<String>,
    /// The image that is no longer listed, by id.
    pub deleted: Option<Digest>,
}

impl Images {
    /// Takes a name away, and the image off the list if that was its last; or, given an id, the
    /// image with its only name. What it alone needed stays in the store until the next collection.
    ///
    /// `users` tells which containers stand on an image, by id.
    ///
    /// # Errors
    /// Unless `force`: [`ImageError::InUse`] if the image would go and containers use it,
    /// [`ImageError::SeveralNames`] if an id is given and the image has more than one name.
    /// [`ImageError::NotFound`] and its kin; if the list cannot be changed.
    pub fn remove(
        &self,
        name_or_id: &str,
        force: bool,
        users: &dyn Fn(&Digest) -> Vec<String>,
    ) -> Result<Removed, ImageError> {
        let lock = self.index.lock()?;
        let mut records = lock.read()?;
        let root = self.store().root();
        let found = find_pulled(&records, root, name_or_id)?.clone();
        // The name by a digest that it was pulled by is only one of its names.
        let pulled = pulled_name(root, name_or_id);
        if let Some(name) = pulled.filter(|_| !found.names.is_empty()) {
            registry::forget_pulled(self.store(), &name);
            let untagged = Event::image("untag", &found.id, Some(&name));
            events::note(root, &[untagged]);
            return Ok(Removed {
                untagged: vec![name],
                deleted: None,
            });
        }
        let removed = remove_from(&mut records, &found, name_or_id, force, users)?;
        lock.write(records)?;
        let untagged = removed.untagged.iter();
        let untagged = untagged.map(|name| Event::image("untag", &found.id, Some(name)));
        let deleted = removed.deleted.map(|id| Event::image("delete", &id, None));
        events::note(root, &untagged.chain(deleted).collect::<Vec<_>>());
        Ok(removed)
    }
}

/// The full name by digest that `text` is, if an image was pulled by it.
fn pulled_name(root: &Path, text: &str) -> Option<String> {
    let reference: Reference = text.parse().ok()?;
    let local = reference.at_localhost();
    [Some(reference), local]
        .into_iter()
        .flatten()
        .find(|r| registry::pulled_as(root, r).is_some())
        .and_then(|r| registry::pulled_key(&r))
}

fn remove_from(
    records: &mut Vec<Record>,
    found: &Record,
    name_or_id: &str,
    force: bool,
    users: &dyn Fn(&Digest) -> Vec<String>,
) -> Result<Removed, ImageError> {
    let given = named(found, name_or_id);
    if given.is_none() && found.names.len() > 1 && !force {
        return Err(ImageError::SeveralNames {
            id: short_id(&found.id),
            names: found
                .names
                .iter()
                .map(|n| familiar(n))
                .collect::<Vec<_>>()
                .join(", "),
        });
    }
    let gone = match &given {
        Some(name) => vec![name.clone()],
        None => found.names.clone(),
    };
    let left: Vec<String> = found
        .names
        .iter()
        .filter(|n| !gone.contains(n))
        .cloned()
        .collect();
    if !left.is_empty() {
        for record in records.iter_mut().filter(|r| r.manifest == found.manifest) {
            record.names.clone_from(&left);
        }
        return Ok(Removed {
            untagged: gone,
            deleted: None,
        });
    }
    // The image itself is still there if it is also listed under another manifest.
    let last = !records
        .iter()
        .any(|r| r.id == found.id && r.manifest != found.manifest);
    let using = users(&found.id);
    if last && !using.is_empty() && !force {
        return Err(ImageError::InUse {
            image: given.map_or_else(|| short_id(&found.id), |n| familiar(&n)),
            containers: using.join(", "),
        });
    }
    records.retain(|r| r.manifest != found.manifest);
    Ok(Removed {
        untagged: gone,
        deleted: last.then_some(found.id),
    })
}

/// Which of the record's names `text` is; `None` if it is an id or a digest.
fn named(record: &Record, text: &str) -> Option<String> {
    let reference: Reference = text.parse().ok()?;
    if reference.digest().is_some() {
        return None;
    }
    let is_its = |r: &Reference| r.tagged().filter(|name| record.names.contains(name));
    let own = is_its(&reference).or_else(|| is_its(&reference.at_localhost()?));
    own.or_else(|| meant(text).iter().find_map(is_its))
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: &str = "docker.io/library/x:latest";
    const Y: &str = "docker.io/library/y:latest";

    fn record(n: u8, names: &[&str]) -> Record {
        let names = names.iter().map(|&n| n.to_owned()).collect();
        Record {
            manifest: Digest::of(&[n]),
            id: Digest::of(&[n, n]),
            names,
            size: 0,
        }
    }

    fn take(
        list: &mut Vec<Record>,
        text: &str,
        force: bool,
        users: &dyn Fn(&Digest) -> Vec<String>,
    ) -> Result<Removed, ImageError> {
        let found = super::super::find::find_in(list, text)?.clone();
        remove_from(list, &found, text, force, users)
    }

    fn nobody(_: &Digest) -> Vec<String> {
        Vec::new()
    }

    fn somebody(_: &Digest) -> Vec<String> {
        vec!["c0ffee".to_owned()]
    }

    #[test]
    fn one_of_two_names_is_only_untagged_even_in_use() {
        let mut list = vec![record(1, &[X, Y])];
        let removed = take(&mut list, "y", false, &somebody).unwrap();
        assert_eq!(
            removed,
            Removed {
                untagged: vec![Y.to_owned()],
                deleted: None
            }
        );
        assert_eq!(list, [record(1, &[X])]);
    }

    #[test]
    fn the_last_name_takes_the_image_along_unless_a_container_uses_it() {
        let mut list = vec![record(1, &[X])];
        let e = take(&mut list, "x", false, &somebody).unwrap_err();
        assert!(
            matches!(e, ImageError::InUse { .. }) && e.to_string().contains("c0ffee"),
            "{e}"
        );
        assert_eq!(list, [record(1, &[X])], "nothing was changed");
        let removed = take(&mut list, "x", false, &nobody).unwrap();
        assert_eq!(removed.deleted, Some(Digest::of(&[1, 1])));
        assert!(list.is_empty());
    }

    #[test]
    fn an_id_with_two_names_needs_force() {
        let id = Digest::of(&[1, 1]).hex();
        let mut list = vec![record(1, &[X, Y])];
        let e = take(&mut list, &id, false, &nobody).unwrap_err();
        assert!(matches!(e, ImageError::SeveralNames { .. }), "{e}");
        let removed = take(&mut list, &id, true, &nobody).unwrap();
        assert_eq!(removed.untagged, [X, Y]);
        assert!(list.is_empty());
    }
}
