//! Which of several threads waits for the next message.
//!
//! The kernel wakes one thread for each message if any sleeps, even while another one is about to
//! look: with all of them asleep on the device, each message of a program that waits for its answers
//! wakes a thread on a CPU of its own, and the next one wakes another. One that keeps watch and stays
//! awake is faster than many that take turns. So a thread that has answered while another is on watch
//! stays away for a while.
//!
//! It is never needed more than [`TICK`] later than it would have come by itself: it comes back when
//! messages pile up, before an answer that is known to take long, and when nothing was taken for a
//! tick, be it that there is nothing to do or that whoever was on watch is held up.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

/// How often a thread that stays away sees whether the others get on.
const TICK: Duration = Duration::from_millis(1);

/// The watch of the threads that serve one mount. Counts are hints: whatever they say, some thread
/// comes back to the device after a tick.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Threads that look at the device, or sleep on it.
    on: AtomicUsize,
    /// Threads that stay away.
    away: AtomicUsize,
    /// Messages taken, ever.
    taken: AtomicU64,
    lock: Mutex<()>,
    back: Condvar,
}

impl Watch {
    /// Of `threads` that all begin on watch.
    pub(crate) fn new(threads: usize) -> Self {
        Self {
            on: AtomicUsize::new(threads),
            away: AtomicUsize::new(0),
            taken: AtomicU64::new(0),
            lock: Mutex::new(()),
            back: Condvar::new(),
        }
    }

    /// This thread has taken a message.
    pub(crate) fn leave(&self) {
        self.taken.fetch_add(1, Relaxed);
        // Never below 0, whatever was counted.
        let _ = self
            .on
            .fetch_update(Relaxed, Relaxed, |on| on.checked_sub(1));
    }

    /// This thread has answered, and is back on watch on return: at once if nobody else is.
    pub(crate) fn take_up(&self) {
        if self.on.load(Relaxed) > 0 {
            self.stay_away();
        }
        self.on.fetch_add(1, Relaxed);
    }

    /// Calls one back that stays away: there is, or is about to be, more to do than this thread does.
    pub(crate) fn call_back(&self) {
        if self.away.load(Relaxed) > 0 {
            let _held = self.lock.lock();
            self.back.notify_one();
        }
    }

    fn stay_away(&self) {
        let mut held = self.lock.lock();
        self.away.fetch_add(1, Relaxed);
        let mut seen = self.taken.load(Relaxed);
        while self.back.wait_for(&mut held, TICK).timed_out() {
            let taken = self.taken.load(Relaxed);
            if taken == seen {
                break;
            }
            seen = taken;
        }
        self.away.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use super::*;

    #[test]
    fn the_only_one_takes_the_watch_up_at_once() {
        let watch = Watch::new(1);
        for _ in 0..3 {
            watch.leave();
            watch.take_up();
        }
        assert_eq!(watch.on.load(Relaxed), 1);
        assert_eq!(watch.away.load(Relaxed), 0);
    }

    /// A thread that takes up `watch` while another one, this, is on it.
    fn second(watch: &Arc<Watch>) -> thread::JoinHandle<()> {
        watch.leave();
        let watch = Arc::clone(watch);
        thread::spawn(move || watch.take_up())
    }

    #[test]
    fn one_that_stays_away_comes_back_when_called_or_when_nothing_is_taken() {
        let watch = Arc::new(Watch::new(2));
        for called in [true, false] {
            let other = second(&watch);
            while called && !other.is_finished() {
                // The one on watch is busy all the while, so that a call ends it.
                watch.taken.fetch_add(1, Relaxed);
                watch.call_back();
                thread::yield_now();
            }
            other.join().unwrap();
            assert_eq!(watch.on.load(Relaxed), 2);
            assert_eq!(watch.away.load(Relaxed), 0);
        }
    }

    #[test]
    fn it_stays_away_as_long_as_the_other_gets_on() {
        let watch = Arc::new(Watch::new(2));
        // A tick in which this thread does not run at all ends it, too.
        let stayed = (0..1000).any(|_| {
            let other = second(&watch);
            let until = std::time::Instant::now() + 5 * TICK;
            let mut away = false;
            while std::time::Instant::now() < until && !other.is_finished() {
                watch.taken.fetch_add(1, Relaxed);
                away |= watch.away.load(Relaxed) == 1;
            }
            let stayed = away && !other.is_finished();
            other.join().unwrap();
            stayed
        });
        assert!(stayed);
    }

    #[test]
    fn counts_never_go_below_zero() {
        let watch = Watch::new(0);
        watch.leave();
        assert_eq!(watch.on.load(Relaxed), 0);
        watch.call_back();
    }
}
