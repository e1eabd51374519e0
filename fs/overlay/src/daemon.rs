//! Going on in the background, once there is something to use.
//!
//! The process that was started forks before anything is opened, while it has one thread, and
//! waits. The child opens, mounts and serves; what it has to say until then goes to the standard
//! error that both have. When the mount answers it lets go of the terminal and of the caller's
//! directory and tells the parent, which ends with 0; if it ends before, the parent ends as it did.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::{AsFd as _, OwnedFd},
    process::ExitCode,
};

use pellicle_sys::process::{Forked, Kinship, exit_now, fork};
use rustix::{
    pipe::PipeFlags,
    process::{WaitId, WaitIdOptions},
};

use crate::error::OverlayError;

/// How to say that the mount answers.
#[derive(Debug)]
pub(crate) struct Ready(Option<OwnedFd>);

impl Ready {
    /// For a process that stays in the foreground: nobody waits.
    pub(crate) fn foreground() -> Self {
        Self(None)
    }

    /// The mount answers. In the background, whoever waits for that is told, and nothing of theirs
    /// is held any longer: a caller may be waiting for the end of our standard error.
    ///
    /// # Errors
    /// If there is no `/dev/null`, or it cannot be told.
    pub(crate) fn tell(self) -> Result<(), OverlayError> {
        let Some(pipe) = self.0 else {
            return Ok(());
        };
        let fail = OverlayError::process::<std::io::Error>("go into the background");
        let leave = || {
            std::env::set_current_dir("/")?;
            let null = File::options().read(true).write(true).open("/dev/null")?;
            rustix::stdio::dup2_stdin(&null)?;
            rustix::stdio::dup2_stdout(&null)?;
            rustix::stdio::dup2_stderr(&null)?;
            File::from(pipe).write_all(b"!")
        };
        leave().map_err(fail)
    }
}

/// Runs `work` in a process of its own, and returns when that is ready, or has ended.
///
/// # Errors
/// If no process can be made.
pub(crate) fn in_background(work: impl FnOnce(Ready) -> u8) -> Result<ExitCode, OverlayError> {
    let fail = |source: std::io::Error| {
        OverlayError::process("start the process that serves the mount")(source)
    };
    let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| fail(e.into()))?;
    match fork(0, Kinship::Child).map_err(fail)? {
        Forked::Child => {
            drop(ours);
            // Signals of the terminal are not for us from now on. It cannot fail: a forked child
            // leads no group.
            let _ = rustix::process::setsid();
            exit_now(i32::from(work(Ready(Some(theirs)))))
        }
        Forked::Parent { pidfd, .. } => {
            drop(theirs);
            let mut told = Vec::new();
            File::from(ours).read_to_end(&mut told).map_err(fail)?;
            if !told.is_empty() {
                return Ok(ExitCode::SUCCESS);
            }
            let ended =
                rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)
                    .map_err(|e| fail(e.into()))?;
            let code = ended.and_then(|status| status.exit_status());
            // It has said why; unless a signal ended it.
            Ok(match code.and_then(|code| u8::try_from(code).ok()) {
                Some(code) => ExitCode::from(code),
                None => {
                    eprintln!("the process that serves the mount was killed");
                    ExitCode::FAILURE
                }
            })
        }
    }
}
