//! Removing what builds keep for the next ones: what steps came to, and cache mounts.
//!
//! The layers of steps are not removed here but by the next collection of the store, which no longer
//! keeps them for a build.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::SystemTime,
};

use pellicle_store::Digest;
use rustix::fs::{FlockOperation, flock};

use super::{
    BuildError,
    cache::{self, Cache},
};
use crate::image::{Images, Record, container_uses};

/// What is to be removed.
#[derive(Clone, Copy, Debug, Default)]
pub struct PruneOptions {
    /// Also what listed images were built with, so that building them again begins at the start.
    pub all: bool,
    /// Only what was not used since then.
    pub unused_since: Option<SystemTime>,
    /// Only say what would be removed.
    pub dry_run: bool,
}

/// What something in the cache of builds is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheKind {
    /// What a step came to.
    Step,
    /// The contents of a `RUN --mount=type=cache`.
    Mount,
}

/// Something in the cache of builds.
#[derive(Clone, Debug)]
pub struct CacheEntry {
    /// What it is.
    pub kind: CacheKind,
    /// The key of a step, in hexadecimal; the id of a mount.
    pub id: String,
    /// Bytes that removing it makes free: on the disk for a mount; for a step those of the contents of its
    /// layer, if nothing else here needs that, which the next collection removes.
    pub bytes: u64,
    /// When it was made, or last used where that is known.
    pub used: SystemTime,
}

/// What was removed, or would be.
#[derive(Clone, Debug, Default)]
pub struct Pruned {
    /// Steps, then mounts.
    pub removed: Vec<CacheEntry>,
    /// Cache mounts that a build uses just now, by id; they stay.
    pub in_use: Vec<String>,
    /// Ids, in hexadecimal, of images all whose steps are among them: nothing more is kept for these.
    images: BTreeSet<String>,
}

impl Pruned {
    /// Bytes that this makes free.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let bytes = self.removed.iter().map(|entry| entry.bytes);
        bytes.fold(0, u64::saturating_add)
    }

    /// Those of cache mounts alone, which no collection counts.
    #[must_use]
    pub fn mount_bytes(&self) -> u64 {
        let mounts = self.removed.iter().filter(|e| e.kind == CacheKind::Mount);
        mounts.map(|e| e.bytes).fold(0, u64::saturating_add)
    }

    /// The stacks of layers that builds still keep in the store at `root`: for the steps that stay, and for
    /// those of `records` that were built with any of these.
    pub(crate) fn kept(&self, root: &Path, records: &[Record]) -> Vec<Vec<Digest>> {
        let mut steps = cache::steps(root);
        for gone in self.removed.iter().filter(|e| e.kind == CacheKind::Step) {
            steps.remove(&gone.id);
        }
        let alone = cache::layers_of(root, &steps).into_iter();
        let mut stacks = self.stacks(root, records);
        stacks.extend(alone.map(|layer| vec![layer]));
        stacks
    }

    fn stacks(&self, root: &Path, records: &[Record]) -> Vec<Vec<Digest>> {
        let stay = records
            .iter()
            .filter(|r| !self.images.contains(&r.id.hex()));
        cache::stacks(root, &stay.cloned().collect::<Vec<_>>())
    }
}

/// Removes what builds keep, where `records` are the images there are. Builds may go on meanwhile: what
/// they use stays, or is made again. To have the layers of the steps removed, too, collect afterwards
/// ([`Images::collect`]).
///
/// # Errors
/// The store's, and what cannot be removed.
pub fn prune(
    images: &Images,
    records: &[Record],
    options: &PruneOptions,
) -> Result<Pruned, BuildError> {
    let dir = cache::dir(images.store().root());
    let mut pruned = Pruned::default();
    prune_steps(images, records, options, &mut pruned)?;
    if !options.dry_run {
        let gone = pruned.removed.iter().map(|e| dir.join("steps").join(&e.id));
        let notes = pruned.images.iter().map(|id| dir.join("images").join(id));
        gone.chain(notes).try_for_each(|path| remove_file(&path))?;
        if options.all && options.unused_since.is_none() {
            // What contexts look like and what servers said serves steps only.
            for part in ["contexts", "downloads"] {
                let names = cache::names(&dir.join(part)).into_iter();
                names
                    .filter(|n| !n.starts_with(cache::NEW))
                    .try_for_each(|n| remove_file(&dir.join(part).join(n)))?;
            }
        }
    }
    prune_mounts(&dir.join("mounts"), options, &mut pruned)?;
    Ok(pruned)
}

/// Picks the steps, and what is noted of images built with none but them.
fn prune_steps(
    images: &Images,
    records: &[Record],
    options: &PruneOptions,
    pruned: &mut Pruned,
) -> Result<(), BuildError> {
    let root = images.store().root();
    let cache = Cache::of(images.store());
    let wanted = match options.all {
        true => BTreeSet::new(),
        false => cache::steps_of(root, records),
    };
    let dir = cache::dir(root).join("steps");
    let mut left = cache::steps(root);
    let mut gone = Vec::new();
    left.retain(|step| {
        let used = used(&dir.join(step)).filter(|used| options.takes(*used));
        let Some(used) = used.filter(|_| !wanted.contains(step)) else {
            return true;
        };
        gone.push((step.clone(), used));
        false
    });
    if options.all {
        pruned.images = cache::images_without(root, &left);
    }
    // Layers that stay, whatever becomes of the steps.
    let mut layers = cache::layers_of(root, &left);
    layers.extend(pruned.stacks(root, records).into_iter().flatten());
    for record in records {
        layers.extend(images.open(record.clone())?.diff_ids);
    }
    let containers = container_uses(root)?.into_iter();
    layers.extend(containers.flat_map(|container| container.diff_ids));
    for (id, used) in gone {
        let key: Option<Digest> = format!("sha256:{id}").parse().ok();
        let layer = key.and_then(|key| cache.find(&key)).and_then(|m| m.layer);
        // Of two steps that came to the same layer, one has its bytes.
        let alone = layer.filter(|layer| layers.insert(layer.diff_id));
        pruned.removed.push(CacheEntry {
            kind: CacheKind::Step,
            id,
            bytes: alone.map_or(0, |layer| layer.content_bytes),
            used,
        });
    }
    Ok(())
}

impl PruneOptions {
    fn takes(&self, used: SystemTime) -> bool {
        self.unused_since.is_none_or(|since| used < since)
    }
}

fn prune_mounts(dir: &Path, options: &PruneOptions, pruned: &mut Pruned) -> Result<(), BuildError> {
    for name in cache::names(dir) {
        let dir = dir.join(&name);
        let id = fs::read_to_string(dir.join(cache::MOUNT_ID)).unwrap_or(name);
        for part in cache::names(&dir) {
            let Some(number) = part.strip_suffix(".lock") else {
                continue;
            };
            let contents = dir.join(number);
            // The lock stays: a build may be waiting for it.
            let path = dir.join(&part);
            let (Some(used), true) = (used(&path), contents.is_dir()) else {
                continue;
            };
            if !options.takes(used) {
                continue;
            }
            let lock = File::open(&path).map_err(BuildError::io("open", &path))?;
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    pruned.in_use.push(id.clone());
                    continue;
                }
                Err(e) => return Err(BuildError::io("lock", &path)(e.into())),
            }
            let bytes = disk_bytes(&contents);
            if !options.dry_run {
                remove_tree(&contents)?;
            }
            pruned.removed.push(CacheEntry {
                kind: CacheKind::Mount,
                id: id.clone(),
                bytes,
                used,
            });
        }
    }
    Ok(())
}

fn used(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

fn remove_file(path: &Path) -> Result<(), BuildError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(BuildError::io("remove", path)(e)),
        _ => Ok(()),
    }
}

/// Bytes that everything in `dir` takes on the disk; what cannot be looked at counts nothing.
fn disk_bytes(dir: &Path) -> u64 {
    let mut bytes = 0;
    let mut counted = BTreeSet::new();
    let mut todo: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.nlink() == 1 || meta.is_dir() || counted.insert((meta.dev(), meta.ino())) {
                bytes += meta.blocks() * 512;
            }
            if meta.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    bytes
}

/// Removes a directory that containers wrote into: an ordinary user cannot remove what is of a
/// subordinate id but in a namespace that has it.
fn remove_tree(path: &Path) -> Result<(), BuildError> {
    let fail = |e: io::Error| BuildError::io("remove", path)(e);
    match fs::remove_dir_all(path) {
        Ok(()) => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
        Err(e) => return Err(fail(e)),
    }
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--map-auto", "rm", "-rf", "--"])
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() && !path.exists() => Ok(()),
        Ok(_) => Err(fail(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "files of subordinate ids are in it; `unshare --user --map-root-user --map-auto rm -rf` of it, \
             which needs util-linux 2.38, failed as well",
        ))),
        Err(e) => Err(fail(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{build::cache::Made, image::NewLayer};
    use pellicle_store::Store;

    fn made() -> Made {
        Made {
            created: "2001-01-01T00:00:00Z".to_owned(),
            layer: None::<NewLayer>,
        }
    }

    #[test]
    fn steps_and_mounts_go_but_those_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let images = Images::new(store.clone());
        let cache = Cache::open(&store).unwrap();
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        cache.note(&a, &made()).unwrap();
        cache.note(&b, &made()).unwrap();
        let mount = |id: &str| {
            let at = dir
                .path()
                .join("builds/mounts")
                .join(Digest::of(id.as_bytes()).hex());
            fs::create_dir_all(at.join("0")).unwrap();
            fs::write(at.join(cache::MOUNT_ID), id).unwrap();
            fs::write(at.join("0/file"), vec![1; 100_000]).unwrap();
            let lock = File::create(at.join("0.lock")).unwrap();
            (at, lock)
        };
        let (free, _) = mount("/free");
        let (busy, lock) = mount("/busy");
        flock(&lock, FlockOperation::LockShared).unwrap();

        let dry = PruneOptions {
            dry_run: true,
            ..PruneOptions::default()
        };
        let told = prune(&images, &[], &dry).unwrap();
        assert_eq!(told.removed.len(), 3, "{told:?}");
        assert_eq!(told.in_use, ["/busy"]);
        assert!(told.bytes() >= 100_000, "{told:?}");
        assert!(cache.find(&a).is_some() && free.join("0/file").exists());

        let old = PruneOptions {
            unused_since: Some(SystemTime::UNIX_EPOCH),
            ..PruneOptions::default()
        };
        assert!(prune(&images, &[], &old).unwrap().removed.is_empty());

        let done = prune(&images, &[], &PruneOptions::default()).unwrap();
        assert_eq!(done.bytes(), told.bytes());
        assert!(cache.find(&a).is_none() && cache.find(&b).is_none());
        assert!(!free.join("0").exists() && busy.join("0/file").exists());
        assert!(free.join("0.lock").exists(), "a build may wait for it");
        drop(lock);
        let rest = prune(&images, &[], &PruneOptions::default()).unwrap();
        assert_eq!(rest.removed.len(), 1);
        assert_eq!(rest.removed[0].id, "/busy");
    }

    #[test]
    fn what_a_listed_image_was_built_with_stays_unless_all_is_to_go() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let cache = Cache::open(&store).unwrap();
        let (a, b, image) = (Digest::of(b"a"), Digest::of(b"b"), Digest::of(b"i"));
        cache.note(&a, &made()).unwrap();
        cache.note(&b, &made()).unwrap();
        cache.note_image(&image, &[a].into(), &[]).unwrap();
        let record = Record {
            manifest: Digest::of(b"m"),
            id: image,
            names: Vec::new(),
            size: 0,
        };
        let steps = cache::steps_of(dir.path(), &[record]);
        assert_eq!(steps, [a.hex()].into());
        assert!(cache::steps_of(dir.path(), &[]).is_empty());
    }
}
