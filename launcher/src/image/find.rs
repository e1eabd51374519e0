//! From what people write to an image of the list.

use std::path::Path;

use pellicle_store::Digest;

use super::{ImageError, Record, Reference, short_name};
use crate::registry;

/// As [`find_in`]; a name by digest may also be one that an image was pulled by, which the list does
/// not have, and a short name what registries.conf makes of it. Nothing but the list is read for a name that
/// is in it.
pub(super) fn find_pulled<'a>(
    records: &'a [Record],
    root: &Path,
    text: &str,
) -> Result<&'a Record, ImageError> {
    let missing = match find_in(records, text) {
        Err(e @ ImageError::NotFound(_)) => e,
        other => return other,
    };
    let mut meant = meant(text);
    meant.extend(
        text.parse::<Reference>()
            .ok()
            .and_then(|r| r.at_localhost()),
    );
    meant
        .iter()
        .find_map(|reference| {
            find_reference(records, reference).or_else(|| {
                let manifest = registry::pulled_as(root, reference)?;
                records.iter().find(|r| r.manifest == manifest)
            })
        })
        .ok_or(missing)
}

/// The names that `text` may stand for: its own, or what registries.conf makes of a short one.
pub(super) fn meant(text: &str) -> Vec<Reference> {
    let own: Option<Reference> = text.parse().ok();
    let mut all = match short_name(text) {
        Some(_) => registry::stand_for(text),
        None => Vec::new(),
    };
    all.extend(own.filter(|own| !all.contains(own)));
    all
}

pub(super) fn find_in<'a>(records: &'a [Record], text: &str) -> Result<&'a Record, ImageError> {
    let not_found = || ImageError::NotFound(text.to_owned());
    if let Ok(digest) = text.parse::<Digest>() {
        return records
            .iter()
            .rev()
            .find(|r| r.id == digest || r.manifest == digest)
            .ok_or_else(not_found);
    }
    let reference = text.parse::<Reference>();
    if let Ok(reference) = &reference
        && let Some(found) = find_reference(records, reference)
            .or_else(|| find_reference(records, &reference.at_localhost()?))
    {
        return Ok(found);
    }
    let prefix = text.strip_prefix("sha256:").unwrap_or(text);
    if prefix.is_empty()
        || !prefix
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    {
        // Not even the start of an id: then what is wrong with it as a name is worth telling.
        reference?;
        return Err(not_found());
    }
    let mut fitting: Vec<&Record> = records
        .iter()
        .rev()
        .filter(|r| r.id.hex().starts_with(prefix))
        .collect();
    // One image under two manifests is still one image.
    fitting.dedup_by_key(|r| r.id);
    match fitting.as_slice() {
        [] => Err(not_found()),
        [one] => Ok(one),
        more => Err(ImageError::Ambiguous {
            prefix: text.to_owned(),
            count: more.len(),
        }),
    }
}

fn find_reference<'a>(records: &'a [Record], reference: &Reference) -> Option<&'a Record> {
    let Some(digest) = reference.digest() else {
        let name = reference.tagged()?;
        return records.iter().find(|r| r.names.contains(&name));
    };
    // With a digest the tag is an ornament (distribution/reference): the repository counts.
    let repository = format!("{}:", reference.repository());
    records.iter().find(|r| {
        (r.manifest == *digest || r.id == *digest)
            && r.names.iter().any(|n| n.starts_with(&repository))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{
        short_id,
        tests::{new, records},
    };

    #[test]
    fn images_are_found_by_name_digest_and_start_of_id() {
        let list = records(vec![new(1, &["x:1"]), new(2, &["localhost/y"])]);
        let find = |t: &str| find_in(&list, t).map(|r| r.manifest);
        let (one, two) = (Digest::of(&[1]), Digest::of(&[2]));
        assert_eq!(find("x:1").unwrap(), one);
        assert_eq!(
            find("y").unwrap(),
            two,
            "a local name is found without its registry"
        );
        assert_eq!(find(&format!("x@{one}")).unwrap(), one);
        assert_eq!(find(&Digest::of(&[1, 0]).to_string()).unwrap(), one);
        assert_eq!(find(&Digest::of(&[1, 0]).hex()).unwrap(), one);
        assert_eq!(find(&short_id(&Digest::of(&[2, 0]))).unwrap(), two);
        assert!(matches!(find("x"), Err(ImageError::NotFound(_))));
        assert!(matches!(
            find("sha256:"),
            Err(ImageError::BadReference { .. })
        ));
        assert!(matches!(
            find("No Name"),
            Err(ImageError::BadReference { .. })
        ));
        assert!(matches!(
            find(&format!("y@{one}")),
            Err(ImageError::NotFound(_))
        ));
    }

    #[test]
    fn a_start_of_two_ids_is_ambiguous() {
        let list = records((0..40).map(|n| new(n, &[])).collect());
        let hit = (0..=15u8).any(|d| {
            matches!(
                find_in(&list, &format!("{d:x}")),
                Err(ImageError::Ambiguous { .. })
            )
        });
        assert!(hit, "40 ids and 16 first digits");
    }
}
