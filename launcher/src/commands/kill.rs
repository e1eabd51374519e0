//! `pellicle kill`

use std::process::ExitCode;

use clap::Args;

use crate::{CliError, Context};

/// Send a signal to running containers
#[derive(Args, Debug)]
pub struct KillArgs {}

/// Runs the command.
///
/// # Errors
/// What the command could not do.
pub fn run(_cx: &Context, _args: KillArgs) -> Result<ExitCode, CliError> {
    Err(CliError::failed("kill is not there yet"))
}
