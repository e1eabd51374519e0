//! Re-hashing a store.

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use crate::{
    Digest, Store, StoreError, Tree, TreeKind, collect::each_tree, error::with_causes, pool::Pool,
};

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
    /// Directories that nobody can look into; what is in them was not read.
    pub directories: Vec<DamagedDirectory>,
}

/// A directory of the store that its owner cannot use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedDirectory {
    /// Which.
    pub path: PathBuf,
    /// What is wrong.
    pub detail: String,
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
        each_usable(&self.objects().0, &mut report, &mut |report, id, path| {
            present.insert(id);
            report.objects += 1;
            if let Some(damage) = check_content("object", id, path, &mut report.bytes, progress) {
                bad.insert(id, damage);
            }
        })?;
        self.verify_trees(&mut report, &present, &mut bad, progress)?;
        report.damaged.extend(bad.into_values());
        each_usable(&self.blobs().0, &mut report, &mut |report, id, path| {
            report.blobs += 1;
            let damage = check_content("blob", id, path, &mut report.bytes, progress);
            report.damaged.extend(damage);
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
        if let Some(detail) = directory_fault(&self.root().join("trees")) {
            let path = self.root().join("trees");
            report.directories.push(DamagedDirectory { path, detail });
            return Ok(());
        }
        each_tree(self.root(), &mut |id, path| {
            let len = path.metadata().map_or(0, |m| m.len());
            report.trees += 1;
            report.bytes += len;
            let checked = self.check_tree(&id).and_then(|tree| {
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
                    detail: with_causes(&error),
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

    /// The tree called `id`, if all of it is as it must be.
    pub(crate) fn check_tree(&self, id: &Digest) -> Result<Tree, StoreError> {
        let path = self.tree_path(id);
        match file_fault(&path) {
            Ok(None) => {}
            Ok(Some(fault)) => {
                return Err(StoreError::io("use", &path)(io::Error::other(fault)));
            }
            // Opening it tells better.
            Err(_) => {}
        }
        let tree = self.tree(id)?;
        tree.check()?;
        Ok(tree)
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

/// Calls `each` with everything in `pool`; directories that cannot be used are noted in the report.
fn each_usable(
    pool: &Pool,
    report: &mut VerifyReport,
    each: &mut dyn FnMut(&mut VerifyReport, Digest, &Path),
) -> Result<(), StoreError> {
    let top = pool.top();
    let dirs = match directory_fault(top) {
        None => pool.directories()?,
        Some(detail) => {
            let path = top.to_owned();
            report.directories.push(DamagedDirectory { path, detail });
            return Ok(());
        }
    };
    for path in dirs {
        match directory_fault(&path) {
            None => pool.each_in(&path, &mut |id, path| {
                each(report, id, path);
                Ok(())
            })?,
            Some(detail) => report.directories.push(DamagedDirectory { path, detail }),
        }
    }
    Ok(())
}

/// Why nobody can use the directory `path`. One that is gone is none.
pub(crate) fn directory_fault(path: &Path) -> Option<String> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
        Err(e) => return Some(e.to_string()),
    };
    if !meta.is_dir() {
        return Some("it is no directory".to_owned());
    }
    // Root may do everything: the mode is what tells that an ordinary user, or a restored backup,
    // could not. A store that is only read may belong to somebody else.
    if meta.mode() & 0o500 != 0o500 {
        return Some(format!(
            "its mode {:03o} locks its owner out",
            meta.mode() & 0o7777
        ));
    }
    fs::read_dir(path).err().map(|e| e.to_string())
}

/// What is wrong with the file at `path` before its first byte is read.
pub(crate) fn file_fault(path: &Path) -> io::Result<Option<String>> {
    let meta = fs::symlink_metadata(path)?;
    if !meta.is_file() {
        return Ok(Some("it is no regular file".to_owned()));
    }
    let mode = meta.mode() & 0o7777;
    Ok((mode & 0o400 == 0).then(|| format!("its mode {mode:03o} locks its owner out")))
}

/// What is wrong with the content at `path`, which is to be `id`; and its length. `None` if it is
/// not there.
pub(crate) fn content_fault(id: Digest, path: &Path) -> Option<(Option<String>, u64)> {
    let checked = file_fault(path).and_then(|fault| match fault {
        Some(fault) => Ok((Some(fault), 0)),
        None => hash_file(path).map(|(found, len)| {
            let fault = (found != id).then(|| format!("its content is {found}, {len} bytes"));
            (fault, len)
        }),
    });
    match checked {
        Ok(found) => Some(found),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => Some((Some(format!("it cannot be read: {e}")), 0)),
    }
}

fn check_content(
    what: &'static str,
    id: Digest,
    path: &Path,
    bytes: &mut u64,
    progress: &mut dyn FnMut(&str, u64),
) -> Option<Damage> {
    let (fault, len) = content_fault(id, path)?;
    *bytes += len;
    progress(what, len);
    fault.map(|detail| Damage {
        what,
        id,
        path: path.to_owned(),
        detail,
        used_by: Vec::new(),
    })
}

fn hash_file(path: &Path) -> io::Result<(Digest, u64)> {
    // Not through a link, nor waiting for the other end of a pipe that came there meanwhile.
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
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
