//! `pellicle stop`: the container's stop signal, and SIGKILL if that does not help.

use std::{
    os::fd::AsFd as _,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;
use pellicle_sys::process::send_signal;

use super::containers;
use crate::{
    CliError, Context,
    container::{
        ContainerError,
        process::ended_by,
        registry::Registry,
        signals,
        state::{State, Status},
    },
    events::{self, Event},
};

/// How long a supervisor gets to record the end of its container: before, it writes what the container
/// wrote to a disk that may be slow and busy.
pub(super) const RECORD_PATIENCE: Duration = Duration::from_secs(120);

/// Stop running containers
///
/// The container's first process gets the image's stop signal (or SIGTERM), and SIGKILL if it is
/// still there when the time is up.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle stop web
  pellicle stop -t 1 $(pellicle ps -q)")]
pub struct StopArgs {
    /// Seconds until SIGKILL [default: the container's --stop-timeout, 10]
    #[arg(
        short = 't',
        long = "time",
        visible_alias = "timeout",
        value_name = "SECONDS"
    )]
    pub time: Option<u32>,
    /// Send this signal instead
    #[arg(short, long)]
    pub signal: Option<String>,
    /// Names or ids of containers
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// The first container that could not be stopped.
pub fn run(cx: &Context, args: StopArgs) -> Result<ExitCode, CliError> {
    let registry = containers::registry(cx)?;
    containers::each(cx, &args.containers, |name| {
        let id = registry.find(name)?;
        let state = State::load(&registry.dir(&id))?;
        let signal = args
            .signal
            .as_deref()
            .unwrap_or(&state.settings.stop_signal);
        let seconds = args.time.unwrap_or(state.settings.stop_timeout);
        stop(&registry, &state, signals::parse(signal)?, seconds)
    })
}

/// Ends the container of `state`, first with `signal`, after `seconds` with SIGKILL. One that does
/// not run is left as it is.
///
/// # Errors
/// If its supervisor does not record the end.
pub(super) fn stop(
    registry: &Registry,
    state: &State,
    signal: i32,
    seconds: u32,
) -> Result<(), ContainerError> {
    if state.status != Status::Running {
        return Ok(());
    }
    let watch = registry.watch(&state.id)?;
    if let Some(pidfd) = state.process.as_ref().and_then(|p| p.open()) {
        // Before its end is told of.
        let event = Event::container("kill", state).with("signal", signal.to_string());
        events::note(registry.root(), &[event]);
        // It may end by itself at any moment, which is what is wanted.
        let _ = send_signal(pidfd.as_fd(), signal);
        let deadline = Instant::now() + Duration::from_secs(u64::from(seconds));
        if signal != libc::SIGKILL && !ended_by(&pidfd, deadline) {
            let _ = send_signal(pidfd.as_fd(), libc::SIGKILL);
        }
    }
    if watch.wait_until(Instant::now() + RECORD_PATIENCE) {
        events::note(registry.root(), &[Event::container("stop", state)]);
        Ok(())
    } else {
        Err(ContainerError::Busy(state.name.clone()))
    }
}
