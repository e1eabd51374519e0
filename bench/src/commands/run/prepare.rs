//! What a run needs before it measures.

use std::{
    env,
    io::{IsTerminal as _, stderr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::RunArgs;
use crate::{
    drivers::{self, Driver, ring},
    setup::{Who, WorkDir, clear_leftovers},
    workloads::{self, Custom, Plan, Workload},
};

/// The run's own directory, after those of runs that were killed; the kernel's switch; what to tell.
pub(super) fn begin(
    args: &RunArgs,
    who: Who,
) -> Result<(WorkDir, Option<ring::SwitchedOn>, Vec<String>)> {
    // The part in a namespace works in a directory of the run's.
    let leftovers = if args.inside {
        Default::default()
    } else {
        clear_leftovers(&args.work)
    };
    let work = WorkDir::make(&args.work)?;
    let mut told = leftovers.told;
    let left_on = leftovers.switched && ring::is_on();
    if who != Who::Root || !(left_on || ring::can_be_switched_on()) {
        return Ok((work, None, told));
    }
    // Noted first: whatever ends this run, the next one knows.
    work.note_switch()?;
    let ring = ring::SwitchedOn::new();
    if ring.is_some() {
        let text = if left_on {
            "FUSE over io_uring was left on by a run that was killed; it is off after this run"
        } else {
            "FUSE over io_uring was off on this machine, and is on for this run"
        };
        told.push(text.to_owned());
    }
    Ok((work, ring, told))
}

/// What is to be measured.
pub(super) fn chosen_workloads(args: &RunArgs) -> Result<Vec<Workload>> {
    let all = workloads::all();
    let mut chosen = if args.all {
        all
    } else {
        workloads::choose(all, &args.workloads)?
    };
    for file in &args.workload {
        chosen.push(Workload::Tree(Box::new(Custom::read(file)?)));
    }
    Ok(chosen)
}

/// What it is to be measured on.
pub(super) fn chosen_drivers(args: &RunArgs) -> Result<Vec<Driver>> {
    let all = drivers::all(&args.fuse_overlayfs)?;
    if !args.driver.is_empty() {
        return drivers::choose(&all, &args.driver, &args.reference);
    }
    let mut words: Vec<String> = drivers::defaults(&all, ring::is_on())
        .into_iter()
        .map(|driver| driver.name)
        .collect();
    words.push(args.reference.clone());
    drivers::choose(&all, &words, &args.reference)
}

/// `given`, or the program beside this one.
pub(super) fn program(given: Option<&Path>, name: &str) -> Result<PathBuf> {
    let path = match given {
        Some(path) => path.to_path_buf(),
        None => env::current_exe()?.with_file_name(name),
    };
    if !path.is_file() {
        bail!(
            "there is no {}: build it (cargo build --release -p {name}), or give --{} FILE",
            path.display(),
            name.trim_start_matches("pellicle-"),
        );
    }
    Ok(path.canonicalize()?)
}

/// Counts rounds of drivers; nothing on a pipe.
pub(super) fn progress(workloads: &[Workload], plan: &Plan) -> ProgressBar {
    let trees = workloads
        .iter()
        .filter(|workload| matches!(workload, Workload::Tree(_)))
        .count();
    let hosts = workloads.len() - trees;
    // Hosts compare two or three programs.
    let steps = (trees * plan.drivers.len() + hosts * 3) * plan.rounds as usize;
    let bar = ProgressBar::new(steps as u64);
    if !stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let template = "{spinner} {elapsed} {wide_bar} {percent} %\n  {wide_msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}
