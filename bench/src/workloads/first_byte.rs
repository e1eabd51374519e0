//! What the first byte costs that is written into a lower file, by the size of the file.

use std::{fs::OpenOptions, os::unix::fs::FileExt as _};

use anyhow::{Context as _, Result};

use super::{Round, Tree, Work, Writes};
use crate::{model::Point, setup::Lower};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Sizes, their names, and how many rounds a copy of so much allows.
const SIZES: [(u64, &str, u32); 7] = [
    (4 * KIB, "4KiB", u32::MAX),
    (64 * KIB, "64KiB", u32::MAX),
    (MIB, "1MiB", u32::MAX),
    (16 * MIB, "16MiB", u32::MAX),
    (256 * MIB, "256MiB", 5),
    (GIB, "1GiB", 3),
    (4 * GIB, "4GiB", 2),
];

pub(super) fn all() -> Vec<Tree> {
    SIZES
        .into_iter()
        .map(|(size, name, rounds)| {
            let tree = Tree::new(
                format!("first-byte/{name}"),
                format!("open a lower file of {name} and write one byte into its middle"),
                Lower::LargeFile(size),
                move |round| write(round, size),
            )
            // The byte that is there already.
            .writes(Writes::InPlace)
            .rounds_at_most(rounds)
            .point(Point {
                series: "first-byte".to_owned(),
                x: size as f64,
                unit: "bytes".to_owned(),
            });
            if size == GIB { tree.floor(0.01) } else { tree }
        })
        .collect()
}

fn write(round: &Round<'_>, size: u64) -> Result<Work> {
    let path = round.at.join("large");
    let fail = || format!("cannot write into {}", path.display());
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .with_context(fail)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, size / 2).with_context(fail)?;
    file.write_all_at(&byte, size / 2).with_context(fail)?;
    Ok(Work {
        wrote: Some(1),
        ..Work::default()
    })
}
