//! `pellicle start`

use std::process::ExitCode;

use clap::Args;

use crate::{CliError, Context};

/// Start stopped containers
#[derive(Args, Debug)]
pub struct StartArgs {}

/// Runs the command.
///
/// # Errors
/// What the command could not do.
pub fn run(_cx: &Context, _args: StartArgs) -> Result<ExitCode, CliError> {
    Err(CliError::failed("start is not there yet"))
}
