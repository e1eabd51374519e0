//! git in the mount.

use anyhow::Result;

use super::{Caches, Round, Tree, Work, Writes};
use crate::setup::{Lower, git as command, succeed};

/// A status of the lower tree's repository, once git has noted what it needs.
pub(super) fn status() -> Vec<Tree> {
    vec![
        Tree::new(
            "git-status",
            "git status of a lower repository of 4,000 files, for the third time",
            Lower::Repository,
            |round| {
                succeed(
                    command()
                        .arg("-C")
                        .arg(round.at.join("repository"))
                        .args(["status", "--porcelain"]),
                )?;
                Ok(Work::default())
            },
        )
        // git writes its index anew where the inodes are others than it noted.
        .writes(Writes::Anywhere)
        .caches(Caches::Warm(2))
        .floor(1.05)
        .programs(["git"]),
    ]
}

/// A clone into the mount.
pub(super) fn clone() -> Vec<Tree> {
    vec![
        Tree::new(
            "git-clone",
            "git clone of a repository of 4,000 files into an empty mount",
            Lower::Empty,
            clone_once,
        )
        .writes(Writes::Anywhere)
        .floor(1.1)
        .programs(["git"])
        .make(|setup| setup.stack(&Lower::Repository).map(drop)),
    ]
}

fn clone_once(round: &Round<'_>) -> Result<Work> {
    let from = round.setup.path("repository").join("repository");
    succeed(
        command()
            .args(["clone", "--quiet", "--no-hardlinks"])
            .arg(from)
            .arg(round.at.join("clone")),
    )?;
    Ok(Work::default())
}
