//! Data files: `data/<inode as 16 hex digits>`, and what has to happen to which of them when.
//!
//! Six sets go with them, all under one lock that is held over no call to the host but
//! the unlinking of doomed files:
//! * *touched*: handed out since the last full sync, so perhaps written to;
//! * *fresh*: made since the last sync, so nothing durable speaks of them;
//! * *copied*: filled from the lower tree and not yet flushed ([`crate::Upper::note_copied`]);
//! * *failed*: could not be flushed for lack of room;
//! * *shared*: contents of a store as well, and so not to be written to (see `share`);
//! * *doomed*: removed by the union while the log on disk may still lead to them. They are unlinked
//!   after the next sync: were the file gone at once and the host to go down, an `unlink` or a
//!   rename over it that never became durable would have cost the old content.

mod share;

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use lru::LruCache;
use parking_lot::Mutex;
use pellicle_store::Ino;
use rustix::io::Errno;

use super::{io_error, scan::corrupt};
use crate::{
    UpperError,
    host::{Host, Op, no_space},
};

/// From so many dirty files on, one `syncfs` is cheaper than an `fdatasync` for each.
const MANY: usize = 16;
const MOST_OPEN: u64 = 256;

#[derive(Debug)]
pub(super) struct DataFiles {
    dir: File,
    path: PathBuf,
    read_only: bool,
    /// A file that is missing was removed by the writer that this is a snapshot beside.
    missing_is_empty: bool,
    state: Mutex<State>,
    /// Size of `State::copied`, so that a commit need not take the lock when there is none.
    copied: AtomicUsize,
}

#[derive(Debug)]
struct State {
    open: LruCache<u64, Arc<File>>,
    touched: HashMap<u64, Weak<File>>,
    fresh: HashMap<u64, u64>,
    copied: HashMap<u64, u64>,
    doomed: HashMap<u64, u64>,
    /// Could not be flushed for lack of room: to be written again, for the kernel may call clean
    /// what it failed to write.
    failed: HashSet<u64>,
    /// Of those that were opened: not to be written to.
    shared: HashSet<u64>,
    /// Counts the changes, so that a sync knows what came after it began.
    stamp: u64,
    /// An earlier process may have left files that were never flushed.
    inherited: bool,
    /// A name in `data/` is newer than the last flush of the directory.
    names_dirty: bool,
    /// A compaction may be about to say, durably, that any file is there.
    keep_all: bool,
}

/// What one sync takes on.
#[derive(Debug)]
pub(super) struct Work {
    stamp: u64,
    copied: Vec<u64>,
    names: bool,
}

pub(super) fn file_name(ino: u64) -> String {
    format!("{ino:016x}")
}

/// A file without a byte and without a name.
fn empty() -> io::Result<Arc<File>> {
    let file = rustix::fs::memfd_create("removed", rustix::fs::MemfdFlags::CLOEXEC)?;
    Ok(Arc::new(File::from(file)))
}

fn ino_of(name: &[u8]) -> Option<u64> {
    let name = std::str::from_utf8(name).ok().filter(|n| n.len() == 16)?;
    let ino = u64::from_str_radix(name, 16).ok()?;
    (file_name(ino) == name).then_some(ino)
}

impl DataFiles {
    pub(super) fn new(dir: File, path: PathBuf, read_only: bool) -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let open = (limit.unwrap_or(u64::MAX) / 4).clamp(4, MOST_OPEN) as usize;
        Self {
            dir,
            path,
            read_only,
            missing_is_empty: false,
            state: Mutex::new(State {
                open: LruCache::new(NonZeroUsize::new(open).unwrap_or(NonZeroUsize::MIN)),
                touched: HashMap::new(),
                fresh: HashMap::new(),
                copied: HashMap::new(),
                doomed: HashMap::new(),
                failed: HashSet::new(),
                shared: HashSet::new(),
                stamp: 0,
                inherited: false,
                names_dirty: false,
                keep_all: false,
            }),
            copied: AtomicUsize::new(0),
        }
    }

    /// Takes files that are missing for empty ones from now on.
    pub(super) fn take_missing_for_empty(&mut self) {
        self.missing_is_empty = true;
    }

    fn path_of(&self, ino: u64) -> PathBuf {
        self.path.join(file_name(ino))
    }

    /// The file of `ino`, from among the open ones or the host.
    fn find(&self, ino: u64) -> io::Result<Arc<File>> {
        if let Some(file) = self.state.lock().open.get(&ino) {
            return Ok(Arc::clone(file));
        }
        let (file, shared) = self.open_file(ino)?;
        if !file.metadata()?.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let file = Arc::new(file);
        let mut state = self.state.lock();
        if shared {
            state.shared.insert(ino);
        }
        let evicted = state.open.push(ino, Arc::clone(&file));
        drop(state);
        drop(evicted);
        Ok(file)
    }

    pub(super) fn get(&self, ino: Ino) -> Result<Arc<File>, UpperError> {
        let found = match self.find(ino.0) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && self.missing_is_empty => empty(),
            found => found,
        };
        let file = found.map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => corrupt(&self.path_of(ino.0), 0, "the data file is missing"),
            _ => io_error("open", &self.path_of(ino.0))(e),
        })?;
        if !self.read_only {
            self.state
                .lock()
                .touched
                .insert(ino.0, Arc::downgrade(&file));
        }
        Ok(file)
    }

    pub(super) fn create(&self, host: &Host, ino: Ino) -> Result<Arc<File>, UpperError> {
        // Before there is a file, so that a sync does not unlink the new one for the old.
        let doomed = self.state.lock().doomed.remove(&ino.0);
        let file = self
            .clear_way(host, ino.0)
            .and_then(|()| host.create(Op::Create, &self.dir, &file_name(ino.0)))
            .map_err(io_error("create", &self.path_of(ino.0)));
        let mut state = self.state.lock();
        state.shared.remove(&ino.0);
        let file = match file {
            Ok(file) => Arc::new(file),
            Err(error) => {
                state.doomed.extend(doomed.map(|bytes| (ino.0, bytes)));
                return Err(error);
            }
        };
        state.stamp += 1;
        let stamp = state.stamp;
        // One that was doomed may be in the log on disk: it is not fresh then.
        if doomed.is_none() {
            state.fresh.insert(ino.0, stamp);
        }
        state.names_dirty = true;
        state.touched.insert(ino.0, Arc::downgrade(&file));
        let evicted = state.open.push(ino.0, Arc::clone(&file));
        drop(state);
        drop(evicted);
        Ok(file)
    }

    pub(super) fn note_copied(&self, ino: u64) {
        let mut state = self.state.lock();
        state.stamp += 1;
        let stamp = state.stamp;
        state.copied.insert(ino, stamp);
        self.copied.store(state.copied.len(), Ordering::SeqCst);
    }

    /// Whether `ino` was copied and may not be on disk yet.
    pub(super) fn is_copied(&self, ino: Ino) -> bool {
        self.copied.load(Ordering::SeqCst) != 0 && self.state.lock().copied.contains_key(&ino.0)
    }

    /// Removes the file of `ino`, at once if `now` or if nothing durable can lead to it, else with
    /// [`Self::bury`]. Returns the bytes that this keeps in use until then.
    pub(super) fn remove(&self, host: &Host, ino: u64, now: bool) -> u64 {
        let mut state = self.state.lock();
        let open = state.open.pop(&ino);
        state.touched.remove(&ino);
        state.copied.remove(&ino);
        state.failed.remove(&ino);
        state.shared.remove(&ino);
        self.copied.store(state.copied.len(), Ordering::SeqCst);
        let now = (state.fresh.remove(&ino).is_some() && !state.keep_all) || now;
        drop(state);
        drop(open);
        if now {
            self.unlink(host, ino);
            return 0;
        }
        let stat = rustix::fs::statat(
            &self.dir,
            file_name(ino),
            rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
        );
        let Ok(bytes) = stat.map(|s| u64::try_from(s.st_blocks).unwrap_or(0) * 512) else {
            return 0;
        };
        let mut state = self.state.lock();
        state.doomed.insert(ino, bytes);
        state.doomed.values().sum()
    }

    fn unlink(&self, host: &Host, ino: u64) {
        if let Err(error) = host.remove(&self.dir, &file_name(ino)) {
            // A stray only takes room; the next opening removes it.
            tracing::warn!(path = %self.path_of(ino).display(), %error, "cannot remove a data file");
        }
    }

    /// From now on, or no more, removed files stay until the next sync, also fresh ones.
    pub(super) fn keep_all(&self, keep: bool) {
        self.state.lock().keep_all = keep;
    }

    /// Whether a file was handed out, named or removed since the last sync.
    pub(super) fn is_dirty(&self) -> bool {
        let state = self.state.lock();
        state.inherited
            || state.names_dirty
            || !state.touched.is_empty()
            || !state.doomed.is_empty()
    }

    pub(super) fn doomed(&self) -> Vec<u64> {
        self.state.lock().doomed.keys().copied().collect()
    }

    /// Unlinks those of `inos` that are still doomed.
    pub(super) fn bury(&self, host: &Host, inos: &[u64]) {
        for ino in inos {
            // Under the lock, so that a `create` of the same number does not lose its file.
            let mut state = self.state.lock();
            if state.doomed.remove(ino).is_some() {
                self.unlink(host, *ino);
            }
        }
    }

    /// Takes note of what a process before this one left: files whose copying may not be on disk.
    pub(super) fn inherit(&self, copied: impl IntoIterator<Item = u64>) {
        copied.into_iter().for_each(|ino| self.note_copied(ino));
        let mut state = self.state.lock();
        state.inherited = true;
        state.names_dirty = true;
    }

    /// What a sync that begins now has to flush before the log.
    pub(super) fn work(&self) -> Work {
        let state = self.state.lock();
        Work {
            stamp: state.stamp,
            copied: state.copied.keys().copied().collect(),
            names: state.names_dirty,
        }
    }

    /// Flushes what `work` names: copied files, then the directory.
    pub(super) fn flush(&self, host: &Host, work: &Work) -> Result<(), UpperError> {
        if work.copied.len() > MANY {
            self.sync_everything(host, &work.copied)?;
        } else {
            for ino in &work.copied {
                self.sync_one(host, *ino)?;
            }
        }
        if work.names {
            host.sync_dir(&self.dir)
                .map_err(io_error("flush", &self.path))?;
        }
        Ok(())
    }

    /// Says that all of `work` is on disk, and so is the log.
    pub(super) fn settle(&self, work: &Work) {
        let mut state = self.state.lock();
        state.copied.retain(|_, stamp| *stamp > work.stamp);
        self.copied.store(state.copied.len(), Ordering::SeqCst);
        state.fresh.retain(|_, stamp| *stamp > work.stamp);
        if state.stamp == work.stamp {
            state.names_dirty = false;
        }
    }

    /// Flushes the file of `ino`; without one there is nothing to do.
    pub(super) fn sync_one(&self, host: &Host, ino: u64) -> Result<(), UpperError> {
        let again = self.state.lock().failed.contains(&ino);
        let flush = |file: Arc<File>| {
            if again {
                host.rewrite(&file, 0, u64::MAX)?;
            }
            host.sync_data(&file)
        };
        match self.find(ino).and_then(flush) {
            Ok(()) if again => {
                self.state.lock().failed.remove(&ino);
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.state.lock().failed.remove(&ino);
                Ok(())
            }
            Err(e) => {
                if no_space(&e) {
                    self.state.lock().failed.insert(ino);
                }
                Err(io_error("flush", &self.path_of(ino))(e))
            }
            done => done.map_err(io_error("flush", &self.path_of(ino))),
        }
    }

    /// Flushes every file that may have been written to.
    pub(super) fn sync_touched(&self, host: &Host) -> Result<(), UpperError> {
        let (touched, inherited) = {
            let mut state = self.state.lock();
            let touched = std::mem::take(&mut state.touched);
            // Who still holds one may go on writing to it.
            state.touched = touched
                .iter()
                .filter(|(ino, file)| {
                    let ours = usize::from(state.open.contains(ino));
                    file.strong_count() > ours
                })
                .map(|(ino, file)| (*ino, Weak::clone(file)))
                .collect();
            (touched, state.inherited)
        };
        let all: Vec<u64> = touched.keys().copied().collect();
        let flushed = if !inherited && all.len() <= MANY {
            all.iter().try_for_each(|ino| self.sync_one(host, *ino))
        } else {
            self.sync_everything(host, &all)
        };
        let mut state = self.state.lock();
        if flushed.is_ok() {
            state.inherited = false;
        } else {
            for (ino, file) in touched {
                state.touched.entry(ino).or_insert(file);
            }
        }
        flushed
    }

    /// Flushes the whole file system, for the sake of `inos`.
    fn sync_everything(&self, host: &Host, inos: &[u64]) -> Result<(), UpperError> {
        let failed: Vec<u64> = self.state.lock().failed.iter().copied().collect();
        failed
            .iter()
            .try_for_each(|ino| self.sync_one(host, *ino))?;
        host.sync_file_system(&self.dir).map_err(|e| {
            if no_space(&e) {
                self.state.lock().failed.extend(inos);
            }
            io_error("flush", &self.path)(e)
        })
    }

    /// Calls `each` with every inode that has a data file, and the file's allocated bytes.
    pub(super) fn for_each(&self, each: &mut dyn FnMut(u64, u64)) -> Result<(), UpperError> {
        let fail = || io_error("list", &self.path);
        let entries = rustix::fs::Dir::read_from(&self.dir).map_err(|e| fail()(e.into()))?;
        for entry in entries {
            let entry = entry.map_err(|e| fail()(e.into()))?;
            let Some(ino) = ino_of(entry.file_name().to_bytes()) else {
                continue;
            };
            let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
            match rustix::fs::statat(&self.dir, entry.file_name(), flags) {
                Ok(stat) => each(ino, u64::try_from(stat.st_blocks).unwrap_or(0) * 512),
                Err(Errno::NOENT) => {}
                Err(e) => return Err(fail()(e.into())),
            }
        }
        Ok(())
    }

    /// Sees to it that `ino` has a file, making an empty one. For content that was promised by no
    /// sync and that the host lost when it went down.
    pub(super) fn ensure(&self, host: &Host, ino: u64) -> Result<(), UpperError> {
        match self.find(ino) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.create(host, Ino(ino)).map(drop),
            other => other
                .map(drop)
                .map_err(io_error("open", &self.path_of(ino))),
        }
    }

    pub(super) fn dir(&self) -> &File {
        &self.dir
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
