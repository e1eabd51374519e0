//! Our native driver: an image's tree from the store under a journal, as containers have it.

use std::process::Command;

use anyhow::Result;
use clap::ValueEnum as _;

use super::{Mounted, Opens, Place, Transport, serve::WORD};
use crate::setup::{Setup, Stack};

pub(super) fn mount(
    setup: &mut Setup,
    stack: &Stack,
    transport: Transport,
    opens: Opens,
    read_only: bool,
) -> Result<Mounted> {
    let imported = setup.imported(stack)?;
    let place = Place::new(setup)?;
    let mut server = Command::new(setup.bench());
    server.arg(WORD).arg("--store").arg(&imported.store);
    for diff_id in &imported.diff_ids {
        server.args(["--layer", &diff_id.to_string()]);
    }
    if !read_only {
        server.arg("--upper").arg(&place.upper);
    }
    let opens = opens.to_possible_value();
    server
        .args(["--transport", transport.word(), "--opens"])
        .arg(opens.as_ref().map_or("silent", |value| value.get_name()))
        .arg(&place.at);
    Mounted::serve(setup, &server, place)
}
