//! Medians, spread, and how sure a ratio is.

use serde::{Deserialize, Serialize};

/// A spread above this part of the median means that the figure is not to be trusted.
const NOISY: f64 = 0.25;

/// Resamplings of a bootstrap.
const RESAMPLES: usize = 2_000;

/// What the rounds of one driver come to. The unit is the workload's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// Width of the middle half of the rounds.
    pub(crate) spread: f64,
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
            spread: at(&sorted, 0.75)? - at(&sorted, 0.25)?,
            samples,
        })
    }

    /// Whether the middle half of the rounds is spread too widely.
    pub(crate) fn is_noisy(&self) -> bool {
        self.spread > NOISY * self.median
    }
}

/// A ratio of medians, and where it lies with 95 % confidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ratio {
    pub(crate) value: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Ratio {
    /// The ratio of `of` to `to`. The interval is a percentile bootstrap (Efron 1979) over rounds:
    /// what both measured in the same round stays together, as they were disturbed alike.
    pub(crate) fn of(of: &[f64], to: &[f64]) -> Option<Self> {
        let middle = |samples: &mut Vec<f64>| {
            samples.sort_by(f64::total_cmp);
            median(samples)
        };
        let value = middle(&mut of.to_vec())? / middle(&mut to.to_vec())?;
        let rounds = of.len().min(to.len());
        let mut random = Random::new(0x5EED);
        let mut ratios = Vec::with_capacity(RESAMPLES);
        for _ in 0..RESAMPLES {
            let (mut a, mut b) = (Vec::with_capacity(rounds), Vec::with_capacity(rounds));
            for _ in 0..rounds {
                let round = random.below(rounds);
                a.extend(of.get(round));
                b.extend(to.get(round));
            }
            ratios.push(middle(&mut a)? / middle(&mut b)?);
        }
        ratios.sort_by(f64::total_cmp);
        Some(Self {
            value,
            low: at(&ratios, 0.025)?,
            high: at(&ratios, 0.975)?,
        })
    }
}

/// The middle one of sorted values, or the mean of the two in the middle.
pub(crate) fn median(sorted: &[f64]) -> Option<f64> {
    at(sorted, 0.5)
}

/// The value below which `part` of the sorted ones lie, between neighbours in proportion.
fn at(sorted: &[f64], part: f64) -> Option<f64> {
    let place = part * sorted.len().checked_sub(1)? as f64;
    let low = *sorted.get(place.floor() as usize)?;
    let high = *sorted.get(place.ceil() as usize)?;
    Some(low + (high - low) * place.fract())
}

/// `None` of nothing.
pub(crate) fn geometric_mean(values: &[f64]) -> Option<f64> {
    let logs: f64 = values.iter().map(|value| value.ln()).sum();
    (!values.is_empty()).then(|| (logs / values.len() as f64).exp())
}

/// Numbers that are the same in every run: xorshift64 (Marsaglia 2003).
pub(crate) struct Random(u64);

impl Random {
    /// The sequence of `seed`, which must not be 0.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From 0 to `count` - 1; 0 if that is none.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        (self.next() % (count.max(1) as u64)) as usize
    }
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
        let wild = Summary::of(vec![1.0, 2.0, 1.0, 2.0, 1.5]).unwrap();
        assert!(wild.is_noisy());
        assert_eq!(wild.spread, 1.0);
    }

    #[test]
    fn a_ratio_without_noise_is_certain_and_noise_widens_it() {
        let sure = Ratio::of(&[2.0; 5], &[1.0; 5]).unwrap();
        assert_eq!((sure.low, sure.value, sure.high), (2.0, 2.0, 2.0));
        let unsure = Ratio::of(&[1.0, 2.0, 3.0, 2.0, 2.1], &[1.0; 5]).unwrap();
        assert!(unsure.low < 2.0 && unsure.value == 2.0 && unsure.high > 2.0);
    }

    #[test]
    fn what_disturbs_both_in_a_round_does_not_widen_a_ratio() {
        let theirs = [1.0, 5.0, 1.0, 3.0, 2.0];
        let ours = theirs.map(|t| 2.0 * t);
        let ratio = Ratio::of(&ours, &theirs).unwrap();
        assert_eq!((ratio.low, ratio.value, ratio.high), (2.0, 2.0, 2.0));
    }

    #[test]
    fn a_ratio_to_nothing_is_none() {
        assert_eq!(Ratio::of(&[1.0], &[]), None);
        assert_eq!(Summary::of(Vec::new()), None);
    }

    #[test]
    fn the_geometric_mean_of_a_half_and_two_is_one() {
        assert_eq!(geometric_mean(&[]), None);
        assert!((geometric_mean(&[0.5, 2.0]).unwrap() - 1.0).abs() < 1e-12);
    }
}
