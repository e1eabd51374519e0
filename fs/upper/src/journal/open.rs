//! Making an upper, opening one, and looking at one that somebody else writes.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use rustix::{fs::Mode, fs::OFlags, io::Errno};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    Access, DATA, Journal, JournalLower, JournalOptions, LOG, Shared,
    compact::NEW,
    data::{DataFiles, file_name},
    format::{self, HEADER_LEN, SessionWord},
    io_error,
    lock::{self, Lock},
    log::{FIRST_ROOM, Log, LogEnd, rewrite},
    new_header, open_dir,
    recover::{self, Replayed},
    scan::{Front, read_front},
    sync::{Flusher, Gate},
};
use crate::{
    Record, Recovery, UpperError,
    host::{Host, Op, open_at},
};

/// A log that was opened and not replayed yet.
#[derive(Debug)]
pub(super) struct Unread {
    file: Arc<File>,
    front: Front,
}

impl Journal {
    /// Makes an empty upper in directory `dir`, which is made if it is missing, and opens it.
    /// Flushes nothing: until the first sync a crash of the host may leave no upper at all.
    ///
    /// # Errors
    /// [`UpperError::Io`] with EEXIST if there is one already, other host errors;
    /// [`UpperError::InUse`].
    pub fn create(
        dir: &Path,
        lower: JournalLower,
        options: JournalOptions,
    ) -> Result<Self, UpperError> {
        match rustix::fs::mkdir(dir, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(io_error("create", dir)(e.into())),
        }
        let opened = open_dir(dir).map_err(io_error("open", dir))?;
        let lock = lock::take(&opened, dir)?;
        let log_path = dir.join(LOG);
        if rustix::fs::statat(&opened, LOG, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            return Err(io_error("create", &log_path)(Errno::EXIST.into()));
        }
        match rustix::fs::mkdirat(&opened, DATA, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => clear(dir)?,
            Err(e) => return Err(io_error("create", &dir.join(DATA))(e.into())),
        }
        let shared = Shared::new(dir, opened, lower, &options, Some(lock))?;
        let log = shared.first_log().map_err(io_error("create", &log_path));
        if log.is_err() {
            // The error to tell is the one that was met first.
            let _ = shared.host.remove(&shared.dir, NEW);
        }
        let log = Some(log?);
        shared.note_size(&log);
        *shared.log.lock() = log;
        shared.names_dirty.store(true, Ordering::SeqCst);
        Ok(Self::with(shared, None))
    }

    /// The directory for contents of the upper in `dir`.
    #[must_use]
    pub fn data_dir(dir: &Path) -> PathBuf {
        dir.join(DATA)
    }

    /// Removes the upper in `dir`, which nobody uses any more, but not its directories: [`Journal::create`]
    /// takes them. `Ok(false)`, with nothing changed, if there is content in it.
    ///
    /// # Errors
    /// The host's.
    pub fn clear_out(dir: &Path) -> io::Result<bool> {
        if std::fs::read_dir(dir.join(DATA))?.next().is_some() {
            return Ok(false);
        }
        let opened = open_dir(dir)?;
        for name in [LOG, NEW, lock::NAME] {
            Host::plain().remove(&opened, name)?;
        }
        Ok(true)
    }

    /// Opens the upper in `dir` for writing. [`crate::Upper::replay`] comes next.
    ///
    /// # Errors
    /// [`UpperError::InUse`], [`UpperError::OtherLower`], [`UpperError::Version`],
    /// [`UpperError::Corrupt`], and the host's errors (ENOENT if there is no upper).
    pub fn open(
        dir: &Path,
        lower: JournalLower,
        options: JournalOptions,
    ) -> Result<Self, UpperError> {
        let opened = open_dir(dir).map_err(io_error("open", dir))?;
        // Before the lock, which would make a file where there is no upper.
        let file = open_at(&opened, LOG, OFlags::RDWR).map_err(io_error("open", &dir.join(LOG)))?;
        drop(file);
        let lock = lock::take(&opened, dir)?;
        // Only now: a compaction may have replaced the log before the lock was free.
        let file = open_at(&opened, LOG, OFlags::RDWR).map_err(io_error("open", &dir.join(LOG)))?;
        let front = read_front(&file, &dir.join(LOG), &lower)?;
        let shared = Shared::new(dir, opened, lower, &options, Some(lock))?;
        Ok(Self::with(
            shared,
            Some(Unread {
                file: Arc::new(file),
                front,
            }),
        ))
    }

    /// Opens the upper in `dir` as it is at this instant, for reading, whether or not somebody has
    /// it open. Takes no lock and changes nothing; every change is refused with EROFS.
    ///
    /// # Errors
    /// As [`Journal::open`], without [`UpperError::InUse`].
    pub fn open_read_only(dir: &Path, lower: JournalLower) -> Result<Self, UpperError> {
        let opened = open_dir(dir).map_err(io_error("open", dir))?;
        let file =
            open_at(&opened, LOG, OFlags::RDONLY).map_err(io_error("open", &dir.join(LOG)))?;
        let front = read_front(&file, &dir.join(LOG), &lower)?;
        let shared = Shared::new(dir, opened, lower, &JournalOptions::default(), None)?;
        Ok(Self::with(
            shared,
            Some(Unread {
                file: Arc::new(file),
                front,
            }),
        ))
    }

    /// This snapshot, of an upper whose writer goes on: what the writer cuts or removes meanwhile reads as
    /// zeros, and is no damage.
    #[must_use]
    pub fn beside_its_writer(mut self) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.files.take_missing_for_empty();
        }
        self
    }

    /// Opens the upper in `dir` for reading, and keeps everyone else from opening it for writing for
    /// as long as this lives: to make a layer of it.
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub fn open_held(dir: &Path, lower: JournalLower) -> Result<Self, UpperError> {
        let opened = open_dir(dir).map_err(io_error("open", dir))?;
        // Before the lock, which would make a file where there is no upper.
        let log_path = dir.join(LOG);
        drop(open_at(&opened, LOG, OFlags::RDONLY).map_err(io_error("open", &log_path))?);
        let lock = lock::take(&opened, dir)?;
        let mut held = Self::open_read_only(dir, lower)?;
        if let Some(shared) = Arc::get_mut(&mut held.shared) {
            shared.lock = Some(lock);
        }
        Ok(held)
    }

    fn with(shared: Shared, unread: Option<Unread>) -> Self {
        Self {
            shared: Arc::new(shared),
            unread: Mutex::new(unread),
            closed: false,
        }
    }
}

/// Removes what a creation that did not come to its end left in `data/`.
fn clear(dir: &Path) -> Result<(), UpperError> {
    let path = dir.join(DATA);
    let opened = open_dir(&path).map_err(io_error("open", &path))?;
    let files = DataFiles::new(opened, path, false);
    let mut strays = Vec::new();
    files.for_each(&mut |ino, _| strays.push(ino))?;
    for ino in strays {
        Host::default()
            .remove(files.dir(), &file_name(ino))
            .map_err(io_error("remove from", files.path()))?;
    }
    Ok(())
}

/// A number for this boot of the host; 0 where the host does not tell, which passes for another
/// boot than any.
pub(super) fn boot() -> u64 {
    std::fs::read("/proc/sys/kernel/random/boot_id").map_or(0, |id| xxh3_64(id.trim_ascii()))
}

impl Shared {
    fn new(
        dir: &Path,
        opened: File,
        lower: JournalLower,
        options: &JournalOptions,
        lock: Option<Lock>,
    ) -> Result<Self, UpperError> {
        let data_path = dir.join(DATA);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let data = open_at(&opened, DATA, flags).map_err(io_error("open", &data_path))?;
        let access = match (&lock, options.volatile) {
            (None, _) => Access::ReadOnly,
            (Some(_), true) => Access::Volatile,
            (Some(_), false) => Access::Durable,
        };
        Ok(Self {
            path: dir.to_owned(),
            dir: opened,
            lower,
            access,
            boot: boot(),
            host: Host {
                #[cfg(any(test, feature = "failpoints"))]
                faults: options.faults.clone(),
                ..Host::default()
            },
            log: Mutex::new(None),
            files: DataFiles::new(data, data_path, access == Access::ReadOnly),
            gate: Gate::default(),
            flusher: Flusher::default(),
            chunks: options.chunks,
            mixed: AtomicBool::new(true),
            interval: options.sync_interval.filter(|_| access == Access::Durable),
            roused: AtomicBool::new(false),
            committed: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            poisoned: AtomicBool::new(false),
            rewrite_log: AtomicBool::new(false),
            names_dirty: AtomicBool::new(false),
            log_bytes: AtomicU64::new(0),
            records: AtomicU64::new(0),
            live_guess: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            lock,
        })
    }

    /// Writes a log without frames and gives it its name, which it has only when it is whole.
    fn first_log(&self) -> io::Result<Log> {
        let file = self.host.create(Op::CreateLog, &self.dir, NEW)?;
        let small = self.access == Access::Volatile;
        if !small {
            self.host.allocate(&file, 0, FIRST_ROOM)?;
        }
        let header = new_header(&self.lower, 1, 1)?;
        let session = SessionWord::new(self.boot, false);
        let page = format::header_page(header, session, 0);
        self.host.write_all(Op::Snapshot, &file, &page, 0)?;
        self.host.rename(&self.dir, NEW, LOG)?;
        let end = LogEnd {
            end: HEADER_LEN,
            last_seq: 0,
            chain: header.salt.get(),
            salt: header.salt.get(),
            generation: 1,
            records: 0,
            last_copied: 0,
            durable: 0,
            flushed: HEADER_LEN,
            slot: 0,
        };
        let log = Log::new(Arc::new(file), end, Some(FIRST_ROOM))?;
        Ok(if small { log.begin_small() } else { log })
    }

    /// Replays the log, mends its tail, and makes ready for commits.
    pub(super) fn read_log(
        &self,
        unread: &Unread,
        apply: &mut dyn FnMut(Record<'_>),
    ) -> Result<Recovery, UpperError> {
        let path = self.log_path();
        self.mixed.store(unread.front.mixed(), Ordering::SeqCst);
        let found = recover::replay(&unread.file, &path, &unread.front, self.boot, apply)?;
        self.committed.store(found.end.last_seq, Ordering::SeqCst);
        self.synced.store(unread.front.synced, Ordering::SeqCst);
        self.log_bytes.store(found.end.end, Ordering::Relaxed);
        self.records.store(found.end.records, Ordering::Relaxed);
        if self.access != Access::ReadOnly {
            let mend = self
                .mend(unread, &found)
                .map_err(io_error("repair", &path))?;
            *self.log.lock() = Some(mend);
            self.adopt(&unread.front, &found)?;
        }
        Ok(found.recovery)
    }

    /// The log that `unread` is, cut off behind its last valid frame and marked as in use.
    fn mend(&self, unread: &Unread, found: &Replayed) -> io::Result<Log> {
        if found.recovery.torn_bytes > 0 {
            self.host.truncate(&unread.file, found.end.end)?;
        }
        let mut log = Log::new(Arc::clone(&unread.file), found.end, None)?;
        if found.end.last_seq > unread.front.synced {
            rewrite(&self.host, &unread.file, HEADER_LEN, found.end.end)?;
        }
        log.set_session(&self.host, SessionWord::new(self.boot, false))?;
        // A new log that did not come to have the name.
        let _ = self.host.remove(&self.dir, NEW);
        Ok(log)
    }

    /// Takes over the data files: those without which the tree cannot be read, and those that
    /// nothing leads to.
    fn adopt(&self, front: &Front, found: &Replayed) -> Result<(), UpperError> {
        let unsynced = found.end.last_seq > front.synced;
        if unsynced || found.recovery.torn_bytes > 0 {
            self.files.inherit(found.copied.iter().copied());
            self.names_dirty.store(true, Ordering::SeqCst);
        }
        if found.recovery.host_crashed {
            for (ino, seq) in &found.data {
                if *seq > front.synced {
                    self.files.ensure(&self.host, *ino)?;
                }
            }
        }
        self.files
            .remove_unfinished(&self.host)
            .map_err(io_error("clean", self.files.path()))?;
        let mut strays = Vec::new();
        self.files.for_each(&mut |ino, _| {
            if !found.data.contains_key(&ino) {
                strays.push(ino);
            }
        })?;
        // While the log is not on disk to its end, the part that is may lead to them.
        let now = !unsynced || !self.is_durable();
        for ino in strays {
            self.files.remove(&self.host, ino, now);
        }
        Ok(())
    }
}
