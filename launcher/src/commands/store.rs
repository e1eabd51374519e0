//! `pellicle store`

use std::process::ExitCode;

use clap::Args;

use crate::{CliError, Context};

/// Look after the store: verify, collect, sizes
#[derive(Args, Debug)]
pub struct StoreArgs {}

/// Runs the command.
///
/// # Errors
/// What the command could not do.
pub fn run(_cx: &Context, _args: StoreArgs) -> Result<ExitCode, CliError> {
    Err(CliError::failed("store is not there yet"))
}
