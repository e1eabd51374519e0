//! The streams between the caller and the container's process.

use std::{io, os::fd::OwnedFd};

use rustix::{
    fs::{Mode, OFlags, open},
    pipe::{PipeFlags, pipe_with},
};

use super::{
    init::Streams,
    log::{Log, Stream},
    pump::{self, Outlet, Pumps},
};

/// What the caller wants of the container's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attach {
    /// Our standard input goes in.
    pub(super) input: bool,
    /// What comes out goes to our standard output and error.
    pub(super) output: bool,
    /// Standard input stays open even though nothing comes in.
    pub(super) keep_open: bool,
}

/// Our ends of a container's pipes.
pub(super) struct Ends {
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

/// Pipes for a process without a terminal: its ends and ours.
pub(super) fn pipes(attach: Attach) -> io::Result<(Streams, Ends)> {
    let (stdin, to_stdin) = if attach.input || attach.keep_open {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        (read, Some(write))
    } else {
        let null = open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        (null, None)
    };
    let (from_stdout, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
    let (from_stderr, stderr) = pipe_with(PipeFlags::CLOEXEC)?;
    let streams = Streams {
        stdin,
        stdout,
        stderr,
    };
    let ends = Ends {
        stdin: to_stdin,
        stdout: from_stdout,
        stderr: from_stderr,
    };
    Ok((streams, ends))
}

/// Starts to copy. What it returns must live as long as the process: standard input that is kept
/// open without anything coming in.
pub(super) fn copy_pipes(
    ends: Ends,
    attach: Attach,
    log: Option<&Log>,
) -> io::Result<(Pumps, Option<OwnedFd>)> {
    let mut pumps = Pumps::new()?;
    let outlet = |o| if attach.output { o } else { Outlet::None };
    let writer = |s| log.map(|l| l.writer(s));
    pumps.output(ends.stdout, outlet(Outlet::Stdout), writer(Stream::Stdout))?;
    pumps.output(ends.stderr, outlet(Outlet::Stderr), writer(Stream::Stderr))?;
    let mut kept = None;
    match ends.stdin {
        Some(fd) if attach.input => pump::input(fd)?,
        other => kept = other,
    }
    Ok((pumps, kept))
}

/// Starts to copy from and to the master side of a terminal.
pub(super) fn copy_terminal(
    master: &OwnedFd,
    attach: Attach,
    log: Option<&Log>,
) -> io::Result<Pumps> {
    let mut pumps = Pumps::new()?;
    let outlet = if attach.output {
        Outlet::Stdout
    } else {
        Outlet::None
    };
    pumps.output(
        master.try_clone()?,
        outlet,
        log.map(|l| l.writer(Stream::Stdout)),
    )?;
    if attach.input {
        pump::input(master.try_clone()?)?;
    }
    Ok(pumps)
}
