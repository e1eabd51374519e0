//! The upper directory as statements over the lower tree.
//!
//! Three passes over a scan of it: which directories merge with which lower ones (by place or by
//! redirect); which numbers are noted; then every directory is told, name by name. Lower hard links
//! that the upper hides are counted, so that link counts are true.

use std::collections::{HashMap, HashSet, VecDeque};

use pellicle_layer::host::{
    HostError, HostOptions,
    marks::{Marks, OverrideStat},
    scan::{Dir, Entry, Key, Other, Scan, scan},
};
use pellicle_store::{FileKind, Ino, Meta};

use super::{
    DirUpper,
    commit::NEXT,
    host::At,
    state::{Inode, State},
};
use crate::{ContentSource, Node, Record, Recovery, UpperError};

/// `st_size` of a directory, as the union has it.
const DIRECTORY_SIZE: u64 = 4096;

/// Where a name leads.
type Target = (Ino, FileKind);

type Apply<'a> = &'a mut dyn FnMut(Record<'_>);

struct Back<'a> {
    upper: &'a DirUpper,
    scan: Scan,
    state: &'a mut State,
    /// Lower directories that directories of the scan merge with.
    merged: HashMap<u32, Ino>,
    /// The lower directories among the values of `merged`.
    shown: HashSet<Ino>,
    /// Numbers given.
    taken: HashSet<Ino>,
    next: u64,
    files: HashMap<Key, Ino>,
    /// How many names of a lower inode with several are hidden.
    hidden: HashMap<Ino, u32>,
    /// Lower directories of which every name has been counted as hidden.
    emptied: HashSet<Ino>,
}

impl DirUpper {
    pub(super) fn read_back(
        &self,
        apply: &mut dyn FnMut(Record<'_>),
    ) -> Result<Recovery, UpperError> {
        let options = HostOptions {
            marks: if self.rights.trusted {
                Marks::Trusted
            } else {
                Marks::User
            },
            override_stat: if self.rights.owners {
                OverrideStat::Never
            } else {
                OverrideStat::Always
            },
            wh_files: true,
            keep_whiteouts: true,
        };
        let scan = scan(&self.path, &options).map_err(|e| match e {
            HostError::Io {
                doing,
                path,
                source,
            } => UpperError::Io {
                doing,
                path,
                source,
            },
            other @ (HostError::NotADirectory { .. }
            | HostError::Empty
            | HostError::Tree { .. }) => self.corrupt(other.to_string()),
        })?;
        let mut state = self.state.lock();
        let mut back = Back {
            upper: self,
            scan,
            state: &mut state,
            merged: HashMap::new(),
            shown: HashSet::new(),
            taken: HashSet::new(),
            next: 0,
            files: HashMap::new(),
            hidden: HashMap::new(),
            emptied: HashSet::new(),
        };
        back.refuse_closed()?;
        back.find_merged()?;
        back.find_next();
        back.tell(apply)?;
        let next = back.next;
        if next > self.lower.inode_count() + 1 {
            // Numbers go on above all that were ever given.
            let ino = Ino(next);
            apply(Record::Gone { ino });
        }
        Ok(Recovery {
            clean: true,
            ..Recovery::default()
        })
    }

    /// The number that was noted, if it was over this lower tree.
    fn noted(&self, mark: Option<&[u8]>) -> Option<Ino> {
        let number = mark?.strip_prefix(&self.tag)?;
        let number = u64::from_le_bytes(number.try_into().ok()?);
        (number > 1 && number < u64::MAX >> 1).then_some(Ino(number))
    }

    fn lower_dir_at(&self, path: &[u8]) -> Result<Option<Ino>, UpperError> {
        let mut at = Ino::ROOT;
        for name in path.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
            match self.lower.lookup(at, name)? {
                Some((ino, FileKind::Directory)) => at = ino,
                _ => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    fn lower_at(&self, path: &[u8]) -> Result<Option<(Ino, FileKind)>, UpperError> {
        let (above, name) = match path.iter().rposition(|b| *b == b'/') {
            Some(at) => path.split_at(at),
            None => (&[][..], path),
        };
        let name = name.strip_prefix(b"/").unwrap_or(name);
        match self.lower_dir_at(above)? {
            Some(dir) => Ok(self.lower.lookup(dir, name)?),
            None => Ok(None),
        }
    }
}

impl Back<'_> {
    /// What cannot be read cannot be served whole.
    fn refuse_closed(&self) -> Result<(), UpperError> {
        let closed = self.scan.dirs.iter().find(|dir| dir.closed);
        closed.map_or(Ok(()), |dir| {
            Err(self.upper.corrupt(format!(
                "its directory {:?} may not be read by this user",
                String::from_utf8_lossy(&dir.name)
            )))
        })
    }

    fn find_merged(&mut self) -> Result<(), UpperError> {
        let is_opaque = |scan: &Scan, at: u32| scan.dir(at).is_none_or(|dir| dir.opaque);
        let mut todo = VecDeque::new();
        if !is_opaque(&self.scan, 0) {
            self.merged.insert(0, Ino::ROOT);
            self.shown.insert(Ino::ROOT);
        }
        todo.push_back(0);
        while let Some(at) = todo.pop_front() {
            let lower = self.merged.get(&at).copied();
            let Some(dir) = self.scan.dir(at) else {
                continue;
            };
            for (name, entry) in &dir.entries {
                let Entry::Dir(child) = entry else { continue };
                todo.push_back(*child);
                let Some(below) = self.scan.dir(*child).filter(|dir| !dir.opaque) else {
                    continue;
                };
                let found = match (&below.redirect, lower) {
                    (Some(path), _) if path.starts_with(b"/") => self.upper.lower_dir_at(path)?,
                    (redirect, Some(lower)) => {
                        let name = redirect.as_ref().unwrap_or(name);
                        match self.upper.lower.lookup(lower, name)? {
                            Some((ino, FileKind::Directory)) => Some(ino),
                            _ => None,
                        }
                    }
                    (_, None) => None,
                };
                let Some(ino) = found else { continue };
                if !self.shown.insert(ino) {
                    return Err(self.upper.corrupt(format!(
                        "two of its directories merge with the same lower one, {:?} among them",
                        String::from_utf8_lossy(name)
                    )));
                }
                self.merged.insert(*child, ino);
            }
        }
        Ok(())
    }

    fn find_next(&mut self) {
        let mut highest = self.upper.lower.inode_count();
        for dir in &self.scan.dirs {
            let mut note = |mark: Option<&[u8]>| {
                if let Some(ino) = self.upper.noted(mark) {
                    highest = highest.max(ino.0);
                }
            };
            note(dir.number.as_deref());
            for (_, entry) in &dir.entries {
                if let Entry::Other(other) = entry {
                    note(other.number.as_deref());
                }
            }
        }
        let top = At::new(&self.upper.root, b".");
        let mark = top.get_xattr(&self.upper.rights.mark(NEXT));
        if let Some(ino) = self.upper.noted(mark.as_deref()) {
            highest = highest.max(ino.0);
        }
        self.next = highest + 1;
    }

    /// The noted number, if nothing has it and the lower tree has nothing of another kind there.
    fn give(&mut self, mark: Option<&[u8]>, kind: FileKind) -> Result<Ino, UpperError> {
        if let Some(ino) = self.upper.noted(mark)
            && !self.taken.contains(&ino)
            && (!self.upper.is_lower(ino) || self.upper.lower.attr(ino)?.kind == kind)
        {
            self.taken.insert(ino);
            return Ok(ino);
        }
        let ino = Ino(self.next);
        self.next += 1;
        self.taken.insert(ino);
        Ok(ino)
    }

    fn tell(&mut self, apply: Apply<'_>) -> Result<(), UpperError> {
        let scan = std::mem::replace(
            &mut self.scan,
            Scan {
                root: super::host::open_dir(&self.upper.path)?,
                path: self.upper.path.clone(),
                dirs: Vec::new(),
            },
        );
        self.taken.clone_from(&self.shown);
        self.taken.insert(Ino::ROOT);
        let mut numbers: HashMap<u32, Ino> = self.merged.clone();
        numbers.insert(0, Ino::ROOT);
        let mut todo = VecDeque::from([(0_u32, Ino::ROOT)]);
        while let Some((at, parent)) = todo.pop_front() {
            let (Some(dir), Some(ino)) = (scan.dir(at), numbers.get(&at).copied()) else {
                continue;
            };
            for (_, entry) in &dir.entries {
                if let Entry::Dir(child) = entry
                    && let Some(below) = scan.dir(*child)
                {
                    if !numbers.contains_key(child) {
                        let given = self.give(below.number.as_deref(), FileKind::Directory)?;
                        numbers.insert(*child, given);
                    }
                    todo.push_back((*child, ino));
                }
            }
            self.tell_dir(at, dir, ino, parent, &numbers, apply)?;
        }
        self.tell_counts(apply)
    }

    fn tell_dir(
        &mut self,
        at: u32,
        dir: &Dir,
        ino: Ino,
        parent: Ino,
        numbers: &HashMap<u32, Ino>,
        apply: Apply<'_>,
    ) -> Result<(), UpperError> {
        let merged = self.merged.contains_key(&at);
        let mut node = node(ino, FileKind::Directory, &dir.meta, DIRECTORY_SIZE);
        node.parent = parent;
        node.nlink = if merged {
            self.upper.lower.attr(ino)?.nlink
        } else {
            2
        };
        let mut held = HashMap::new();
        let mut said: Vec<(&[u8], Option<Target>)> = Vec::new();
        for (name, entry) in &dir.entries {
            let below = self.lower_child(ino, name)?;
            if merged && matches!(below, Some((_, FileKind::Directory))) {
                node.nlink = node.nlink.saturating_sub(1);
            }
            let now = match entry {
                Entry::Whiteout => None,
                Entry::Dir(child) => {
                    node.nlink = node.nlink.saturating_add(1);
                    numbers.get(child).map(|ino| (*ino, FileKind::Directory))
                }
                Entry::Other(other) => {
                    let ino = self.file(ino, name, other, apply)?;
                    Some((ino, other.kind))
                }
            };
            held.insert(name.clone(), now.map(|(ino, _)| ino));
            if let Some(below) = below
                && merged
                && now.map(|(ino, _)| ino) != Some(below.0)
            {
                self.hide(below)?;
            }
            if now.is_some() || below.is_some() {
                said.push((name, now));
            }
        }
        let mut inode = Inode::new(node);
        inode.merged = merged;
        inode.redirected = dir.redirect.is_some();
        inode.wh_files = dir.wh_files;
        inode.names = held;
        if ino != Ino::ROOT {
            inode.places.push((parent, dir.name.clone()));
        }
        apply(Record::Node(node));
        self.tell_xattrs(ino, &dir.meta, apply)?;
        for (name, now) in said {
            match now {
                Some((ino_there, kind)) => apply(Record::Entry {
                    parent: ino,
                    name,
                    ino: ino_there,
                    kind,
                }),
                None => apply(Record::NoEntry { parent: ino, name }),
            }
        }
        if !merged && self.upper.is_lower(ino) {
            self.tell_closed(ino, &inode, apply)?;
        }
        self.state.inodes.insert(ino, inode);
        Ok(())
    }

    /// A directory with a lower number that shows nothing of the lower tree.
    fn tell_closed(&mut self, ino: Ino, inode: &Inode, apply: Apply<'_>) -> Result<(), UpperError> {
        let mut at = 0;
        while let Some(entry) = self.upper.lower.entry(ino, at)? {
            at += 1;
            if !inode.names.contains_key(entry.name) {
                apply(Record::NoEntry {
                    parent: ino,
                    name: entry.name,
                });
            }
        }
        self.hide_names_in(ino)
    }

    fn lower_child(&self, dir: Ino, name: &[u8]) -> Result<Option<(Ino, FileKind)>, UpperError> {
        if !self.upper.is_lower(dir) {
            return Ok(None);
        }
        Ok(self.upper.lower.lookup(dir, name)?)
    }

    /// Counts the lower names that go with this one.
    fn hide(&mut self, below: (Ino, FileKind)) -> Result<(), UpperError> {
        let (ino, kind) = below;
        if kind != FileKind::Directory {
            *self.hidden.entry(ino).or_default() += 1;
            return Ok(());
        }
        // A directory that is shown elsewhere, by a redirect, tells of its own names.
        if self.shown.contains(&ino) {
            return Ok(());
        }
        self.state.gone.insert(ino);
        self.hide_names_in(ino)
    }

    /// Counts every lower name in a directory that shows none of them, once: a copied directory has
    /// lost its old name and is told of at its new one.
    fn hide_names_in(&mut self, dir: Ino) -> Result<(), UpperError> {
        let mut todo = vec![dir];
        while let Some(dir) = todo.pop() {
            if !self.emptied.insert(dir) {
                continue;
            }
            let mut at = 0;
            while let Some(entry) = self.upper.lower.entry(dir, at)? {
                at += 1;
                if entry.kind != FileKind::Directory {
                    *self.hidden.entry(entry.ino).or_default() += 1;
                } else if !self.shown.contains(&entry.ino) {
                    self.state.gone.insert(entry.ino);
                    todo.push(entry.ino);
                }
            }
        }
        Ok(())
    }

    /// Numbers what is no directory, and tells of it at its first name.
    fn file(
        &mut self,
        dir: Ino,
        name: &[u8],
        other: &Other,
        apply: Apply<'_>,
    ) -> Result<Ino, UpperError> {
        if let Some(ino) = self.files.get(&other.key).copied() {
            if let Some(inode) = self.state.inodes.get_mut(&ino) {
                inode.places.push((dir, name.into()));
                inode.node.nlink = inode.node.nlink.saturating_add(1);
                apply(Record::Node(inode.node));
            }
            return Ok(ino);
        }
        let ino = if other.metacopy && other.kind == FileKind::Regular {
            self.content_below(dir, name, other)?
        } else {
            self.give(other.number.as_deref(), other.kind)?
        };
        let size = match other.kind {
            FileKind::Symlink => other.target.len() as u64,
            _ => other.size,
        };
        let mut node = node(ino, other.kind, &other.meta, size);
        node.rdev = other.rdev;
        node.nlink = 1;
        if other.kind == FileKind::Regular {
            node.content = if other.metacopy {
                ContentSource::Lower
            } else {
                ContentSource::Data
            };
        }
        apply(Record::Node(node));
        if other.kind == FileKind::Symlink {
            let target = &other.target;
            apply(Record::Symlink { ino, target });
        }
        self.tell_xattrs(ino, &other.meta, apply)?;
        let mut inode = Inode::new(node);
        inode.metacopy = node.content == ContentSource::Lower;
        inode.places.push((dir, name.into()));
        self.state.inodes.insert(ino, inode);
        self.files.insert(other.key, ino);
        Ok(ino)
    }

    /// The lower file whose content a file of only metadata has.
    fn content_below(&mut self, dir: Ino, name: &[u8], other: &Other) -> Result<Ino, UpperError> {
        let found = match &other.redirect {
            Some(path) if path.starts_with(b"/") => self.upper.lower_at(path)?,
            Some(other) => self.lower_child(dir, other)?,
            None => self.lower_child(dir, name)?,
        };
        match found {
            Some((ino, FileKind::Regular)) if self.taken.insert(ino) => Ok(ino),
            _ => Err(self.upper.corrupt(format!(
                "its file {:?} has no content of its own (metacopy), and the lower one is not to be found",
                String::from_utf8_lossy(name)
            ))),
        }
    }

    fn tell_xattrs(&self, ino: Ino, meta: &Meta, apply: Apply<'_>) -> Result<(), UpperError> {
        for (name, value) in &meta.xattrs {
            apply(Record::Xattr { ino, name, value });
        }
        if !self.upper.is_lower(ino) || !self.upper.lower.has_xattrs(ino)? {
            return Ok(());
        }
        let mut lost = Vec::new();
        self.upper.lower.xattrs(ino, &mut |name, _| {
            if !meta.xattrs.iter().any(|(there, _)| there == name) {
                lost.push(name.to_vec());
            }
        })?;
        for name in &lost {
            apply(Record::NoXattr { ino, name });
        }
        Ok(())
    }

    /// Link counts of lower inodes that lost some of their names.
    fn tell_counts(&mut self, apply: Apply<'_>) -> Result<(), UpperError> {
        let hidden: Vec<(Ino, u32)> = self.hidden.drain().collect();
        for (ino, count) in hidden {
            if self.state.inodes.contains_key(&ino) {
                continue;
            }
            let mut node = self.upper.lower_node(ino)?;
            if node.nlink > count {
                node.nlink -= count;
                apply(Record::Node(node));
            }
        }
        Ok(())
    }
}

fn node(ino: Ino, kind: FileKind, meta: &Meta, size: u64) -> Node {
    Node {
        ino,
        kind,
        perm: meta.perm,
        nlink: 1,
        uid: meta.uid,
        gid: meta.gid,
        rdev: pellicle_store::Device::default(),
        size,
        content: ContentSource::Zero,
        atime: meta.atime,
        mtime: meta.mtime,
        ctime: meta.ctime,
        parent: Ino::ROOT,
    }
}
