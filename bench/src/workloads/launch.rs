//! Starting a container that does nothing, without root, beside bubblewrap on the same root.

use std::{
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::Result;
use indicatif::ProgressBar;

use super::turned;
use crate::{
    report::Measured,
    setup::{Setup, succeed},
    stats::{median, sample},
};

/// Starts per round; the round's sample is their median.
const STARTS: u32 = 15;

pub(super) fn measure(
    titles: (&'static str, &'static str),
    setup: &mut Setup,
    rounds: u32,
    bar: &ProgressBar,
) -> Result<Measured> {
    let image = setup.import("user-store", true)?;
    let mut names = vec!["pellicle"];
    let mut left_out = Vec::new();
    let rootfs = if nix::unistd::geteuid().is_root() {
        names.push("bubblewrap");
        Some(setup.merged()?)
    } else {
        left_out.push("the unpacked root for bubblewrap is made by root only".to_owned());
        None
    };
    let command = |name: &str| -> Result<Command> {
        let mut command = match (&rootfs, name) {
            (Some(rootfs), "bubblewrap") => {
                let mut command = Command::new("bwrap");
                command
                    .args(["--unshare-all", "--bind"])
                    .arg(rootfs)
                    .args(["/", "true"])
                    .stdin(Stdio::null());
                command
            }
            _ => {
                let mut command = setup.pellicle("user-store");
                command.args(["run", "--rm", image, "/bin/true"]);
                command
            }
        };
        setup.as_user(&mut command)?;
        Ok(command)
    };
    let mut samples: Vec<(String, Vec<f64>)> = names
        .iter()
        .map(|n| ((*n).to_owned(), Vec::new()))
        .collect();
    for name in &names {
        succeed(&mut command(name)?)?;
    }
    for round in 0..rounds {
        for n in turned(names.len(), round) {
            let (Some(name), Some((_, taken))) = (names.get(n), samples.get_mut(n)) else {
                continue;
            };
            bar.set_message(format!(
                "{}: round {} of {rounds}, {name}",
                titles.0,
                round + 1
            ));
            let mut times = Vec::new();
            for _ in 0..STARTS {
                let mut command = command(name)?;
                let start = Instant::now();
                succeed(&mut command)?;
                times.push(sample(start.elapsed()));
            }
            times.sort_by(f64::total_cmp);
            taken.extend(median(&times));
        }
    }
    let mut measured = Measured::new(titles, samples, "bubblewrap", 3.0);
    measured.left_out = left_out;
    Ok(measured)
}
