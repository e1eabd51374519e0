//! The native writable layer: a log of all changes, and data files.
//!
//! ```text
//! <upper>/journal      the log
//! <upper>/data/<ino>   content, 16 hexadecimal digits
//! <upper>/lock         held by the one writer
//! ```
//!
//! A commit is a copy into a mapped file: it outlives this process from then on and the host from
//! the next sync on. `fs/docs/JOURNAL.md` has the format and the promises.
//!
//! Lock order: the turn to sync (`sync::Gate`), then the log, then the data files' state. The
//! log's lock is never held over a flush, nor over anything else of the host but finding room, and
//! copying the last few batches into a compacted log and giving it the name.

mod compact;
mod data;
mod examine;
mod format;
mod lock;
mod log;
mod lost;
mod mend;
mod open;
mod record;
mod recover;
mod scan;
mod sync;
#[cfg(test)]
mod tests;

use std::{
    cell::RefCell,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use pellicle_store::Ino;
use rustix::io::Errno;
use zerocopy::little_endian::{U32, U64};

#[cfg(any(test, feature = "failpoints"))]
pub use crate::host::Faults;
use crate::host::{Host, no_space};
use crate::{Chunks, LogPosition, Record, Recovery, Space, Upper, UpperError};
use data::DataFiles;
pub use examine::{Examined, LogDamage, Remedy, examine};
use format::{FRAME_HEADER_LEN, FRAME_MAX, HEADER_LEN, Header};
use log::Log;
pub use lost::Lost;
pub use mend::{Mended, mend};
use sync::{Flusher, Gate};

const LOG: &str = "journal";
const DATA: &str = "data";

/// A log smaller than this is never worth compacting.
const COMPACT_FROM: u64 = 4 << 20;
/// More than a batch has that says how an inode is and takes an attribute or two away.
const SMALL_BATCH: u64 = 1024;
/// Bytes of a record where none was written yet.
const TYPICAL_RECORD: u64 = 96;

/// The lower tree that an upper belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalLower {
    /// The tree's own identity (`Lower::identity`).
    pub identity: [u8; 32],
    /// How many inodes it has.
    pub inode_count: u64,
}

/// How a journal keeps its promises.
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// Flush nothing, ever: the upper survives the end of the process, not that of the host.
    pub volatile: bool,
    /// How long a change may stay unflushed that nobody asked to sync; `None` for as long as the
    /// host likes.
    pub sync_interval: Option<Duration>,
    /// In which pieces lower files are copied.
    pub chunks: Chunks,
    /// Which calls to the host fail.
    #[cfg(any(test, feature = "failpoints"))]
    pub faults: Faults,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            volatile: false,
            sync_interval: Some(Duration::from_secs(5)),
            chunks: Chunks::default(),
            #[cfg(any(test, feature = "failpoints"))]
            faults: Faults::default(),
        }
    }
}

/// Figures of a journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalStats {
    /// Bytes of the log that are in use.
    pub log_bytes: u64,
    /// Bytes of the log file, with the room allocated ahead.
    pub log_allocated: u64,
    /// Records in the log.
    pub records: u64,
    /// Bytes that a log of the present state would have, as of the last
    /// [`Upper::wants_compaction`]; 0 if it was never asked.
    pub live_guess: u64,
    /// Syncs of the log since it was opened.
    pub syncs: u64,
    /// Compactions in the life of the upper.
    pub generation: u64,
}

/// How an upper was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Durable,
    Volatile,
    ReadOnly,
}

/// What the journal's own thread needs as well.
#[derive(Debug)]
struct Shared {
    path: PathBuf,
    dir: File,
    lower: JournalLower,
    access: Access,
    boot: u64,
    host: Host,
    /// `None` until the log was replayed, and for good where it is only read.
    log: Mutex<Option<Log>>,
    files: DataFiles,
    gate: Gate,
    flusher: Flusher,
    interval: Option<Duration>,
    chunks: Chunks,
    /// The log may speak of mixed content: one of an earlier version may once it was compacted.
    mixed: AtomicBool,
    /// The flusher knows that there is something to sync.
    roused: AtomicBool,
    /// Last batch that is in the log, and last one on disk. A compaction gives its batches higher
    /// numbers, which no call that waits for one of the old numbers takes amiss: what is told to be
    /// synced by a new number is all that the old ones stood for.
    committed: AtomicU64,
    synced: AtomicU64,
    poisoned: AtomicBool,
    /// The host had no room when the log was flushed last, and may now call clean what it failed
    /// to write.
    rewrite_log: AtomicBool,
    /// A name in the upper's directory is newer than its last flush.
    names_dirty: AtomicBool,
    log_bytes: AtomicU64,
    records: AtomicU64,
    live_guess: AtomicU64,
    syncs: AtomicU64,
    lock: Option<lock::Lock>,
}

/// The journal upper; see the module head.
///
/// Dropping it closes it as [`Journal::close`] does, but can tell of an error only in the log.
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    /// Opened, but not yet read.
    unread: Mutex<Option<open::Unread>>,
    closed: bool,
}

/// Turns a host error into an [`UpperError::Io`].
fn io_error<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> UpperError + 'a {
    move |source| UpperError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

fn open_dir(path: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map(File::from)
        .map_err(Into::into)
}

fn new_header(lower: &JournalLower, generation: u64, first_seq: u64) -> io::Result<Header> {
    Ok(Header {
        magic: format::MAGIC,
        version: U32::new(format::VERSION),
        incompatible: U32::new(format::MIXED),
        compatible: U32::new(0),
        header_len: U32::new(HEADER_LEN as u32),
        generation: U64::new(generation),
        salt: compact::salt()?,
        lower_identity: lower.identity,
        lower_inode_count: U64::new(lower.inode_count),
        first_seq: U64::new(first_seq),
        reserved: [0; 32],
        checksum: U64::new(0),
    })
}

thread_local! {
    /// Where a thread puts its batches together.
    static FRAME: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Shared {
    fn log_path(&self) -> PathBuf {
        self.path.join(LOG)
    }

    fn is_durable(&self) -> bool {
        self.access == Access::Durable
    }

    fn takes_mixed(&self) -> bool {
        self.mixed.load(Ordering::SeqCst)
    }

    fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::SeqCst)
    }

    fn check_poison(&self) -> Result<(), UpperError> {
        if self.is_poisoned() {
            return Err(UpperError::Poisoned {
                path: self.path.clone(),
            });
        }
        Ok(())
    }

    fn check_writable(&self) -> Result<(), UpperError> {
        if self.access == Access::ReadOnly {
            return Err(io_error("write to", &self.log_path())(Errno::ROFS.into()));
        }
        self.check_poison()
    }

    fn not_replayed(&self) -> UpperError {
        let why = io::Error::new(
            io::ErrorKind::InvalidInput,
            "the journal was not replayed yet",
        );
        io_error("write to", &self.log_path())(why)
    }

    fn with_log<T>(
        &self,
        work: impl FnOnce(&mut Log) -> Result<T, UpperError>,
    ) -> Result<T, UpperError> {
        work(
            self.log
                .lock()
                .as_mut()
                .ok_or_else(|| self.not_replayed())?,
        )
    }

    fn note_size(&self, log: &Option<Log>) {
        if let Some(log) = log {
            self.log_bytes.store(log.end, Ordering::Relaxed);
            self.records.store(log.records, Ordering::Relaxed);
        }
    }

    /// Puts `batch` into `frame` behind the room for the header. Returns whether a record of it
    /// makes a copied file count.
    fn encode(&self, batch: &[Record<'_>], frame: &mut Vec<u8>) -> Result<bool, UpperError> {
        let refuse = |why: &'static str| {
            let why = io::Error::new(io::ErrorKind::InvalidInput, why);
            io_error("write to", &self.log_path())(why)
        };
        frame.clear();
        frame.resize(FRAME_HEADER_LEN, 0);
        let mut any = false;
        for record in batch {
            record::check(record).map_err(refuse)?;
            if record::is_mixed(record) && !self.takes_mixed() {
                return Err(refuse("content in pieces, before the log was compacted"));
            }
            let copied = matches!(record, Record::Node(node)
                if node.content.has_data() && self.files.is_copied(node.ino));
            any |= copied;
            record::encode(record, copied, frame);
            if frame.len() > FRAME_MAX {
                return Err(refuse("a batch of more than 16 MiB"));
            }
        }
        Ok(any)
    }

    fn commit(&self, batch: &[Record<'_>], frame: &mut Vec<u8>) -> Result<(), UpperError> {
        self.check_writable()?;
        if batch.is_empty() {
            return Ok(());
        }
        let copied = self.encode(batch, frame)?;
        self.or_free_doomed(|| {
            let mut guard = self.log.lock();
            let log = guard.as_mut().ok_or_else(|| self.not_replayed())?;
            let result = log.append(&self.host, frame, batch.len() as u32, copied);
            result.map_err(io_error("write to", &self.log_path()))?;
            self.committed.store(log.last_seq, Ordering::SeqCst);
            self.note_size(&guard);
            Ok(())
        })
    }

    /// Does `work`, once more if it finds no room while removed files still hold some.
    fn or_free_doomed<T>(
        &self,
        mut work: impl FnMut() -> Result<T, UpperError>,
    ) -> Result<T, UpperError> {
        match work() {
            Err(UpperError::Io { source, .. }) if no_space(&source) && self.free_doomed() => work(),
            other => other,
        }
    }
}

impl Journal {
    fn rouse(&self) {
        let shared = &self.shared;
        if let Some(interval) = shared.interval
            && !shared.roused.swap(true, Ordering::SeqCst)
        {
            shared.flusher.rouse(shared, interval);
        }
    }

    /// Figures of the log.
    #[must_use]
    pub fn stats(&self) -> JournalStats {
        let shared = &self.shared;
        let log = shared.log.lock();
        JournalStats {
            log_bytes: shared.log_bytes.load(Ordering::Relaxed),
            log_allocated: log.as_ref().map_or(0, Log::allocated),
            records: shared.records.load(Ordering::Relaxed),
            live_guess: shared.live_guess.load(Ordering::Relaxed),
            syncs: shared.syncs.load(Ordering::Relaxed),
            generation: log.as_ref().map_or(0, |l| l.generation),
        }
    }

    /// Bytes that the data files have allocated on the host. Costs a `stat` for each.
    ///
    /// # Errors
    /// The host's errors.
    pub fn data_dir_bytes(&self) -> Result<u64, UpperError> {
        let mut sum = 0u64;
        self.shared
            .files
            .for_each(&mut |_, bytes| sum = sum.saturating_add(bytes))?;
        Ok(sum)
    }

    /// Makes everything durable (unless volatile) and notes that it was closed in good order.
    ///
    /// # Errors
    /// As [`Upper::sync_all`]; the upper is closed all the same, as after a crash.
    pub fn close(mut self) -> Result<(), UpperError> {
        self.finish()
    }

    fn finish(&mut self) -> Result<(), UpperError> {
        if std::mem::replace(&mut self.closed, true) {
            return Ok(());
        }
        let shared = &self.shared;
        shared.flusher.stop();
        if shared.access == Access::ReadOnly || shared.log.lock().is_none() {
            return Ok(());
        }
        shared.check_poison()?;
        if shared.synced.load(Ordering::SeqCst) < shared.committed.load(Ordering::SeqCst)
            || shared.files.is_dirty()
        {
            shared.sync_all()?;
        }
        shared.with_log(|log| {
            let word = format::SessionWord::new(shared.boot, true);
            log.set_session(&shared.host, word)
                .and_then(|()| {
                    if shared.is_durable() {
                        log.trim(&shared.host)
                    } else {
                        Ok(())
                    }
                })
                .map_err(io_error("close", &shared.log_path()))
        })
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            let path = self.shared.path.display();
            tracing::error!(%path, %error, "the upper was not closed in good order");
        }
    }
}

impl Upper for Journal {
    fn replay(&self, apply: &mut dyn FnMut(Record<'_>)) -> Result<Recovery, UpperError> {
        match self.unread.lock().take() {
            Some(unread) => self.shared.read_log(&unread, apply),
            // Just made: there is nothing in it.
            None => Ok(Recovery {
                clean: true,
                ..Recovery::default()
            }),
        }
    }

    fn commit(&self, batch: &[Record<'_>]) -> Result<(), UpperError> {
        FRAME.with_borrow_mut(|frame| {
            let result = self.shared.commit(batch, frame);
            frame.shrink_to(64 << 10);
            result
        })?;
        self.rouse();
        Ok(())
    }

    fn reserve(&self) -> Result<(), UpperError> {
        let shared = &self.shared;
        shared.check_writable()?;
        shared.or_free_doomed(|| {
            shared.with_log(|log| {
                log.reserve(&shared.host, SMALL_BATCH)
                    .map_err(io_error("write to", &shared.log_path()))
            })
        })
    }

    fn chunks(&self) -> Option<Chunks> {
        self.shared.takes_mixed().then_some(self.shared.chunks)
    }

    fn release(&self) {
        if let Some(log) = self.shared.log.lock().as_mut() {
            log.release(SMALL_BATCH);
        }
    }

    fn retire(&self) {
        self.shared.poisoned.store(true, Ordering::SeqCst);
    }

    fn data(&self, ino: Ino) -> Result<Arc<File>, UpperError> {
        self.shared.files.get(ino)
    }

    fn data_to_write(&self, ino: Ino) -> Result<Arc<File>, UpperError> {
        let shared = &self.shared;
        shared.check_writable()?;
        shared.or_free_doomed(|| {
            shared
                .files
                .get_to_write(&shared.host, ino, shared.is_durable())
        })
    }

    fn is_held(&self) -> bool {
        self.shared.access == Access::ReadOnly && self.shared.lock.is_some()
    }

    fn create_data(&self, ino: Ino) -> Result<Arc<File>, UpperError> {
        let shared = &self.shared;
        shared.check_writable()?;
        shared.or_free_doomed(|| shared.files.create(&shared.host, ino))
    }

    fn note_copied(&self, ino: Ino) {
        if self.shared.access != Access::ReadOnly {
            self.shared.files.note_copied(ino.0);
        }
    }

    fn remove_data(&self, ino: Ino) {
        let shared = &self.shared;
        if shared.access == Access::ReadOnly {
            return;
        }
        let waiting = shared
            .files
            .remove(&shared.host, ino.0, !shared.is_durable());
        if waiting == 0 {
            return;
        }
        self.rouse();
        // On a nearly full disk the room is wanted now, not at the next sync.
        let free =
            rustix::fs::fstatvfs(&shared.dir).map_or(0, |s| s.f_bavail.saturating_mul(s.f_frsize));
        if waiting > free / 8 {
            shared.free_doomed();
        }
    }

    fn sync_file(&self, ino: Ino) -> Result<(), UpperError> {
        self.shared.sync_file(ino)
    }

    fn sync_all(&self) -> Result<(), UpperError> {
        self.shared.sync_all()
    }

    fn wants_compaction(&self, live_records: u64) -> bool {
        let shared = &self.shared;
        let bytes = shared
            .log_bytes
            .load(Ordering::Relaxed)
            .saturating_sub(HEADER_LEN);
        let records = shared.records.load(Ordering::Relaxed);
        let each = bytes.checked_div(records).unwrap_or(TYPICAL_RECORD);
        let live = live_records.saturating_mul(each);
        shared.live_guess.store(live, Ordering::Relaxed);
        shared.access != Access::ReadOnly
            && !shared.is_poisoned()
            && (bytes > COMPACT_FROM.max(live.saturating_mul(4)) || !shared.takes_mixed())
    }

    fn position(&self) -> LogPosition {
        let log = self.shared.log.lock();
        log.as_ref()
            .map_or_else(LogPosition::default, Log::position)
    }

    fn compact(
        &self,
        since: LogPosition,
        snapshot: &mut dyn FnMut(&mut dyn FnMut(Record<'_>)),
    ) -> Result<(), UpperError> {
        self.shared.compact(since, snapshot)
    }

    fn host(&self) -> &Host {
        &self.shared.host
    }

    fn space(&self) -> Result<Space, UpperError> {
        let s = rustix::fs::fstatvfs(&self.shared.dir)
            .map_err(|e| io_error("ask for the room on", &self.shared.path)(e.into()))?;
        Ok(Space {
            block_size: u32::try_from(s.f_frsize).unwrap_or(4096),
            total: s.f_blocks.saturating_mul(s.f_frsize),
            free: s.f_bfree.saturating_mul(s.f_frsize),
            available: s.f_bavail.saturating_mul(s.f_frsize),
            files: s.f_files,
            files_free: s.f_ffree,
        })
    }
}
