//! `pellicle rm`: containers with everything they wrote.

use std::process::ExitCode;

use clap::Args;

use super::{containers, stop};
use crate::{
    CliError, Context,
    container::{ContainerError, registry::Registry, state::State},
    events::{self, Event},
};

/// Remove containers
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle rm web
  pellicle rm -f $(pellicle ps -aq)")]
pub struct RmArgs {
    /// Also running ones, which are killed, and damaged ones
    #[arg(short, long)]
    pub force: bool,
    /// Accepted for docker's sake: there are no anonymous volumes
    #[arg(short, long, hide = true)]
    pub volumes: bool,
    /// Names or ids of containers
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// The first container that could not be removed.
pub fn run(cx: &Context, args: RmArgs) -> Result<ExitCode, CliError> {
    let registry = containers::registry(cx)?;
    registry.sweep();
    containers::each(cx, &args.containers, |name| {
        match remove(&registry, name, args.force) {
            // As docker: what is forced away may be gone already.
            Err(ContainerError::NotFound(_)) if args.force => Ok(()),
            other => other,
        }
    })
}

pub(super) fn remove(registry: &Registry, name: &str, force: bool) -> Result<(), ContainerError> {
    let id = registry.find(name)?;
    let state = State::load(&registry.dir(&id));
    if force && let Ok(state) = &state {
        stop::stop(registry, state, libc::SIGKILL, 0)?;
    }
    if force && let Some(removed) = registry.remove_stray(&id) {
        return removed;
    }
    // With --rm its supervisor removed it just now.
    let held = match registry.hold(&id) {
        Err(ContainerError::NotFound(_)) if force => return Ok(()),
        other => other?,
    };
    match state {
        Ok(state) => {
            registry.remove(held, &id, Some(&state.name), None)?;
            events::note(registry.root(), &[Event::container("destroy", &state)]);
            Ok(())
        }
        Err(ContainerError::Damaged { .. } | ContainerError::File { .. }) if force => {
            registry.remove(held, &id, None, None)
        }
        Err(e) => Err(e),
    }
}
