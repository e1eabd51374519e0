//! `pellicle exec`

use std::process::ExitCode;

use clap::Args;

use crate::{CliError, Context};

/// Run a command in a running container
#[derive(Args, Debug)]
pub struct ExecArgs {}

/// Runs the command.
///
/// # Errors
/// What the command could not do.
pub fn run(_cx: &Context, _args: ExecArgs) -> Result<ExitCode, CliError> {
    Err(CliError::failed("exec is not there yet"))
}
