//! `pellicle rmi`

use std::process::ExitCode;

use clap::Args;

use crate::{CliError, Context};

/// Remove images
#[derive(Args, Debug)]
pub struct RmiArgs {}

/// Runs the command.
///
/// # Errors
/// What the command could not do.
pub fn run(_cx: &Context, _args: RmiArgs) -> Result<ExitCode, CliError> {
    Err(CliError::failed("rmi is not there yet"))
}
