//! `pellicle wait`: until containers stop.

use std::process::ExitCode;

use clap::Args;

use super::containers;
use crate::{
    CliError, Context,
    container::{
        ContainerError,
        registry::Registry,
        state::{State, Status},
    },
};

/// Wait until containers stop, and print their exit codes
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle wait web")]
pub struct WaitArgs {
    /// Names or ids of containers
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// The first container that does not exist.
pub fn run(cx: &Context, args: WaitArgs) -> Result<ExitCode, CliError> {
    let registry = containers::registry(cx)?;
    for name in &args.containers {
        cx.out.line(wait(&registry, &registry.find(name)?)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn wait(registry: &Registry, id: &str) -> Result<i32, ContainerError> {
    let dir = registry.dir(id);
    let watch = registry.watch(id)?;
    if let Ok(state) = State::load(&dir)
        && state.status == Status::Exited
    {
        return Ok(state.exit_code.unwrap_or(0));
    }
    let left = watch.wait()?;
    // Nothing left: its supervisor was killed. What was killed with it ended so.
    Ok(left
        .or_else(|| State::load(&dir).ok()?.exit_code)
        .unwrap_or(137))
}
