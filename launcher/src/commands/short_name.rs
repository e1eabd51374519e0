//! Asking which image a name without a registry means.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Write as _},
    os::fd::AsFd as _,
};

use pellicle_store::import::Cancel;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use super::registry_args::read_line;
use crate::{image::Reference, registry::RegistryError};

/// How often a person may give what is no answer.
const TRIES: usize = 3;
/// How soon a request to stop is heard.
const TICK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// Asks the person at the terminal which of `among` is meant by `short`; `None` if there is none. A script that
/// reads what this program prints is no person, as for podman.
///
/// # Errors
/// If nothing is chosen, or `cancel` is raised.
pub(super) fn ask(
    short: &str,
    among: &[Reference],
    cancel: &Cancel,
) -> Result<Option<Reference>, RegistryError> {
    let (stdin, mut stderr) = (io::stdin(), io::stderr());
    if !(stdin.is_terminal() && io::stdout().is_terminal() && stderr.is_terminal()) {
        return Ok(None);
    }
    let failed = |e: io::Error| RegistryError::Invalid {
        what: format!("the short name {short}"),
        why: format!("nobody can be asked what it means: {e}"),
    };
    // Not through the buffer of standard input: what is typed ahead is for others.
    let terminal = File::from(stdin.as_fd().try_clone_to_owned().map_err(failed)?);
    let mut text = format!("{short} is a name without a registry. Which image is meant?\n");
    for (number, name) in (1..).zip(among) {
        text.push_str(&format!("  {number}) {name}\n"));
    }
    for _ in 0..TRIES {
        text.push_str(&format!("Number (1-{}): ", among.len()));
        stderr.write_all(text.as_bytes()).map_err(failed)?;
        wait(&terminal, cancel, failed)?;
        let line = read_line(&mut &terminal).map_err(failed)?;
        let at = line.trim().parse::<usize>().ok();
        if let Some(name) = at.and_then(|at| among.get(at.checked_sub(1)?)) {
            return Ok(Some(name.clone()));
        }
        text = format!("{:?} is no number of the list.\n", line.trim());
    }
    Err(RegistryError::Invalid {
        what: format!("the short name {short}"),
        why: "none of the images was chosen; give one of the names with its registry".to_owned(),
    })
}

/// Waits until there is something to read.
fn wait(
    terminal: &File,
    cancel: &Cancel,
    failed: impl Fn(io::Error) -> RegistryError,
) -> Result<(), RegistryError> {
    loop {
        cancel.check().map_err(|_| RegistryError::Cancelled)?;
        let mut fds = [PollFd::new(terminal, PollFlags::IN)];
        match poll(&mut fds, Some(&TICK)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(e) => return Err(failed(e.into())),
        }
    }
}
