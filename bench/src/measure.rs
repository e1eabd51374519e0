//! Rounds: every driver once in each, in an order that turns, so that what disturbs the machine
//! disturbs them alike.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{
    model::{LeftOut, Row},
    setup::{Interrupted, Setup},
    stats::{Ratio, Summary, median},
    tree::Seen,
};

/// What one driver gave in one round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) seconds: f64,
    pub(crate) messages: BTreeMap<String, u64>,
    pub(crate) extra: BTreeMap<String, f64>,
    /// What was seen, to be compared between drivers.
    pub(crate) seen: Option<Seen>,
}

/// Who takes part.
#[derive(Clone, Debug)]
pub(crate) struct Entrant {
    pub(crate) name: String,
    pub(crate) ours: bool,
}

impl Entrant {
    pub(crate) fn new(name: impl Into<String>, ours: bool) -> Self {
        Self {
            name: name.into(),
            ours,
        }
    }
}

/// How often, and whether once more at the beginning that does not count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rounds {
    pub(crate) count: u32,
    pub(crate) warm_up: bool,
}

/// A round of all drivers that takes longer than this is long,
const LONG_ROUND: Duration = Duration::from_secs(60);
/// and there are no more of it, unless their number was asked for: the whole table takes hours else.
const LONG_ROUNDS_MAX: u32 = 3;

/// Runs `each` for every entrant in every round. One that fails is left out of the rest. What the
/// first one sees all have to see.
///
/// # Errors
/// If the run is interrupted.
pub(crate) fn interleave(
    setup: &mut Setup,
    title: &str,
    entrants: &[Entrant],
    rounds: Rounds,
    reference: &str,
    mut each: impl FnMut(&mut Setup, usize) -> Result<Sample>,
) -> Result<(Vec<Row>, Vec<LeftOut>)> {
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); entrants.len()];
    let mut left_out: Vec<LeftOut> = Vec::new();
    let mut seen: Option<Seen> = None;
    let warm_up = rounds.warm_up.then_some(None);
    let mut count = rounds.count;
    for round in warm_up.into_iter().chain((0..rounds.count).map(Some)) {
        if round.is_some_and(|r| r >= count) {
            break;
        }
        let begun = Instant::now();
        for n in turned(entrants.len(), round.unwrap_or(0)) {
            let (Some(entrant), Some(taken)) = (entrants.get(n), samples.get_mut(n)) else {
                continue;
            };
            let said = round.map_or("warming up".to_owned(), |r| {
                format!("round {} of {count}", r + 1)
            });
            setup.say(format!("{title}: {said}, {}", entrant.name))?;
            if left_out.iter().any(|left| left.driver == entrant.name) {
                continue;
            }
            let result = each(setup, n).and_then(|sample| {
                same(&mut seen, sample.seen)?;
                Ok(sample)
            });
            setup.go_on()?;
            match result {
                Ok(sample) if round.is_some() => taken.push(sample),
                Ok(_) => {}
                Err(error) if error.is::<Interrupted>() => return Err(error),
                Err(error) => left_out.push(LeftOut {
                    driver: entrant.name.clone(),
                    why: format!("{error:#}"),
                    failed: true,
                }),
            }
            if round.is_some() {
                setup.stepped();
            }
        }
        if setup.shortens() && begun.elapsed() > LONG_ROUND {
            count = count.min(LONG_ROUNDS_MAX);
        }
    }
    let failed = |name: &str| left_out.iter().any(|left| left.driver == name);
    let times: Vec<(&Entrant, Vec<f64>, Vec<Sample>)> = entrants
        .iter()
        .zip(samples)
        .filter(|(entrant, _)| !failed(&entrant.name))
        .map(|(entrant, samples)| {
            let times = samples.iter().map(|sample| sample.seconds).collect();
            (entrant, times, samples)
        })
        .collect();
    let base = times.iter().find(|(entrant, ..)| entrant.name == reference);
    let base: Option<Vec<f64>> = base.map(|(_, times, _)| times.clone());
    let rows = times
        .into_iter()
        .filter_map(|(entrant, times, samples)| {
            let ratio = base
                .as_ref()
                .filter(|_| entrant.name != reference)
                .and_then(|base| Ratio::of(&times, base));
            Some(Row {
                driver: entrant.name.clone(),
                ours: entrant.ours,
                summary: Summary::of(times)?,
                ratio,
                messages: samples
                    .last()
                    .map(|s| s.messages.clone())
                    .unwrap_or_default(),
                extra: medians(&samples),
            })
        })
        .collect();
    Ok((rows, left_out))
}

fn same(first: &mut Option<Seen>, now: Option<Seen>) -> Result<()> {
    match (*first, now) {
        (Some(first), Some(now)) if first != now => anyhow::bail!(
            "it shows {} entries and {} bytes, another driver {} and {}",
            now.entries,
            now.bytes,
            first.entries,
            first.bytes
        ),
        (None, now) => *first = now,
        _ => {}
    }
    Ok(())
}

fn medians(samples: &[Sample]) -> BTreeMap<String, f64> {
    let mut all: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (name, value) in samples.iter().flat_map(|sample| &sample.extra) {
        all.entry(name.clone()).or_default().push(*value);
    }
    all.into_iter()
        .filter_map(|(name, mut values)| {
            values.sort_by(f64::total_cmp);
            Some((name, median(&values)?))
        })
        .collect()
}

/// The order of `count` drivers in `round`: turned by one each time, so that none is always first.
fn turned(count: usize, round: u32) -> impl Iterator<Item = usize> {
    let start = round as usize % count.max(1);
    (0..count).map(move |n| (n + start) % count.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_driver_has_its_turn_in_every_round_and_another_goes_first() {
        for round in 0..4 {
            let mut order: Vec<usize> = turned(3, round).collect();
            assert_eq!(order.first(), Some(&(round as usize % 3)));
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2]);
        }
        assert_eq!(turned(0, 1).count(), 0);
    }

    #[test]
    fn drivers_that_see_different_trees_are_not_compared() {
        let mut first = None;
        let tree = |entries| Some(Seen { entries, bytes: 1 });
        assert!(same(&mut first, None).is_ok());
        assert!(same(&mut first, tree(2)).is_ok());
        assert!(same(&mut first, tree(2)).is_ok());
        let error = same(&mut first, tree(3)).unwrap_err().to_string();
        assert!(error.contains('3') && error.contains('2'), "{error}");
    }

    #[test]
    fn extras_are_told_as_medians_of_the_rounds_that_have_them() {
        let with = |value: f64| Sample {
            extra: BTreeMap::from([("x".to_owned(), value)]),
            ..Sample::default()
        };
        let samples = [with(1.0), with(9.0), Sample::default(), with(2.0)];
        assert_eq!(medians(&samples), BTreeMap::from([("x".to_owned(), 2.0)]));
    }
}
