//! `pellicle run`

use std::process::ExitCode;

use clap::Args;

use crate::{CliError, Context};

/// Run a command in a new container
#[derive(Args, Debug)]
pub struct RunArgs {}

/// Runs the command.
///
/// # Errors
/// What the command could not do.
pub fn run(_cx: &Context, _args: RunArgs) -> Result<ExitCode, CliError> {
    Err(CliError::failed("run is not there yet"))
}
