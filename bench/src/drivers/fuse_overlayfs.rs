//! fuse-overlayfs, of whatever version.

use std::{path::Path, process::Command};

use anyhow::Result;

use super::{Mounted, Place, lower_option};
use crate::setup::{Setup, Stack};

/// As podman calls it, but in the foreground.
pub(super) fn mount(setup: &Setup, stack: &Stack, program: &Path) -> Result<Mounted> {
    let place = Place::new(setup)?;
    let mut server = Command::new(program);
    server
        .args(["-f", "-o"])
        .arg(format!("{},{}", lower_option(&stack.dirs), place.options()))
        .arg(&place.at);
    Mounted::serve(setup, &server, place)
}
