//! Rename: O(1) for whatever is moved, also a directory of the lower tree, because a directory is
//! found by its inode number and not by where it is.

use std::sync::Arc;

use pellicle_store::Ino;

use crate::{
    Union,
    change::Change,
    check::{check_name, is_dir},
    error::Error,
    inode::Inode,
    names::Target,
    request::RenameFlags,
};

/// Both ends of a rename, checked to be there.
struct Ends<'a> {
    from: Arc<Inode>,
    from_name: &'a [u8],
    moved: Arc<Inode>,
    to: Arc<Inode>,
    to_name: &'a [u8],
}

impl Union {
    /// Renames as `renameat2(2)`. Two names of one inode stay as they are.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Exists`] (with `no_replace`), [`Error::NotEmpty`],
    /// [`Error::IsDirectory`], [`Error::NotDirectory`], [`Error::Invalid`] for a directory that
    /// would go into itself and for both flags at once, and as [`Union::make`].
    pub fn rename(
        &self,
        from: Ino,
        from_name: &[u8],
        to: Ino,
        to_name: &[u8],
        flags: RenameFlags,
    ) -> Result<(), Error> {
        check_name(from_name)?;
        check_name(to_name)?;
        if flags.no_replace && flags.exchange {
            return Err(Error::Invalid);
        }
        let mut change = Change::begin(self)?;
        let from_dir = change.dir(from)?;
        let to_dir = change.dir(to)?;
        let (ino, kind) = self.child(from, from_name)?.ok_or(Error::NotFound)?;
        let there = self.child(to, to_name)?;
        if flags.no_replace && there.is_some() {
            return Err(Error::Exists);
        }
        if is_dir(kind) && self.is_within(to, ino)? {
            return Err(Error::Invalid);
        }
        let ends = Ends {
            moved: change.inode(ino)?,
            from: from_dir,
            from_name,
            to: to_dir,
            to_name,
        };
        match there {
            None if flags.exchange => Err(Error::NotFound),
            Some((other, _)) if other == ino => Ok(()),
            Some(other) if flags.exchange => {
                self.exchange(&mut change, &ends, other)?;
                change.commit()
            }
            other => {
                let victim = self.replace(&mut change, &ends, other)?;
                change.commit()?;
                if let Some(victim) = victim {
                    self.reap(&victim);
                }
                Ok(())
            }
        }
    }

    fn replace(
        &self,
        change: &mut Change<'_>,
        ends: &Ends<'_>,
        there: Option<Target>,
    ) -> Result<Option<Arc<Inode>>, Error> {
        let moved_dir = is_dir(ends.moved.kind);
        let victim = match there {
            None => None,
            Some((_, kind)) if moved_dir && !is_dir(kind) => return Err(Error::NotDirectory),
            Some((_, kind)) if !moved_dir && is_dir(kind) => return Err(Error::IsDirectory),
            Some((ino, _)) => Some(change.inode(ino)?),
        };
        if let Some(victim) = &victim {
            if moved_dir && !self.is_empty(victim)? {
                return Err(Error::NotEmpty);
            }
            change.drop_link(victim)?;
            if moved_dir {
                change.count_subdir(&ends.to, false)?;
            }
        }
        let target = (ends.moved.ino, ends.moved.kind);
        change.set_name(&ends.to, ends.to_name, Some(target))?;
        change.set_name(&ends.from, ends.from_name, None)?;
        self.settle(change, &ends.moved, &ends.from, &ends.to)?;
        Ok(victim)
    }

    fn exchange(
        &self,
        change: &mut Change<'_>,
        ends: &Ends<'_>,
        there: Target,
    ) -> Result<(), Error> {
        if is_dir(there.1) && self.is_within(ends.from.ino, there.0)? {
            return Err(Error::Invalid);
        }
        let other = change.inode(there.0)?;
        let target = (ends.moved.ino, ends.moved.kind);
        change.set_name(&ends.to, ends.to_name, Some(target))?;
        change.set_name(&ends.from, ends.from_name, Some(there))?;
        self.settle(change, &ends.moved, &ends.from, &ends.to)?;
        self.settle(change, &other, &ends.to, &ends.from)
    }

    /// What a move changes besides the names: `..` and the link counts of both directories.
    fn settle(
        &self,
        change: &mut Change<'_>,
        moved: &Arc<Inode>,
        from: &Arc<Inode>,
        to: &Arc<Inode>,
    ) -> Result<(), Error> {
        let now = change.now;
        let moved_dir = is_dir(moved.kind);
        change.edit(moved, |node| {
            node.ctime = now;
            if moved_dir {
                node.parent = to.ino;
            }
        })?;
        if moved_dir && from.ino != to.ino {
            change.count_subdir(from, false)?;
            change.count_subdir(to, true)?;
        }
        Ok(())
    }
}
