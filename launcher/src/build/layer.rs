//! From what a step wrote to a layer.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use pellicle_layer::Lower;
use pellicle_store::{Hold, Store, Time};
use pellicle_union::{LayerChange, LayerEntry, SetAttr, Union, Watch};
use rustix::fs::{FlockOperation, flock};

use super::{BuildError, cache};
use crate::{
    container::{
        mount_points,
        root::{self, Upper},
    },
    image::NewLayer,
};

/// What becomes of the times of the files in new layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// They stay.
    Keep,
    /// Later ones become this (`SOURCE_DATE_EPOCH`).
    AtMost(Time),
    /// All become this (`--timestamp`).
    All(Time),
}

/// A directory for what a step writes, removed when dropped. What a killed build left is removed by the
/// next one: its lock is free.
#[derive(Debug)]
pub(super) struct Work {
    path: PathBuf,
    _lock: File,
}

impl Work {
    /// A new directory in the store at `root`.
    ///
    /// # Errors
    /// The host's.
    pub(super) fn new(root: &Path) -> Result<Self, BuildError> {
        let parent = cache::dir(root).join("work");
        let _guard = guard(root)?;
        let dir = tempfile::Builder::new()
            .prefix("w")
            .tempdir_in(&parent)
            .map_err(BuildError::io("make a directory in", &parent))?;
        let path = dir.path().join("lock");
        let lock = File::create(&path).map_err(BuildError::io("make", &path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|e| BuildError::io("lock", &path)(e.into()))?;
        Ok(Self {
            path: dir.keep(),
            _lock: lock,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes what killed builds left in the store at `root`.
    pub(super) fn sweep(root: &Path) {
        let parent = cache::dir(root).join("work");
        // Whoever cannot have it cannot build either, and is told so then.
        let Ok(_guard) = guard(root) else { return };
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let free = File::open(entry.path().join("lock"))
                .is_ok_and(|l| flock(&l, FlockOperation::NonBlockingLockExclusive).is_ok());
            if free {
                remove(&entry.path());
            }
        }
    }
}

/// Held while a directory is made and while those of others are looked at: one whose lock is not there yet,
/// or not taken yet, is not dead.
fn guard(root: &Path) -> Result<Hold, BuildError> {
    Ok(Hold::brief(root, "builds")?)
}

impl Drop for Work {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Removes a directory, also where something in it was made read-only.
fn remove(path: &Path) {
    if fs::remove_dir_all(path).is_ok() {
        return;
    }
    let mut todo = vec![path.to_owned()];
    while let Some(dir) = todo.pop() {
        let _ = fs::set_permissions(&dir, fs::Permissions::from_mode(0o700));
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let dirs = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
        todo.extend(dirs.map(|e| e.path()));
    }
    if let Err(error) = fs::remove_dir_all(path) {
        tracing::warn!(%error, "cannot remove {}", path.display());
    }
}

/// Opens `lower` under a new writable layer in `dir`.
///
/// # Errors
/// The host's, and damage.
pub(super) fn writable(lower: &Arc<dyn Lower>, dir: &Path) -> Result<Union, BuildError> {
    let upper = dir.join("upper");
    fs::create_dir_all(&upper).map_err(BuildError::io("make", &upper))?;
    let how = Upper::Serve { volatile: true };
    let (union, _) = root::open_over(Arc::clone(lower), dir, how)?;
    Ok(union)
}

/// Makes a layer of what the writable layer in `dir` has over `lower`, but for what was only made to
/// mount on `points`; `None` if that is nothing. Nobody else uses it.
///
/// # Errors
/// [`BuildError::Commit`], damage and the host's.
pub(super) fn commit(
    store: &Store,
    lower: &Arc<dyn Lower>,
    dir: &Path,
    points: &[String],
    times: Times,
    watch: &Watch<'_>,
) -> Result<Option<NewLayer>, BuildError> {
    if times != Times::Keep {
        let how = Upper::Serve { volatile: true };
        let (union, _) = root::open_over(Arc::clone(lower), dir, how)?;
        for change in changes(&union, points)? {
            set_time(&union, &change, times)?;
        }
    }
    let (union, _) = root::open_over(Arc::clone(lower), dir, Upper::Hold)?;
    let changes = changes(&union, points)?;
    if changes.is_empty() {
        return Ok(None);
    }
    let layer = union.commit(&changes, store, watch)?;
    Ok(Some(NewLayer {
        diff_id: layer.diff_id,
        archive_bytes: layer.archive_bytes,
        content_bytes: layer.archived.content_bytes,
    }))
}

fn changes(union: &Union, points: &[String]) -> Result<Vec<LayerChange>, BuildError> {
    let mut changes = union.layer_changes()?;
    mount_points::leave_out(&mut changes, union.differences()?, points);
    Ok(changes)
}

fn set_time(union: &Union, change: &LayerChange, times: Times) -> Result<(), BuildError> {
    let LayerEntry::Node { ino, .. } = change.entry else {
        return Ok(());
    };
    let now = union.attr(ino)?.mtime;
    let time = match times {
        Times::Keep => return Ok(()),
        Times::AtMost(limit) => now.min(limit),
        Times::All(time) => time,
    };
    if time != now {
        union.set_attr(
            ino,
            SetAttr {
                mtime: Some(time),
                ..SetAttr::default()
            },
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_swept_once_its_build_has_died_and_not_before() {
        let top = tempfile::tempdir().unwrap();
        let parent = cache::dir(top.path()).join("work");
        fs::create_dir_all(parent.join("wdead")).unwrap();
        fs::create_dir(top.path().join("locks")).unwrap();
        fs::write(parent.join("wdead/lock"), "").unwrap();
        let root = top.path().to_owned();
        let maker = std::thread::spawn(move || {
            for _ in 0..300 {
                let work = Work::new(&root).unwrap();
                assert!(work.path().is_dir());
            }
        });
        while !maker.is_finished() {
            Work::sweep(top.path());
        }
        maker.join().unwrap();
        Work::sweep(top.path());
        assert_eq!(fs::read_dir(&parent).unwrap().count(), 0);
    }
}
