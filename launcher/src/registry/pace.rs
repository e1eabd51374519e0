//! The least speed: a server that sends a byte now and then is as good as one that sends nothing, and
//! holds up whoever waits for the whole.
//!
//! As curl's `--speed-limit` and `--speed-time`: over the time that nothing at all may come
//! (`PELLICLE_REGISTRY_TIMEOUT`, a minute), [`LEAST`] bytes a second have to. Only the time counts that
//! is spent waiting for the network.

use std::{
    io::{self, Read},
    time::{Duration, Instant},
};

/// Bytes in a second.
pub(super) const LEAST: u64 = 1024;

/// Why a body is given up that still comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("only {bytes} bytes came in {seconds} seconds, less than {LEAST} a second")]
pub struct TooSlow {
    /// Bytes that came.
    pub bytes: u64,
    /// In so many seconds of waiting.
    pub seconds: u64,
}

/// How fast a body comes.
#[derive(Debug)]
struct Pace {
    window: Duration,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    fn note(&mut self, waited: Duration, bytes: usize) -> Result<(), TooSlow> {
        self.waited += waited;
        self.bytes += bytes as u64;
        if self.waited < self.window {
            return Ok(());
        }
        let least = u128::from(LEAST) * self.window.as_millis() / 1000;
        if u128::from(self.bytes) < least {
            return Err(TooSlow {
                bytes: self.bytes,
                seconds: self.waited.as_secs(),
            });
        }
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        Ok(())
    }
}

/// A body that fails with [`TooSlow`] when it comes too slowly.
pub(super) struct Paced<R> {
    body: R,
    pace: Pace,
}

impl<R: Read> Paced<R> {
    /// Judges the speed of `body` over each `window` of waiting.
    pub(super) fn new(body: R, window: Duration) -> Self {
        let pace = Pace {
            window,
            waited: Duration::ZERO,
            bytes: 0,
        };
        Self { body, pace }
    }
}

impl<R: Read> Read for Paced<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let start = Instant::now();
        let read = self.body.read(buffer)?;
        // The end of a body is no slowness.
        if read > 0 {
            let noted = self.pace.note(start.elapsed(), read);
            noted.map_err(io::Error::other)?;
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> Pace {
        Pace {
            window: Duration::from_secs(10),
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    #[test]
    fn a_byte_now_and_then_is_too_slow_after_the_window() {
        let (mut slow, second) = (pace(), Duration::from_secs(1));
        for _ in 0..9 {
            slow.note(second, 1).unwrap();
        }
        let error = slow.note(second, 1).unwrap_err();
        assert_eq!((error.bytes, error.seconds), (10, 10));
        assert!(error.to_string().contains("10 bytes"), "{error}");
    }

    #[test]
    fn what_is_fast_enough_goes_on_and_each_window_counts_for_itself() {
        let (mut fair, second) = (pace(), Duration::from_secs(1));
        for _ in 0..100 {
            fair.note(second, 1024).unwrap();
        }
        let mut later = pace();
        later.note(second * 10, 1 << 30).unwrap();
        assert!(later.note(second * 10, 1).is_err());
        // What takes no time is never too slow.
        let mut quick = pace();
        for _ in 0..100_000 {
            quick.note(Duration::ZERO, 1).unwrap();
        }
    }
}
