//! What differs from the lower tree, as `docker diff` tells it.
//!
//! Paths are compared, not inodes: a path in both trees that leads to something else is *changed*,
//! one only here *added* (with everything in it), one only below *deleted* (once, without what was
//! in it). A directory over any such path is *changed* too; the root is never listed. So a moved
//! directory of the lower tree is deleted where it was, and added, with all its contents, where it
//! is.
//!
//! Where both trees have the same directory, only its changed names and what the change of inodes
//! below it calls for are looked at. A changed inode of the lower tree that is no directory does
//! not know its names, so then all directories of the lower tree are looked through (names and
//! numbers only); else the cost is the number of changes and the size of the directories above.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::ControlFlow,
};

use pellicle_store::{FileKind, Ino};
use pellicle_upper::ContentSource;

use crate::{
    Union,
    error::Error,
    inode::Inode,
    names::Target,
    path::join,
    request::{Difference, DifferenceKind},
    table::Found,
};

type Changes = BTreeMap<Vec<u8>, DifferenceKind>;

/// A path still to be compared: what it is below and what it is now.
struct Pair {
    path: Vec<u8>,
    below: Option<Target>,
    now: Option<Target>,
}

struct Differ<'u> {
    union: &'u Union,
    /// Lower inodes that are not as they were.
    changed: HashSet<Ino>,
    /// Lower directories with such an inode below, by their lower parent.
    ways: HashMap<Ino, BTreeSet<Ino>>,
    /// Some changed lower inode does not know where it is.
    everywhere: bool,
    changes: Changes,
    todo: Vec<Pair>,
}

impl Union {
    /// What differs from the lower tree, sorted by path.
    ///
    /// # Errors
    /// Damage found on the way.
    pub fn differences(&self) -> Result<Vec<Difference>, Error> {
        let mut differ = Differ {
            union: self,
            changed: HashSet::new(),
            ways: HashMap::new(),
            everywhere: false,
            changes: Changes::new(),
            todo: Vec::new(),
        };
        differ.look_for_changes()?;
        let root = Some((Ino::ROOT, FileKind::Directory));
        differ.todo.push(Pair {
            path: Vec::new(),
            below: root,
            now: root,
        });
        while let Some(pair) = differ.todo.pop() {
            differ.compare(pair)?;
        }
        Ok(differ.finish())
    }

    /// Whether a lower inode is other than it was; not its names, its parent, its link count, its
    /// times of access and of change.
    fn differs(&self, inode: &Inode) -> Result<bool, Error> {
        let (now, xattrs) = {
            let state = inode.state.read();
            (state.now, state.xattrs.clone())
        };
        let was = self.lower.attr(inode.ino)?;
        let same = now.perm == was.perm
            && now.uid == was.uid
            && now.gid == was.gid
            && now.mtime == was.mtime
            && (now.kind == FileKind::Directory || now.size == was.size)
            && now.content != ContentSource::Data;
        if !same {
            return Ok(true);
        }
        for (name, value) in xattrs {
            if self.lower_xattr(inode.ino, &name)?.as_deref() != value.as_deref() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Differ<'_> {
    fn look_for_changes(&mut self) -> Result<(), Error> {
        for inode in self.union.table.all() {
            let (recorded, names) = {
                let state = inode.state.read();
                (state.recorded && !state.gone, state.names.is_some())
            };
            if !recorded || !self.union.table.is_lower(inode.ino) {
                continue;
            }
            let differs = self.union.differs(&inode)?;
            if differs {
                self.changed.insert(inode.ino);
            }
            if inode.kind == FileKind::Directory && (differs || names) {
                self.mark_way(inode.ino)?;
            } else if differs {
                self.everywhere = true;
            }
        }
        Ok(())
    }

    /// Marks the lower directories above `dir`.
    fn mark_way(&mut self, dir: Ino) -> Result<(), Error> {
        let mut at = dir;
        while at != Ino::ROOT {
            let parent = self.union.lower.parent(at)?;
            if !self.ways.entry(parent).or_default().insert(at) {
                break;
            }
            at = parent;
        }
        Ok(())
    }

    fn compare(&mut self, pair: Pair) -> Result<(), Error> {
        let Pair { path, below, now } = pair;
        match (below, now) {
            (None, None) => Ok(()),
            (Some(_), None) => {
                self.changes.insert(path, DifferenceKind::Deleted);
                Ok(())
            }
            (None, Some((ino, kind))) => {
                if kind == FileKind::Directory {
                    for (name, target) in self.names_now(ino)? {
                        self.push(&path, &name, None, Some(target));
                    }
                }
                self.changes.insert(path, DifferenceKind::Added);
                Ok(())
            }
            (Some((below, _)), Some((ino, kind))) if below == ino => {
                if kind == FileKind::Directory {
                    self.compare_same_dir(&path, ino)?;
                }
                if self.changed.contains(&ino) {
                    self.changes.insert(path, DifferenceKind::Changed);
                }
                Ok(())
            }
            (Some(below), Some(now)) => self.compare_other(path, below, now),
        }
    }

    /// One path, two inodes.
    fn compare_other(&mut self, path: Vec<u8>, below: Target, now: Target) -> Result<(), Error> {
        if now.1 == FileKind::Directory {
            let was: BTreeMap<_, _> = match below.1 {
                FileKind::Directory => self.names_below(below.0)?.into_iter().collect(),
                _ => BTreeMap::new(),
            };
            let names = self.names_now(now.0)?;
            let present: BTreeSet<&Vec<u8>> = names.iter().map(|(name, _)| name).collect();
            for (name, target) in was.iter().filter(|(name, _)| !present.contains(name)) {
                self.push(&path, name, Some(*target), None);
            }
            for (name, target) in &names {
                self.push(&path, name, was.get(name).copied(), Some(*target));
            }
        }
        self.changes.insert(path, DifferenceKind::Changed);
        Ok(())
    }

    /// The same directory in both trees.
    fn compare_same_dir(&mut self, path: &[u8], dir: Ino) -> Result<(), Error> {
        let delta: BTreeMap<Vec<u8>, Option<Target>> = match self.union.table.find(dir) {
            Found::Inode(inode) => {
                let state = inode.state.read();
                let names = state.names.iter().flat_map(|names| names.each());
                names.map(|(name, t)| (name.to_vec(), t)).collect()
            }
            Found::Untouched | Found::Absent => BTreeMap::new(),
        };
        for (name, target) in &delta {
            let below = self.union.lower.lookup(dir, name)?;
            self.push(path, name, below, *target);
        }
        let ways = self.ways.get(&dir).cloned().unwrap_or_default();
        if !self.everywhere && ways.is_empty() {
            return Ok(());
        }
        let (mut at, mut left) = (0, ways.len());
        while self.everywhere || left > 0 {
            let Some(entry) = self.union.lower.entry(dir, at)? else {
                break;
            };
            at += 1;
            let wanted = ways.contains(&entry.ino);
            left = left.saturating_sub(usize::from(wanted));
            let look = wanted
                || self.everywhere
                    && (entry.kind == FileKind::Directory || self.changed.contains(&entry.ino));
            if look && !delta.contains_key(entry.name) {
                let target = Some((entry.ino, entry.kind));
                let name = entry.name.to_vec();
                self.push(path, &name, target, target);
            }
        }
        Ok(())
    }

    fn push(&mut self, dir: &[u8], name: &[u8], below: Option<Target>, now: Option<Target>) {
        self.todo.push(Pair {
            path: join(dir, name),
            below,
            now,
        });
    }

    fn names_now(&self, dir: Ino) -> Result<Vec<(Vec<u8>, Target)>, Error> {
        let mut names = Vec::new();
        self.union.list(dir, 0, &mut |entry| {
            names.push((entry.name.to_vec(), (entry.ino, entry.kind)));
            ControlFlow::Continue(())
        })?;
        Ok(names)
    }

    fn names_below(&self, dir: Ino) -> Result<Vec<(Vec<u8>, Target)>, Error> {
        let mut names = Vec::new();
        while let Some(entry) = self.union.lower.entry(dir, names.len() as u64)? {
            names.push((entry.name.to_vec(), (entry.ino, entry.kind)));
        }
        Ok(names)
    }

    /// Marks the directories above every change, and sorts.
    fn finish(mut self) -> Vec<Difference> {
        let paths: Vec<Vec<u8>> = self.changes.keys().cloned().collect();
        for path in paths {
            let mut end = path.len();
            while let Some(slash) = path
                .get(..end)
                .and_then(|p| p.iter().rposition(|b| *b == b'/'))
                .filter(|slash| *slash > 0)
            {
                let above = path.get(..slash).unwrap_or_default();
                if self.changes.contains_key(above) {
                    break;
                }
                self.changes.insert(above.to_vec(), DifferenceKind::Changed);
                end = slash;
            }
        }
        self.changes.remove(b"".as_slice());
        let changes = self.changes.into_iter();
        changes
            .map(|(path, kind)| Difference { path, kind })
            .collect()
    }
}
