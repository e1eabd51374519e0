//! `pellicle inspect`

use std::process::ExitCode;

use clap::Args;

use crate::{CliError, Context};

/// Tell everything about an image, as JSON
#[derive(Args, Debug)]
pub struct InspectArgs {}

/// Runs the command.
///
/// # Errors
/// What the command could not do.
pub fn run(_cx: &Context, _args: InspectArgs) -> Result<ExitCode, CliError> {
    Err(CliError::failed("inspect is not there yet"))
}
