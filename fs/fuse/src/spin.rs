//! Looking for the next message for a moment before sleeping.
//!
//! A program that works through a tree sends its next message right after an answer. A server that
//! has gone to sleep in between must be woken, and on an idle machine the program, whose CPU the
//! server was on when it answered, was moved to another; each costs more than most answers. Looking
//! on for a moment, and giving way to whoever else wants the CPU at each look, makes it a switch
//! between two threads that both are awake. Looking that finds nothing is not kept up: it must have
//! paid shortly before.
//!
//! On a busy machine the answer may leave the program waiting for this very CPU, and giving way does
//! not bind Linux's scheduler. Then the message comes right after the look was given up: looking is
//! what it waited for, and is left alone for a while.

use std::{
    io, thread,
    time::{Duration, Instant},
};

/// How long to look. Programs need 10 to 50 us for what they do with an answer.
const LOOK: Duration = Duration::from_micros(100);
/// What looking may be owed at most, in messages that came in time.
const MOST: u32 = 16;
/// For how many messages looking is left alone once it was in the way.
const LEFT_ALONE: u32 = 64;

/// Whether looking pays at the moment. Of one thread.
#[derive(Debug, Default)]
pub(crate) struct Spin {
    credit: u32,
    /// Messages that do not count yet.
    left_alone: u32,
    asleep: Option<Asleep>,
}

#[derive(Debug)]
struct Asleep {
    since: Instant,
    /// After a look that found nothing.
    looked: bool,
}

impl Spin {
    /// Looks for the next message as long as that pays; `Ok(false)`: now sleep, then say that
    /// something [`came`](Self::came).
    ///
    /// # Errors
    /// Those of `look`.
    pub(crate) fn look(&mut self, mut look: impl FnMut() -> io::Result<bool>) -> io::Result<bool> {
        let begun = Instant::now();
        let looked = self.credit > 0;
        while self.credit > 0 {
            if look()? {
                self.pays();
                return Ok(true);
            }
            if begun.elapsed() >= LOOK {
                self.credit /= 2;
                break;
            }
            thread::yield_now();
        }
        self.asleep = Some(Asleep {
            since: Instant::now(),
            looked,
        });
        Ok(false)
    }

    /// A message came. Looking pays if it has ended a short sleep, and was in the way if it came
    /// before that.
    pub(crate) fn came(&mut self) {
        let Some(asleep) = self.asleep.take().filter(|a| a.since.elapsed() < LOOK) else {
            return;
        };
        if asleep.looked {
            self.credit = 0;
            self.left_alone = LEFT_ALONE;
        } else if self.left_alone > 0 {
            self.left_alone -= 1;
        } else {
            self.pays();
        }
    }

    fn pays(&mut self) {
        self.credit = (self.credit + 1).min(MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often it looks for what does not come soon.
    fn idle(spin: &mut Spin) -> u32 {
        let mut looked = 0;
        let found = spin.look(|| {
            looked += 1;
            Ok(false)
        });
        assert!(!found.unwrap());
        thread::sleep(2 * LOOK);
        spin.came();
        looked
    }

    #[test]
    fn looking_begins_when_it_would_have_paid_and_ends_when_it_does_not() {
        let mut spin = Spin::default();
        assert_eq!(idle(&mut spin), 0, "at first nothing speaks for looking");
        while spin.credit == 0 {
            // However busy the machine is, at some time this is not interrupted.
            assert!(!spin.look(|| Ok(false)).unwrap());
            spin.came();
        }
        for _ in 0..100 {
            assert!(spin.look(|| Ok(true)).unwrap());
        }
        assert_eq!(spin.credit, MOST);
        let times = (0..20).filter(|_| idle(&mut spin) > 0).count();
        assert_eq!(times, 5, "16, 8, 4, 2, 1");
    }

    #[test]
    fn looking_that_was_in_the_way_is_left_alone_for_a_while() {
        let mut spin = Spin::default();
        while spin.left_alone == 0 {
            spin.credit = MOST;
            assert!(!spin.look(|| Ok(false)).unwrap());
            spin.came();
        }
        assert_eq!((spin.credit, spin.left_alone), (0, LEFT_ALONE));
        let mut came = 0;
        while spin.credit == 0 {
            assert!(!spin.look(|| Ok(true)).unwrap(), "it does not look");
            spin.came();
            came += 1;
        }
        assert!(came > LEFT_ALONE, "{came}");
    }

    #[test]
    fn an_error_of_looking_is_told() {
        let mut spin = Spin {
            credit: 1,
            ..Spin::default()
        };
        let gone = || Err(io::ErrorKind::NotConnected.into());
        assert!(spin.look(gone).is_err());
    }
}
