//! Removing what nothing needs any more.
//!
//! Everything that the roots lead to is marked, all else removed: trees first, so that at no time
//! there is a tree whose objects are gone. Under the exclusive lock: no mount and no import is
//! running then, so what is not marked is in nobody's hands.

use std::{
    collections::{BTreeSet, HashSet},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::{Digest, Store, StoreError, pool::Pool, temp::sync_dir};

/// What is still wanted.
#[derive(Clone, Debug, Default)]
pub struct Roots {
    /// Blobs: manifests, configurations, compressed layers.
    pub blobs: BTreeSet<Digest>,
    /// The diff ids of each image, lowest layer first.
    pub stacks: Vec<Vec<Digest>>,
}

/// What [`crate::Store::collect`] removed, or would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Objects.
    pub objects: u64,
    /// Blobs.
    pub blobs: u64,
    /// Trees.
    pub trees: u64,
    /// Bytes of all of them, as allocated on the host.
    pub bytes: u64,
}

impl Store {
    /// Removes everything that `live` does not lead to; with `dry_run` only counts it. Takes the
    /// exclusive lock, unless this store holds it already, as it should from before `live` was
    /// drawn up. To count, a shared one is enough: what imports that are under way have brought is
    /// counted then, too.
    ///
    /// # Errors
    /// [`StoreError::Busy`]; damage of a live tree (nothing is removed then, since what it needs
    /// cannot be told); the host's.
    pub fn collect(&self, live: &Roots, dry_run: bool) -> Result<Collected, StoreError> {
        let _lock = match (self.is_locked(), dry_run) {
            (true, _) => None,
            (false, true) => Some(self.lock_shared()?),
            (false, false) => Some(self.lock_exclusive()?),
        };
        let (trees, objects) = self.mark(live)?;
        let mut done = Collected::default();
        let mut dead = Vec::new();
        each_tree(self.root(), &mut |id, path| {
            if !trees.contains(&id) {
                dead.push(path.to_owned());
            }
            Ok(())
        })?;
        done.trees = dead.len() as u64;
        done.bytes += remove(&dead, dry_run)?;
        if !dry_run && !dead.is_empty() {
            sync_dir(&self.root().join("trees"))?;
        }
        (done.objects, done.bytes) = sweep(
            &self.objects().0,
            &|id| objects.contains(id),
            dry_run,
            done.bytes,
        )?;
        (done.blobs, done.bytes) = sweep(
            &self.blobs().0,
            &|id| live.blobs.contains(id),
            dry_run,
            done.bytes,
        )?;
        if !dry_run {
            self.temps().clean()?;
        }
        Ok(done)
    }

    /// The trees and objects that `live` leads to.
    fn mark(&self, live: &Roots) -> Result<(HashSet<Digest>, HashSet<Digest>), StoreError> {
        let mut trees = HashSet::new();
        let mut objects = HashSet::new();
        for stack in &live.stacks {
            for id in stack {
                if !trees.insert(*id) || !self.tree_path(id).exists() {
                    continue;
                }
                let tree = self.tree(id)?;
                for at in 0..tree.object_count() {
                    objects.insert(tree.object(at)?);
                }
            }
            // What a flattened tree needs its layers need too, and it can be made again.
            trees.extend(Digest::chain(stack));
        }
        Ok((trees, objects))
    }
}

/// Removes what is in `pool` and not `wanted`; gives how many, and `bytes` plus theirs.
fn sweep(
    pool: &Pool,
    wanted: &dyn Fn(&Digest) -> bool,
    dry_run: bool,
    bytes: u64,
) -> Result<(u64, u64), StoreError> {
    let mut dead = Vec::new();
    pool.each(&mut |id, path| {
        if !wanted(&id) {
            dead.push(path.to_owned());
        }
        Ok(())
    })?;
    Ok((dead.len() as u64, bytes + remove(&dead, dry_run)?))
}

/// Removes `files`; gives the bytes they took on the host.
fn remove(files: &[PathBuf], dry_run: bool) -> Result<u64, StoreError> {
    let mut bytes = 0;
    for path in files {
        let meta = fs::symlink_metadata(path).map_err(StoreError::io("look at", path))?;
        bytes += meta.blocks() * 512;
        if !dry_run {
            match fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::io("remove", path)(e));
                }
                _ => {}
            }
        }
    }
    Ok(bytes)
}

/// Calls `each` with the name and the file of every tree of the store at `root`.
pub(crate) fn each_tree(
    root: &Path,
    each: &mut dyn FnMut(Digest, &Path) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let dir = root.join("trees");
    let io = StoreError::io("list", &dir);
    let entries: Vec<_> = fs::read_dir(&dir).and_then(Iterator::collect).map_err(io)?;
    for entry in entries {
        let name = format!("sha256:{}", entry.file_name().to_string_lossy());
        if let Ok(id) = name.parse() {
            each(id, &entry.path())?;
        }
    }
    Ok(())
}
