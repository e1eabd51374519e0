//! Medians and spread.

use std::time::Duration;

use serde::Serialize;

/// A spread above this part of the median means that the figure is not to be trusted.
const NOISY: f64 = 0.25;

/// What the rounds of one driver come to. The unit is the workload's.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// Every round, in the order measured.
    pub(crate) samples: Vec<f64>,
}

impl Summary {
    /// Sums up; `None` without a sample.
    pub(crate) fn of(samples: Vec<f64>) -> Option<Self> {
        let mut sorted = samples.clone();
        sorted.sort_by(f64::total_cmp);
        Some(Self {
            median: median(&sorted)?,
            min: *sorted.first()?,
            max: *sorted.last()?,
            samples,
        })
    }

    /// Whether the middle half of the rounds is spread too widely.
    pub(crate) fn is_noisy(&self) -> bool {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |part: usize| {
            sorted
                .get((sorted.len().saturating_sub(1)) * part / 4)
                .copied()
                .unwrap_or(self.median)
        };
        (at(3) - at(1)) > NOISY * self.median
    }
}

/// The middle one of sorted values, or the mean of the two in the middle.
pub(crate) fn median(sorted: &[f64]) -> Option<f64> {
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *sorted.get(sorted.len() / 2 - 1)?;
    Some(f64::midpoint(lower, upper))
}

/// Seconds as a person reads them.
pub(crate) fn seconds(value: f64) -> String {
    match value {
        v if v >= 1.0 => format!("{v:.2} s"),
        v if v >= 0.001 => format!("{:.1} ms", v * 1e3),
        v => format!("{:.0} us", v * 1e6),
    }
}

/// A duration in the unit that samples are kept in.
pub(crate) fn sample(time: Duration) -> f64 {
    time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one_or_the_mean_of_two() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[1.0, 2.0, 9.0]), Some(2.0));
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), Some(3.0));
    }

    #[test]
    fn one_wild_round_is_no_noise_and_many_are() {
        let calm = Summary::of(vec![1.0, 1.01, 1.02, 1.0, 9.0]).unwrap();
        assert!(!calm.is_noisy());
        assert_eq!(calm.median, 1.01);
        assert_eq!((calm.min, calm.max), (1.0, 9.0));
        assert!(
            Summary::of(vec![1.0, 2.0, 1.0, 2.0, 1.5])
                .unwrap()
                .is_noisy()
        );
    }

    #[test]
    fn times_are_told_in_a_fitting_unit() {
        assert_eq!(seconds(1.5), "1.50 s");
        assert_eq!(seconds(0.0123), "12.3 ms");
        assert_eq!(seconds(0.000_042), "42 us");
    }
}
