//! Builds the state from the upper's records.
//!
//! The log may be hostile or from a program gone wrong: whatever contradicts the lower tree or
//! itself is [`Error::Damaged`], found here once, so that later operations may rely on it.

use std::sync::{Arc, atomic::Ordering};

use pellicle_store::{FileKind, Ino};
use pellicle_upper::{ContentSource, Node, Record, Recovery};

use crate::{
    Union, change::Change, check::check_name, error::Error, inode::Inode, ranges::Range,
    table::Found,
};

/// Replays, and gives the first free inode number.
pub(crate) fn replay(union: &Union) -> Result<(Recovery, u64), Error> {
    let mut next = union.lower.inode_count().saturating_add(1);
    let Ok(upper) = union.upper() else {
        return Ok((Recovery::default(), next));
    };
    let mut failed = None;
    let recovery = upper.replay(&mut |record| {
        if failed.is_none()
            && let Err(error) = apply(union, record, &mut next)
        {
            failed = Some(error);
        }
    })?;
    match failed {
        Some(error) => Err(error),
        None => check_targets(union).map(|()| (recovery, next)),
    }
}

fn apply(union: &Union, record: Record<'_>, next: &mut u64) -> Result<(), Error> {
    union.has_changed.store(true, Ordering::Relaxed);
    match record {
        Record::Node(node) => {
            note_number(node.ino, next)?;
            apply_node(union, node)
        }
        Record::Own { ino, start, end } => {
            let inode = spoken_of(union, ino)?;
            let mut state = inode.state.write();
            let before = state.range_count();
            let own = state
                .own
                .as_mut()
                .filter(|_| start < end)
                .ok_or_else(|| damaged(ino, "is in pieces which it does not have"))?;
            own.insert(Range { start, end });
            union.note_details(before, state.range_count());
            Ok(())
        }
        Record::Entry {
            parent,
            name,
            ino,
            kind,
        } => apply_name(union, parent, name, Some((ino, kind))),
        Record::NoEntry { parent, name } => apply_name(union, parent, name, None),
        Record::Symlink { ino, target } => {
            spoken_of(union, ino)?.state.write().target = Some(target.into());
            Ok(())
        }
        Record::Xattr { ino, name, value } => {
            let inode = spoken_of(union, ino)?;
            let mut state = inode.state.write();
            state.xattrs.insert(name.into(), Some(value.into()));
            Ok(())
        }
        Record::NoXattr { ino, name } => {
            let inode = spoken_of(union, ino)?;
            let mut state = inode.state.write();
            if union.table.is_lower(ino) {
                state.xattrs.insert(name.into(), None);
            } else {
                state.xattrs.remove(name);
            }
            Ok(())
        }
        // It would be there again after the next compaction, with all that was whited out in it.
        Record::Gone { ino: Ino::ROOT } => Err(damaged(Ino::ROOT, "is the top and cannot be gone")),
        Record::Gone { ino } => {
            note_number(ino, next)?;
            if let Found::Inode(inode) = union.table.find(ino) {
                union.note_details(inode.state.write().take_details(), 0);
            }
            union.table.remove(ino);
            Ok(())
        }
    }
}

/// Numbers are given above every number that the log ever spoke of; the upper half stays free, so
/// that there is always a next one.
fn note_number(ino: Ino, next: &mut u64) -> Result<(), Error> {
    if ino.0 == 0 || ino.0 >= u64::MAX >> 1 {
        return Err(damaged(ino, "has a number out of range"));
    }
    *next = (*next).max(ino.0 + 1);
    Ok(())
}

fn apply_node(union: &Union, mut node: Node) -> Result<(), Error> {
    let is_lower = union.table.is_lower(node.ino);
    node.perm &= 0o7777;
    let needs_lower = matches!(node.content, ContentSource::Lower | ContentSource::Mixed);
    if needs_lower && !is_lower {
        return Err(damaged(
            node.ino,
            "has lower content but is not in the lower tree",
        ));
    }
    if node.content != ContentSource::Zero && node.kind != FileKind::Regular {
        return Err(damaged(node.ino, "has content but is no regular file"));
    }
    if node.size > i64::MAX as u64 {
        return Err(damaged(node.ino, "is larger than a file can be"));
    }
    let inode = match union.table.find(node.ino) {
        Found::Inode(inode) => inode,
        Found::Untouched => union.adopt(node.ino)?,
        Found::Absent => {
            union.table.revive(node.ino);
            if is_lower {
                union.adopt(node.ino)?
            } else {
                let inode = Inode::new(node);
                union.table.adopt(inode.clone());
                inode
            }
        }
    };
    if inode.kind != node.kind {
        return Err(damaged(node.ino, "changed its kind"));
    }
    let mut state = inode.state.write();
    state.now = node;
    state.recorded = true;
    let before = state.range_count();
    if node.content == ContentSource::Mixed {
        state.own.get_or_insert_default();
    } else {
        state.own = None;
    }
    union.note_details(before, state.range_count());
    Ok(())
}

fn apply_name(
    union: &Union,
    parent: Ino,
    name: &[u8],
    target: Option<(Ino, FileKind)>,
) -> Result<(), Error> {
    check_name(name).map_err(|_| damaged(parent, "has a name that no file can have"))?;
    let dir = spoken_of(union, parent)?;
    if dir.kind != FileKind::Directory {
        return Err(damaged(parent, "has names but is no directory"));
    }
    let in_lower = union.table.is_lower(parent) && union.lower.lookup(parent, name)?.is_some();
    let mut state = dir.state.write();
    let names = state.names.get_or_insert_default();
    let before = names.len();
    names.set(&name.into(), target, in_lower);
    union.note_details(before, names.len());
    Ok(())
}

/// An inode that a record other than `Node` is about. Without one of those it is as in the lower tree
/// but for what is said; that must not be lost to a compaction, which says nothing of what was not
/// recorded. (No log of ours is like that.)
fn spoken_of(union: &Union, ino: Ino) -> Result<Arc<Inode>, Error> {
    let inode = union.adopt(ino).map_err(|error| match error {
        Error::NotFound => damaged(ino, "is spoken of but was never made"),
        other => other,
    })?;
    inode.state.write().recorded = true;
    Ok(inode)
}

/// Every name leads to an inode of the kind it says.
fn check_targets(union: &Union) -> Result<(), Error> {
    for dir in union.table.all() {
        let state = dir.state.read();
        let Some(names) = &state.names else { continue };
        let targets: Vec<_> = names.each().filter_map(|(_, target)| target).collect();
        drop(state);
        for (ino, kind) in targets {
            match union.kind(ino) {
                // It would be dropped as one that nobody has open, and the name be left.
                Ok(_) if is_nameless(union, ino) => {
                    return Err(damaged(ino, "has a name but says that it has none"));
                }
                Ok(found) if found == kind => (),
                Ok(_) => return Err(damaged(ino, "is of another kind than its name says")),
                Err(Error::NotFound) => return Err(damaged(ino, "has a name but is gone")),
                Err(other) => return Err(other),
            }
        }
    }
    Ok(())
}

/// Whether the log says that no name leads to `ino`.
fn is_nameless(union: &Union, ino: Ino) -> bool {
    match union.table.find(ino) {
        Found::Inode(inode) => inode.ino != Ino::ROOT && inode.state.read().now.nlink == 0,
        Found::Untouched | Found::Absent => false,
    }
}

/// Drops inodes that were only held open when the last mount ended.
pub(crate) fn drop_orphans(union: &Union) {
    for inode in union.table.all() {
        if inode.ino == Ino::ROOT || inode.state.read().now.nlink > 0 {
            continue;
        }
        match Change::begin(union) {
            Ok(mut change) => {
                union.note_unnamed(false, true);
                change.remove(&inode);
                change.commit_or_forget();
            }
            // Opened read-only: the log stays as it is.
            Err(_) => {
                inode.state.write().gone = true;
                union.table.remove(inode.ino);
            }
        }
    }
}

fn damaged(ino: Ino, what: &str) -> Error {
    Error::damaged(format!("by the upper's log, inode {ino} {what}"))
}
