//! What `run`, `start` and `exec` have in common on the supervisor's side: waiting until the command
//! is executed, then passing signals on until it ends.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::sys::{
    signal::Signal,
    signalfd::{SfdFlags, SignalFd},
};
use pellicle_sys::process::send_signal;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{WaitId, WaitIdOptions, waitid},
};

use super::{
    ContainerError,
    channel::{Channel, Message},
    signals, terminal,
};

/// So many interrupts in a row mean that the person wants it to end now, whatever it ignores.
const INTERRUPTS_TO_KILL: u32 = 3;

/// How long a container may go on after its terminal is gone.
const HANGUP_GRACE: Duration = Duration::from_secs(2);

/// Signals that this process was sent, readable in order.
pub(super) struct Signals(SignalFd);

impl Signals {
    /// From now on signals are queued instead of acted on.
    pub(super) fn catch() -> Result<Self, ContainerError> {
        let set = signals::block_forwarded()?;
        SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map(Self)
            .map_err(ContainerError::host("make a signal descriptor"))
    }

    fn next(&self) -> Option<Signal> {
        let got = self.0.read_signal().ok().flatten()?;
        Signal::try_from(i32::try_from(got.ssi_signo).ok()?).ok()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A process that is killed and waited for unless it was waited for before.
pub(super) struct Process {
    pidfd: OwnedFd,
    ended: Option<i32>,
}

impl Process {
    pub(super) fn new(pidfd: OwnedFd) -> Self {
        Self { pidfd, ended: None }
    }

    /// Sends `signal`; a process that has ended is no error.
    pub(super) fn signal(&self, signal: i32) {
        let _ = send_signal(self.pidfd.as_fd(), signal);
    }

    /// Waits for its end; its exit code, 128+n for signal n.
    pub(super) fn wait(&mut self) -> Result<i32, ContainerError> {
        if let Some(code) = self.ended {
            return Ok(code);
        }
        let status = loop {
            match waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED) {
                Ok(status) => break status,
                Err(Errno::INTR) => {}
                Err(e) => return Err(ContainerError::host("wait for the container")(e)),
            }
        };
        let code = status
            .as_ref()
            .and_then(|s| s.exit_status().or(s.terminating_signal().map(|n| 128 + n)))
            .unwrap_or(125);
        self.ended = Some(code);
        Ok(code)
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.signal(libc::SIGKILL);
            let _ = self.wait();
        }
    }
}

/// What came over the channel before the command was executed.
#[derive(Default)]
pub(super) struct Executed {
    /// The master side of its terminal.
    pub(super) terminal: Option<OwnedFd>,
    /// The command's process, where the forked one did not become it.
    pub(super) command: Option<OwnedFd>,
}

/// Waits until the command of `process` is executed. `serve` gets the descriptor of the root file system.
///
/// # Errors
/// [`ContainerError::Child`] if it could not be, or if a signal asked us to stop meanwhile.
pub(super) fn until_executed(
    channel: &Channel,
    process: &mut Process,
    signals: &Signals,
    serve: impl FnMut(OwnedFd) -> Result<(), ContainerError>,
) -> Result<Executed, ContainerError> {
    let mut got = Executed::default();
    match hear_until_executed(channel, signals, serve, &mut got) {
        Ok(true) => Ok(got),
        Ok(false) => Err(killed(process, got.command)),
        Err(e) => {
            // Nobody else waits for it: in the container it would stay a zombie.
            drop(got.command.map(Process::new));
            Err(e)
        }
    }
}

/// Whether the command was executed; if not, its process is gone without a word.
fn hear_until_executed(
    channel: &Channel,
    signals: &Signals,
    mut serve: impl FnMut(OwnedFd) -> Result<(), ContainerError>,
    got: &mut Executed,
) -> Result<bool, ContainerError> {
    let mut executing = false;
    loop {
        let mut fds = [
            PollFd::new(channel, PollFlags::IN),
            PollFd::new(signals, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            Err(e) => return Err(ContainerError::host("wait for the container")(e)),
            Ok(_) => {}
        }
        let [from_channel, from_signals] = &fds;
        if !from_signals.revents().is_empty()
            && let Some(signal) = signals.next().filter(|s| *s != Signal::SIGWINCH)
        {
            return Err(ContainerError::Child {
                message: format!("stopped by {signal} before the command was executed"),
                next: None,
                code: u8::try_from(128 + signal as i32).unwrap_or(125),
            });
        }
        if from_channel.revents().is_empty() {
            continue;
        }
        let hear = ContainerError::host::<io::Error>("hear from the container");
        match channel.receive().map_err(hear)? {
            None => return Ok(executing),
            Some((Message::Executing, _)) => executing = true,
            Some((Message::Fuse, Some(fd))) => {
                // Without its process there is no mount to be served.
                serve(fd).map_err(|e| last_words_or(channel, e))?;
            }
            Some((Message::Terminal, Some(fd))) => {
                // Before the command can ask for it.
                terminal::copy_size(&fd);
                got.terminal = Some(fd);
            }
            Some((Message::Joined, Some(fd))) => got.command = Some(fd),
            Some((Message::Failed(code, message, next), _)) => {
                return Err(ContainerError::Child {
                    message,
                    next,
                    code,
                });
            }
            Some((Message::Warning(text), _)) => tracing::warn!("{text}"),
            Some(_) => {}
        }
    }
}

/// Why a process could not go on, if it has told; else `error`, which came of that. Does not wait: it
/// tells before it ends.
pub(super) fn last_words_or(channel: &Channel, error: ContainerError) -> ContainerError {
    while let Ok(Some((message, _))) = channel.receive_now() {
        if let Message::Failed(code, message, next) = message {
            return ContainerError::Child {
                message,
                next,
                code,
            };
        }
    }
    error
}

/// The error of a process that ended on its way to `execve` without having told why.
fn killed(process: &mut Process, command: Option<OwnedFd>) -> ContainerError {
    // That of `--init` is not ours to wait for; the first process then ends as it did.
    let command = command.and_then(|fd| Process::new(fd).wait().ok());
    let code = command.or_else(|| process.wait().ok());
    let signal = code.and_then(|code| Signal::try_from(code.checked_sub(128)?).ok());
    let (how, next) = match signal {
        Some(Signal::SIGKILL) => (
            "was killed (SIGKILL)".to_owned(),
            Some(
                "the kernel does so where memory runs out: `dmesg` tells; give it more (--memory), or free some",
            ),
        ),
        Some(signal) => (format!("was killed by {signal}"), None),
        None => ("ended without a word".to_owned(), None),
    };
    ContainerError::Child {
        message: format!("the process that was to execute the command {how}"),
        next: next.map(str::to_owned),
        code: 125,
    }
}

/// Passes signals on to `process` until it ends; its exit code. `terminal` is kept at our
/// terminal's size.
///
/// # Errors
/// The kernel's.
pub(super) fn until_ended(
    process: &mut Process,
    signals: &Signals,
    terminal: Option<&OwnedFd>,
) -> Result<i32, ContainerError> {
    let mut interrupts = 0;
    let mut kill_at: Option<Instant> = None;
    loop {
        let timeout = kill_at.map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            }
        });
        let mut fds = [
            PollFd::new(&*process, PollFlags::IN),
            PollFd::new(signals, PollFlags::IN),
        ];
        match poll(&mut fds, timeout.as_ref()) {
            Err(Errno::INTR) => continue,
            Err(e) => return Err(ContainerError::host("wait for the container")(e)),
            Ok(0) => {
                process.signal(libc::SIGKILL);
                kill_at = None;
                continue;
            }
            Ok(_) => {}
        }
        let [ended, signalled] = &fds;
        let (ended, signalled) = (!ended.revents().is_empty(), !signalled.revents().is_empty());
        if ended {
            return process.wait();
        }
        if !signalled {
            continue;
        }
        while let Some(signal) = signals.next() {
            match signal {
                Signal::SIGWINCH => {
                    if let Some(fd) = terminal {
                        terminal::copy_size(fd);
                    }
                }
                Signal::SIGINT if interrupts + 1 >= INTERRUPTS_TO_KILL => {
                    process.signal(libc::SIGKILL);
                }
                signal => {
                    interrupts = if signal == Signal::SIGINT {
                        interrupts + 1
                    } else {
                        0
                    };
                    process.signal(signal as i32);
                    // Whoever looked at it is gone, and nobody can look again.
                    if signal == Signal::SIGHUP && !terminal::is_there() {
                        kill_at = Some(Instant::now() + HANGUP_GRACE);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{PidfdFlags, pidfd_open};

    use super::*;

    /// What comes of a process that says `last` and ends by `script`.
    #[expect(
        clippy::zombie_processes,
        reason = "it is waited for by its descriptor"
    )]
    fn heard(last: &[Message], script: &str) -> Result<Executed, ContainerError> {
        let (ours, theirs) = Channel::pair().unwrap();
        for message in last {
            theirs.send(message, None).unwrap();
        }
        drop(theirs);
        let child = std::process::Command::new("sh")
            .args(["-c", script])
            .spawn()
            .unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let mut process = Process::new(pidfd_open(pid, PidfdFlags::empty()).unwrap());
        let none = nix::sys::signal::SigSet::empty();
        let signals = Signals(SignalFd::new(&none).unwrap());
        until_executed(&ours, &mut process, &signals, |_| Ok(()))
    }

    #[test]
    fn a_process_that_ends_without_a_word_has_not_executed_its_command() {
        assert!(heard(&[Message::Executing], "true").is_ok());
        for (script, said) in [
            ("kill -KILL $$", "was killed (SIGKILL)"),
            ("kill -ABRT $$", "was killed by SIGABRT"),
            ("exit 125", "ended without a word"),
        ] {
            let warned = [Message::Warning("careful".to_owned())];
            let Err(e) = heard(&warned, script) else {
                panic!("{script} counts as executed");
            };
            assert!(e.to_string().ends_with(said), "{e}");
            assert_eq!(e.exit_code(), Some(125));
        }
    }
}
