//! Walking and reading the whole image.
//!
//! What the drivers stand on is in the page cache before the first round that counts, except for
//! the cold ones.

use anyhow::Result;

use super::{Caches, Round, Tree, Work};
use crate::{
    setup::Lower,
    tree::{read_all, walk},
};

pub(super) fn all() -> Vec<Tree> {
    let of_walk = |name: &str, about: &str, caches| {
        Tree::new(name, about, Lower::Image, walked).caches(caches)
    };
    let of_read =
        |name: &str, about: &str, caches| Tree::new(name, about, Lower::Image, read).caches(caches);
    vec![
        of_walk(
            "walk-fresh",
            "list and lstat everything in a fresh mount of the image",
            Caches::Fresh,
        )
        .floor(1.3),
        of_walk("walk-warm", "the same, the second time", Caches::Warm(1)).floor(0.9),
        of_walk("walk-steady", "the same, the third time", Caches::Warm(2)),
        of_walk(
            "walk-cold",
            "the same in a fresh mount, nothing in the page cache",
            Caches::Cold,
        )
        .floor(0.9),
        of_read(
            "read-fresh",
            "open, read and close every file in a fresh mount of the image",
            Caches::Fresh,
        )
        .floors(1.5, 1.8),
        of_read("read-warm", "the same, the second time", Caches::Warm(1)).floor(1.05),
        of_read("read-steady", "the same, the third time", Caches::Warm(2)),
        of_read(
            "read-cold",
            "the same in a fresh mount, nothing in the page cache",
            Caches::Cold,
        ),
    ]
}

fn walked(round: &Round<'_>) -> Result<Work> {
    let seen = walk(round.at, &|| round.setup.go_on())?;
    Ok(Work {
        seen: Some(seen),
        ..Work::default()
    })
}

pub(super) fn read(round: &Round<'_>) -> Result<Work> {
    let seen = read_all(round.at, &|| round.setup.go_on())?;
    Ok(Work {
        seen: Some(seen),
        ..Work::default()
    })
}
