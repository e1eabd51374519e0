//! `pellicle rm`

use std::process::ExitCode;

use clap::Args;

use crate::{CliError, Context};

/// Remove containers
#[derive(Args, Debug)]
pub struct RmArgs {}

/// Runs the command.
///
/// # Errors
/// What the command could not do.
pub fn run(_cx: &Context, _args: RmArgs) -> Result<ExitCode, CliError> {
    Err(CliError::failed("rm is not there yet"))
}
