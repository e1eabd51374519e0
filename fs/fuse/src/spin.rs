//! Looking for the next message for a moment before sleeping.
//!
//! A program that works through a tree sends its next message right after an answer. A server that
//! has gone to sleep in between must be woken, and on an idle machine the program, whose CPU the
//! server was on when it answered, was moved to another; each costs more than most answers. Looking
//! on for a moment, and giving way to whoever else wants the CPU at each look, makes it a switch
//! between two threads that both are awake. Looking that finds nothing is not kept up: it must have
//! paid shortly before.

use std::{
    io, thread,
    time::{Duration, Instant},
};

/// How long to look. Programs need 10 to 50 us for what they do with an answer.
const LOOK: Duration = Duration::from_micros(100);
/// What looking may be owed at most, in messages that came in time.
const MOST: u32 = 16;

/// Whether looking pays at the moment. Of one thread.
#[derive(Debug, Default)]
pub(crate) struct Spin {
    credit: u32,
    asleep_since: Option<Instant>,
}

impl Spin {
    /// Looks for the next message as long as that pays; `Ok(false)`: now sleep, then say that
    /// something [`came`](Self::came).
    ///
    /// # Errors
    /// Those of `look`.
    pub(crate) fn look(&mut self, mut look: impl FnMut() -> io::Result<bool>) -> io::Result<bool> {
        let begun = Instant::now();
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
        self.asleep_since = Some(Instant::now());
        Ok(false)
    }

    /// A message came. Looking pays if it has ended a short sleep.
    pub(crate) fn came(&mut self) {
        if self.asleep_since.take().is_some_and(|t| t.elapsed() < LOOK) {
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
    fn an_error_of_looking_is_told() {
        let mut spin = Spin {
            credit: 1,
            ..Spin::default()
        };
        let gone = || Err(io::ErrorKind::NotConnected.into());
        assert!(spin.look(gone).is_err());
    }
}
