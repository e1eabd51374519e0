//! `pellicle-bench compare`.

use std::{
    io::{IsTerminal as _, stdout},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Result;
use clap::Args;

use crate::{model::Report, table};

/// Compare two results
///
/// For every workload and driver that both have: the times of the second to the first, and how the
/// ratio to the reference changed, which says more where machines or their load differ.
#[derive(Args)]
#[command(after_help = "Examples:
  pellicle-bench compare before.json after.json
  pellicle-bench compare before.json after.json --driver pellicle-ring")]
pub(crate) struct CompareArgs {
    /// The first
    #[arg(value_name = "BEFORE.json")]
    before: PathBuf,
    /// The second
    #[arg(value_name = "AFTER.json")]
    after: PathBuf,
    /// Only this driver
    #[arg(short, long, value_name = "DRIVER")]
    driver: Option<String>,
}

/// Prints it.
pub(crate) fn run(args: &CompareArgs) -> Result<ExitCode> {
    let (before, after) = (Report::read(&args.before)?, Report::read(&args.after)?);
    let text = table::compare(
        &before,
        &after,
        args.driver.as_deref(),
        stdout().is_terminal(),
    );
    super::show(&text)?;
    Ok(ExitCode::SUCCESS)
}
