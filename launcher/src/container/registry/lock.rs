//! Whose a container is: its lock, and the exit code that is left in it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};

use super::Registry;
use crate::container::{
    ContainerError, names,
    state::{State, Status},
};

/// A container whose lock this process holds.
#[derive(Debug)]
pub struct Held {
    /// Its directory.
    pub dir: PathBuf,
    pub(super) lock: File,
}

impl Drop for Held {
    fn drop(&mut self) {
        // Closing alone would leave it to a child that was forked meanwhile and not executed yet.
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }
}

/// Waits for the end of a container's supervisor.
#[derive(Debug)]
pub struct Watch {
    lock: File,
    path: PathBuf,
}

impl Registry {
    /// Takes the lock of container `id`, for which other commands get a moment to finish.
    ///
    /// # Errors
    /// [`ContainerError::Running`] or [`ContainerError::Busy`] while somebody else has it.
    pub fn hold(&self, id: &str) -> Result<Held, ContainerError> {
        let dir = self.dir(id);
        let lock = open_lock(&dir.join("lock"))?;
        let patience = Instant::now() + Duration::from_secs(1);
        while flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let running = State::load(&dir).is_ok_and(|s| s.status == Status::Running);
            if running && Instant::now() + Duration::from_millis(800) > patience {
                return Err(ContainerError::Running(names::short(id).to_owned()));
            }
            if Instant::now() > patience {
                return Err(ContainerError::Busy(names::short(id).to_owned()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        if !dir.is_dir() {
            return Err(ContainerError::NotFound(id.to_owned()));
        }
        Ok(Held { dir, lock })
    }

    /// As [`Registry::hold`], and notes that a supervisor is about to run.
    ///
    /// # Errors
    /// As [`Registry::hold`].
    pub fn hold_to_run(&self, id: &str) -> Result<Held, ContainerError> {
        let held = self.hold(id)?;
        self.mark(id)?;
        // What the last run left there is not this one's exit code.
        held.lock
            .set_len(0)
            .map_err(ContainerError::file("write", held.dir.join("lock")))?;
        Ok(held)
    }

    /// Takes the lock of container `id` if its supervisor is gone. `None` while that lives, and
    /// for a container that is being made or was removed.
    #[must_use]
    pub fn hold_orphan(&self, id: &str) -> Option<Held> {
        let dir = self.dir(id);
        match OpenOptions::new()
            .read(true)
            .write(true)
            .open(dir.join("lock"))
        {
            Ok(lock) => {
                flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
                // It may have been removed before the lock was let go of.
                dir.exists().then_some(Held { dir, lock })
            }
            Err(_) => {
                // Its marker comes before the container itself: gone only if nobody makes it. It is looked
                // for in the order in which it has the two names, not to be missed on the way.
                let new = self.new_dir(id);
                if is_free(&new.join("lock")) && !dir.exists() {
                    let _ = fs::remove_dir_all(new);
                    let _ = fs::remove_file(self.marker(id));
                }
                None
            }
        }
    }

    /// Ends a run: leaves the exit code for those who wait, and forgets that it ran.
    pub fn release(&self, mut held: Held, id: &str, code: i32) {
        leave_code(&mut held.lock, code);
        let _ = fs::remove_file(self.marker(id));
    }

    /// Prepares to wait for the end of container `id`'s supervisor.
    ///
    /// # Errors
    /// The host's.
    pub fn watch(&self, id: &str) -> Result<Watch, ContainerError> {
        let path = self.dir(id).join("lock");
        let lock = open_lock(&path)?;
        Ok(Watch { lock, path })
    }
}

impl Watch {
    /// Waits as long as it takes; the exit code, if one was left.
    ///
    /// # Errors
    /// The host's.
    pub fn wait(mut self) -> Result<Option<i32>, ContainerError> {
        flock(&self.lock, FlockOperation::LockShared)
            .map_err(ContainerError::file("lock", &self.path))?;
        Ok(read_code(&mut self.lock))
    }

    /// Waits until `deadline`; whether the supervisor is done.
    #[must_use]
    pub fn wait_until(&self, deadline: Instant) -> bool {
        loop {
            if flock(&self.lock, FlockOperation::NonBlockingLockShared).is_ok() {
                let _ = flock(&self.lock, FlockOperation::Unlock);
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

pub(super) fn open_lock(path: &Path) -> Result<File, ContainerError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => {
                let dir = path.parent().and_then(Path::file_name).unwrap_or_default();
                ContainerError::NotFound(dir.to_string_lossy().into_owned())
            }
            _ => ContainerError::file("open", path)(e),
        })
}

pub(super) fn leave_code(lock: &mut File, code: i32) {
    // Over what is there, not after cutting it off: that would make ext4 write it to the disk when
    // it is closed. Those who wait can do without: they look at the state then.
    let text = format!("{code:<12}");
    let _ = lock.rewind().and_then(|()| lock.write_all(text.as_bytes()));
}

fn read_code(lock: &mut File) -> Option<i32> {
    let mut text = String::new();
    lock.rewind().ok()?;
    lock.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

pub(super) fn is_free(lock: &Path) -> bool {
    match File::open(lock) {
        Ok(file) => flock(&file, FlockOperation::NonBlockingLockShared).is_ok(),
        Err(e) => e.kind() == io::ErrorKind::NotFound,
    }
}
