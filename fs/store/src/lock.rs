//! Locks that keep collection and everything else apart.
//!
//! One file, `locks/store`, locked with `flock(2)`: shared by whatever relies on what is in the store
//! (running mounts, imports), exclusively by what removes from it. The kernel releases it when the
//! process ends, however that happens. Lock order: `locks/store`, `locks/repair`, `locks/adding`,
//! `locks/tmp`.
//!
//! A repair runs beside mounts and imports, and holds the first one shared like these. What it takes
//! away without putting anything in its place must not be what an import just found and relies on:
//! `locks/adding` is shared by imports until the tree that names their contents is there, and a
//! repair has it exclusively for that moment. `locks/repair` keeps repairs apart.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::{Errno, retry_on_intr},
};

use crate::StoreError;

/// How long a mount or an import waits for a collection to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A lock on the store, released when dropped and when its process ends.
#[derive(Debug)]
#[must_use]
pub struct StoreLock {
    file: File,
    /// Counts the exclusive locks that one store holds.
    exclusive: Option<Arc<AtomicUsize>>,
}

impl StoreLock {
    /// Waits up to half a minute for an exclusive lock to go.
    pub(crate) fn shared(root: &Path) -> Result<Self, StoreError> {
        let file = take(root, FlockOperation::NonBlockingLockShared, PATIENCE)?;
        Ok(Self {
            file,
            exclusive: None,
        })
    }

    /// Does not wait: mounts hold theirs for days.
    pub(crate) fn exclusive(root: &Path, held: &Arc<AtomicUsize>) -> Result<Self, StoreError> {
        let how = FlockOperation::NonBlockingLockExclusive;
        let file = take(root, how, Duration::ZERO)?;
        held.fetch_add(1, SeqCst);
        Ok(Self {
            file,
            exclusive: Some(Arc::clone(held)),
        })
    }
}

impl Drop for StoreLock {
    fn drop(&mut self) {
        // Closing alone would leave it to a child that was forked meanwhile.
        let _ = flock(&self.file, FlockOperation::Unlock);
        if let Some(held) = &self.exclusive {
            held.fetch_sub(1, SeqCst);
        }
    }
}

/// What a lock file other than `locks/store` is held for, until it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Hold(File);

impl Hold {
    /// The lock `locks/<name>` of the store at `root`, alone. For what is held an instant: waits as long
    /// as it takes.
    ///
    /// # Errors
    /// The host's.
    pub fn brief(root: &Path, name: &str) -> Result<Self, StoreError> {
        let path = root.join("locks").join(name);
        let file = open_lock_file(&path)?;
        retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))
            .map_err(|e| StoreError::io("lock", &path)(e.into()))?;
        Ok(Self(file))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // As a `StoreLock`.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Whoever puts contents into the store; waits half a minute for a repair that takes some away.
pub(crate) fn adding(root: &Path) -> Result<Hold, StoreError> {
    let how = FlockOperation::NonBlockingLockShared;
    take_file(root, "locks/adding", how, PATIENCE).map(Hold)
}

/// Holds off whoever puts contents into the store; waits half a minute for those that do.
pub(crate) fn taking_away(root: &Path) -> Result<Hold, StoreError> {
    let how = FlockOperation::NonBlockingLockExclusive;
    take_file(root, "locks/adding", how, PATIENCE).map(Hold)
}

/// The one repair; does not wait for another.
pub(crate) fn repairing(root: &Path) -> Result<Hold, StoreError> {
    let how = FlockOperation::NonBlockingLockExclusive;
    take_file(root, "locks/repair", how, Duration::ZERO).map(Hold)
}

/// Opens a lock file, making it where it is missing. A store that cannot be written to can still be
/// locked as long as the file is there.
pub(crate) fn open_lock_file(path: &Path) -> Result<File, StoreError> {
    let mut how = File::options();
    // A FIFO in its place is not waited for.
    how.read(true).custom_flags(libc::O_NONBLOCK);
    match how.open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => how.append(true).create(true).open(path),
        other => other,
    }
    .map_err(StoreError::io("open lock", path))
}

fn take(root: &Path, how: FlockOperation, patience: Duration) -> Result<File, StoreError> {
    take_file(root, "locks/store", how, patience)
}

fn take_file(
    root: &Path,
    name: &str,
    how: FlockOperation,
    patience: Duration,
) -> Result<File, StoreError> {
    let path = root.join(name);
    let file = open_lock_file(&path)?;
    let start = Instant::now();
    loop {
        match flock(&file, how) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if start.elapsed() < patience => {
                thread::sleep(Duration::from_millis(20));
            }
            Err(Errno::WOULDBLOCK) => {
                return Err(StoreError::Busy {
                    root: root.to_owned(),
                    by: holders(&file),
                });
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(StoreError::io("lock", &path)(e.into())),
        }
    }
}

/// Who holds a lock on `file`, as `/proc/locks` has it (proc_locks(5)); nobody if that cannot be
/// told, as for processes of other pid namespaces.
fn holders(file: &File) -> Vec<(u32, String)> {
    let (Ok(locks), Ok(meta)) = (fs::read_to_string("/proc/locks"), file.metadata()) else {
        return Vec::new();
    };
    locks
        .lines()
        .filter_map(|line| holder(line, meta.ino()))
        .map(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            (pid, name.trim_end().to_owned())
        })
        .collect()
}

/// The process that `line` says holds a lock on inode `ino`. The device is not compared: what
/// `stat(2)` calls it differs on some file systems (btrfs).
fn holder(line: &str, ino: u64) -> Option<u32> {
    let mut words = line.split_whitespace().skip(1);
    if words.next()? != "FLOCK" {
        return None;
    }
    let pid = words.nth(2)?.parse().ok().filter(|pid| *pid != 0)?;
    let inode: u64 = words.next()?.rsplit(':').next()?.parse().ok()?;
    (inode == ino).then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_are_read_from_proc_locks() {
        let line = "3: FLOCK  ADVISORY  WRITE 4711 fe:00:8123 0 EOF";
        assert_eq!(holder(line, 8123), Some(4711));
        assert_eq!(holder(line, 8124), None);
        for other in [
            "",
            "1: POSIX  ADVISORY  WRITE 4711 fe:00:8123 0 EOF",
            "1: -> FLOCK  ADVISORY  WRITE 4711 fe:00:8123 0 EOF",
            "1: FLOCK  ADVISORY  WRITE 0 fe:00:8123 0 EOF",
            "1: FLOCK  ADVISORY",
        ] {
            assert_eq!(holder(other, 8123), None, "{other}");
        }
    }

    #[test]
    fn nothing_is_taken_away_while_somebody_adds_and_one_repair_runs_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir(root.join("locks")).unwrap();
        let now = |name, how| take_file(root, name, how, Duration::ZERO);
        let take_away = || now("locks/adding", FlockOperation::NonBlockingLockExclusive);
        let (one, two) = (adding(root).unwrap(), adding(root).unwrap());
        assert!(matches!(take_away(), Err(StoreError::Busy { .. })));
        drop(one);
        assert!(take_away().is_err());
        drop(two);
        let hold = taking_away(root).unwrap();
        let add = now("locks/adding", FlockOperation::NonBlockingLockShared);
        assert!(matches!(add, Err(StoreError::Busy { .. })));
        drop(hold);
        drop(adding(root).unwrap());

        let repair = repairing(root).unwrap();
        assert!(matches!(repairing(root), Err(StoreError::Busy { .. })));
        drop(repair);
        drop(repairing(root).unwrap());
    }

    #[test]
    fn a_fifo_in_the_place_of_a_lock_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir(root.join("locks")).unwrap();
        let status = std::process::Command::new("mkfifo")
            .arg(root.join("locks/names"))
            .status();
        assert!(status.unwrap().success());
        drop(Hold::brief(root, "names").unwrap());
        drop(Hold::brief(root, "names").unwrap());
    }
}
