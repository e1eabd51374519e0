//! `pellicle ps`

use std::process::ExitCode;

use clap::Args;

use crate::{CliError, Context};

/// List containers
#[derive(Args, Debug)]
pub struct PsArgs {}

/// Runs the command.
///
/// # Errors
/// What the command could not do.
pub fn run(_cx: &Context, _args: PsArgs) -> Result<ExitCode, CliError> {
    Err(CliError::failed("ps is not there yet"))
}
