//! Changing the metadata of a whole lower tree.

use super::{Tree, Work, Writes};
use crate::setup::{Lower, quiet, succeed};

pub(super) fn all() -> Vec<Tree> {
    let tree = |name: &str, about: &str, program: &'static str, what: &'static str| {
        Tree::new(name, about, Lower::Image, move |round| {
            succeed(quiet(program).args(["-R", what]).arg(round.at.join("usr")))?;
            Ok(Work {
                wrote: Some(0),
                ..Work::default()
            })
        })
        .writes(Writes::Anywhere)
        .floor(0.5)
    };
    vec![
        tree(
            "chmod",
            "chmod -R of the image's /usr in a fresh mount",
            "chmod",
            "g+w",
        ),
        tree(
            "chown",
            "chown -R of the image's /usr in a fresh mount",
            "chown",
            "1:1",
        ),
    ]
}
