//! Directory listings.
//!
//! On the wire an entry's offset is where to go on after it. The two names that every directory
//! has and the union does not list come first: offset 0 is before `.`, 1 after it, 2 after `..`,
//! and beyond that the union's own positions follow, moved up by 2.

use std::ops::ControlFlow;

use pellicle_union::{Attr, Error, FileKind, Ino, Union};

/// How far the union's positions are moved up.
const DOTS: u64 = 2;

/// Gives names, inodes, kinds and following offsets to `add` until that says it is full.
pub(crate) fn plain(
    union: &Union,
    dir: Ino,
    offset: u64,
    mut add: impl FnMut(&[u8], Ino, FileKind, u64) -> bool,
) -> Result<(), Error> {
    walk(union, dir, offset, &mut |name, ino, kind, next| {
        Ok(!add(name, ino, kind, next))
    })
}

/// Gives names, attributes and following offsets to `add` until that says it is full. Each entry
/// that fits counts as a lookup, but for `.` and `..`, which the kernel does not link
/// (`fuse_direntplus_link` in `fs/fuse/readdir.c`).
pub(crate) fn plus(
    union: &Union,
    dir: Ino,
    offset: u64,
    mut add: impl FnMut(&[u8], &Attr, u64) -> bool,
) -> Result<(), Error> {
    walk(union, dir, offset, &mut |name, ino, _, next| {
        let attr = match union.attr(ino) {
            Ok(attr) => attr,
            // Removed since it was listed: then it need not be listed.
            Err(Error::NotFound) => return Ok(true),
            Err(e) => return Err(e),
        };
        let full = add(name, &attr, next);
        if !full && !is_dots(name) {
            union.remember(ino);
        }
        Ok(!full)
    })
}

fn is_dots(name: &[u8]) -> bool {
    name == b"." || name == b".."
}

/// Takes name, inode, kind and following offset; says whether to go on.
type Each<'a> = &'a mut dyn FnMut(&[u8], Ino, FileKind, u64) -> Result<bool, Error>;

/// Calls `each` with name, inode, kind and following offset until it says `false` or fails.
fn walk(union: &Union, dir: Ino, offset: u64, each: Each<'_>) -> Result<(), Error> {
    if offset < 1 && !each(b".", dir, FileKind::Directory, 1)? {
        return Ok(());
    }
    if offset < DOTS && !each(b"..", union.parent(dir)?, FileKind::Directory, DOTS)? {
        return Ok(());
    }
    let mut failed = None;
    union.list(dir, offset.saturating_sub(DOTS), &mut |entry| match each(
        entry.name,
        entry.ino,
        entry.kind,
        entry.next.saturating_add(DOTS),
    ) {
        Ok(true) => ControlFlow::Continue(()),
        Ok(false) => ControlFlow::Break(()),
        Err(e) => {
            failed = Some(e);
            ControlFlow::Break(())
        }
    })?;
    failed.map_or(Ok(()), Err)
}
