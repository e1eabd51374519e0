//! `pellicle images`

use std::process::ExitCode;

use clap::Args;

use crate::{CliError, Context};

/// List images
#[derive(Args, Debug)]
pub struct ImagesArgs {}

/// Runs the command.
///
/// # Errors
/// What the command could not do.
pub fn run(_cx: &Context, _args: ImagesArgs) -> Result<ExitCode, CliError> {
    Err(CliError::failed("images is not there yet"))
}
