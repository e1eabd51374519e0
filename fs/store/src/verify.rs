//! Re-hashing a store.

use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use crate::{Digest, Store, StoreError, Tree, TreeKind, collect::each_tree, pool::Pool};

/// What [`crate::Store::verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Objects read.
    pub objects: u64,
    /// Blobs read.
    pub blobs: u64,
    /// Trees read.
    pub trees: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Everything that is not as its name says.
    pub damaged: Vec<Damage>,
}

/// One damaged or missing thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// `object`, `blob` or `tree`.
    pub what: &'static str,
    /// Its name.
    pub id: Digest,
    /// Its file.
    pub path: PathBuf,
    /// What is wrong.
    pub detail: String,
    /// Names of the trees (diff ids, chain ids) that need it; for a tree, its own and those of the
    /// image trees that were made of it.
    pub used_by: Vec<Digest>,
}

impl Store {
    /// Reads everything again and compares it with its name. `progress` hears what is being read
    /// (`object`, `blob`, `tree`) and of how many bytes the last one was. Takes no lock; what is
    /// removed meanwhile is passed over.
    ///
    /// # Errors
    /// Only if the store cannot be listed; a file that cannot be read is damage.
    pub fn verify(&self, progress: &mut dyn FnMut(&str, u64)) -> Result<VerifyReport, StoreError> {
        let mut report = VerifyReport::default();
        let mut present = HashSet::new();
        let mut bad = BTreeMap::new();
        self.objects().0.each(&mut |id, path| {
            present.insert(id);
            report.objects += 1;
            if let Some(damage) = check_content("object", id, path, &mut report.bytes, progress) {
                bad.insert(id, damage);
            }
            Ok(())
        })?;
        self.verify_trees(&mut report, &present, &mut bad, progress)?;
        report.damaged.extend(bad.into_values());
        let blobs: &Pool = &self.blobs().0;
        blobs.each(&mut |id, path| {
            report.blobs += 1;
            let damage = check_content("blob", id, path, &mut report.bytes, progress);
            report.damaged.extend(damage);
            Ok(())
        })?;
        Ok(report)
    }

    fn verify_trees(
        &self,
        report: &mut VerifyReport,
        present: &HashSet<Digest>,
        bad: &mut BTreeMap<Digest, Damage>,
        progress: &mut dyn FnMut(&str, u64),
    ) -> Result<(), StoreError> {
        let mut images: Vec<(Digest, Vec<Digest>)> = Vec::new();
        let mut damaged: Vec<Damage> = Vec::new();
        each_tree(self.root(), &mut |id, path| {
            let len = path.metadata().map_or(0, |m| m.len());
            report.trees += 1;
            report.bytes += len;
            let checked = self.tree(&id).and_then(|tree| {
                tree.check()?;
                self.note_uses(&tree, present, bad)?;
                Ok(tree)
            });
            progress("tree", len);
            match checked {
                Ok(tree) if tree.kind() == TreeKind::Image => {
                    images.push((id, tree.layers().to_vec()));
                }
                Ok(_) | Err(StoreError::Missing { .. }) => {}
                Err(error) => damaged.push(Damage {
                    what: "tree",
                    id,
                    path: path.to_owned(),
                    detail: error.to_string(),
                    used_by: vec![id],
                }),
            }
            Ok(())
        })?;
        for damage in &mut damaged {
            let made_of_it = images.iter().filter(|(_, l)| l.contains(&damage.id));
            damage.used_by.extend(made_of_it.map(|(id, _)| *id));
        }
        report.damaged.extend(damaged);
        Ok(())
    }

    /// Notes that `tree` needs those of its objects that are damaged or not there.
    fn note_uses(
        &self,
        tree: &Tree,
        present: &HashSet<Digest>,
        bad: &mut BTreeMap<Digest, Damage>,
    ) -> Result<(), StoreError> {
        for at in 0..tree.object_count() {
            let id = tree.object(at)?;
            // One that was added after the objects were listed is no damage.
            if !present.contains(&id) && !bad.contains_key(&id) && !self.objects().contains(&id) {
                bad.insert(
                    id,
                    Damage {
                        what: "object",
                        id,
                        path: self.objects().path(&id),
                        detail: "it is not there".into(),
                        used_by: Vec::new(),
                    },
                );
            }
            if let Some(damage) = bad.get_mut(&id) {
                damage.used_by.push(tree.identity());
            }
        }
        Ok(())
    }
}

fn check_content(
    what: &'static str,
    id: Digest,
    path: &Path,
    bytes: &mut u64,
    progress: &mut dyn FnMut(&str, u64),
) -> Option<Damage> {
    let detail = match hash_file(path) {
        Ok((found, len)) => {
            *bytes += len;
            progress(what, len);
            (found != id).then(|| format!("its content is {found}, {len} bytes"))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => Some(format!("it cannot be read: {e}")),
    }?;
    Some(Damage {
        what,
        id,
        path: path.to_owned(),
        detail,
        used_by: Vec::new(),
    })
}

fn hash_file(path: &Path) -> std::io::Result<(Digest, u64)> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buf = vec![0; 256 << 10];
    let mut len = 0;
    loop {
        let n = file.read(&mut buf)?;
        if n == 0 {
            return Ok((Digest(hash.finalize().into()), len));
        }
        hash.update(buf.get(..n).unwrap_or_default());
        len += n as u64;
    }
}
