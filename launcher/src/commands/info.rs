//! `pellicle info`

use std::process::ExitCode;

use clap::Args;

use crate::{CliError, Context};

/// Tell versions, what the host offers, and where the store is
#[derive(Args, Debug)]
pub struct InfoArgs {}

/// Runs the command.
///
/// # Errors
/// What the command could not do.
pub fn run(_cx: &Context, _args: InfoArgs) -> Result<ExitCode, CliError> {
    Err(CliError::failed("info is not there yet"))
}
