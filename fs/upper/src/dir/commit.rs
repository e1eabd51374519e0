//! A batch of statements as calls of the host.

use std::collections::BTreeMap;

use pellicle_store::{FileKind, Ino};
use rustix::io::Errno;

use super::{
    DirUpper,
    copy::Details,
    host::{self, work_name},
    state::{Inode, State},
};
use crate::{ContentSource, Node, Record, UpperError};

/// Numbers that are noted as given at once.
const RESERVE: u64 = 4096;

/// The mark of the top directory that says below what numbers were given.
pub(super) const NEXT: &[u8] = b"pellicle.next";

/// A batch, sorted by what it is about.
#[derive(Default)]
pub(super) struct Said {
    nodes: Vec<Node>,
    details: BTreeMap<Ino, Details>,
    /// Names that lead somewhere now.
    pub(super) leads: Vec<(Ino, Box<[u8]>, Ino)>,
    /// Names that lead nowhere now.
    pub(super) ends: Vec<(Ino, Box<[u8]>)>,
    gone: Vec<Ino>,
}

impl Said {
    /// `Err` for what such an upper cannot say of a file: that part of its content is below.
    fn of(batch: &[Record<'_>]) -> Result<Self, Errno> {
        let mut said = Self::default();
        for record in batch {
            match *record {
                Record::Node(node) if node.content != ContentSource::Mixed => {
                    said.nodes.push(node);
                }
                Record::Node(_) | Record::Own { .. } => return Err(Errno::OPNOTSUPP),
                Record::Entry {
                    parent, name, ino, ..
                } => said.leads.push((parent, name.into(), ino)),
                Record::NoEntry { parent, name } => said.ends.push((parent, name.into())),
                Record::Symlink { ino, target } => {
                    said.details.entry(ino).or_default().target = Some(target.into());
                }
                Record::Xattr { ino, name, value } => {
                    let xattrs = &mut said.details.entry(ino).or_default().xattrs;
                    xattrs.push((name.into(), Some(value.into())));
                }
                Record::NoXattr { ino, name } => {
                    let xattrs = &mut said.details.entry(ino).or_default().xattrs;
                    xattrs.push((name.into(), None));
                }
                Record::Gone { ino } => said.gone.push(ino),
            }
        }
        Ok(said)
    }

    /// Whether `ino` lives on without a name.
    pub(super) fn stays(&self, ino: Ino) -> bool {
        !self.gone.contains(&ino)
    }

    fn names_change_in(&self, dir: Ino) -> bool {
        self.leads.iter().any(|(parent, ..)| *parent == dir)
            || self.ends.iter().any(|(parent, _)| *parent == dir)
    }
}

/// Whether the host has to know of the change.
fn differs(was: &Node, node: &Node) -> bool {
    (was.perm, was.uid, was.gid) != (node.perm, node.uid, node.gid)
        || (was.atime, was.mtime) != (node.atime, node.mtime)
        || was.kind == FileKind::Regular && (was.size, was.content) != (node.size, node.content)
}

impl DirUpper {
    pub(super) fn keep(&self, state: &mut State, batch: &[Record<'_>]) -> Result<(), UpperError> {
        let said = Said::of(batch)
            .map_err(|e| host::error("keep content in pieces in", self.path.clone(), e))?;
        let mut made = Vec::new();
        let kept = self
            .prepare(state, &said, &mut made)
            .and_then(|()| self.change_names(state, &said));
        if let Err(error) = kept {
            for ino in made {
                // It never had a name; what is left goes at the next mount.
                let _ = self.work_at(&work_name(ino, "")).remove_all();
                state.inodes.remove(&ino);
            }
            return Err(error);
        }
        self.finish(state, &said);
        Ok(())
    }

    /// Everything that nobody sees before names change, and changes of attributes.
    fn prepare(
        &self,
        state: &mut State,
        said: &Said,
        made: &mut Vec<Ino>,
    ) -> Result<(), UpperError> {
        let none = Details::default();
        for (dir, ..) in &said.leads {
            self.ensure_dir(state, *dir)?;
        }
        for (dir, name) in &said.ends {
            if state.inodes.contains_key(dir) || self.lower.lookup(*dir, name)?.is_some() {
                self.ensure_dir(state, *dir)?;
            }
        }
        for node in &said.nodes {
            let details = said.details.get(&node.ino).unwrap_or(&none);
            if let Some(inode) = state.inodes.get(&node.ino) {
                let was = inode.node;
                let is_parent = said.names_change_in(node.ino);
                self.change(state, &was, node, details, is_parent)?;
            } else if !self.is_lower(node.ino) {
                self.make(state, node, details)?;
                made.push(node.ino);
            } else {
                self.touch_lower(state, said, node, details)?;
            }
        }
        Ok(())
    }

    fn make(&self, state: &mut State, node: &Node, details: &Details) -> Result<(), UpperError> {
        self.reserve(state, node.ino)?;
        self.stage(node, details)?;
        let mut inode = Inode::new(*node);
        inode.in_work = true;
        if node.kind == FileKind::Regular {
            let at = self.work_at(&work_name(node.ino, ""));
            if node.size > 0 {
                let file = at
                    .open_file()
                    .map_err(|e| host::error("open", at.shown(), e))?;
                rustix::fs::ftruncate(&file, node.size)
                    .map_err(|e| host::error("size", at.shown(), e))?;
            }
            at.set_times(node)?;
        }
        state.inodes.insert(node.ino, inode);
        Ok(())
    }

    /// Notes ahead which numbers may have been given, so that none is given again by a later mount.
    fn reserve(&self, state: &mut State, ino: Ino) -> Result<(), UpperError> {
        if ino.0 < state.reserved {
            return Ok(());
        }
        let next = Ino(ino.0.saturating_add(RESERVE));
        let top = self.place(state, Ino::ROOT)?;
        top.put_xattr(&self.rights.mark(NEXT), &self.number(next))?;
        state.reserved = next.0;
        Ok(())
    }

    /// An inode that is as in the lower tree so far.
    fn touch_lower(
        &self,
        state: &mut State,
        said: &Said,
        node: &Node,
        details: &Details,
    ) -> Result<(), UpperError> {
        let was = self.lower_node(node.ino)?;
        let named = said.leads.iter().any(|(.., ino)| *ino == node.ino);
        let needed = named
            || node.kind != FileKind::Directory && node.content == ContentSource::Data
            || said.details.contains_key(&node.ino)
            // That one name less leads to it, whiteouts say.
            || node.nlink > 0 && differs(&was, node);
        if !needed {
            return Ok(());
        }
        if node.kind != FileKind::Directory {
            self.lift(state, node, details)?;
            return Ok(());
        }
        if node.nlink == 0 {
            return Ok(());
        }
        self.ensure_dir(state, node.ino)?;
        let is_parent = said.names_change_in(node.ino);
        self.change(state, &was, node, details, is_parent)
    }

    /// Changes attributes of what is on the host.
    fn change(
        &self,
        state: &mut State,
        was: &Node,
        node: &Node,
        details: &Details,
        is_parent: bool,
    ) -> Result<(), UpperError> {
        let ino = node.ino;
        let nowhere = |inode: &Inode| inode.places.is_empty() && !inode.in_work;
        if ino != Ino::ROOT && state.inodes.get(&ino).is_none_or(nowhere) {
            // A directory that was removed while it was open.
            return Ok(());
        }
        if state.staged.contains_key(&ino) && node.content == ContentSource::Data {
            self.replace_data(state, node)?;
        } else if node.kind == FileKind::Regular {
            // What the union does not take for data yet is the upper's own copy of it.
            self.resize(state, was, node)?;
        }
        let at = self.place(state, ino)?;
        // The host takes set-id bits away when a process without CAP_FSETID changes content.
        let may_be_lost = node.kind == FileKind::Regular
            && node.perm & 0o6000 != 0
            && (was.mtime, was.size) != (node.mtime, node.size);
        let known = Node {
            perm: if may_be_lost { 0 } else { was.perm },
            ..*was
        };
        at.set_attrs(self.rights, Some(&known), node)?;
        for (name, value) in &details.xattrs {
            self.store_xattr(&at, node.kind, name, value.as_deref())?;
        }
        // An access ACL that is set takes the mode along; what the union says last counts.
        let times = (was.atime, was.mtime) != (node.atime, node.mtime);
        if times && !is_parent {
            at.set_times(node)?;
        }
        if let Some(inode) = state.inodes.get_mut(&ino) {
            inode.node = *node;
        }
        Ok(())
    }

    /// Makes the host file as long as `node` says, if that is what changed.
    fn resize(&self, state: &mut State, was: &Node, node: &Node) -> Result<(), UpperError> {
        let emptied = node.content == ContentSource::Zero && was.content != ContentSource::Zero;
        if was.size == node.size && !emptied {
            return Ok(());
        }
        self.complete(state, node.ino)?;
        let file = self.open_data(state, node.ino)?;
        let at = self.place(state, node.ino)?;
        let fail = |e: rustix::io::Errno| host::error("size", at.shown(), e);
        if emptied {
            rustix::fs::ftruncate(&*file, 0).map_err(fail)?;
        }
        let now = rustix::fs::fstat(&*file).map_err(fail)?.st_size;
        let now = u64::try_from(now).unwrap_or(0);
        // A file that grows by a write is longer already.
        if node.size < was.size || now < node.size {
            rustix::fs::ftruncate(&*file, node.size).map_err(fail)?;
        }
        Ok(())
    }

    /// What follows once the change is there: times of directories, and what nothing leads to now.
    /// Failing here is told in the log only, since there is no way back.
    fn finish(&self, state: &mut State, said: &Said) {
        for ino in &said.gone {
            self.forget(state, *ino);
        }
        for node in &said.nodes {
            let Some(inode) = state.inodes.get_mut(&node.ino) else {
                continue;
            };
            inode.node = *node;
            if inode.is_dir() && said.names_change_in(node.ino) {
                let set = self
                    .place(state, node.ino)
                    .and_then(|at| at.set_times(node));
                if let Err(error) = set {
                    tracing::warn!(%error, "the times of a directory are the host's");
                }
            }
        }
    }

    fn forget(&self, state: &mut State, ino: Ino) {
        if let Some(inode) = state.inodes.remove(&ino)
            && inode.in_work
            && let Err(error) = self.work_at(&work_name(ino, "")).remove_all()
        {
            tracing::warn!(%error, "a removed inode stays in the work directory until the next mount");
        }
        state.files.pop(&ino);
        state.dirs.pop(&ino);
        state.dirty.remove(&ino);
        state.capabilities.remove(&ino);
        if self.is_lower(ino) {
            state.gone.insert(ino);
        }
    }
}
