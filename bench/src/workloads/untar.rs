//! Unpacking an archive into the mount.

use std::path::PathBuf;

use anyhow::Result;

use super::{Round, Tree, Work, Writes};
use crate::{
    setup::{Lower, Setup, Tar, quiet, succeed},
    stats::Random,
};

const DIRECTORIES: u32 = 700;
const FILES: u32 = 8_600;

pub(super) fn all() -> Vec<Tree> {
    vec![
        Tree::new(
            "untar",
            "unpack an archive of 9,300 entries (70 MB) into an empty mount",
            Lower::Empty,
            |round| {
                unpack(round)?;
                Ok(Work::default())
            },
        )
        .writes(Writes::Anywhere)
        .floor(1.8)
        .programs(["tar"])
        .make(|setup| archive(setup).map(drop)),
    ]
}

/// Unpacks [`archive`] into a directory `new`.
pub(super) fn unpack(round: &Round<'_>) -> Result<()> {
    std::fs::create_dir(round.at.join("new"))?;
    succeed(
        quiet("tar")
            .arg("-xf")
            .arg(path(round.setup))
            .arg("-C")
            .arg(round.at.join("new")),
    )
}

fn path(setup: &Setup) -> PathBuf {
    setup.path("entries-9300.tar")
}

/// 700 directories, 8,600 files of 0.5 to 16 KiB; made once in a run.
pub(super) fn archive(setup: &mut Setup) -> Result<PathBuf> {
    let path = path(setup);
    if path.is_file() {
        return Ok(path);
    }
    let part = path.with_extension("part");
    let mut tar = Tar::create(&part)?;
    let mut random = Random::new(5);
    for n in 0..DIRECTORIES {
        tar.directory(&format!("d{n}/"))?;
    }
    for n in 0..FILES {
        let size = 512 + random.below(31 * 512) as u64;
        tar.file(&format!("d{}/file-{n}", n % DIRECTORIES), size, &mut random)?;
    }
    tar.finish(true)?;
    std::fs::rename(&part, &path)?;
    Ok(path)
}
