//! `pellicle diff`

use std::process::ExitCode;

use clap::Args;

use crate::{CliError, Context};

/// List what a container changed
#[derive(Args, Debug)]
pub struct DiffArgs {}

/// Runs the command.
///
/// # Errors
/// What the command could not do.
pub fn run(_cx: &Context, _args: DiffArgs) -> Result<ExitCode, CliError> {
    Err(CliError::failed("diff is not there yet"))
}
