//! Making many small files durable, one by one.

use std::{fs::File, io::Write as _};

use anyhow::{Context as _, Result};

use super::{Round, Tree, Work, Writes};
use crate::setup::Lower;

const FILES: u32 = 300;
const SIZE: usize = 4096;

pub(super) fn all() -> Vec<Tree> {
    vec![
        Tree::new(
            "fsync",
            "make 300 files of 4 KiB, each with fsync",
            Lower::Empty,
            sync_many,
        )
        .writes(Writes::Anywhere)
        .floor(1.0),
    ]
}

fn sync_many(round: &Round<'_>) -> Result<Work> {
    let content = [b'x'; SIZE];
    for n in 0..FILES {
        let path = round.at.join(format!("f{n}"));
        let mut file =
            File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        file.write_all(&content)?;
        file.sync_all()
            .with_context(|| format!("cannot sync {}", path.display()))?;
    }
    Ok(Work::default())
}
