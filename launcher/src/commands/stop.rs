//! `pellicle stop`

use std::process::ExitCode;

use clap::Args;

use crate::{CliError, Context};

/// Stop running containers
#[derive(Args, Debug)]
pub struct StopArgs {}

/// Runs the command.
///
/// # Errors
/// What the command could not do.
pub fn run(_cx: &Context, _args: StopArgs) -> Result<ExitCode, CliError> {
    Err(CliError::failed("stop is not there yet"))
}
