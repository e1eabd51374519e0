//! `pellicle import`

use std::process::ExitCode;

use clap::Args;

use crate::{CliError, Context};

/// Make an image of a tar archive or a directory
#[derive(Args, Debug)]
pub struct ImportArgs {}

/// Runs the command.
///
/// # Errors
/// What the command could not do.
pub fn run(_cx: &Context, _args: ImportArgs) -> Result<ExitCode, CliError> {
    Err(CliError::failed("import is not there yet"))
}
