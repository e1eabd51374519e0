//! `pellicle-bench list`.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;

use crate::{drivers, workloads};

/// List the workloads and drivers
#[derive(Args)]
#[command(after_help = "Examples:
  pellicle-bench list
  pellicle-bench list --fuse-overlayfs .cache/cargo/bin/fuse-overlayfs")]
pub(crate) struct ListArgs {
    /// A fuse-overlayfs beside the one on the path
    #[arg(long, value_name = "FILE")]
    fuse_overlayfs: Vec<PathBuf>,
}

/// Prints them.
pub(crate) fn run(args: &ListArgs) -> Result<ExitCode> {
    let mut text = "WORKLOADS\n".to_owned();
    for workload in workloads::all() {
        let _ = writeln!(text, "  {:18} {}", workload.name(), workload.about());
    }
    text.push_str("\nDRIVERS\n");
    for driver in drivers::all(&args.fuse_overlayfs)? {
        let _ = writeln!(text, "  {}", driver.name);
    }
    super::show(&text)?;
    Ok(ExitCode::SUCCESS)
}
