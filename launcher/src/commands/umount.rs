//! `pellicle umount`

use std::process::ExitCode;

use clap::Args;

use crate::{CliError, Context};

/// Unmount what `mount` mounted
#[derive(Args, Debug)]
pub struct UmountArgs {}

/// Runs the command.
///
/// # Errors
/// What the command could not do.
pub fn run(_cx: &Context, _args: UmountArgs) -> Result<ExitCode, CliError> {
    Err(CliError::failed("umount is not there yet"))
}
