//! Files in the making.
//!
//! Whatever goes into a store is written under `tmp/` first and gets its name by a rename. Each
//! process (each [`crate::Store`] that writes) has a directory of its own there, `tmp/<pid>-<n>/`,
//! with a locked file `lock` in it for as long as it lives, so that what a killed writer left can be
//! told from what is being written, on any file system and without guessing from ages. (`O_TMPFILE`
//! would leave nothing to clean, but NFS and Lustre do not have it, and a second way would only be
//! one more to test.)
//!
//! Making such a directory and removing dead ones exclude each other through `locks/tmp`: a
//! directory is never seen before its lock is held.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use parking_lot::Mutex;
use rustix::{
    fs::{
        AtFlags, CWD, FlockOperation, Mode, copy_file_range, fchmod, flock, ioctl_ficlone, linkat,
    },
    io::Errno,
};

use crate::{Hold, StoreError, Time};

/// Bytes that one `copy_file_range(2)` is asked for.
const COPY_AT_ONCE: usize = 1 << 30;

/// Makes temporary files of one store.
#[derive(Debug)]
pub(crate) struct Temps {
    root: PathBuf,
    own: Mutex<Option<OwnDir>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct OwnDir {
    path: PathBuf,
    /// Held until the directory is gone.
    _lock: File,
    /// A forked child must not remove what its parent uses.
    pid: u32,
}

/// A temporary file; removed when dropped, unless it was published.
#[derive(Debug)]
pub(crate) struct Temp {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
}

impl Temps {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            own: Mutex::new(None),
            next: AtomicU64::new(0),
        }
    }

    /// A new empty file that nobody may write to once it is closed.
    pub(crate) fn create(&self) -> Result<Temp, StoreError> {
        let path = self.new_path()?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o444)
            .open(&path)
            .map_err(StoreError::io("create", &path))?;
        Ok(Temp { file, path })
    }

    /// One more name of `file`, which from now on nobody may write to; `None` where it cannot be
    /// given one here.
    pub(crate) fn link(&self, file: &File) -> Result<Option<Temp>, StoreError> {
        let path = self.new_path()?;
        let fail = || StoreError::io("take a file into", &path);
        let held = file.try_clone().map_err(fail())?;
        // By its descriptor, so that it is the file that was hashed, whatever its name is by now.
        let open = format!("/proc/self/fd/{}", held.as_raw_fd());
        match linkat(CWD, open, CWD, &path, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => {}
            Err(Errno::XDEV | Errno::PERM | Errno::MLINK | Errno::NOENT | Errno::OPNOTSUPP) => {
                return Ok(None);
            }
            Err(e) => return Err(fail()(e.into())),
        }
        let temp = Temp { file: held, path };
        fchmod(&temp.file, Mode::from_raw_mode(0o444))
            .map_err(|e| StoreError::io("take a file into", &temp.path)(e.into()))?;
        Ok(Some(temp))
    }

    /// A copy of `file`, by reflink or inside the kernel where the host can.
    pub(crate) fn copy(&self, file: &File) -> Result<Temp, StoreError> {
        let temp = self.create()?;
        copy(file, &temp.file).map_err(StoreError::io("copy a file to", &temp.path))?;
        Ok(temp)
    }

    fn new_path(&self) -> Result<PathBuf, StoreError> {
        let dir = self.own_dir()?;
        Ok(dir.join(self.next.fetch_add(1, Relaxed).to_string()))
    }

    fn own_dir(&self) -> Result<PathBuf, StoreError> {
        let mut own = self.own.lock();
        if let Some(own) = &*own {
            return Ok(own.path.clone());
        }
        let made = self.make_own_dir()?;
        Ok(own.insert(made).path.clone())
    }

    fn make_own_dir(&self) -> Result<OwnDir, StoreError> {
        let _guard = self.guard()?;
        let pid = std::process::id();
        let mut salt = u64::from(Time::now().nsec);
        let path = loop {
            let path = self.root.join("tmp").join(format!("{pid}-{salt:x}"));
            match fs::create_dir(&path) {
                Ok(()) => break path,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => salt += 1,
                Err(e) => return Err(StoreError::io("create", &path)(e)),
            }
        };
        let lock_path = path.join("lock");
        let lock = File::create(&lock_path).map_err(StoreError::io("create", &lock_path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|e| StoreError::io("lock", &lock_path)(e.into()))?;
        Ok(OwnDir {
            path,
            _lock: lock,
            pid,
        })
    }

    fn guard(&self) -> Result<Hold, StoreError> {
        Hold::brief(&self.root, "tmp")
    }

    /// Removes what dead writers left. Does nothing, and takes no lock, if `tmp/` is empty.
    pub(crate) fn clean(&self) -> Result<(), StoreError> {
        let tmp = self.root.join("tmp");
        let list = || fs::read_dir(&tmp).map_err(StoreError::io("list", &tmp));
        if list()?.next().is_none() {
            return Ok(());
        }
        let _guard = self.guard()?;
        for entry in list()? {
            let path = entry.map_err(StoreError::io("list", &tmp))?.path();
            if is_dead(&path) {
                tracing::info!(path = %path.display(), "removing what an interrupted writer left");
                match fs::remove_dir_all(&path) {
                    // By its owner, who was just about to.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    other => other.map_err(StoreError::io("remove", &path))?,
                }
            }
        }
        Ok(())
    }
}

/// Whether no process holds the lock in `dir` (also when it was killed before it made one).
fn is_dead(dir: &Path) -> bool {
    match File::open(dir.join("lock")) {
        Ok(file) => flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok(),
        Err(e) => e.kind() == io::ErrorKind::NotFound,
    }
}

impl Drop for OwnDir {
    fn drop(&mut self) {
        if self.pid == std::process::id() {
            // Whatever stays is removed by the next one who opens the store.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

impl Temp {
    /// Renames the file to `name`, making the directory that is to hold it where it is missing.
    pub(crate) fn publish(self, name: &Path) -> Result<(), StoreError> {
        let renamed = match fs::rename(&self.path, name) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if let Some(dir) = name.parent() {
                    fs::create_dir_all(dir).map_err(StoreError::io("create", dir))?;
                }
                fs::rename(&self.path, name)
            }
            other => other,
        };
        renamed.map_err(StoreError::io("create", name))?;
        // There is nothing left to remove under the old name; the new owner of that path, if any,
        // cannot exist: names in a writer's directory are never used twice.
        let mut this = self;
        this.path = PathBuf::new();
        Ok(())
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Copies all of `from` into the empty file `to`.
fn copy(from: &File, to: &File) -> io::Result<()> {
    if ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let (mut at, mut done) = (0, 0);
    loop {
        match copy_file_range(from, Some(&mut at), to, Some(&mut done), COPY_AT_ONCE) {
            Ok(0) => break,
            Ok(_) => {}
            Err(Errno::INTR) => {}
            Err(Errno::NOSPC) => return Err(Errno::NOSPC.into()),
            // What the kernel will not copy is copied here.
            Err(_) => break,
        }
    }
    let mut buffer = vec![0; 256 << 10];
    loop {
        match from.read_at(&mut buffer, at) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                to.write_all_at(buffer.get(..n).unwrap_or_default(), at)?;
                at += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Makes the names in directory `path` durable.
pub(crate) fn sync_dir(path: &Path) -> Result<(), StoreError> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(StoreError::io("sync", path))
}
