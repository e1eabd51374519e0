//! Copy-up: from the moment that anything but names of others is said of a lower inode, the upper
//! directory holds it whole, under all names it has.
//!
//! A copy is made in the work directory with all its attributes, then renamed into place, so that a
//! kill at any moment leaves the lower inode or the copy.

use std::{fs::File, os::unix::fs::FileExt, sync::Arc};

use pellicle_layer::host::marks::{DEVICE_0, OVERRIDE_PREFIX};
use pellicle_store::{Device, FileKind, Ino};
use rustix::{fs::RenameFlags, io::Errno};

use super::{
    DirUpper,
    host::{At, work_name},
    names::Name,
    state::{Inode, Staged, State},
};
use crate::{ContentSource, Node, UpperError};

/// Bytes moved at a time where the host cannot do it in the kernel.
const BUFFER: usize = 256 * 1024;

/// Attributes of an inode besides those of its [`Node`].
#[derive(Debug, Default)]
pub(super) struct Details {
    pub(super) target: Option<Vec<u8>>,
    /// Name and value; `None` takes it away.
    pub(super) xattrs: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl DirUpper {
    /// What the lower tree has under `ino`.
    pub(super) fn lower_node(&self, ino: Ino) -> Result<Node, UpperError> {
        let attr = self.lower.attr(ino)?;
        let parent = match attr.kind {
            FileKind::Directory => self.lower.parent(ino)?,
            _ => Ino::ROOT,
        };
        Ok(Node::of_lower(&attr, parent))
    }

    pub(super) fn is_lower(&self, ino: Ino) -> bool {
        (1..=self.lower.inode_count()).contains(&ino.0)
    }

    /// The names of the lower tree that still lead to `ino`.
    pub(super) fn live_names(&self, state: &State, ino: Ino) -> Result<Vec<Name>, UpperError> {
        if !self.is_lower(ino) {
            return Ok(Vec::new());
        }
        let mut names = self.lower_names.of(&*self.lower, ino)?;
        names.retain(|(dir, name)| {
            let shown = match state.inodes.get(dir) {
                Some(dir) => dir.merged && !dir.names.contains_key(name),
                None => true,
            };
            shown && !state.gone.contains(dir)
        });
        Ok(names)
    }

    /// Sees to it that directory `ino` is on the host, and all above it.
    pub(super) fn ensure_dir(&self, state: &mut State, ino: Ino) -> Result<(), UpperError> {
        let mut missing = Vec::new();
        let mut at = ino;
        while !state.inodes.contains_key(&at) {
            let (parent, name) = self
                .live_names(state, at)?
                .into_iter()
                .next()
                .ok_or_else(|| self.corrupt(format!("directory {at} has no name")))?;
            missing.push((at, parent, name));
            at = parent;
        }
        while let Some((dir, parent, name)) = missing.pop() {
            let node = self.lower_node(dir)?;
            let work = self.stage(&node, &Details::default())?;
            let to = self.at(state, parent, &name)?;
            self.put_in_place(&work, &to, &node)?;
            let mut inode = Inode::new(node);
            inode.places.push((parent, name.clone()));
            inode.merged = true;
            state.inodes.insert(dir, inode);
            self.set_name(state, parent, &name, Some(dir));
            // The directory above was not changed for anyone who looks.
            self.restore_times(state, parent)?;
        }
        self.replace_wh_files(state, ino)
    }

    pub(super) fn restore_times(&self, state: &mut State, dir: Ino) -> Result<(), UpperError> {
        let Some(node) = state.inodes.get(&dir).map(|dir| dir.node) else {
            return Ok(());
        };
        self.place(state, dir)?.set_times(&node)
    }

    fn put_in_place(&self, work: &At, to: &At, node: &Node) -> Result<(), UpperError> {
        let done = work.rename_to(to, RenameFlags::NOREPLACE);
        if done.is_err() {
            let _ = work.remove_all();
            return done;
        }
        if node.kind == FileKind::Directory {
            to.set_times(node)?;
        }
        Ok(())
    }

    /// Makes an inode in the work directory with everything but content: for one of the lower tree
    /// with its attributes there and what `details` say.
    pub(super) fn stage(&self, node: &Node, details: &Details) -> Result<At, UpperError> {
        let at = self.work_at(&work_name(node.ino, ""));
        at.remove_all()?;
        let made = self.stage_at(&at, node, details);
        if made.is_err() {
            let _ = at.remove_all();
        }
        made.map(|()| at)
    }

    fn stage_at(&self, at: &At, node: &Node, details: &Details) -> Result<(), UpperError> {
        match node.kind {
            FileKind::Directory => at.mkdir()?,
            FileKind::Regular => drop(at.create()?),
            FileKind::Symlink => match &details.target {
                Some(target) => at.symlink(target)?,
                None => at.symlink(&self.lower.readlink(node.ino)?)?,
            },
            FileKind::CharDevice if node.rdev == Device::default() && self.rights.owners => {
                // On the host it would be a whiteout.
                drop(at.create()?);
                at.put_xattr(&self.rights.mark(DEVICE_0), b"y")?;
            }
            // The kind is in an attribute, which nodes other than files may not have.
            FileKind::CharDevice | FileKind::BlockDevice | FileKind::Fifo | FileKind::Socket
                if !self.rights.owners =>
            {
                drop(at.create()?);
            }
            kind => at.node(kind, node.rdev)?,
        }
        self.dress(at, node, details)
    }

    /// Everything of an inode in the work directory but its kind and content.
    fn dress(&self, at: &At, node: &Node, details: &Details) -> Result<(), UpperError> {
        at.set_number(self.rights, &self.number(node.ino))?;
        at.set_attrs(self.rights, None, node)?;
        if self.is_lower(node.ino) && self.lower.has_xattrs(node.ino)? {
            let mut all = Vec::new();
            self.lower.xattrs(node.ino, &mut |name, value| {
                all.push((name.to_vec(), value.to_vec()));
            })?;
            for (name, value) in all {
                if !details.xattrs.iter().any(|(said, _)| *said == name) {
                    self.store_xattr(at, node.kind, &name, Some(&value))?;
                }
            }
        }
        for (name, value) in &details.xattrs {
            self.store_xattr(at, node.kind, name, value.as_deref())?;
        }
        if node.kind != FileKind::Regular {
            at.set_times(node)?;
        }
        Ok(())
    }

    /// Sets or removes an attribute of the merged tree.
    pub(super) fn store_xattr(
        &self,
        at: &At,
        kind: FileKind,
        name: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), UpperError> {
        let stored = self.rights.stored(name);
        let Some(value) = value else {
            return at.remove_xattr(&stored);
        };
        match at.set_xattr(&stored, value) {
            Ok(()) => Ok(()),
            // What an unprivileged process may not set is hidden behind a name that it may.
            Err(Errno::PERM | Errno::OPNOTSUPP)
                if !self.rights.owners
                    && matches!(kind, FileKind::Regular | FileKind::Directory) =>
            {
                let hidden = [OVERRIDE_PREFIX, name].concat();
                at.put_xattr(&hidden, value)
            }
            Err(e) => Err(super::host::error("set an attribute of", at.shown(), e)),
        }
    }

    /// Puts lower inode `node.ino` on the host as `node` and `details` say, under all its names.
    pub(super) fn lift(
        &self,
        state: &mut State,
        node: &Node,
        details: &Details,
    ) -> Result<(), UpperError> {
        let names = self.live_names(state, node.ino)?;
        for (dir, _) in &names {
            self.ensure_dir(state, *dir)?;
        }
        let (work, staged) = if node.kind == FileKind::Regular {
            let (at, staged) = self.filled(state, node)?;
            if let Err(error) = self.dress(&at, node, details) {
                let _ = at.remove_all();
                return Err(error);
            }
            (at, Some(staged))
        } else {
            (self.stage(node, details)?, None)
        };
        let mut inode = Inode::new(*node);
        inode.places.clone_from(&names);
        state.inodes.insert(node.ino, inode);
        self.settle(state, node, &work, staged)?;
        for (dir, name) in &names {
            self.set_name(state, *dir, name, Some(node.ino));
        }
        Ok(())
    }

    /// Puts the object at `work` in the place of all names of its inode.
    fn settle(
        &self,
        state: &mut State,
        node: &Node,
        work: &At,
        staged: Option<Staged>,
    ) -> Result<(), UpperError> {
        let places = match state.inodes.get(&node.ino) {
            Some(inode) => inode.places.clone(),
            None => Vec::new(),
        };
        if let Some(staged) = &staged {
            // The host file tells by itself how long it is.
            let fail = |e| super::host::error("size", work.shown(), e);
            let now = rustix::fs::fstat(&*staged.file).map_err(fail)?.st_size;
            if u64::try_from(now).ok() != Some(node.size) {
                rustix::fs::ftruncate(&*staged.file, node.size).map_err(fail)?;
            }
            if staged.copied && !self.volatile {
                rustix::fs::fdatasync(&*staged.file)
                    .map_err(|e| super::host::error("flush", work.shown(), e))?;
            }
            work.set_times(node)?;
        }
        let Some(((dir, name), others)) = places.split_last() else {
            // Without a name: it stays here until it has one, or is gone.
            work.rename_to(
                &self.work_at(&work_name(node.ino, "")),
                RenameFlags::empty(),
            )?;
            if let Some(inode) = state.inodes.get_mut(&node.ino) {
                inode.in_work = true;
            }
            self.keep_open(state, node.ino, staged);
            return Ok(());
        };
        for (dir, name) in others {
            let to = self.at(state, *dir, name)?;
            let link = self.temporary(state);
            work.link_to(&link)?;
            link.rename_to(&to, RenameFlags::empty())?;
        }
        let to = self.at(state, *dir, name)?;
        work.rename_to(&to, RenameFlags::empty())?;
        self.keep_open(state, node.ino, staged);
        for (dir, _) in &places {
            self.restore_times(state, *dir)?;
        }
        Ok(())
    }

    fn keep_open(&self, state: &mut State, ino: Ino, staged: Option<Staged>) {
        state.files.pop(&ino);
        if let Some(inode) = state.inodes.get_mut(&ino) {
            inode.metacopy = false;
        }
        if let Some(staged) = staged {
            state.files.put(ino, staged.file);
        }
    }

    /// Takes the data file that the union filled in the place of what the host has.
    pub(super) fn replace_data(&self, state: &mut State, node: &Node) -> Result<(), UpperError> {
        let Some(staged) = state.staged.remove(&node.ino) else {
            return Ok(());
        };
        let at = self.work_at(&work_name(node.ino, ".data"));
        if let Err(error) = self.dress_alike(state, node, &at) {
            state.staged.insert(node.ino, staged);
            return Err(error);
        }
        self.settle(state, node, &at, Some(staged))
    }

    /// Gives `at` the attributes of `node` and the extended ones of its host file.
    fn dress_alike(&self, state: &mut State, node: &Node, at: &At) -> Result<(), UpperError> {
        let from = self.place(state, node.ino)?;
        at.set_attrs(self.rights, None, node)?;
        from.copy_xattrs(self.rights, at)
    }

    /// Gives a file of only metadata its content: under another name the lower one is not found.
    pub(super) fn complete(&self, state: &mut State, ino: Ino) -> Result<(), UpperError> {
        let Some(node) = state
            .inodes
            .get(&ino)
            .filter(|i| i.metacopy)
            .map(|i| i.node)
        else {
            return Ok(());
        };
        let (at, staged) = self.filled(state, &node)?;
        if let Err(error) = self.dress_alike(state, &node, &at) {
            let _ = at.unlink();
            return Err(error);
        }
        self.settle(state, &node, &at, Some(staged))
    }

    /// The data file of `node` in the work directory: what the union put there, if that is what
    /// counts now, else a copy of the lower content.
    fn filled(&self, state: &mut State, node: &Node) -> Result<(At, Staged), UpperError> {
        if node.content == ContentSource::Data
            && let Some(staged) = state.staged.remove(&node.ino)
        {
            return Ok((self.work_at(&work_name(node.ino, ".data")), staged));
        }
        let at = self.work_at(&work_name(node.ino, ".copy"));
        at.unlink()?;
        let file = at.create()?;
        let filled = match node.content {
            ContentSource::Lower => self.copy_content(node, &file, &at),
            // Mixed content was refused.
            ContentSource::Zero | ContentSource::Data | ContentSource::Mixed => {
                rustix::fs::ftruncate(&file, node.size)
                    .map_err(|e| super::host::error("size", at.shown(), e))
            }
        };
        if let Err(error) = filled {
            let _ = at.unlink();
            return Err(error);
        }
        let staged = Staged {
            file: Arc::new(file),
            copied: node.content == ContentSource::Lower,
        };
        Ok((at, staged))
    }

    /// Copies the first `node.size` bytes of lower content, holes left as holes.
    fn copy_content(&self, node: &Node, to: &File, at: &At) -> Result<(), UpperError> {
        let fail = |e: std::io::Error| UpperError::Io {
            doing: "write to",
            path: at.shown(),
            source: e,
        };
        let from = self.lower.backing(node.ino)?;
        rustix::fs::ftruncate(to, node.size).map_err(|e| fail(e.into()))?;
        if let Some(from) = &from
            && from.metadata().is_ok_and(|m| m.len() == node.size)
            && rustix::fs::ioctl_ficlone(to, &**from).is_ok()
        {
            return Ok(());
        }
        let mut done = 0;
        let mut buffer = Vec::new();
        while done < node.size {
            let Some(data) = self.lower.seek(node.ino, done, true)? else {
                break;
            };
            let end = self.lower.seek(node.ino, data, false)?;
            let end = end.unwrap_or(node.size).min(node.size);
            let mut here = data;
            if let Some(from) = &from {
                let (mut a, mut b) = (here, here);
                while b < end {
                    let want = usize::try_from(end - b).unwrap_or(usize::MAX >> 1);
                    match rustix::fs::copy_file_range(&**from, Some(&mut a), to, Some(&mut b), want)
                    {
                        Ok(0) | Err(_) => break,
                        Ok(_) => {}
                    }
                }
                here = b;
            }
            while here < end {
                buffer.resize(BUFFER, 0);
                let want = usize::try_from(end - here).unwrap_or(BUFFER).min(BUFFER);
                let part = buffer.get_mut(..want).unwrap_or_default();
                let n = self.lower.read(node.ino, here, part)?;
                if n == 0 {
                    break;
                }
                to.write_all_at(part.get(..n).unwrap_or_default(), here)
                    .map_err(fail)?;
                here += n as u64;
            }
            if end <= data {
                break;
            }
            done = end;
        }
        Ok(())
    }
}
