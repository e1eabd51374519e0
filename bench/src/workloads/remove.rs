//! Removing trees.

use anyhow::Result;

use super::{Round, Tree, Work, Writes, untar};
use crate::setup::{Lower, quiet, succeed};

pub(super) fn all() -> Vec<Tree> {
    vec![
        Tree::new(
            "rm-new",
            "rm -rf of 9,300 entries that were made in the mount",
            Lower::Empty,
            |round| remove(round, "new"),
        )
        .writes(Writes::Anywhere)
        .floor(1.8)
        .make(|setup| untar::archive(setup).map(drop))
        .prepare(untar::unpack),
        Tree::new(
            "rm-lower",
            "rm -rf of the image's /usr in a fresh mount",
            Lower::Image,
            |round| remove(round, "usr"),
        )
        .writes(Writes::Anywhere)
        .floor(0.7),
    ]
}

fn remove(round: &Round<'_>, name: &str) -> Result<Work> {
    succeed(quiet("rm").arg("-rf").arg(round.at.join(name)))?;
    Ok(Work::default())
}
