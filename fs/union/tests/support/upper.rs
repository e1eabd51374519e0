//! A writable layer that keeps its log in memory and its data files in a temporary directory.
//!
//! Clones share everything, so opening a union over a clone is what a remount after `kill -9` is:
//! everything that was acknowledged is there, and data files hold whatever was last written.

use std::{
    fs::{File, OpenOptions},
    io,
    path::PathBuf,
    sync::Arc,
};

use parking_lot::Mutex;
use pellicle_union::{FileKind, Ino};
use pellicle_upper::{Chunks, LogPosition, Node, Record, Recovery, Space, Upper, UpperError};

#[derive(Clone, Debug)]
pub(crate) enum Said {
    Node(Node),
    Own(Ino, u64, u64),
    Entry(Ino, Vec<u8>, Ino, FileKind),
    NoEntry(Ino, Vec<u8>),
    Symlink(Ino, Vec<u8>),
    Xattr(Ino, Vec<u8>, Vec<u8>),
    NoXattr(Ino, Vec<u8>),
    Gone(Ino),
}

impl Said {
    pub(crate) fn of(record: Record<'_>) -> Self {
        match record {
            Record::Node(node) => Self::Node(node),
            Record::Own { ino, start, end } => Self::Own(ino, start, end),
            Record::Entry {
                parent,
                name,
                ino,
                kind,
            } => Self::Entry(parent, name.into(), ino, kind),
            Record::NoEntry { parent, name } => Self::NoEntry(parent, name.into()),
            Record::Symlink { ino, target } => Self::Symlink(ino, target.into()),
            Record::Xattr { ino, name, value } => Self::Xattr(ino, name.into(), value.into()),
            Record::NoXattr { ino, name } => Self::NoXattr(ino, name.into()),
            Record::Gone { ino } => Self::Gone(ino),
        }
    }

    pub(crate) fn record(&self) -> Record<'_> {
        match self {
            Self::Node(node) => Record::Node(*node),
            Self::Own(ino, start, end) => Record::Own {
                ino: *ino,
                start: *start,
                end: *end,
            },
            Self::Entry(parent, name, ino, kind) => Record::Entry {
                parent: *parent,
                name,
                ino: *ino,
                kind: *kind,
            },
            Self::NoEntry(parent, name) => Record::NoEntry {
                parent: *parent,
                name,
            },
            Self::Symlink(ino, target) => Record::Symlink { ino: *ino, target },
            Self::Xattr(ino, name, value) => Record::Xattr {
                ino: *ino,
                name,
                value,
            },
            Self::NoXattr(ino, name) => Record::NoXattr { ino: *ino, name },
            Self::Gone(ino) => Record::Gone { ino: *ino },
        }
    }
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) log: Vec<Said>,
    pub(crate) batches: u64,
    /// Host calls to let through before one says ENOSPC; `None` is a roomy host.
    pub(crate) fail_after: Option<u32>,
    /// Say yes to the next question about compaction.
    pub(crate) compact_next: bool,
    pub(crate) compactions: u32,
    pub(crate) copied: Vec<Ino>,
    /// As of an upper that keeps mixed content.
    pub(crate) chunks: Option<Chunks>,
}

/// Says whether the host has room for one more call.
pub(crate) trait Room {
    fn take_room(&mut self) -> Result<(), UpperError>;
}

impl Room for State {
    fn take_room(&mut self) -> Result<(), UpperError> {
        match &mut self.fail_after {
            None => Ok(()),
            Some(0) => Err(UpperError::Io {
                doing: "write to",
                path: PathBuf::from("memory"),
                source: io::Error::from_raw_os_error(libc::ENOSPC),
            }),
            Some(n) => {
                *n -= 1;
                Ok(())
            }
        }
    }
}

#[derive(Clone)]
pub(crate) struct MemUpper {
    pub(crate) state: Arc<Mutex<State>>,
    dir: Arc<tempfile::TempDir>,
}

impl MemUpper {
    pub(crate) fn new() -> Self {
        Self {
            state: Arc::default(),
            dir: Arc::new(tempfile::tempdir().unwrap()),
        }
    }

    pub(crate) fn path(&self, ino: Ino) -> PathBuf {
        self.dir.path().join(ino.0.to_string())
    }

    /// How many data files there are.
    pub(crate) fn data_files(&self) -> usize {
        std::fs::read_dir(self.dir.path()).unwrap().count()
    }

    fn io<T>(&self, ino: Ino, result: io::Result<T>) -> Result<T, UpperError> {
        result.map_err(|source| UpperError::Io {
            doing: "open",
            path: self.path(ino),
            source,
        })
    }
}

impl Upper for MemUpper {
    fn replay(&self, apply: &mut dyn FnMut(Record<'_>)) -> Result<Recovery, UpperError> {
        let state = self.state.lock();
        for said in &state.log {
            apply(said.record());
        }
        Ok(Recovery {
            batches: state.batches,
            ..Recovery::default()
        })
    }

    fn commit(&self, batch: &[Record<'_>]) -> Result<(), UpperError> {
        let mut state = self.state.lock();
        state.take_room()?;
        state
            .log
            .extend(batch.iter().map(|record| Said::of(*record)));
        state.batches += 1;
        Ok(())
    }

    fn chunks(&self) -> Option<Chunks> {
        self.state.lock().chunks
    }

    fn data(&self, ino: Ino) -> Result<Arc<File>, UpperError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.path(ino));
        Ok(Arc::new(self.io(ino, file)?))
    }

    fn create_data(&self, ino: Ino) -> Result<Arc<File>, UpperError> {
        self.state.lock().take_room()?;
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(self.path(ino));
        Ok(Arc::new(self.io(ino, file)?))
    }

    fn note_copied(&self, ino: Ino) {
        self.state.lock().copied.push(ino);
    }

    fn remove_data(&self, ino: Ino) {
        let _ = std::fs::remove_file(self.path(ino));
    }

    fn sync_file(&self, _: Ino) -> Result<(), UpperError> {
        Ok(())
    }

    fn sync_all(&self) -> Result<(), UpperError> {
        Ok(())
    }

    fn wants_compaction(&self, _: u64) -> bool {
        std::mem::take(&mut self.state.lock().compact_next)
    }

    fn position(&self) -> LogPosition {
        LogPosition::after(self.state.lock().log.len() as u64)
    }

    fn compact(
        &self,
        since: LogPosition,
        snapshot: &mut dyn FnMut(&mut dyn FnMut(Record<'_>)),
    ) -> Result<(), UpperError> {
        let mut log = Vec::new();
        snapshot(&mut |record| log.push(Said::of(record)));
        let mut state = self.state.lock();
        log.extend_from_slice(&state.log[since.seq as usize..]);
        state.log = log;
        state.compactions += 1;
        Ok(())
    }

    fn space(&self) -> Result<Space, UpperError> {
        Ok(Space {
            block_size: 4096,
            total: 1 << 30,
            free: 1 << 20,
            available: 1 << 20,
            files: 100,
            files_free: 10,
        })
    }
}
