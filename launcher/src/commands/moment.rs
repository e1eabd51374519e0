//! Times as `--since`, `--until` and the filter `until` take them, docker's ways of writing them: a point in
//! time, or how long ago.

use std::time::Duration;

use jiff::{Timestamp, civil, tz::TimeZone};

/// The moment that `text` means: seconds since 1970, RFC 3339, a date with or without a time of day here, or
/// a duration before now (`90s`, `1h30m`, `3d`).
///
/// # Errors
/// How to write it.
pub(super) fn moment(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let why = || {
        format!(
            "{text:?} is no time: write 1h30m (ago), 2026-01-31, 2026-01-31T15:04:05Z, or seconds since 1970"
        )
    };
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let nanos: String = part.chars().chain("000000000".chars()).take(9).collect();
        let seconds = whole.parse().map_err(|_| why())?;
        let nanos = nanos.parse().map_err(|_| why())?;
        return Timestamp::new(seconds, nanos).map_err(|_| why());
    }
    if let Some(ago) = duration(text) {
        return now.checked_sub(ago).map_err(|_| why());
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    let here = TimeZone::system();
    let local = text
        .parse::<civil::DateTime>()
        .or_else(|_| {
            text.parse::<civil::Date>()
                .map(|d| d.to_datetime(civil::Time::midnight()))
        })
        .map_err(|_| why())?;
    here.to_timestamp(local).map_err(|_| why())
}

/// Go's durations, and days and weeks.
fn duration(text: &str) -> Option<Duration> {
    let mut all = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, unit) = rest.split_at_checked(end)?;
        let n: f64 = number.parse().ok()?;
        let end = unit
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(unit.len());
        let (name, after) = unit.split_at_checked(end)?;
        let seconds = match name {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            "w" => 604_800.0,
            _ => return None,
        };
        all = all.checked_add(Duration::try_from_secs_f64(n * seconds).ok()?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_points_or_durations_before_now() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        let of = |text: &str| moment(text, now).map(|t| t.to_string());
        assert_eq!(of("1h30m").unwrap(), "2026-01-31T10:30:00Z");
        assert_eq!(of("1.5h").unwrap(), "2026-01-31T10:30:00Z");
        assert_eq!(of("2d").unwrap(), "2026-01-29T12:00:00Z");
        assert_eq!(of("1700000000").unwrap(), "2023-11-14T22:13:20Z");
        assert_eq!(of("1700000000.5").unwrap(), "2023-11-14T22:13:20.5Z");
        assert_eq!(
            of("2026-01-31T10:00:00+01:00").unwrap(),
            "2026-01-31T09:00:00Z"
        );
        assert!(of("2026-01-31").is_ok() && of("2026-01-31T15:04:05").is_ok());
        for bad in [
            "",
            ".",
            "h",
            "1x",
            "yesterday",
            "99999999999999999999",
            "9e99h",
            "1h-",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
