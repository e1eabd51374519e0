//! `pellicle completion`

use std::process::ExitCode;

use clap::Args;

use crate::{CliError, Context};

/// Print a completion script for a shell
#[derive(Args, Debug)]
pub struct CompletionArgs {}

/// Runs the command.
///
/// # Errors
/// What the command could not do.
pub fn run(_cx: &Context, _args: CompletionArgs) -> Result<ExitCode, CliError> {
    Err(CliError::failed("completion is not there yet"))
}
