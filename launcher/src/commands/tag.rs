//! `pellicle tag`

use std::process::ExitCode;

use clap::Args;

use crate::{CliError, Context};

/// Give an image another name
#[derive(Args, Debug)]
pub struct TagArgs {}

/// Runs the command.
///
/// # Errors
/// What the command could not do.
pub fn run(_cx: &Context, _args: TagArgs) -> Result<ExitCode, CliError> {
    Err(CliError::failed("tag is not there yet"))
}
