//! Appending a little to many small files of the lower tree.

use std::{fs::OpenOptions, io::Write as _};

use anyhow::{Context as _, Result};

use super::{Round, Tree, Work, Writes};
use crate::setup::Lower;

const FILES: u32 = 1_000;
const LINE: &[u8; 64] = b"one more line at the end of a file that an image has already...\n";

pub(super) fn all() -> Vec<Tree> {
    vec![
        Tree::new(
            "append",
            "append a line to each of 1,000 small lower files",
            Lower::SmallFiles,
            append,
        )
        .writes(Writes::Anywhere)
        .floor(0.8),
    ]
}

fn append(round: &Round<'_>) -> Result<Work> {
    for n in 0..FILES {
        let path = round.at.join(format!("f{n}"));
        OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(LINE))
            .with_context(|| format!("cannot append to {}", path.display()))?;
    }
    Ok(Work {
        wrote: Some(u64::from(FILES) * LINE.len() as u64),
        ..Work::default()
    })
}
