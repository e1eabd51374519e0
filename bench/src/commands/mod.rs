//! One file per subcommand.

pub(crate) mod compare;
pub(crate) mod list;
mod namespace;
pub(crate) mod report;
pub(crate) mod run;
mod signals;

use std::io::{ErrorKind, Write as _, stdout};

use anyhow::{Context as _, Result};

/// Prints `text`. A reader that has gone away (`pellicle-bench list | head -1`) is no failure.
fn show(text: &str) -> Result<()> {
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(e).context("cannot write the output"),
        _ => Ok(()),
    }
}
