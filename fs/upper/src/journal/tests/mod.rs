//! What the journal promises, tried.

mod compaction;
mod crash_points;
mod damage;
mod durability;
mod failures;
mod format;
mod mend;
mod random;
mod sharing;

use std::{
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use pellicle_store::{Device, FileKind, Ino, Time};

use super::{Faults, Journal, JournalLower, JournalOptions};
use crate::{ContentSource, Node, Record, Recovery, Upper, UpperError};

pub(super) const LOWER: JournalLower = JournalLower {
    identity: [7; 32],
    inode_count: 100,
};

/// A record that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    Node(Node),
    Own(Ino, u64, u64),
    Entry(Ino, Vec<u8>, Ino, FileKind),
    NoEntry(Ino, Vec<u8>),
    Symlink(Ino, Vec<u8>),
    Xattr(Ino, Vec<u8>, Vec<u8>),
    NoXattr(Ino, Vec<u8>),
    Gone(Ino),
}

impl Kept {
    pub(super) fn of(record: Record<'_>) -> Self {
        match record {
            Record::Node(node) => Self::Node(node),
            Record::Own { ino, start, end } => Self::Own(ino, start, end),
            Record::Entry {
                parent,
                name,
                ino,
                kind,
            } => Self::Entry(parent, name.to_vec(), ino, kind),
            Record::NoEntry { parent, name } => Self::NoEntry(parent, name.to_vec()),
            Record::Symlink { ino, target } => Self::Symlink(ino, target.to_vec()),
            Record::Xattr { ino, name, value } => Self::Xattr(ino, name.to_vec(), value.to_vec()),
            Record::NoXattr { ino, name } => Self::NoXattr(ino, name.to_vec()),
            Record::Gone { ino } => Self::Gone(ino),
        }
    }

    pub(super) fn record(&self) -> Record<'_> {
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

pub(super) fn node(ino: u64, content: ContentSource) -> Node {
    Node {
        ino: Ino(ino),
        kind: FileKind::Regular,
        perm: 0o4755,
        nlink: 1,
        uid: 1000,
        gid: u32::MAX - 1,
        rdev: Device { major: 0, minor: 0 },
        size: 5,
        content,
        atime: Time {
            sec: -1,
            nsec: 999_999_999,
        },
        mtime: Time {
            sec: 1 << 40,
            nsec: 0,
        },
        ctime: Time { sec: 3, nsec: 4 },
        parent: Ino::ROOT,
    }
}

/// The `i`-th batch of a series: an entry whose name is `i`, and its node.
pub(super) fn batch(i: u64) -> Vec<Kept> {
    let name = format!("file-{i}").into_bytes();
    vec![
        Kept::Node(node(101 + i, ContentSource::Zero)),
        Kept::Entry(Ino::ROOT, name, Ino(101 + i), FileKind::Regular),
    ]
}

pub(super) fn commit(journal: &Journal, batch: &[Kept]) -> Result<(), UpperError> {
    let records: Vec<_> = batch.iter().map(Kept::record).collect();
    journal.commit(&records)
}

/// Options under which nothing happens that a test did not ask for.
pub(super) fn quiet() -> JournalOptions {
    JournalOptions {
        sync_interval: None,
        ..JournalOptions::default()
    }
}

pub(super) fn with_faults() -> (JournalOptions, Faults) {
    let options = quiet();
    let faults = options.faults.clone();
    (options, faults)
}

pub(super) fn create(dir: &Path) -> Journal {
    Journal::create(dir, LOWER, quiet()).unwrap()
}

/// Waits until `count` threads wait for the gate of `journal`.
pub(super) fn wait_for_waiters(journal: &Journal, count: usize) {
    let waiting = &journal.shared.gate.waiting;
    while waiting.load(std::sync::atomic::Ordering::SeqCst) < count {
        std::thread::yield_now();
    }
}

pub(super) type Opened = (Journal, Vec<Kept>, Recovery);

pub(super) fn read(journal: Journal) -> Result<Opened, UpperError> {
    let mut records = Vec::new();
    let recovery = journal.replay(&mut |r| records.push(Kept::of(r)))?;
    Ok((journal, records, recovery))
}

pub(super) fn reopen(dir: &Path) -> Result<Opened, UpperError> {
    read(Journal::open(dir, LOWER, quiet())?)
}

/// Leaves `journal` as a killed process would: nothing closed in order, but the lock free.
pub(super) fn kill(journal: Journal) {
    let mut journal = journal;
    journal.closed = true;
    journal.shared.flusher.stop();
    drop(journal);
}

/// Makes the log look as if it had been written in another boot of the host.
pub(super) fn reboot(dir: &Path) {
    let log = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(dir.join("journal"))
        .unwrap();
    let mut word = [0; 8];
    log.read_exact_at(&mut word, super::format::SESSION_AT)
        .unwrap();
    word[5] ^= 0x55;
    log.write_all_at(&word, super::format::SESSION_AT).unwrap();
}

pub(super) fn data_names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir.join("data"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Makes data file `ino` with `content` and commits that it counts.
pub(super) fn put_data(journal: &Journal, ino: u64, content: &[u8], copied: bool) {
    let file = journal.create_data(Ino(ino)).unwrap();
    file.write_all_at(content, 0).unwrap();
    if copied {
        journal.note_copied(Ino(ino));
    }
    commit(journal, &[Kept::Node(node(ino, ContentSource::Data))]).unwrap();
}

pub(super) fn scratch() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("upper");
    (dir, path)
}

/// The same in memory, where there is such a place: for tests that begin anew thousands of times.
pub(super) fn in_memory() -> (tempfile::TempDir, PathBuf) {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    }
    .unwrap();
    let path = dir.path().join("upper");
    (dir, path)
}

pub(super) fn errno(result: Result<(), UpperError>) -> Option<i32> {
    match result {
        Err(UpperError::Io { source, .. }) => source.raw_os_error(),
        _ => None,
    }
}

pub(super) fn shared(journal: Journal) -> Arc<Journal> {
    Arc::new(journal)
}
