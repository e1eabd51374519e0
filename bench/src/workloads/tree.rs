//! Walking and reading the image through each driver.
//!
//! What the drivers stand on (the unpacked layers, the store) is in the page cache before the first
//! round, and a fresh mount is a new mount over it: so each starts with nothing of its own cached
//! and everything beneath it warm.

use std::time::Instant;

use anyhow::{Result, bail};
use indicatif::ProgressBar;

use super::{Workload, turned};
use crate::{
    drivers::Driver,
    report::Measured,
    setup::Setup,
    stats::sample,
    tree::{Seen, read_all, walk},
};

pub(super) fn measure(
    workload: Workload,
    titles: (&'static str, &'static str),
    setup: &mut Setup,
    rounds: u32,
    bar: &ProgressBar,
) -> Result<Measured> {
    let (drivers, left_out) = Driver::all(setup)?;
    let mut first: Option<Seen> = None;
    // Warms what lies beneath, and checks that all drivers show the same tree.
    for driver in &drivers {
        bar.set_message(format!("{}: warming {}", titles.0, driver.name()));
        let mounted = driver.mount(setup)?;
        let seen = read_all(mounted.at())?;
        mounted.unmount()?;
        match first {
            Some(before) if before != seen => bail!(
                "{} shows {seen:?}, the driver before it {before:?}",
                driver.name()
            ),
            _ => first = Some(seen),
        }
    }
    let mut samples: Vec<(String, Vec<f64>)> = drivers
        .iter()
        .map(|d| (d.name().to_owned(), Vec::new()))
        .collect();
    for round in 0..rounds {
        for n in turned(drivers.len(), round) {
            let (Some(driver), Some((_, taken))) = (drivers.get(n), samples.get_mut(n)) else {
                continue;
            };
            bar.set_message(format!(
                "{}: round {} of {rounds}, {}",
                titles.0,
                round + 1,
                driver.name()
            ));
            let mounted = driver.mount(setup)?;
            match workload {
                Workload::WalkWarm => _ = walk(mounted.at())?,
                Workload::ReadWarm => _ = read_all(mounted.at())?,
                _ => {}
            }
            let start = Instant::now();
            if workload == Workload::ReadWarm {
                read_all(mounted.at())?;
            } else {
                walk(mounted.at())?;
            }
            taken.push(sample(start.elapsed()));
            mounted.unmount()?;
        }
    }
    let target = match workload {
        Workload::WalkFresh => 2.5,
        Workload::ReadWarm => 1.3,
        _ => 1.0,
    };
    let mut measured = Measured::new(titles, samples, "kernel overlayfs", target);
    measured.left_out = left_out;
    Ok(measured)
}
