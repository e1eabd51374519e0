//! `pellicle load`

use std::process::ExitCode;

use clap::Args;

use crate::{CliError, Context};

/// Load images from an OCI layout or a docker-archive
#[derive(Args, Debug)]
pub struct LoadArgs {}

/// Runs the command.
///
/// # Errors
/// What the command could not do.
pub fn run(_cx: &Context, _args: LoadArgs) -> Result<ExitCode, CliError> {
    Err(CliError::failed("load is not there yet"))
}
