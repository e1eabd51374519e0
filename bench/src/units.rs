//! Numbers as a person reads them.

/// Seconds.
pub(crate) fn seconds(value: f64) -> String {
    match value {
        v if v >= 1.0 => format!("{v:.2} s"),
        v if v >= 0.001 => format!("{:.1} ms", v * 1e3),
        v => format!("{:.0} us", v * 1e6),
    }
}

/// Bytes, in powers of 1024.
pub(crate) fn bytes(value: f64) -> String {
    let mut value = value;
    for unit in ["B", "KiB", "MiB"] {
        if value < 1024.0 {
            return plain(value, unit);
        }
        value /= 1024.0;
    }
    plain(value, "GiB")
}

fn plain(value: f64, unit: &str) -> String {
    if value.fract() == 0.0 || unit == "B" {
        format!("{value:.0} {unit}")
    } else {
        format!("{value:.1} {unit}")
    }
}

/// A ratio, with as many digits as tell something.
pub(crate) fn ratio(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v if v >= 0.1 => format!("{v:.2}"),
        v if v >= 0.001 => format!("{v:.4}"),
        v => format!("{v:.1e}"),
    }
}

/// The same without zeros at the end, for numbers that somebody chose.
pub(crate) fn short_ratio(value: f64) -> String {
    let text = ratio(value);
    if text.contains('.') && !text.contains('e') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_a_fitting_unit() {
        assert_eq!(seconds(1.5), "1.50 s");
        assert_eq!(seconds(0.0123), "12.3 ms");
        assert_eq!(seconds(0.000_042), "42 us");
    }

    #[test]
    fn sizes_are_told_in_a_fitting_unit() {
        assert_eq!(bytes(12.0), "12 B");
        assert_eq!(bytes(4096.0), "4 KiB");
        assert_eq!(bytes(1.5 * 1024.0 * 1024.0), "1.5 MiB");
        assert_eq!(bytes(4.0 * 1024.0 * 1024.0 * 1024.0), "4 GiB");
    }

    #[test]
    fn a_ratio_keeps_the_digits_that_tell_something() {
        assert_eq!(ratio(1.2345), "1.23");
        assert_eq!(ratio(0.0123), "0.0123");
        assert_eq!(ratio(123.4), "123");
        assert_eq!(ratio(0.000_012), "1.2e-5");
        assert_eq!(short_ratio(1.0), "1");
        assert_eq!(short_ratio(0.01), "0.01");
        assert_eq!(short_ratio(100.0), "100");
        assert_eq!(short_ratio(1.0 / 3.0), "0.33");
    }
}
