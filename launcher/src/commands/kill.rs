//! `pellicle kill`: a signal to the container's first process.

use std::{os::fd::AsFd as _, process::ExitCode, time::Instant};

use clap::Args;
use pellicle_sys::process::send_signal;

use super::{containers, stop};
use crate::{
    CliError, Context,
    container::{
        ContainerError, signals,
        state::{State, Status},
    },
    events::{self, Event},
};

/// Send a signal to running containers
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle kill web
  pellicle kill -s HUP web")]
pub struct KillArgs {
    /// The signal, by name or number
    #[arg(short, long, default_value = "KILL")]
    pub signal: String,
    /// Names or ids of containers
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// The first container that does not run.
pub fn run(cx: &Context, args: KillArgs) -> Result<ExitCode, CliError> {
    let registry = containers::registry(cx)?;
    let signal = signals::parse(&args.signal)?;
    containers::each(cx, &args.containers, |name| {
        let id = registry.find(name)?;
        let state = State::load(&registry.dir(&id))?;
        let not_running = || ContainerError::NotRunning(name.to_owned());
        if state.status != Status::Running {
            return Err(not_running());
        }
        let watch = registry.watch(&id)?;
        let pidfd = state
            .process
            .as_ref()
            .and_then(|p| p.open())
            .ok_or_else(not_running)?;
        // Before its end is told of.
        let event = Event::container("kill", &state).with("signal", signal.to_string());
        events::note(registry.root(), &[event]);
        send_signal(pidfd.as_fd(), signal).map_err(|source| ContainerError::Host {
            doing: format!("send a signal to {name}"),
            source,
        })?;
        if signal == libc::SIGKILL {
            // What follows in a script finds it stopped.
            let _ = watch.wait_until(Instant::now() + stop::RECORD_PATIENCE);
        }
        Ok(())
    })
}
