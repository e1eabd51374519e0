//! One directory of very many entries.

use std::fs;

use anyhow::{Context as _, Result};

use super::{Round, Tree, Work, Writes};
use crate::{setup::Lower, tree::walk};

const ENTRIES: u32 = 100_000;

pub(super) fn all() -> Vec<Tree> {
    vec![
        Tree::new(
            "large-directory",
            "list and lstat a lower directory of 100,000 entries, then make and remove 1,000 in it",
            Lower::LargeDirectory(ENTRIES),
            work,
        )
        .writes(Writes::Anywhere),
    ]
}

fn work(round: &Round<'_>) -> Result<Work> {
    let seen = walk(round.at, &|| round.setup.go_on())?;
    let path = |n: u32| round.at.join(format!("d/new-{n}"));
    for n in 0..1_000 {
        fs::File::create(path(n)).with_context(|| format!("cannot make {}", path(n).display()))?;
    }
    for n in 0..1_000 {
        fs::remove_file(path(n)).with_context(|| format!("cannot remove {}", path(n).display()))?;
    }
    Ok(Work {
        seen: Some(seen),
        ..Work::default()
    })
}
