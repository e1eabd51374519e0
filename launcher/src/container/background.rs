//! `-d`: the supervisor goes on in a session of its own, and the command returns once the container
//! runs.
//!
//! Until then the supervisor keeps the caller's standard error, on which it says what went wrong,
//! and the caller waits; if the caller dies first, nobody would know of the container, so that it is
//! given up.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use pellicle_sys::process::{Forked, Kinship, fork};
use rustix::{
    fs::{Mode, OFlags, open},
    pipe::{PipeFlags, pipe_with},
    process::{WaitId, WaitIdOptions, waitid},
    stdio::{dup2_stderr, dup2_stdin, dup2_stdout},
};

use super::ContainerError;

/// Which of the two processes this is.
#[derive(Debug)]
pub enum Side {
    /// The caller: the container runs.
    Started,
    /// The caller: it does not, and the other side has said why; the exit code.
    Failed(u8),
    /// The supervisor.
    Supervisor(Ready),
}

/// How the supervisor tells that the container runs.
#[derive(Debug)]
pub struct Ready(OwnedFd);

/// Forks the supervisor; returns in both processes.
///
/// # Errors
/// The kernel's.
pub fn split() -> Result<Side, ContainerError> {
    let prepare = ContainerError::host::<io::Error>;
    let (read, write) =
        pipe_with(PipeFlags::CLOEXEC).map_err(|e| prepare("make a pipe")(e.into()))?;
    match fork(0, Kinship::Child).map_err(prepare("go to the background"))? {
        Forked::Child => {
            drop(read);
            leave_session().map_err(prepare("go to the background"))?;
            Ok(Side::Supervisor(Ready(write)))
        }
        Forked::Parent { pidfd, .. } => {
            drop(write);
            let mut byte = [0];
            if rustix::io::retry_on_intr(|| rustix::io::read(&read, &mut byte)) == Ok(1) {
                return Ok(Side::Started);
            }
            let status = rustix::io::retry_on_intr(|| {
                waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)
            });
            let status = status.map_err(ContainerError::host("wait for the supervisor"))?;
            let code = status.as_ref().and_then(|s| s.exit_status());
            match code.and_then(|c| u8::try_from(c).ok()).filter(|c| *c != 0) {
                Some(code) => Ok(Side::Failed(code)),
                // It could not say anything.
                None => Err(unheard(status.and_then(|s| s.terminating_signal()))),
            }
        }
    }
}

fn unheard(signal: Option<i32>) -> ContainerError {
    let by = signal.and_then(|n| nix::sys::signal::Signal::try_from(n).ok());
    ContainerError::Child {
        message: match by {
            Some(by) => {
                format!("the container's supervisor was killed by {by} before the command ran")
            }
            None => "the container's supervisor ended before the command ran".to_owned(),
        },
        next: Some(
            "`dmesg` tells whether memory ran out; without -d there is no second process"
                .to_owned(),
        ),
        code: 125,
    }
}

fn leave_session() -> io::Result<()> {
    rustix::process::setsid()?;
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    // No directory is kept busy.
    rustix::process::chdir("/")?;
    Ok(())
}

impl Ready {
    /// Lets the caller go on.
    ///
    /// # Errors
    /// `EPIPE` if it is gone.
    pub fn tell(self) -> io::Result<()> {
        rustix::io::write(&self.0, b"R")?;
        let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        dup2_stderr(&null)?;
        Ok(())
    }
}
