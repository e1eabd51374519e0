//! Clearing up after supervisors that died without doing so themselves.

use std::time::{Duration, Instant};

use super::{
    names,
    process::ended_by,
    registry::{Held, Registry},
    state::{State, Status, now},
};
use crate::events::{self, Event};

/// How long a killed process gets to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// Finds containers whose supervisor died, ends what is left of them, and records it. One sentence
/// for each, to be told to the person.
#[must_use]
pub fn reconcile(registry: &Registry) -> Vec<String> {
    let marked = registry.marked().unwrap_or_default();
    marked
        .iter()
        .filter_map(|id| {
            let held = registry.hold_orphan(id)?;
            recover(registry, held, id)
        })
        .collect()
}

fn recover(registry: &Registry, held: Held, id: &str) -> Option<String> {
    let short = names::short(id);
    let mut state = match State::load(&held.dir) {
        Ok(state) => state,
        Err(e) => {
            // Whether something still runs is not known any more; `rm --force` removes it.
            registry.release(held, id, 137);
            return Some(format!("container {short}: {e}"));
        }
    };
    let was = state.status;
    let name = state.name.clone();
    end(&state);
    let cgroup_gone = state.cgroup.remove();
    let mut said = match was {
        Status::Running => {
            format!("container {name} ({short}) lost its supervisor: ended what was left of it")
        }
        Status::Created => format!("container {name} ({short}) was never started: its maker died"),
        // It died between recording the end and saying so.
        Status::Exited => String::new(),
    };
    if !cgroup_gone {
        said.push_str("; its cgroup could not be removed");
    }
    let code = state
        .exit_code
        .filter(|_| was == Status::Exited)
        .unwrap_or(137);
    let died = Event::container("die", &state).with("exitCode", code.to_string());
    let died = (was == Status::Running).then_some(died);
    if state.settings.auto_remove || was == Status::Created {
        if let Err(e) = registry.remove(held, id, Some(&name), Some(code)) {
            return Some(format!("{said}; it could not be removed: {e}"));
        }
        let gone = died.is_some().then(|| Event::container("destroy", &state));
        events::note(
            registry.root(),
            &died.into_iter().chain(gone).collect::<Vec<_>>(),
        );
        if !said.is_empty() {
            said.push_str(", and removed it");
        }
    } else {
        if was == Status::Running {
            state.status = Status::Exited;
            state.exit_code = Some(code);
            state.finished = Some(now());
            state.error = Some("its supervisor died".to_owned());
        }
        state.process = None;
        state.command_process = None;
        state.cgroup = super::cgroup::Cgroup::default();
        if let Err(e) = state.save(&held.dir) {
            return Some(format!("{said}; {e}"));
        }
        events::note(registry.root(), &died.into_iter().collect::<Vec<_>>());
        registry.release(held, id, code);
    }
    (!said.is_empty()).then_some(said)
}

/// Kills the first process, if it is still there, and waits for the end of it.
fn end(state: &State) {
    let Some(pidfd) = state.process.as_ref().and_then(|p| p.open()) else {
        return;
    };
    use std::os::fd::AsFd as _;
    let _ = pellicle_sys::process::send_signal(pidfd.as_fd(), libc::SIGKILL);
    let _ = ended_by(&pidfd, Instant::now() + PATIENCE);
}
