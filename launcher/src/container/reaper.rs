//! `--init`: a process of ours stays as the container's first one, passes signals on and reaps what
//! others leave behind. Nothing of the image is needed for it, and nothing is executed.

use std::os::fd::AsFd as _;

use nix::{
    sys::{
        signal::{SigSet, Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use pellicle_sys::process::{Forked, Kinship, close_all_and_run, fork};

use super::{
    channel::{Channel, Message},
    step::{Doing, Failed},
};

/// Returns in a new process, which is to become the command; this one stays and reaps.
pub(super) fn fork_below(channel: &Channel) -> Result<(), Failed> {
    // Blocked, so that they are kept for us: the first process of a pid namespace is not sent what
    // it has no handler for.
    SigSet::all().thread_block().doing("block signals")?;
    match fork(0, Kinship::Child).doing("make a process below the init process")? {
        Forked::Child => {
            pellicle_sys::process::reset_signals();
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
                .doing("ask for the death signal")?;
            Ok(())
        }
        Forked::Parent { pid, pidfd } => {
            // `exec` joins the command, not this process, which nobody may look into.
            channel
                .send(&Message::Joined, Some(pidfd.as_fd()))
                .doing("tell the supervisor of the command's process")?;
            let _ = rustix::thread::set_name(c"pellicle-init");
            let pid = Pid::from_raw(pid.as_raw_nonzero().get());
            // All of them: this process's streams are the host's, and the channel must close with
            // the command's end of it.
            close_all_and_run(0, || reap(pid))
        }
    }
}

fn reap(main: Pid) -> i32 {
    let all = SigSet::all();
    loop {
        match all.wait() {
            Ok(Signal::SIGCHLD) => {
                if let Some(code) = collect(main) {
                    return code;
                }
            }
            // Fails only if it is gone, which SIGCHLD tells too.
            Ok(signal) => drop(kill(main, signal)),
            // A real-time signal, which nix has no name for; they are not passed on.
            Err(_) => {}
        }
    }
}

/// Reaps all there is; the exit code once `main` is among it.
fn collect(main: Pid) -> Option<i32> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == main => return Some(code),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == main => {
                return Some(128 + signal as i32);
            }
            Ok(WaitStatus::StillAlive) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}
