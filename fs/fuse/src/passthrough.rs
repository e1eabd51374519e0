//! Host files that the kernel reads by itself (`FOPEN_PASSTHROUGH`, Linux 6.9).
//!
//! Used for read-only unions only. The kernel allows an inode one backing file at a time and no
//! ordinary opens beside it (`fs/fuse/iomode.c`), so how an inode is open is decided by its first
//! open and holds until its last close. In a writable union an open for reading could not be
//! moved from the lower tree's object to the copied-up file, and would go on showing old bytes.
//!
//! Lock order: the table's lock is a leaf but for the calls that look up and register the file.

use std::{collections::HashMap, fs::File, io, sync::Arc};

use fuser::{BackingId, FileHandle, INodeNo};
use parking_lot::Mutex;
use pellicle_union::Error;

/// How a file was opened.
pub(crate) enum Opening {
    /// The kernel reads the host file.
    Passed(FileHandle, Arc<BackingId>),
    /// Reads come here and are kept in the kernel's cache.
    Cached(FileHandle),
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
    open: HashMap<INodeNo, Open>,
    /// A host file was registered before, so this process may.
    proven: bool,
}

#[derive(Debug)]
struct Open {
    /// `None`: through the kernel's cache.
    id: Option<Arc<BackingId>>,
    count: u64,
}

impl Backings {
    /// Opens `ino` once more. `file` gives its host file, `register` tells the kernel of it.
    pub(crate) fn open(
        &self,
        ino: INodeNo,
        file: impl FnOnce() -> Result<Option<Arc<File>>, Error>,
        register: impl FnOnce(&File) -> io::Result<BackingId>,
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

    /// Closes `ino` once; the last time the kernel lets go of the host file.
    pub(crate) fn release(&self, ino: INodeNo, handle: FileHandle) {
        if handle != HELD {
            return;
        }
        let mut table = self.table.lock();
        if let Some(open) = table.open.get_mut(&ino) {
            open.count = open.count.saturating_sub(1);
            if open.count == 0 {
                table.open.remove(&ino);
            }
        }
    }
}

/// The handle of every open that is counted here.
const HELD: FileHandle = FileHandle(1);

impl Open {
    fn opening(&self) -> Opening {
        match &self.id {
            Some(id) => Opening::Passed(HELD, Arc::clone(id)),
            None => Opening::Cached(HELD),
        }
    }
}
