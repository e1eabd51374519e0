//! `pellicle history`

use std::process::ExitCode;

use clap::Args;

use crate::{CliError, Context};

/// Show how an image was made
#[derive(Args, Debug)]
pub struct HistoryArgs {}

/// Runs the command.
///
/// # Errors
/// What the command could not do.
pub fn run(_cx: &Context, _args: HistoryArgs) -> Result<ExitCode, CliError> {
    Err(CliError::failed("history is not there yet"))
}
