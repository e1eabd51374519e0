//! `pellicle version`

use std::process::ExitCode;

use clap::Args;

use crate::{CliError, Context};

/// Print the version
#[derive(Args, Debug)]
pub struct VersionArgs {}

/// Runs the command.
///
/// # Errors
/// What the command could not do.
pub fn run(_cx: &Context, _args: VersionArgs) -> Result<ExitCode, CliError> {
    Err(CliError::failed("version is not there yet"))
}
