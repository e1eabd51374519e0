//! A lower tree and an upper in memory, for the union's suites.

#![allow(dead_code, reason = "every suite uses its own part of this")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helper fails the test"
)]

pub(crate) mod lower;
pub(crate) mod real;
pub(crate) mod upper;

use std::{ops::ControlFlow, sync::Arc};

use lower::MemLower;
use pellicle_union::{FileKind, Ino, Options, Union};
use upper::MemUpper;

/// A union of `lower` and `upper`, with whatever the upper holds replayed.
pub(crate) fn open(lower: &Arc<MemLower>, upper: &MemUpper) -> Union {
    let options = Options::default();
    let (union, _) = Union::open(lower.clone(), Some(Box::new(upper.clone())), options).unwrap();
    union
}

/// All names of `dir` with numbers and kinds, in order of listing.
pub(crate) fn names(union: &Union, dir: Ino) -> Vec<(Vec<u8>, Ino, FileKind)> {
    let mut names = Vec::new();
    union
        .list(dir, 0, &mut |e| {
            names.push((e.name.to_vec(), e.ino, e.kind));
            ControlFlow::Continue(())
        })
        .unwrap();
    names
}

/// The inode at `path`, names separated by `/`.
pub(crate) fn at(union: &Union, path: &str) -> Ino {
    path.split('/')
        .filter(|name| !name.is_empty())
        .fold(Ino::ROOT, |dir, name| {
            union.lookup(dir, name.as_bytes()).unwrap().ino
        })
}

/// The whole content of `ino`.
pub(crate) fn content(union: &Union, ino: Ino) -> Vec<u8> {
    let size = union.attr(ino).unwrap().size;
    let mut buf = vec![0xEE; usize::try_from(size).unwrap() + 1];
    let n = union.read(ino, 0, &mut buf).unwrap();
    buf.truncate(n);
    assert_eq!(n as u64, size, "a read is short only at the end");
    buf
}
