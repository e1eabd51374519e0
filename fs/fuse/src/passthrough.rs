//! Host files that the kernel reads by itself (`FOPEN_PASSTHROUGH`, Linux 6.9).
//!
//! The kernel allows an inode one backing file at a time and no ordinary opens beside it
//! (`fs/fuse/iomode.c`), so how an inode is open is decided by its first open and holds until its last
//! close. In a writable union that file is always the upper's own, lent for as long (`Union::lend`):
//! an open for reading through the lower tree's object could not be moved to the copied-up file, and
//! would go on showing old bytes. So a file that was not copied up yet is passed through if its first
//! open is for writing, and otherwise read through the cache.
//!
//! Lock order: the table's lock is a leaf but for the calls that look up and register the file.

use std::{collections::HashMap, fs::File, io, os::fd::OwnedFd, sync::Arc};

use fuser::BackingId;
use parking_lot::Mutex;
use pellicle_sys::fuse_backing::BackingFile;
use pellicle_union::{Error, Ino};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::Opens;

/// A host file that the kernel holds, until this is dropped.
#[derive(Debug)]
pub(crate) enum Backing {
    /// Registered through fuser.
    Dev(BackingId),
    /// Registered by ourselves.
    Ring(BackingFile),
}

/// Whether the kernel takes host files from this process over `device`.
///
/// # Errors
/// Why it does not.
pub(crate) fn probe(device: &Arc<OwnedFd>) -> Result<(), String> {
    let file = memfd_create("passthrough", MemfdFlags::CLOEXEC).map_err(|e| e.to_string())?;
    match BackingFile::register(device, &File::from(file)) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            Err("that takes root outside of user namespaces".to_owned())
        }
        Err(e) => Err(e.to_string()),
    }
}

/// What opening a file means, as agreed with the kernel.
#[derive(Debug)]
pub(crate) enum OpenPolicy {
    /// The kernel opens by itself.
    Silent,
    /// Opens are answered and mean nothing here.
    Answered,
    /// The kernel may get host files.
    Passthrough(Backings),
}

impl OpenPolicy {
    pub(crate) fn of(opens: Opens) -> Self {
        match opens {
            Opens::Silent => Self::Silent,
            Opens::Answered => Self::Answered,
            Opens::Passthrough => Self::Passthrough(Backings::default()),
        }
    }
}

/// How a file was opened, with the handle for it.
pub(crate) enum Opening {
    /// The kernel reads the host file.
    Passed(u64, Arc<Backing>),
    /// Reads come here and are kept in the kernel's cache.
    Cached(u64),
    /// Passthrough cannot be had at all, found at the first open: opens need no message.
    Never,
}

/// The inodes that are open, by how.
#[derive(Debug, Default)]
pub(crate) struct Backings {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    open: HashMap<Ino, Open>,
    /// A host file was registered before, so this process may.
    proven: bool,
}

#[derive(Debug)]
struct Open {
    /// `None`: through the kernel's cache.
    id: Option<Arc<Backing>>,
    count: u64,
}

impl Backings {
    /// Opens `ino` once more. `file` gives its host file, `register` tells the kernel of it.
    pub(crate) fn open(
        &self,
        ino: Ino,
        file: impl FnOnce() -> Result<Option<Arc<File>>, Error>,
        register: impl FnOnce(&File) -> io::Result<Backing>,
    ) -> Result<Opening, Error> {
        let mut table = self.table.lock();
        if let Some(open) = table.open.get_mut(&ino) {
            open.count += 1;
            return Ok(open.opening());
        }
        let id = match file()? {
            None => None,
            Some(file) => match register(&file) {
                Ok(id) => {
                    table.proven = true;
                    Some(Arc::new(id))
                }
                Err(error) if !table.proven && table.open.is_empty() => {
                    tracing::info!(%error, "no passthrough: the kernel did not take a host file");
                    return Ok(Opening::Never);
                }
                Err(error) => {
                    tracing::debug!(%error, ino = ino.0, "no passthrough for this file");
                    None
                }
            },
        };
        let open = table.open.entry(ino).or_insert(Open { id, count: 0 });
        open.count += 1;
        Ok(open.opening())
    }

    /// Opens `ino`, which nobody has open, through the kernel's cache.
    pub(crate) fn open_cached(&self, ino: Ino) -> Opening {
        let mut table = self.table.lock();
        let open = table.open.entry(ino).or_insert(Open { id: None, count: 0 });
        open.count += 1;
        open.opening()
    }

    /// Closes `ino` once; the last time the kernel lets go of the host file, and `take_back` says
    /// what it left. The same lock as for an open, which may follow at once.
    pub(crate) fn release(
        &self,
        ino: Ino,
        handle: u64,
        take_back: impl FnOnce() -> Result<bool, Error>,
    ) -> Result<bool, Error> {
        let mut table = self.table.lock();
        let Some(open) = table.open.get_mut(&ino).filter(|_| handle == HELD) else {
            return Ok(false);
        };
        open.count = open.count.saturating_sub(1);
        if open.count > 0 {
            return Ok(false);
        }
        let _closed = table.open.remove(&ino);
        take_back()
    }
}

/// The handle of every open that is counted here.
const HELD: u64 = 1;

impl Open {
    fn opening(&self) -> Opening {
        match &self.id {
            Some(id) => Opening::Passed(HELD, Arc::clone(id)),
            None => Opening::Cached(HELD),
        }
    }
}
