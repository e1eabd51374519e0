//! What differs from the lower tree, as `docker diff` tells it and as a layer has to say it.
//!
//! Paths are compared, not inodes: a path in both trees that leads to something else is *changed*,
//! one only here *added* (with everything in it), one only below *deleted* (once, without what was
//! in it). A directory over any such path is *changed* too; the root is never listed. So a moved
//! directory of the lower tree is deleted where it was, and added, with all its contents, where it
//! is.
//!
//! Where both trees have the same directory, only its changed names and what the change of inodes
//! below it calls for are looked at. So the cost is the number of changes, and what is in added
//! directories, where the lower tree leads from an inode to its names ([`Lower::names_of`]). Where it
//! does not, directories above a change are listed for the name that leads to it, and if a changed
//! inode is no directory, all directories of the lower tree are looked through.
//!
//! [`Lower::names_of`]: pellicle_layer::Lower::names_of

mod layer;
mod search;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::ControlFlow,
};

use pellicle_store::{FileKind, Ino};

use crate::{
    Union,
    error::Error,
    names::Target,
    path::join,
    request::{Difference, DifferenceKind},
    table::Found,
};

/// What a path has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Deleted,
    Added(Ino),
    Changed(Ino),
    /// A directory that is not the one below, of which nothing may be seen through it.
    Replaced(Ino),
}

type Changes = BTreeMap<Vec<u8>, What>;

/// A path still to be compared: what it is below and what it is now.
struct Pair {
    path: Vec<u8>,
    below: Option<Target>,
    now: Option<Target>,
}

struct Differ<'u> {
    union: &'u Union,
    /// A directory in place of another one is listed whole, as [`What::Replaced`].
    whole: bool,
    /// Lower inodes that are not as they were.
    changed: HashSet<Ino>,
    /// Names in lower directories that lead to such an inode or to a directory over one.
    ways: HashMap<Ino, BTreeMap<Vec<u8>, Target>>,
    /// Lower directories over such an inode, by their lower parent, where their names are not known.
    nameless: HashMap<Ino, BTreeSet<Ino>>,
    /// Some changed lower inode does not know where it is.
    everywhere: bool,
    changes: Changes,
    /// Directories that are in both trees and were compared.
    same: HashMap<Vec<u8>, Ino>,
    todo: Vec<Pair>,
}

impl Union {
    /// What differs from the lower tree, sorted by path.
    ///
    /// # Errors
    /// Damage found on the way.
    pub fn differences(&self) -> Result<Vec<Difference>, Error> {
        let mut differ = Differ::new(self, false)?;
        differ.run()?;
        let mut changes = differ.changes;
        changes.remove(b"".as_slice());
        let told = |(path, what)| Difference {
            path,
            kind: match what {
                What::Deleted => DifferenceKind::Deleted,
                What::Added(_) => DifferenceKind::Added,
                What::Changed(_) | What::Replaced(_) => DifferenceKind::Changed,
            },
        };
        Ok(changes.into_iter().map(told).collect())
    }
}

impl<'u> Differ<'u> {
    fn new(union: &'u Union, whole: bool) -> Result<Self, Error> {
        let mut differ = Self {
            union,
            whole,
            changed: HashSet::new(),
            ways: HashMap::new(),
            nameless: HashMap::new(),
            everywhere: false,
            changes: Changes::new(),
            same: HashMap::new(),
            todo: Vec::new(),
        };
        differ.look_for_changes()?;
        Ok(differ)
    }

    /// Compares the trees from their roots on.
    fn run(&mut self) -> Result<(), Error> {
        self.changes.clear();
        self.same.clear();
        let root = Some((Ino::ROOT, FileKind::Directory));
        self.todo.push(Pair {
            path: Vec::new(),
            below: root,
            now: root,
        });
        while let Some(pair) = self.todo.pop() {
            self.compare(pair)?;
        }
        self.mark_above();
        Ok(())
    }

    fn compare(&mut self, pair: Pair) -> Result<(), Error> {
        let Pair { path, below, now } = pair;
        match (below, now) {
            (None, None) => Ok(()),
            (Some(_), None) => {
                self.changes.insert(path, What::Deleted);
                Ok(())
            }
            (None, Some((ino, kind))) => {
                if kind == FileKind::Directory {
                    self.add_names(&path, ino)?;
                }
                self.changes.insert(path, What::Added(ino));
                Ok(())
            }
            (Some((below, _)), Some((ino, kind))) if below == ino => {
                if kind == FileKind::Directory {
                    self.compare_same_dir(&path, ino)?;
                    self.same.insert(path.clone(), ino);
                }
                if self.changed.contains(&ino) {
                    self.changes.insert(path, What::Changed(ino));
                }
                Ok(())
            }
            (Some(below), Some(now)) => self.compare_other(path, below, now),
        }
    }

    /// Everything in `dir` is added.
    fn add_names(&mut self, path: &[u8], dir: Ino) -> Result<(), Error> {
        for (name, target) in self.names_now(dir)? {
            self.push(path, &name, None, Some(target));
        }
        Ok(())
    }

    /// One path, two inodes.
    fn compare_other(&mut self, path: Vec<u8>, below: Target, now: Target) -> Result<(), Error> {
        let both = below.1 == FileKind::Directory && now.1 == FileKind::Directory;
        if self.whole && both {
            self.add_names(&path, now.0)?;
            self.changes.insert(path, What::Replaced(now.0));
            return Ok(());
        }
        if both {
            let was: BTreeMap<_, _> = self.names_below(below.0)?.into_iter().collect();
            let names = self.names_now(now.0)?;
            let present: BTreeSet<&Vec<u8>> = names.iter().map(|(name, _)| name).collect();
            for (name, target) in was.iter().filter(|(name, _)| !present.contains(name)) {
                self.push(&path, name, Some(*target), None);
            }
            for (name, target) in &names {
                self.push(&path, name, was.get(name).copied(), Some(*target));
            }
        } else if now.1 == FileKind::Directory {
            self.add_names(&path, now.0)?;
        }
        self.changes.insert(path, What::Changed(now.0));
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
        for (name, target) in self.ways.remove(&dir).unwrap_or_default() {
            if !delta.contains_key(&name) {
                self.push(path, &name, Some(target), Some(target));
            }
        }
        self.look_through(path, dir, &delta)
    }

    /// Goes on from a directory of both trees to what is below it and has no known name.
    fn look_through(
        &mut self,
        path: &[u8],
        dir: Ino,
        delta: &BTreeMap<Vec<u8>, Option<Target>>,
    ) -> Result<(), Error> {
        let wanted = self.nameless.get(&dir).cloned().unwrap_or_default();
        let (mut at, mut left) = (0, wanted.len());
        while self.everywhere || left > 0 {
            let Some(entry) = self.union.lower.entry(dir, at)? else {
                break;
            };
            at += 1;
            let is_wanted = wanted.contains(&entry.ino);
            left = left.saturating_sub(usize::from(is_wanted));
            let look = is_wanted
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

    /// Marks the directories above every change.
    fn mark_above(&mut self) {
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
                // Nothing is compared but from the directory over it.
                let Some(ino) = self.same.get(above) else {
                    break;
                };
                self.changes.insert(above.to_vec(), What::Changed(*ino));
                end = slash;
            }
        }
    }
}
