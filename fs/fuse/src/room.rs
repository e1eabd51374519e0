//! Room of the host that is about to come.
//!
//! A file that lost its last name keeps its blocks until the kernel has forgotten it, which a message of
//! its own tells (FORGET) that nobody waits for. So what finds the host full while there are such files,
//! shortly after a name was removed, is tried again: a program that removes a file and writes the next
//! one finds the room. Files that somebody has open stay, hence the patience.
//!
//! FORGET comes over `/dev/fuse`. Of the threads that read it, one never waits here.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use crate::operations::Failure;

/// How long after a removal its room is waited for. The message is on its way when the removal
/// returns; a busy machine may be slow to see to it.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long it is waited for while FORGET is being seen to: large files take long to remove.
const LONGEST: Duration = Duration::from_secs(10);

const FIRST_PAUSE: Duration = Duration::from_micros(200);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct Room {
    made: Instant,
    /// How long after a removal its room is waited for.
    patience: Duration,
    /// When a name was last removed, milliseconds after `made`.
    removed: AtomicU64,
    /// Threads that see to FORGET.
    forgetting: AtomicUsize,
    /// Threads that may come to wait.
    places: AtomicUsize,
}

impl Room {
    /// For as many threads as read `/dev/fuse`.
    pub(crate) fn new(threads: usize) -> Self {
        Self {
            made: Instant::now(),
            patience: PATIENCE,
            removed: AtomicU64::new(0),
            forgetting: AtomicUsize::new(0),
            places: AtomicUsize::new(threads.saturating_sub(1)),
        }
    }

    /// A name was removed.
    pub(crate) fn removed(&self) {
        self.removed.store(self.now(), Relaxed);
    }

    /// Does the work of one FORGET.
    pub(crate) fn forgetting(&self, work: impl FnOnce()) {
        self.forgetting.fetch_add(1, Relaxed);
        // Also if it panics.
        let _done = Undo(|| self.forgetting.fetch_sub(1, Relaxed));
        work();
    }

    /// Does `work`, and again while it finds the host full although there were `unnamed` files just
    /// before. It is to have no effect when it fails so.
    pub(crate) fn for_work<T>(
        &self,
        unnamed: impl Fn() -> u64,
        mut work: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut hope = unnamed() > 0;
        let mut done = work();
        if !(hope && lacks_room(&done)) {
            return done;
        }
        let take = |left: usize| left.checked_sub(1);
        if self.places.fetch_update(Relaxed, Relaxed, take).is_err() {
            return done;
        }
        let _place = Undo(|| self.places.fetch_add(1, Relaxed));
        let begun = Instant::now();
        let mut pause = FIRST_PAUSE;
        while hope && lacks_room(&done) && self.is_soon() && begun.elapsed() < LONGEST {
            thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
            hope = unnamed() > 0;
            done = work();
        }
        done
    }

    fn is_soon(&self) -> bool {
        let patience = u64::try_from(self.patience.as_millis()).unwrap_or(u64::MAX);
        let since = self.now().saturating_sub(self.removed.load(Relaxed));
        self.forgetting.load(Relaxed) > 0 || since <= patience
    }

    fn now(&self) -> u64 {
        u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

fn lacks_room<T>(done: &Result<T, Failure>) -> bool {
    matches!(done, Err(Failure::Union(error)) if [libc::ENOSPC, libc::EDQUOT].contains(&error.errno()))
}

/// Takes a count back when dropped.
struct Undo<F: Fn() -> usize>(F);

impl<F: Fn() -> usize> Drop for Undo<F> {
    fn drop(&mut self) {
        self.0();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use pellicle_union::Error;

    use super::*;

    /// One that waits as long as it takes, however busy the machine is.
    fn patient(threads: usize) -> Room {
        Room {
            patience: Duration::from_secs(3600),
            ..Room::new(threads)
        }
    }

    /// Tries while there are `unnamed` files, of which the `at`th finds room; how many there were.
    fn tries(room: &Room, unnamed: u64, at: u32) -> (u32, Result<(), Failure>) {
        let tried = Cell::new(0);
        let done = room.for_work(
            || unnamed,
            || {
                tried.set(tried.get() + 1);
                match tried.get() == at {
                    true => Ok(()),
                    false => Err(Error::NoSpace.into()),
                }
            },
        );
        (tried.get(), done)
    }

    #[test]
    fn room_is_waited_for_where_a_file_lost_its_name_only() {
        let room = patient(2);
        room.removed();
        let (tried, done) = tries(&room, 0, 3);
        assert_eq!(tried, 1);
        assert!(lacks_room(&done));
        let (tried, done) = tries(&room, 1, 3);
        assert_eq!(tried, 3);
        assert!(done.is_ok());
    }

    #[test]
    fn what_was_forgotten_meanwhile_is_worth_one_more_try() {
        let room = patient(2);
        room.removed();
        let (unnamed, mut tried) = (Cell::new(1), 0);
        let done = room.for_work(
            || unnamed.get(),
            || {
                tried += 1;
                match unnamed.replace(0) {
                    0 => Ok(()),
                    _ => Err(Error::NoSpace.into()),
                }
            },
        );
        assert!(done.is_ok());
        assert_eq!(tried, 2);
    }

    #[test]
    fn a_host_that_stays_full_is_told_in_the_end() {
        let room = Room::new(2);
        let mut tried = 0;
        let done = room.for_work(
            || 1,
            || -> Result<(), Failure> {
                tried += 1;
                if tried == 1 {
                    room.removed();
                }
                Err(Error::NoSpace.into())
            },
        );
        assert!(tried > 1);
        assert!(lacks_room(&done));
        assert_eq!(room.places.load(Relaxed), 1, "the place is free again");
    }

    #[test]
    fn one_thread_never_waits() {
        let room = patient(2);
        room.removed();
        let inner = Cell::new(0);
        let mut first = true;
        let done = room.for_work(
            || 1,
            || {
                if std::mem::take(&mut first) {
                    return Err(Error::NoSpace.into());
                }
                // As another thread would while this one waits.
                inner.set(tries(&room, 1, 2).0);
                Ok(())
            },
        );
        assert!(done.is_ok());
        assert_eq!(inner.get(), 1);
        let alone = patient(1);
        alone.removed();
        assert_eq!(tries(&alone, 1, 2).0, 1);
    }

    #[test]
    fn other_errors_are_told_at_once() {
        let room = patient(2);
        room.removed();
        let mut tried = 0;
        let done = room.for_work(
            || 1,
            || -> Result<(), Failure> {
                tried += 1;
                Err(Error::TooLarge.into())
            },
        );
        assert!(done.is_err());
        assert_eq!(tried, 1);
    }

    #[test]
    fn a_forget_in_progress_is_waited_for() {
        let room = Room::new(2);
        thread::sleep(PATIENCE + Duration::from_millis(2));
        assert!(!room.is_soon());
        room.forgetting(|| assert!(room.is_soon()));
    }
}
