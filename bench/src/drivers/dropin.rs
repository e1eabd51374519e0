//! `pellicle-overlay` over host directories.

use std::process::Command;

use anyhow::Result;

use super::{Mounted, Place, Transport, Upper, lower_option};
use crate::setup::{Setup, Stack};

pub(super) fn mount(
    setup: &Setup,
    stack: &Stack,
    upper: Upper,
    transport: Transport,
) -> Result<Mounted> {
    let place = Place::new(setup)?;
    let kept = match upper {
        Upper::Dir => place.options(),
        Upper::Journal => format!("upper=journal,upperdir={}", place.upper.display()),
    };
    let mut server = Command::new(setup.overlay());
    server
        .args(["-f", "-o"])
        .arg(format!("{},{kept}", lower_option(&stack.dirs)))
        .env("PELLICLE_TRANSPORT", transport.word())
        .arg(&place.at);
    Mounted::serve(setup, &server, place)
}
