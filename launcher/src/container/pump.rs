//! Copies between the container's streams and the caller's, each direction in a thread of its own:
//! a reader that does not read must block neither the other stream nor the signals.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    thread::{self, JoinHandle},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    io::Errno,
};

use super::log::Writer;

/// Where output goes besides the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outlet {
    /// Our standard output.
    Stdout,
    /// Our standard error.
    Stderr,
    /// Nowhere.
    None,
}

/// The threads that copy output.
#[derive(Debug)]
pub(super) struct Pumps {
    threads: Vec<JoinHandle<()>>,
    /// Readable once a thread is done.
    done: Arc<OwnedFd>,
}

impl Pumps {
    pub(super) fn new() -> io::Result<Self> {
        let done = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::SEMAPHORE)?;
        Ok(Self {
            threads: Vec::new(),
            done: Arc::new(done),
        })
    }

    /// Copies `from`, until it ends, to `outlet` and `log`.
    pub(super) fn output(
        &mut self,
        from: OwnedFd,
        outlet: Outlet,
        log: Option<Writer>,
    ) -> io::Result<()> {
        let done = Arc::clone(&self.done);
        let thread = thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || {
                copy_output(&from, outlet, log);
                let _ = rustix::io::write(&done, &1_u64.to_ne_bytes());
            })?;
        self.threads.push(thread);
        Ok(())
    }

    /// Waits until all output is copied, or until `give_up` becomes readable.
    pub(super) fn finish(self, give_up: impl AsFd) {
        for _ in 0..self.threads.len() {
            loop {
                let mut fds = [
                    PollFd::new(&self.done, PollFlags::IN),
                    PollFd::new(&give_up, PollFlags::IN),
                ];
                match poll(&mut fds, None) {
                    Err(Errno::INTR) => continue,
                    Err(_) => return,
                    Ok(_) => {}
                }
                let [done, give_up] = &fds;
                if !done.revents().is_empty() {
                    let mut count = [0; 8];
                    let _ = rustix::io::read(&self.done, &mut count);
                    break;
                }
                if !give_up.revents().is_empty() {
                    return;
                }
            }
        }
    }
}

/// Copies our standard input to `to` until it ends; `to` is closed then. The thread is left to
/// itself: it ends with the process.
pub(super) fn input(to: OwnedFd) -> io::Result<()> {
    thread::Builder::new()
        .name("input".to_owned())
        .spawn(move || {
            let stdin = io::stdin();
            let mut buffer = vec![0; 32 << 10];
            loop {
                match rustix::io::read(&stdin, &mut buffer) {
                    Ok(0) => break,
                    Ok(n) if write_all(&to, buffer.get(..n).unwrap_or_default()).is_ok() => {}
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) if wait_for(&stdin, PollFlags::IN) => {}
                    Ok(_) | Err(_) => break,
                }
            }
        })
        .map(drop)
}

fn copy_output(from: &OwnedFd, outlet: Outlet, mut log: Option<Writer>) {
    let mut buffer = vec![0; 64 << 10];
    let mut outlet_open = true;
    loop {
        let bytes = match rustix::io::read(from, &mut buffer) {
            Ok(0) => break,
            Ok(n) => buffer.get(..n).unwrap_or_default(),
            Err(Errno::INTR) => continue,
            // The other side of a terminal is closed (EIO).
            Err(_) => break,
        };
        // Whoever read our output may be gone; the container goes on, and so does the log.
        let written = match outlet {
            Outlet::Stdout if outlet_open => write_all(io::stdout(), bytes),
            Outlet::Stderr if outlet_open => write_all(io::stderr(), bytes),
            _ => Ok(()),
        };
        outlet_open &= written.is_ok();
        if let Some(writer) = &mut log
            && let Err(e) = writer.write(bytes)
        {
            tracing::warn!("the log takes no more: {e}");
            log = None;
        }
    }
    if let Some(writer) = log {
        let _ = writer.finish();
    }
}

fn write_all(to: impl AsFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(&to, bytes) {
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            // A non-blocking descriptor that somebody else set so.
            Err(Errno::AGAIN) if wait_for(&to, PollFlags::OUT) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn wait_for(fd: impl AsFd, what: PollFlags) -> bool {
    poll(&mut [PollFd::new(&fd, what)], None).is_ok_and(|n| n > 0)
}
