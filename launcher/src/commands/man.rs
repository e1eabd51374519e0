//! `pellicle man`

use std::process::ExitCode;

use clap::Args;

use crate::{CliError, Context};

/// Write the manual pages
#[derive(Args, Debug)]
pub struct ManArgs {}

/// Runs the command.
///
/// # Errors
/// What the command could not do.
pub fn run(_cx: &Context, _args: ManArgs) -> Result<ExitCode, CliError> {
    Err(CliError::failed("man is not there yet"))
}
