//! `--squash`: one layer in the place of all that a build added.
//!
//! The layers are laid, one after the other, into a writable layer over the image's own, which then
//! tells what it has that the image has not: what one step made and another removed is gone.

use std::{collections::HashMap, sync::Arc};

use pellicle_layer::{Lower as _, TreeLower};
use pellicle_store::{FileKind, Ino, Store, Time, Tree};
use pellicle_union::{Caller, Error, NewNode, SetAttr, Union};

use super::{
    BuildError,
    builder::Builder,
    layer::{self, Times, Work},
    state::State,
};

/// Bytes copied at a time.
const BUFFER: usize = 1 << 20;

impl Builder<'_> {
    /// Puts one layer in the place of those that this build added to `state`.
    ///
    /// # Errors
    /// Damage, and the host's.
    pub(super) fn squash(&self, state: &mut State) -> Result<(), BuildError> {
        if state.own_layers().len() < 2 {
            return Ok(());
        }
        let key = self.key(state, "squash")?;
        let (made, _) = self.made(key, &mut || {
            let store = self.images.store();
            let lower = self.tree(state.base_layers(), false)?;
            let work = Work::new(store.root())?;
            let union = layer::writable(&lower, work.path())?;
            for id in state.own_layers() {
                let tree = store.tree(id)?;
                Replay::new(&union, &tree, store).run()?;
            }
            drop(union);
            // Their times were seen to when they were made.
            let times = Times::Keep;
            layer::commit(store, &lower, work.path(), &[], times, &self.watch())
        })?;
        state.squash("pellicle build --squash", &made);
        Ok(())
    }
}

/// One layer being laid on.
struct Replay<'a> {
    union: &'a Union,
    tree: &'a Tree,
    content: Arc<TreeLower>,
    /// What the layer's inodes with several names have become.
    links: HashMap<Ino, Ino>,
    /// Set at the end: what is put into a directory changes its time.
    times: Vec<(Ino, Time)>,
}

impl<'a> Replay<'a> {
    fn new(union: &'a Union, tree: &'a Tree, store: &Store) -> Self {
        Self {
            union,
            tree,
            content: Arc::new(TreeLower::new(tree.clone(), store)),
            links: HashMap::new(),
            times: Vec::new(),
        }
    }

    fn run(mut self) -> Result<(), BuildError> {
        let tree = self.tree;
        let damaged = |e| BuildError::Store(pellicle_store::StoreError::Tree(e));
        let mut todo = vec![(Ino::ROOT, Ino::ROOT)];
        while let Some((from, to)) = todo.pop() {
            if !tree.is_implied(from).map_err(damaged)? {
                self.dress(from, to)?;
            }
            if tree.is_opaque(from).map_err(damaged)? {
                self.clear(to)?;
            }
            let mut at = 0;
            while let Some(name) = tree.whiteout(from, at).map_err(damaged)? {
                at += 1;
                self.remove(to, name)?;
            }
            let mut at = 0;
            while let Some(entry) = tree.entry(from, at).map_err(damaged)? {
                at += 1;
                if entry.kind == FileKind::Directory {
                    todo.push((entry.ino, self.directory(to, entry.name)?));
                } else {
                    self.remove(to, entry.name)?;
                    self.node(entry.ino, to, entry.name)?;
                }
            }
        }
        for (ino, mtime) in &self.times {
            let set = SetAttr {
                mtime: Some(*mtime),
                ..SetAttr::default()
            };
            match self.union.set_attr(*ino, set) {
                Ok(_) | Err(Error::NotFound) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn directory(&self, dir: Ino, name: &[u8]) -> Result<Ino, BuildError> {
        match self.union.lookup(dir, name) {
            Ok(attr) if attr.kind == FileKind::Directory => return Ok(attr.ino),
            Ok(_) => self.union.unlink(dir, name)?,
            Err(Error::NotFound) => {}
            Err(e) => return Err(e.into()),
        }
        let made = self
            .union
            .make(dir, name, NewNode::Directory, 0o755, Caller::default())?;
        Ok(made.ino)
    }

    /// Gives `to` the looks of the layer's `from`.
    fn dress(&mut self, from: Ino, to: Ino) -> Result<(), BuildError> {
        let attr = self.content.attr(from).map_err(Error::from)?;
        let mut xattrs = Vec::new();
        self.content
            .xattrs(from, &mut |name, value| {
                xattrs.push((name.to_vec(), value.to_vec()));
            })
            .map_err(Error::from)?;
        for name in self.union.xattr_names(to)?.split(|b| *b == 0) {
            if !name.is_empty() && !xattrs.iter().any(|(n, _)| n == name) {
                self.union.remove_xattr(to, name)?;
            }
        }
        for (name, value) in &xattrs {
            self.union.set_xattr(to, name, value, false, false)?;
        }
        self.union.set_attr(
            to,
            SetAttr {
                perm: (attr.kind != FileKind::Symlink).then_some(attr.perm),
                uid: Some(attr.uid),
                gid: Some(attr.gid),
                mtime: Some(attr.mtime),
                ..SetAttr::default()
            },
        )?;
        if attr.kind == FileKind::Directory {
            self.times.push((to, attr.mtime));
        }
        Ok(())
    }

    /// Anything but a directory, where nothing is now.
    fn node(&mut self, from: Ino, dir: Ino, name: &[u8]) -> Result<(), BuildError> {
        if let Some(made) = self.links.get(&from) {
            self.union.link(*made, dir, name)?;
            return Ok(());
        }
        let attr = self.content.attr(from).map_err(Error::from)?;
        let target;
        let what = match attr.kind {
            FileKind::Regular | FileKind::Directory => NewNode::Regular,
            FileKind::Symlink => {
                target = self.content.readlink(from).map_err(Error::from)?;
                NewNode::Symlink(&target)
            }
            FileKind::CharDevice => NewNode::CharDevice(attr.rdev),
            FileKind::BlockDevice => NewNode::BlockDevice(attr.rdev),
            FileKind::Fifo => NewNode::Fifo,
            FileKind::Socket => NewNode::Socket,
        };
        let made = self
            .union
            .make(dir, name, what, attr.perm, Caller::default())?
            .ino;
        if attr.kind == FileKind::Regular {
            self.fill(from, made, attr.size)?;
        }
        self.dress(from, made)?;
        if attr.nlink > 1 {
            self.links.insert(from, made);
        }
        Ok(())
    }

    /// Copies the data of a file; holes stay holes.
    fn fill(&self, from: Ino, to: Ino, size: u64) -> Result<(), BuildError> {
        let mut buffer = vec![0; BUFFER];
        let mut at = 0;
        while let Some(start) = self.content.seek(from, at, true).map_err(Error::from)? {
            if start >= size {
                break;
            }
            let end = self.content.seek(from, start, false).map_err(Error::from)?;
            let end = end.unwrap_or(size).min(size);
            at = start;
            while at < end {
                let want = usize::try_from(end - at).unwrap_or(BUFFER).min(BUFFER);
                let piece = buffer.get_mut(..want).unwrap_or_default();
                let got = self.content.read(from, at, piece).map_err(Error::from)?;
                if got == 0 {
                    break;
                }
                let mut rest = piece.get(..got).unwrap_or_default();
                while !rest.is_empty() {
                    let n = self.union.write(to, at, rest, false)?;
                    at += n as u64;
                    rest = rest.get(n..).unwrap_or_default();
                }
            }
            if at < end {
                break;
            }
        }
        let set = SetAttr {
            size: Some(size),
            ..SetAttr::default()
        };
        self.union.set_attr(to, set)?;
        Ok(())
    }

    fn remove(&self, dir: Ino, name: &[u8]) -> Result<(), BuildError> {
        let attr = match self.union.lookup(dir, name) {
            Err(Error::NotFound) => return Ok(()),
            other => other?,
        };
        if attr.kind != FileKind::Directory {
            return Ok(self.union.unlink(dir, name)?);
        }
        self.clear(attr.ino)?;
        Ok(self.union.rmdir(dir, name)?)
    }

    /// Empties a directory. Deep ones are taken apart without recursion.
    fn clear(&self, dir: Ino) -> Result<(), BuildError> {
        // Directories found, each behind the one it is in.
        let mut found = Vec::new();
        let mut todo = vec![dir];
        while let Some(at) = todo.pop() {
            let mut names = Vec::new();
            self.union.list(at, 0, &mut |entry| {
                if entry.name != b"." && entry.name != b".." {
                    names.push((entry.name.to_vec(), entry.ino, entry.kind));
                }
                std::ops::ControlFlow::Continue(())
            })?;
            for (name, ino, kind) in names {
                if kind == FileKind::Directory {
                    todo.push(ino);
                    found.push((at, name));
                } else {
                    self.union.unlink(at, &name)?;
                }
            }
        }
        for (above, name) in found.iter().rev() {
            self.union.rmdir(*above, name)?;
        }
        Ok(())
    }
}
