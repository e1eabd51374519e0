//! `pellicle wait`

use std::process::ExitCode;

use clap::Args;

use crate::{CliError, Context};

/// Wait until containers stop, and print their exit codes
#[derive(Args, Debug)]
pub struct WaitArgs {}

/// Runs the command.
///
/// # Errors
/// What the command could not do.
pub fn run(_cx: &Context, _args: WaitArgs) -> Result<ExitCode, CliError> {
    Err(CliError::failed("wait is not there yet"))
}
