//! The run's own directory, and those of runs that were killed.
//!
//! A run holds a lock on its directory as long as it lives, however it ends. A directory without one was
//! left by a run that could not clear up.

use std::{
    fs::{self, File},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

const PREFIX: &str = "pellicle-bench-";
/// What the names of [`WorkDir::short_directory`] begin with, and those of the notes of them.
const SHORT: &str = "pb-run-";
/// A file that says that this run has turned on what is to be off.
const SWITCHED: &str = "io-uring-was-off";
/// How long processes that were killed may take to be gone.
const GRACE: Duration = Duration::from_secs(5);

/// The directory of a run that lives.
pub(crate) struct WorkDir {
    dir: TempDir,
    /// Let go of when the directory is gone.
    _lock: File,
}

impl WorkDir {
    /// Makes one in `work`.
    pub(crate) fn make(work: &Path) -> Result<Self> {
        // podman makes an image's name of the path of a layout: it must be lower case.
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        let name = format!("{PREFIX}{}-{now:x}", std::process::id());
        let dir = tempfile::Builder::new()
            .prefix(&name)
            .rand_bytes(0)
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in(work)
            .with_context(|| {
                let work = work.display();
                format!("cannot make a directory in {work}; give --work DIR")
            })?;
        let lock = File::open(dir.path())?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .with_context(|| format!("cannot lock {}", dir.path().display()))?;
        Ok(Self { dir, _lock: lock })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A directory elsewhere, with a short path. Noted here, so that it goes with this one.
    pub(crate) fn short_directory(&self) -> Result<TempDir> {
        let dir = tempfile::Builder::new()
            .prefix(SHORT)
            .tempdir_in("/tmp")
            .context("cannot make a directory in /tmp")?;
        let note = self.path().join(dir.path().file_name().unwrap_or_default());
        symlink(dir.path(), &note).with_context(|| format!("cannot make {}", note.display()))?;
        Ok(dir)
    }

    /// Notes that FUSE over io_uring is to be off once this run has ended.
    pub(crate) fn note_switch(&self) -> Result<()> {
        let note = self.path().join(SWITCHED);
        fs::write(&note, "").with_context(|| format!("cannot write {}", note.display()))
    }
}

/// What was done about runs that were killed.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    /// What to tell of it.
    pub(crate) told: Vec<String>,
    /// One of them had turned FUSE over io_uring on.
    pub(crate) switched: bool,
}

/// Removes what this user's runs in `work` left that were killed.
pub(crate) fn clear_leftovers(work: &Path) -> Leftovers {
    let mut leftovers = Leftovers::default();
    let entries = fs::read_dir(work).into_iter().flatten().flatten();
    for dir in entries.map(|entry| entry.path()) {
        // Held until the directory is gone, so that of two who find it one removes it.
        let Some(_lock) = abandoned(&dir) else {
            continue;
        };
        leftovers.switched |= dir.join(SWITCHED).exists();
        let shown = dir.display();
        leftovers.told.push(match remove(&dir) {
            Ok(()) => format!("a run that was killed left {shown}: it is removed now"),
            Err(error) => {
                format!("a run that was killed left {shown}, which cannot be removed: {error}")
            }
        });
    }
    leftovers
}

/// The lock of a directory that a run of this user left.
fn abandoned(dir: &Path) -> Option<File> {
    let name = dir.file_name()?.to_str()?;
    let (id, _) = name.strip_prefix(PREFIX)?.split_once('-')?;
    let meta = fs::symlink_metadata(dir).ok()?;
    // Between making its directory and locking it a run is known by its process.
    if !meta.is_dir() || meta.uid() != geteuid().as_raw() || is_bench(id.parse().ok()?) {
        return None;
    }
    let lock = File::open(dir).ok()?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(lock)
}

fn is_bench(id: u32) -> bool {
    let exe = fs::read_link(format!("/proc/{id}/exe"));
    exe.is_ok_and(|exe| {
        let name = exe.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("pellicle-bench")
    })
}

fn remove(dir: &Path) -> std::io::Result<()> {
    // Containers that it had started in the background run programs out of it.
    let start = SystemTime::now();
    loop {
        let running = executing_from(dir);
        for id in &running {
            let _ = kill(*id, Signal::SIGKILL);
        }
        if running.is_empty() || start.elapsed().is_ok_and(|e| e > GRACE) {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    for entry in fs::read_dir(dir)?.flatten() {
        let name = entry.file_name();
        let short = Path::new("/tmp").join(&name);
        // Only what such a note can be of.
        if name.as_encoded_bytes().starts_with(SHORT.as_bytes())
            && fs::read_link(entry.path()).is_ok_and(|to| to == short)
        {
            let _ = fs::remove_dir_all(short);
        }
    }
    fs::remove_dir_all(dir)
}

/// Processes whose program is a file of `dir`.
fn executing_from(dir: &Path) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|id| {
            let exe: Option<PathBuf> = fs::read_link(format!("/proc/{id}/exe")).ok();
            exe.is_some_and(|exe| exe.starts_with(dir))
        })
        .map(Pid::from_raw)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_removed_and_what_is_in_use_or_anothers_is_not() {
        let work = tempfile::tempdir().unwrap();
        let live = WorkDir::make(work.path()).unwrap();
        let short = live.short_directory().unwrap();
        // No process has this id.
        let left = work.path().join(format!("{PREFIX}4194305-1"));
        fs::create_dir_all(left.join("a/b")).unwrap();
        fs::write(left.join(SWITCHED), "").unwrap();
        let lost = live.short_directory().unwrap().keep();
        let name = lost.file_name().unwrap();
        fs::rename(live.path().join(name), left.join(name)).unwrap();
        let other = work.path().join("pellicle-benchmark");
        fs::create_dir(&other).unwrap();
        let found = clear_leftovers(work.path());
        assert!(found.switched);
        assert_eq!(found.told.len(), 1, "{found:?}");
        assert!(found.told[0].contains(left.to_str().unwrap()), "{found:?}");
        assert!(!left.exists() && live.path().exists() && other.exists());
        assert!(!lost.exists() && short.path().exists());
        assert!(clear_leftovers(work.path()).told.is_empty());
        let path = live.path().to_owned();
        drop(live);
        assert!(!path.exists());
    }

    #[test]
    fn a_lock_keeps_a_directory_whoever_made_it() {
        let work = tempfile::tempdir().unwrap();
        let dir = work.path().join(format!("{PREFIX}4194305-2"));
        fs::create_dir(&dir).unwrap();
        let lock = File::open(&dir).unwrap();
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(clear_leftovers(work.path()).told.is_empty());
        assert!(dir.exists());
        // Closing alone would leave it to a child of another thread that has not executed yet.
        flock(&lock, FlockOperation::Unlock).unwrap();
        assert_eq!(clear_leftovers(work.path()).told.len(), 1);
    }
}
