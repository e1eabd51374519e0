//! What is measured.

mod import;
mod launch;
mod mount_size;
mod tree;

use anyhow::Result;
use clap::ValueEnum;
use indicatif::ProgressBar;

use crate::{report::Measured, setup::Setup};

/// A workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// First walk of a fresh mount
    WalkFresh,
    /// Walk again
    WalkWarm,
    /// Read everything again
    ReadWarm,
    /// Start a container
    RunTrue,
    /// Mount a large image
    MountSize,
    /// Import a large layer
    Import,
}

impl Workload {
    /// As it is named on the command line.
    pub(crate) fn name(self) -> &'static str {
        self.titles().0
    }

    /// What it measures, in a line.
    pub(crate) fn about(self) -> &'static str {
        self.titles().1
    }

    /// Name and line.
    fn titles(self) -> (&'static str, &'static str) {
        match self {
            Workload::WalkFresh => (
                "walk-fresh",
                "readdir and lstat of everything in a fresh mount of the image",
            ),
            Workload::WalkWarm => ("walk-warm", "the same again in the same mount"),
            Workload::ReadWarm => (
                "read-warm",
                "open, read and close every file, for the second time in the mount",
            ),
            Workload::RunTrue => (
                "run-true",
                "`run --rm IMAGE /bin/true` rootless, against bubblewrap on the same root",
            ),
            Workload::MountSize => (
                "mount-size",
                "mounting an image of 1,000,000 entries, against one of 1,000",
            ),
            Workload::Import => (
                "import",
                "importing a gzip layer of 500 MB, against `gzip -dc | sha256sum`",
            ),
        }
    }

    /// Measures it.
    pub(crate) fn measure(
        self,
        setup: &mut Setup,
        rounds: u32,
        bar: &ProgressBar,
    ) -> Result<Measured> {
        match self {
            Workload::WalkFresh | Workload::WalkWarm | Workload::ReadWarm => {
                tree::measure(self, self.titles(), setup, rounds, bar)
            }
            Workload::RunTrue => launch::measure(self.titles(), setup, rounds, bar),
            Workload::MountSize => mount_size::measure(self.titles(), setup, rounds, bar),
            Workload::Import => import::measure(self.titles(), setup, rounds, bar),
        }
    }
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
}
