//! Work in a tree, on every driver.

use std::{collections::BTreeMap, fs, path::Path, time::Instant};

use anyhow::{Context as _, Result};

use super::Plan;
use crate::{
    drivers::{Driver, messages},
    measure::{Entrant, Rounds, Sample, interleave},
    model::{LeftOut, Measured, Point, extra},
    setup::{Lower, Setup, Who, program_missing},
    tree::Seen,
};

/// What is cached when the work begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caches {
    /// Nothing, neither of the mount nor beneath it. Takes root.
    Cold,
    /// What lies beneath; nothing of the mount.
    Fresh,
    /// The work was done this many times before in the same mount.
    Warm(u32),
}

/// What the work writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writes {
    /// Nothing.
    Nothing,
    /// To the tree, but not in a way that a plain directory has to be copied for.
    InPlace,
    /// Anything.
    Anywhere,
}

/// The ratio to kernel overlayfs that issue 4 asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Floor {
    None,
    /// For root and for everyone else.
    Of(f64, f64),
}

/// What the work is given.
pub(crate) struct Round<'a> {
    /// The tree.
    pub(crate) at: &'a Path,
    pub(crate) setup: &'a Setup,
}

/// What the work gives.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Work {
    /// If it measures itself: seconds. Otherwise the clock on the wall counts.
    pub(crate) seconds: Option<f64>,
    /// Bytes of content that it wrote, if the rest of what is in the writable layer was copied up.
    pub(crate) wrote: Option<u64>,
    pub(crate) seen: Option<Seen>,
}

type Make = Box<dyn Fn(&mut Setup) -> Result<()>>;
type Prepare = Box<dyn Fn(&Round<'_>) -> Result<()>>;
type Do = Box<dyn Fn(&Round<'_>) -> Result<Work>>;

/// A workload in a tree.
pub(crate) struct Tree {
    pub(crate) name: String,
    pub(crate) about: String,
    lower: Lower,
    caches: Caches,
    writes: Writes,
    floor: Floor,
    point: Option<Point>,
    rounds_at_most: u32,
    programs: Vec<&'static str>,
    make: Make,
    prepare: Prepare,
    cleanup: Prepare,
    work: Do,
}

impl Tree {
    /// `work` in a fresh mount over `lower`, where it changes nothing.
    pub(crate) fn new(
        name: impl Into<String>,
        about: impl Into<String>,
        lower: Lower,
        work: impl Fn(&Round<'_>) -> Result<Work> + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            about: about.into(),
            lower,
            caches: Caches::Fresh,
            writes: Writes::Nothing,
            floor: Floor::None,
            point: None,
            rounds_at_most: u32::MAX,
            programs: Vec::new(),
            make: Box::new(|_| Ok(())),
            prepare: Box::new(|_| Ok(())),
            cleanup: Box::new(|_| Ok(())),
            work: Box::new(work),
        }
    }

    pub(crate) fn caches(self, caches: Caches) -> Self {
        Self { caches, ..self }
    }

    pub(crate) fn writes(self, writes: Writes) -> Self {
        Self { writes, ..self }
    }

    pub(crate) fn floor(self, floor: f64) -> Self {
        self.floors(floor, floor)
    }

    /// For root, and without.
    pub(crate) fn floors(self, root: f64, rootless: f64) -> Self {
        Self {
            floor: Floor::Of(root, rootless),
            ..self
        }
    }

    pub(crate) fn point(self, point: Point) -> Self {
        Self {
            point: Some(point),
            ..self
        }
    }

    /// For what takes long.
    pub(crate) fn rounds_at_most(self, rounds_at_most: u32) -> Self {
        Self {
            rounds_at_most,
            ..self
        }
    }

    /// Programs that it needs.
    pub(crate) fn programs(self, programs: impl IntoIterator<Item = &'static str>) -> Self {
        Self {
            programs: programs.into_iter().collect(),
            ..self
        }
    }

    /// What it needs beside the tree; called once before all rounds.
    pub(crate) fn make(self, make: impl Fn(&mut Setup) -> Result<()> + 'static) -> Self {
        Self {
            make: Box::new(make),
            ..self
        }
    }

    /// What is done in the mount before the time counts.
    pub(crate) fn prepare(self, prepare: impl Fn(&Round<'_>) -> Result<()> + 'static) -> Self {
        Self {
            prepare: Box::new(prepare),
            ..self
        }
    }

    /// What is done in the mount after.
    pub(crate) fn cleanup(self, cleanup: impl Fn(&Round<'_>) -> Result<()> + 'static) -> Self {
        Self {
            cleanup: Box::new(cleanup),
            ..self
        }
    }

    /// Whether the tree is the image.
    pub(crate) fn needs_image(&self) -> bool {
        self.lower == Lower::Image
    }

    /// Measures it on all drivers of `plan`.
    pub(crate) fn measure(&self, setup: &mut Setup, plan: &Plan) -> Result<Measured> {
        let mut measured = Measured {
            workload: self.name.clone(),
            about: self.about.clone(),
            reference: plan.reference.clone(),
            floor: match (self.floor, plan.rootless) {
                (Floor::None, _) => None,
                (Floor::Of(root, _), false) => Some(root),
                (Floor::Of(_, rootless), true) => Some(rootless),
            },
            point: self.point.clone(),
            rows: Vec::new(),
            left_out: Vec::new(),
        };
        if let Some(why) = self.missing(setup) {
            measured.left_out.push(LeftOut::missing("all", why));
            return Ok(measured);
        }
        let mut drivers: Vec<&Driver> = Vec::new();
        for driver in &plan.drivers {
            match self.missing_on(driver, setup) {
                Some(why) => measured.left_out.push(LeftOut::missing(&driver.name, why)),
                None => drivers.push(driver),
            }
        }
        (self.make)(setup)?;
        let entrants: Vec<Entrant> = drivers
            .iter()
            .map(|driver| Entrant::new(&driver.name, driver.ours()))
            .collect();
        let rounds = Rounds {
            count: plan.rounds.min(self.rounds_at_most),
            warm_up: self.caches != Caches::Cold && self.rounds_at_most == u32::MAX,
        };
        let done = interleave(
            setup,
            &self.name,
            &entrants,
            rounds,
            &plan.reference,
            |setup, n| {
                let driver = drivers.get(n).context("no such driver")?;
                self.once(setup, driver)
            },
        );
        let (rows, left_out) = done?;
        measured.rows = rows;
        measured.left_out.extend(left_out);
        setup.forget(&self.lower)?;
        Ok(measured)
    }

    fn missing(&self, setup: &Setup) -> Option<String> {
        if self.caches == Caches::Cold && setup.who != Who::Root {
            return Some("dropping the kernel's caches needs root of the machine".to_owned());
        }
        self.programs.iter().find_map(|p| program_missing(p))
    }

    fn missing_on(&self, driver: &Driver, setup: &Setup) -> Option<String> {
        if driver.read_only() && self.writes != Writes::Nothing {
            return Some("the workload writes, the mount is read-only".to_owned());
        }
        driver.missing(setup)
    }

    fn once(&self, setup: &mut Setup, driver: &Driver) -> Result<Sample> {
        let stack = setup.stack(&self.lower)?;
        let mounted = driver.mount(setup, &stack, self.writes == Writes::Anywhere)?;
        let round = Round {
            at: mounted.at(),
            setup,
        };
        (self.prepare)(&round)?;
        if let Caches::Warm(times) = self.caches {
            for _ in 0..times {
                (self.work)(&round)?;
            }
        }
        if self.writes != Writes::Nothing || self.caches == Caches::Cold {
            // What was written before is not to be written back while the clock runs.
            nix::unistd::sync();
        }
        if self.caches == Caches::Cold {
            fs::write("/proc/sys/vm/drop_caches", "3").context("cannot drop the caches")?;
        }
        let before = if driver.ours() {
            messages(mounted.at())
        } else {
            BTreeMap::new()
        };
        let start = Instant::now();
        let work = (self.work)(&round)?;
        let seconds = start.elapsed().as_secs_f64();
        let mut sample = Sample {
            seconds: work.seconds.unwrap_or(seconds),
            seen: work.seen,
            ..Sample::default()
        };
        if driver.ours() {
            sample.messages = difference(&before, messages(mounted.at()));
        }
        (self.cleanup)(&round)?;
        if self.writes != Writes::Nothing
            && let Some((space, content)) = mounted.space()?
        {
            sample.extra.insert(extra::SPACE.to_owned(), space as f64);
            if let Some(wrote) = work.wrote {
                let copied = content.saturating_sub(wrote) as f64;
                sample.extra.insert(extra::COPIED_UP.to_owned(), copied);
            }
        }
        mounted.unmount()?;
        Ok(sample)
    }
}

/// What came after `before`. The question itself is among neither.
fn difference(
    before: &BTreeMap<String, u64>,
    after: BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    // The question before is counted by the time of the one after.
    let asked = u64::from(!before.is_empty());
    after
        .into_iter()
        .filter_map(|(name, count)| {
            let asked = if name == "GETXATTR" { asked } else { 0 };
            let came = count
                .saturating_sub(before.get(&name).copied().unwrap_or(0))
                .saturating_sub(asked);
            (came > 0).then_some((name, came))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_the_work_without_the_questions() {
        let counts = |pairs: &[(&str, u64)]| -> BTreeMap<String, u64> {
            pairs.iter().map(|(n, c)| ((*n).to_owned(), *c)).collect()
        };
        let before = counts(&[("READ", 5), ("GETXATTR", 0)]);
        let after = counts(&[("READ", 7), ("GETXATTR", 1), ("LOOKUP", 3)]);
        assert_eq!(
            difference(&before, after),
            counts(&[("READ", 2), ("LOOKUP", 3)])
        );
    }
}
