//! Making things durable, in the one order that keeps every promise.
//!
//! A sync of everything up to batch S: (1) note which removed files wait, then S; (2) flush copied
//! files and, if names changed, `data/`, and once the upper's directory; (3) flush the log; (4)
//! store S as `synced_seq` in the header; (5) if a batch that came in with this sync made a copied
//! file count, flush the header as well; (6) unlink the removed files.
//!
//! (4) comes after (3), so a header on disk never claims more than is there. It may claim less:
//! the header goes to disk with the next flush. Then a damaged batch of the last sync passes for a
//! torn tail after a host crash, which costs nothing that was intact; but a batch with a copy
//! would be dropped by recovery although it was synced, hence (5).
//!
//! One thread at a time does this (the *turn*); those who come meanwhile wait, and if the sync
//! they waited for began too early for them, the next one serves them all.
//!
//! Flushing the log is `fdatasync`: `msync(MS_SYNC)` calls the same `vfs_fsync_range` of the file
//! (Linux `mm/msync.c`), and needs the mapping not to move meanwhile, which growing it does.

use std::{
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use pellicle_store::Ino;

use super::{Shared, io_error, log};
use crate::{UpperError, host::no_space};

/// Who flushes the log now.
#[derive(Debug, Default)]
pub(super) struct Gate {
    busy: Mutex<bool>,
    freed: Condvar,
    /// Threads that wait for it.
    #[cfg(test)]
    pub(super) waiting: std::sync::atomic::AtomicUsize,
}

/// The right to flush or to replace the log.
pub(super) struct Turn<'a>(&'a Gate);

impl Gate {
    pub(super) fn enter(&self) -> Turn<'_> {
        let mut busy = self.busy.lock();
        while *busy {
            self.freed.wait(&mut busy);
        }
        *busy = true;
        Turn(self)
    }

    /// As [`Self::enter`], but gives up once `done` says that another's turn did the work.
    fn enter_unless(&self, done: impl Fn() -> bool) -> Option<Turn<'_>> {
        let mut busy = self.busy.lock();
        loop {
            if done() {
                return None;
            }
            if !*busy {
                *busy = true;
                return Some(Turn(self));
            }
            #[cfg(test)]
            self.waiting.fetch_add(1, Ordering::SeqCst);
            self.freed.wait(&mut busy);
            #[cfg(test)]
            self.waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.busy.lock() = false;
        self.0.freed.notify_all();
    }
}

impl Shared {
    pub(super) fn sync_file(&self, ino: Ino) -> Result<(), UpperError> {
        if !self.is_durable() {
            return Ok(());
        }
        self.check_poison()?;
        let target = self.committed.load(Ordering::SeqCst);
        let flushed = self.files.sync_one(&self.host, ino.0);
        self.or_poison(flushed)?;
        self.settle(target)
    }

    pub(super) fn sync_all(&self) -> Result<(), UpperError> {
        if !self.is_durable() {
            return Ok(());
        }
        self.check_poison()?;
        let target = self.committed.load(Ordering::SeqCst);
        let flushed = self.files.sync_touched(&self.host);
        self.or_poison(flushed)?;
        self.settle(target)
    }

    /// Makes every batch up to `target` durable.
    fn settle(&self, target: u64) -> Result<(), UpperError> {
        let done = || self.synced.load(Ordering::SeqCst) >= target || self.is_poisoned();
        if let Some(turn) = self.gate.enter_unless(done) {
            self.check_poison()?;
            let result = self.flush_log();
            // Poisoned before the turn ends, so that no waiter takes the next one for a success.
            let result = self.or_poison(result);
            drop(turn);
            return result;
        }
        self.check_poison()
    }

    /// Frees the room of removed files now, if any waits for a sync. Returns whether it did.
    pub(super) fn free_doomed(&self) -> bool {
        if !self.is_durable() || self.is_poisoned() || self.files.doomed().is_empty() {
            return false;
        }
        let turn = self.gate.enter();
        let result = self.flush_log();
        let freed = self.or_poison(result).is_ok();
        drop(turn);
        freed
    }

    /// The six steps of the module head. The caller has the turn.
    pub(super) fn flush_log(&self) -> Result<(), UpperError> {
        let doomed = self.files.doomed();
        let (file, seq, copied, flushed, end) = {
            let log = self.log.lock();
            let log = log.as_ref().ok_or_else(|| self.not_replayed())?;
            (
                Arc::clone(&log.file),
                log.last_seq,
                log.last_copied > log.durable,
                log.flushed,
                log.end,
            )
        };
        if self.rewrite_log.load(Ordering::SeqCst) {
            log::rewrite(&self.host, &file, flushed, end)
                .map_err(io_error("write to", &self.log_path()))?;
        }
        let work = self.files.work();
        self.files.flush(&self.host, &work)?;
        self.sync_names()?;
        let flush = || {
            self.host
                .sync_log(&file)
                .map_err(io_error("flush", &self.log_path()))
        };
        flush()?;
        self.with_log(|log| {
            log.flushed = end;
            log.set_synced(&self.host, seq)
                .map_err(io_error("write to", &self.log_path()))
        })?;
        self.rewrite_log.store(false, Ordering::SeqCst);
        if copied {
            flush()?;
            self.with_log(|log| {
                log.durable = seq;
                Ok(())
            })?;
        }
        self.files.settle(&work);
        self.files.bury(&self.host, &doomed);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.synced.fetch_max(seq, Ordering::SeqCst);
        Ok(())
    }

    /// Flushes the upper's directory, and its own name in the one above, if they are new.
    pub(super) fn sync_names(&self) -> Result<(), UpperError> {
        if !self.names_dirty.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        let flushed = self.host.sync_dir(&self.dir).and_then(|()| {
            // A directory that is not ours to read is somebody else's to keep.
            super::open_dir(&self.path.join(".."))
                .map_or(Ok(()), |above| self.host.sync_dir(&above))
        });
        if flushed.is_err() {
            self.names_dirty.store(true, Ordering::SeqCst);
        }
        flushed.map_err(io_error("flush", &self.path))
    }

    /// A failed flush ends it, except for lack of room: the next sync then writes again what this
    /// one may have lost.
    pub(super) fn or_poison<T>(&self, result: Result<T, UpperError>) -> Result<T, UpperError> {
        match &result {
            Ok(_) => {}
            Err(UpperError::Io { source, .. }) if no_space(source) => {
                self.rewrite_log.store(true, Ordering::SeqCst);
            }
            Err(error) => {
                tracing::error!(%error, "flushing failed; the upper takes no more changes");
                self.poisoned.store(true, Ordering::SeqCst);
            }
        }
        result
    }
}

/// The thread that syncs what nobody asked to sync.
#[derive(Debug, Default)]
pub(super) struct Flusher {
    state: Mutex<FlusherState>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct FlusherState {
    dirty: bool,
    stop: bool,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    /// Says that there is something to sync; starts the thread the first time.
    pub(super) fn rouse(&self, shared: &Arc<Shared>, interval: Duration) {
        let mut state = self.state.lock();
        state.dirty = true;
        if state.thread.is_none() && !state.stop {
            let shared = Arc::clone(shared);
            let thread = std::thread::Builder::new()
                .name("journal-sync".into())
                .spawn(move || run(&shared, interval));
            match thread {
                Ok(thread) => state.thread = Some(thread),
                // Explicit syncs still work, and the next commit tries again.
                Err(error) => tracing::warn!(%error, "cannot start the background sync"),
            }
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Ends the thread and waits for it.
    pub(super) fn stop(&self) {
        let thread = {
            let mut state = self.state.lock();
            state.stop = true;
            state.thread.take()
        };
        self.wake.notify_one();
        if let Some(thread) = thread {
            // It has nothing to tell: a failed sync has poisoned the upper.
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, interval: Duration) {
    let flusher = &shared.flusher;
    let mut state = flusher.state.lock();
    loop {
        while !state.dirty && !state.stop {
            flusher.wake.wait(&mut state);
        }
        let deadline = std::time::Instant::now() + interval;
        while !state.stop && !flusher.wake.wait_until(&mut state, deadline).timed_out() {}
        if state.stop {
            return;
        }
        state.dirty = false;
        drop(state);
        // Commits from here on rouse again.
        shared.roused.store(false, Ordering::SeqCst);
        // The error is logged and kept as the poison.
        let _ = shared.sync_all();
        state = flusher.state.lock();
    }
}
