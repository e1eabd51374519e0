//! Trying again: how often and after how long.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{RegistryError, http::Http};

/// Longest pause, whatever the registry asks for.
const PAUSE_MAX: Duration = Duration::from_secs(60);
const SLICE: Duration = Duration::from_millis(50);

/// How often what failed is tried again.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// How often, after the first try.
    pub times: u32,
    /// Pause before the first of them; each next is twice as long.
    pub delay: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            times: 5,
            delay: Duration::from_millis(500),
        }
    }
}

impl Retry {
    /// Waits before try `failed` (1 for the first after a failure), or for as long as the registry
    /// asked for; ends early with an error when the caller wants to stop.
    pub(super) fn pause(
        &self,
        failed: u32,
        asked: Option<Duration>,
        http: &Http,
    ) -> Result<(), RegistryError> {
        let doubled = self
            .delay
            .saturating_mul(1 << failed.saturating_sub(1).min(16));
        // Somewhat different for each, so that those who failed together do not come back together.
        let jitter = doubled.mul_f64(rand::random::<f64>() / 4.0);
        let pause = asked
            .unwrap_or(doubled.saturating_add(jitter))
            .min(PAUSE_MAX);
        let until = Instant::now() + pause;
        loop {
            http.check()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(SLICE));
        }
    }
}

/// What a `Retry-After` header says (RFC 9110, 10.2.3): seconds, or a date.
pub(super) fn retry_after(value: &str) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let left = date(value)? - jiff::Timestamp::now().as_second();
    Some(Duration::from_secs(u64::try_from(left).unwrap_or(0)))
}

/// A date in a header (RFC 9110, 5.6.7), as seconds since 1970.
pub(super) fn date(value: &str) -> Option<i64> {
    let date = jiff::fmt::rfc2822::parse(value.trim()).ok()?;
    Some(date.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(
            retry_after("Wed, 21 Oct 2015 07:28:00 GMT"),
            Some(Duration::ZERO)
        );
        assert_eq!(retry_after("soon"), None);
    }
}
