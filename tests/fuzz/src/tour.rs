//! Looking at everything there is in a union, within bounds.

use std::{collections::VecDeque, ops::ControlFlow};

use pellicle_union::{FileKind, Ino, Union};
use xxhash_rust::xxh3::xxh3_64;

/// Names looked at: a forged tree may contain itself.
const NAMES_MAX: usize = 300;
/// Of each content, at its start and at its end.
const READ_MAX: usize = 4096;

/// Asks for all names, attributes, targets, extended attributes and some of all contents. Errors are
/// answers like any other. Gives everything that was answered but access times, in an order that does
/// not depend on that of the listings.
#[must_use]
pub fn tour(union: &Union) -> Vec<String> {
    let mut seen = Vec::new();
    let mut names = 0;
    let mut dirs = VecDeque::from([Ino::ROOT]);
    look(union, Ino::ROOT, &mut seen);
    while let Some(dir) = dirs.pop_front() {
        let mut found = Vec::new();
        let listed = union.list(dir, 0, &mut |entry| {
            found.push((entry.name.to_vec(), entry.ino, entry.kind));
            if names + found.len() < NAMES_MAX {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        say(&mut seen, dir, &listed);
        names += found.len();
        for (name, ino, kind) in found {
            let looked = union.lookup(dir, &name).map(|attr| (attr.ino, attr.kind));
            say(&mut seen, dir, &(name, ino, kind, looked));
            look(union, ino, &mut seen);
            if kind == FileKind::Directory {
                dirs.push_back(ino);
            }
        }
        if names >= NAMES_MAX {
            break;
        }
    }
    let _ = union.space();
    seen.sort();
    seen
}

fn say(seen: &mut Vec<String>, of: Ino, answer: &impl std::fmt::Debug) {
    seen.push(format!("{of}: {answer:?}"));
}

fn look(union: &Union, ino: Ino, seen: &mut Vec<String>) {
    let attr = union.attr(ino).map(|attr| {
        (
            (
                attr.ino, attr.kind, attr.perm, attr.nlink, attr.uid, attr.gid,
            ),
            (attr.rdev, attr.size, attr.mtime, attr.ctime),
        )
    });
    say(seen, ino, &attr);
    say(seen, ino, &union.path_of(ino));
    let names = union.xattr_names(ino);
    for name in names.as_deref().unwrap_or_default().split(|b| *b == 0) {
        say(seen, ino, &union.xattr(ino, name));
    }
    say(seen, ino, &names);
    let Ok(attr) = union.attr(ino) else { return };
    match attr.kind {
        FileKind::Regular => {
            let mut buffer = [0; READ_MAX];
            let end = attr.size.saturating_sub(READ_MAX as u64);
            for at in [0, end] {
                let read = union.read(ino, at, &mut buffer);
                let got = &buffer[..read.as_ref().copied().unwrap_or(0)];
                say(seen, ino, &(at, xxh3_64(got), &read));
                let _ = (union.seek(ino, at, true), union.seek(ino, at, false));
            }
            let _ = union.backing(ino);
        }
        FileKind::Symlink => say(seen, ino, &union.readlink(ino)),
        FileKind::Directory => say(seen, ino, &union.parent(ino)),
        _ => {}
    }
}
