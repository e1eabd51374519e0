//! Renaming a large directory of the lower tree.

use super::{Tree, Work, Writes};
use crate::setup::{Lower, quiet, succeed};

pub(super) fn all() -> Vec<Tree> {
    vec![
        Tree::new(
            "rename",
            "mv of the image's /usr in a fresh mount (where the rename is refused, mv copies)",
            Lower::Image,
            |round| {
                succeed(
                    quiet("mv")
                        .arg(round.at.join("usr"))
                        .arg(round.at.join("usr-moved")),
                )?;
                Ok(Work {
                    wrote: Some(0),
                    ..Work::default()
                })
            },
        )
        .writes(Writes::Anywhere)
        .rounds_at_most(3),
    ]
}
