//! The person's terminal while a container with a terminal is attached to it.

use std::{io, os::fd::AsFd};

use rustix::termios::{
    OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

/// Keeps the terminal on standard input raw until dropped.
#[derive(Debug)]
pub(super) struct Raw {
    before: Termios,
}

impl Raw {
    /// `None` if standard input is no terminal.
    pub(super) fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !isatty(&stdin) {
            return Ok(None);
        }
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // The terminal may be gone; then there is nothing to restore.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Gives `terminal` the size of the terminal this process has, if it has one.
pub(super) fn copy_size(terminal: impl AsFd) {
    let size = [
        tcgetwinsize(io::stdin()),
        tcgetwinsize(io::stdout()),
        tcgetwinsize(io::stderr()),
    ]
    .into_iter()
    .find_map(Result::ok);
    if let Some(size) = size {
        let _ = tcsetwinsize(terminal, size);
    }
}

/// Whether this process has a controlling terminal that still answers.
pub(super) fn is_there() -> bool {
    use rustix::fs::{Mode, OFlags, open};

    open(
        "/dev/tty",
        OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .is_ok()
}
