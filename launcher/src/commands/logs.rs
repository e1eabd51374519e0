//! `pellicle logs`

use std::process::ExitCode;

use clap::Args;

use crate::{CliError, Context};

/// Print a container's output
#[derive(Args, Debug)]
pub struct LogsArgs {}

/// Runs the command.
///
/// # Errors
/// What the command could not do.
pub fn run(_cx: &Context, _args: LogsArgs) -> Result<ExitCode, CliError> {
    Err(CliError::failed("logs is not there yet"))
}
