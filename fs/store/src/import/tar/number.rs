//! Numbers in tar headers and PAX records.

use crate::Time;

/// A numeric header field: octal digits with spaces around them (POSIX ustar), or base-256 two's
/// complement when the top bit of the first byte is set (GNU). An empty field is 0. `None` if it is
/// neither.
pub(super) fn field(bytes: &[u8]) -> Option<i128> {
    match bytes.first() {
        Some(first) if first & 0x80 != 0 => base256(bytes),
        _ => octal(bytes),
    }
}

fn octal(bytes: &[u8]) -> Option<i128> {
    let digits = bytes.trim_ascii_start();
    let end = digits
        .iter()
        .position(|b| *b == 0 || *b == b' ')
        .unwrap_or(digits.len());
    let mut value = 0_i128;
    for digit in digits.get(..end)? {
        if !(b'0'..=b'7').contains(digit) {
            return None;
        }
        value = value * 8 + i128::from(digit - b'0');
    }
    Some(value)
}

/// Fields have at most 12 bytes, which an `i128` holds.
fn base256(bytes: &[u8]) -> Option<i128> {
    let (first, rest) = bytes.split_first()?;
    if rest.len() > 14 {
        return None;
    }
    let negative = first & 0x40 != 0;
    let mut value = if negative {
        i128::from(*first) - 0x100
    } else {
        i128::from(first & 0x3f)
    };
    for byte in rest {
        value = value * 256 + i128::from(*byte);
    }
    Some(value)
}

/// A decimal number that is not negative, as PAX has it.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds with an optional sign and fraction, as PAX has them (pax(1), "pax Extended Header
/// Keywords"). What is finer than a nanosecond is cut off towards the past.
pub(super) fn time(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|b| *b == b'.') {
        Some(dot) => (text.get(..dot)?, text.get(dot + 1..)?),
        None => (text, &[][..]),
    };
    if whole.is_empty() && fraction.is_empty() || !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let sec = match whole {
        [] => 0,
        digits => i64::try_from(decimal(digits)?).ok()?,
    };
    let mut nsec = 0_u32;
    for place in 0..9 {
        let digit = fraction.get(place).map_or(0, |d| d - b'0');
        nsec = nsec * 10 + u32::from(digit);
    }
    let finer = fraction.iter().skip(9).any(|d| *d != b'0');
    if !negative {
        return Some(Time { sec, nsec });
    }
    let down = nsec + u32::from(finer);
    Some(match down {
        0 => Time { sec: -sec, nsec: 0 },
        _ => Time {
            sec: -sec - 1,
            nsec: 1_000_000_000 - down,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_fields_are_octal_or_base_256_and_nothing_else() {
        for (bytes, want) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"77777777", Some(0o77_777_777)),
            (b"0000648\0", None),
            (b"-000001\0", None),
            (b"12x45\0\0\0", None),
            (b"\x80\0\0\0\0\0\0\x01", Some(1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\0\0\0\xff\xff\xff\xff", Some(0xffff_ffff)),
            (
                b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff",
                Some(i64::MAX.into()),
            ),
        ] {
            assert_eq!(field(bytes), want, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn times_have_signs_and_fractions_and_round_to_the_past() {
        let t = |sec, nsec| Some(Time { sec, nsec });
        for (text, want) in [
            ("1700000000", t(1_700_000_000, 0)),
            ("1.5", t(1, 500_000_000)),
            ("1.000000001", t(1, 1)),
            ("1.9999999999", t(1, 999_999_999)),
            ("-1", t(-1, 0)),
            ("-1.5", t(-2, 500_000_000)),
            ("-0.0000000001", t(-1, 999_999_999)),
            ("-0.9999999999", t(-1, 0)),
            ("0.", t(0, 0)),
            (".5", t(0, 500_000_000)),
            ("9223372036854775807", t(i64::MAX, 0)),
            ("9223372036854775808", None),
            ("", None),
            (".", None),
            ("-", None),
            ("1e9", None),
            ("1.5.5", None),
            ("0x10", None),
        ] {
            assert_eq!(time(text.as_bytes()), want, "{text}");
        }
    }
}
