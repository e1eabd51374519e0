//! One change of the tree: validated, kept by the upper, then applied to memory.
//!
//! [`Change`] is the guard of the *change lock*: whoever has one is the only one that changes names
//! and attributes, so what it reads stays true until it commits. Readers never wait for it: they
//! take the state locks of single inodes, which [`Change::commit`] takes only after the upper has
//! taken the batch, all at once in ascending order of inode numbers, so that a change of several
//! inodes becomes visible as one. If the upper refuses, memory is as before.
//!
//! One lock for all changes loses nothing: the upper's log has one tail, and everything else under
//! the lock is a few map operations.

use std::sync::{Arc, atomic::Ordering};

use parking_lot::{MutexGuard, RwLockWriteGuard};
use pellicle_store::{FileKind, Ino, Time};
use pellicle_upper::{ContentSource, Node, Record};

use crate::{
    Union,
    error::Error,
    inode::{Inode, State},
    names::Target,
    ranges::Range,
    union::ChangeCount,
};

struct NameChange {
    dir: Arc<Inode>,
    name: Arc<[u8]>,
    target: Option<Target>,
    in_lower: bool,
}

struct XattrChange {
    inode: Arc<Inode>,
    name: Box<[u8]>,
    value: Option<Box<[u8]>>,
    in_lower: bool,
}

pub(crate) struct Change<'u> {
    pub(crate) union: &'u Union,
    pub(crate) now: Time,
    count: MutexGuard<'u, ChangeCount>,
    nodes: Vec<(Arc<Inode>, Node)>,
    own: Vec<(Arc<Inode>, Range)>,
    fresh: Vec<Arc<Inode>>,
    targets: Vec<(Arc<Inode>, Arc<[u8]>)>,
    xattrs: Vec<XattrChange>,
    names: Vec<NameChange>,
    gone: Vec<Arc<Inode>>,
}

impl<'u> Change<'u> {
    pub(crate) fn begin(union: &'u Union) -> Result<Self, Error> {
        if union.is_read_only() {
            return Err(Error::ReadOnly);
        }
        let count = union.changes.lock();
        Ok(Self {
            union,
            now: Time::now(),
            count,
            nodes: Vec::new(),
            own: Vec::new(),
            fresh: Vec::new(),
            targets: Vec::new(),
            xattrs: Vec::new(),
            names: Vec::new(),
            gone: Vec::new(),
        })
    }

    /// An inode that is there.
    pub(crate) fn inode(&self, ino: Ino) -> Result<Arc<Inode>, Error> {
        let inode = self.union.adopt(ino)?;
        inode.now()?;
        Ok(inode)
    }

    /// A directory that names may be put into: one that was removed takes none.
    pub(crate) fn dir(&self, ino: Ino) -> Result<Arc<Inode>, Error> {
        let inode = self.inode(ino)?;
        if inode.kind != FileKind::Directory {
            return Err(Error::NotDirectory);
        }
        if inode.now()?.nlink == 0 {
            return Err(Error::NotFound);
        }
        Ok(inode)
    }

    /// Changes attributes; the first edit of an inode starts from what they are now.
    pub(crate) fn edit(
        &mut self,
        inode: &Arc<Inode>,
        f: impl FnOnce(&mut Node),
    ) -> Result<(), Error> {
        if let Some((_, node)) = self.nodes.iter_mut().find(|(i, _)| i.ino == inode.ino) {
            f(node);
            return Ok(());
        }
        let mut node = inode.now()?;
        f(&mut node);
        self.nodes.push((inode.clone(), node));
        Ok(())
    }

    /// The bytes of `range` are in the data file of `inode`, whose content an edit makes mixed.
    pub(crate) fn own(&mut self, inode: &Arc<Inode>, range: Range) {
        self.own.push((inode.clone(), range));
    }

    /// A change of the names in `dir`: its times are now.
    pub(crate) fn touch_dir(&mut self, dir: &Arc<Inode>) -> Result<(), Error> {
        let now = self.now;
        self.edit(dir, |node| {
            node.mtime = now;
            node.ctime = now;
        })
    }

    /// One more or one less subdirectory in `dir`.
    pub(crate) fn count_subdir(&mut self, dir: &Arc<Inode>, more: bool) -> Result<(), Error> {
        self.edit(dir, |node| {
            node.nlink = if more {
                node.nlink.saturating_add(1)
            } else {
                node.nlink.saturating_sub(1)
            };
        })
    }

    /// Adds an inode that is not in the table yet.
    pub(crate) fn add(&mut self, node: Node) -> Arc<Inode> {
        let inode = Inode::new(node);
        inode.state.write().data.exact = true;
        self.fresh.push(inode.clone());
        self.nodes.push((inode.clone(), node));
        inode
    }

    pub(crate) fn set_target(&mut self, inode: &Arc<Inode>, target: &[u8]) {
        self.targets.push((inode.clone(), target.into()));
    }

    pub(crate) fn set_xattr(
        &mut self,
        inode: &Arc<Inode>,
        name: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), Error> {
        let in_lower = self.union.lower_xattr(inode.ino, name)?.is_some();
        self.xattrs.push(XattrChange {
            inode: inode.clone(),
            name: name.into(),
            value: value.map(Into::into),
            in_lower,
        });
        Ok(())
    }

    /// `name` in `dir` leads to `target`, or nowhere.
    pub(crate) fn set_name(
        &mut self,
        dir: &Arc<Inode>,
        name: &[u8],
        target: Option<Target>,
    ) -> Result<(), Error> {
        let in_lower =
            self.union.table.is_lower(dir.ino) && self.union.lower.lookup(dir.ino, name)?.is_some();
        self.names.push(NameChange {
            dir: dir.clone(),
            name: name.into(),
            target,
            in_lower,
        });
        self.touch_dir(dir)
    }

    /// `inode` loses a name; with the last one it goes, at once if the kernel does not know of it.
    pub(crate) fn drop_link(&mut self, inode: &Arc<Inode>) -> Result<(), Error> {
        let (now, mut left) = (self.now, 0);
        self.edit(inode, |node| {
            node.nlink = match node.kind {
                FileKind::Directory => 0,
                _ => node.nlink.saturating_sub(1),
            };
            node.ctime = now;
            left = node.nlink;
        })?;
        if left == 0 && !self.union.is_told(inode) {
            self.gone.push(inode.clone());
        }
        Ok(())
    }

    /// `inode` is gone for good.
    pub(crate) fn remove(&mut self, inode: &Arc<Inode>) {
        self.gone.push(inode.clone());
    }

    fn is_gone(&self, ino: Ino) -> bool {
        self.gone.iter().any(|inode| inode.ino == ino)
    }

    fn records(&self) -> Vec<Record<'_>> {
        let mut records = Vec::with_capacity(self.nodes.len() + self.names.len() + 2);
        let staying = self.nodes.iter().filter(|(i, _)| !self.is_gone(i.ino));
        records.extend(staying.map(|(_, node)| Record::Node(*node)));
        records.extend(self.own.iter().map(|(inode, range)| Record::Own {
            ino: inode.ino,
            start: range.start,
            end: range.end,
        }));
        records.extend(self.targets.iter().map(|(inode, target)| Record::Symlink {
            ino: inode.ino,
            target,
        }));
        records.extend(self.xattrs.iter().map(|x| match &x.value {
            Some(value) => Record::Xattr {
                ino: x.inode.ino,
                name: &x.name,
                value,
            },
            None => Record::NoXattr {
                ino: x.inode.ino,
                name: &x.name,
            },
        }));
        records.extend(self.names.iter().map(|n| match n.target {
            Some((ino, kind)) => Record::Entry {
                parent: n.dir.ino,
                name: &n.name,
                ino,
                kind,
            },
            None => Record::NoEntry {
                parent: n.dir.ino,
                name: &n.name,
            },
        }));
        records.extend(self.gone.iter().map(|i| Record::Gone { ino: i.ino }));
        records
    }

    /// Keeps the change, then makes it visible.
    pub(crate) fn commit(mut self) -> Result<(), Error> {
        self.union.upper()?.commit(&self.records())?;
        self.apply();
        self.count.since_check += 1;
        if self.count.since_check >= crate::compact::CHECK_EVERY {
            self.count.since_check = 0;
            let union = self.union;
            drop(self);
            union.compact_if_worth_it();
        }
        Ok(())
    }

    /// Commits a batch that may fail without harm, because replay comes to the same end: memory
    /// goes on in any case.
    pub(crate) fn commit_or_forget(self) {
        if let Ok(upper) = self.union.upper()
            && let Err(error) = upper.commit(&self.records())
        {
            tracing::debug!(%error, "a removed inode stays in the log until the next mount");
        }
        self.apply();
    }

    /// The only place that holds more than one state lock.
    fn apply(&self) {
        for inode in &self.fresh {
            let unnamed = inode.state.read().now.nlink == 0;
            self.union.note_unnamed(false, unnamed);
            self.union.table.adopt(inode.clone());
        }
        let mut inodes: Vec<&Arc<Inode>> = self.nodes.iter().map(|(inode, _)| inode).collect();
        inodes.extend(self.targets.iter().map(|(inode, _)| inode));
        inodes.extend(self.xattrs.iter().map(|x| &x.inode));
        inodes.extend(self.names.iter().map(|n| &n.dir));
        inodes.extend(self.gone.iter());
        inodes.sort_unstable_by_key(|inode| inode.ino);
        inodes.dedup_by_key(|inode| inode.ino);
        let mut states = States(
            inodes
                .iter()
                .map(|inode| (inode.ino, inode.state.write()))
                .collect(),
        );
        for (inode, node) in &self.nodes {
            states.with(inode.ino, |state| {
                self.union
                    .note_unnamed(state.now.nlink == 0, node.nlink == 0);
                state.now = *node;
                state.recorded = true;
                let before = state.range_count();
                if node.content == ContentSource::Mixed {
                    let own = state.own.get_or_insert_default();
                    let said = self.own.iter().filter(|(i, _)| i.ino == inode.ino);
                    said.for_each(|(_, range)| own.insert(*range));
                } else {
                    state.own = None;
                }
                self.union.note_details(before, state.range_count());
            });
        }
        for (inode, target) in &self.targets {
            states.with(inode.ino, |state| state.target = Some(target.clone()));
        }
        for x in &self.xattrs {
            states.with(x.inode.ino, |state| {
                if x.value.is_some() || x.in_lower {
                    state.xattrs.insert(x.name.clone(), x.value.clone());
                } else {
                    state.xattrs.remove(&x.name);
                }
            });
        }
        for n in &self.names {
            states.with(n.dir.ino, |state| {
                let names = state.names.get_or_insert_default();
                let before = names.len();
                names.set(&n.name, n.target, n.in_lower);
                self.union.note_details(before, names.len());
            });
        }
        for inode in &self.gone {
            states.with(inode.ino, |state| {
                state.gone = true;
                self.union.note_details(state.take_details(), 0);
            });
        }
        drop(states);
        for inode in &self.gone {
            self.union.table.remove(inode.ino);
            if inode.state.read().now.content.has_data()
                && let Ok(upper) = self.union.upper()
            {
                upper.remove_data(inode.ino);
            }
            self.union.note_unnamed(true, false);
        }
        self.union.has_changed.store(true, Ordering::Relaxed);
    }
}

struct States<'a>(Vec<(Ino, RwLockWriteGuard<'a, State>)>);

impl States<'_> {
    fn with(&mut self, ino: Ino, f: impl FnOnce(&mut State)) {
        if let Ok(at) = self.0.binary_search_by_key(&ino, |(ino, _)| *ino)
            && let Some((_, state)) = self.0.get_mut(at)
        {
            f(state);
        }
    }
}
