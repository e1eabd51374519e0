//! Which inodes of the lower tree are other than they were, and where they are.

use std::collections::BTreeMap;

use pellicle_store::{FileKind, Ino};

use super::Differ;
use crate::{Union, error::Error, inode::Inode, names::Target};

/// A directory of the lower tree and a name in it.
type Place = (Ino, Vec<u8>);

impl Union {
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
            && !now.content.has_data();
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
    pub(super) fn look_for_changes(&mut self) -> Result<(), Error> {
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
                self.mark_names((inode.ino, inode.kind))?;
            }
        }
        Ok(())
    }

    /// Marks every lower name of `target`, which is no directory, and the directories above.
    pub(super) fn mark_names(&mut self, target: Target) -> Result<(), Error> {
        match self.lower_names(target.0)? {
            None => self.everywhere = true,
            Some(names) => {
                for (dir, name) in names {
                    self.ways.entry(dir).or_default().insert(name, target);
                    self.mark_way(dir)?;
                }
            }
        }
        Ok(())
    }

    /// Marks the lower directories above `dir`.
    fn mark_way(&mut self, dir: Ino) -> Result<(), Error> {
        let mut at = dir;
        while at != Ino::ROOT {
            let parent = self.union.lower.parent(at)?;
            let is_new = match self
                .lower_names(at)?
                .and_then(|names| names.into_iter().next())
            {
                Some((_, name)) => {
                    let names: &mut BTreeMap<_, _> = self.ways.entry(parent).or_default();
                    names.insert(name, (at, FileKind::Directory)).is_none()
                }
                None => self.nameless.entry(parent).or_default().insert(at),
            };
            if !is_new {
                break;
            }
            at = parent;
        }
        Ok(())
    }

    /// The names that lead to `ino` in the lower tree; `None` if that cannot tell.
    fn lower_names(&self, ino: Ino) -> Result<Option<Vec<Place>>, Error> {
        let mut names = Vec::new();
        let told = self.union.lower.names_of(ino, &mut |dir, name| {
            names.push((dir, name.to_vec()));
        })?;
        Ok(told.then_some(names))
    }
}
