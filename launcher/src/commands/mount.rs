//! `pellicle mount`

use std::process::ExitCode;

use clap::Args;

use crate::{CliError, Context};

/// Mount an image, a layer or an archive, read-only
#[derive(Args, Debug)]
pub struct MountArgs {}

/// Runs the command.
///
/// # Errors
/// What the command could not do.
pub fn run(_cx: &Context, _args: MountArgs) -> Result<ExitCode, CliError> {
    Err(CliError::failed("mount is not there yet"))
}
