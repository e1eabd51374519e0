//! Questions that change nothing: names, attributes, targets, parents.

use pellicle_store::{Attr, FileKind, Ino};
use pellicle_upper::{ContentSource, Space};

use crate::{
    Union,
    check::NAME_MAX,
    error::Error,
    inode::{Inode, attr_of},
    names::Target,
    table::Found,
};

impl Union {
    /// The attributes of what `name` is in directory `dir`. `.` and `..` are answered too.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotDirectory`], [`Error::NameTooLong`], or damage.
    pub fn lookup(&self, dir: Ino, name: &[u8]) -> Result<Attr, Error> {
        if name.len() > NAME_MAX {
            return Err(Error::NameTooLong);
        }
        let ino = match name {
            b"." => dir,
            b".." => self.parent(dir)?,
            _ => self.child(dir, name)?.ok_or(Error::NotFound)?.0,
        };
        self.attr(ino)
    }

    /// Where `name` in `dir` leads.
    pub(crate) fn child(&self, dir: Ino, name: &[u8]) -> Result<Option<Target>, Error> {
        match self.table.find(dir) {
            Found::Absent => return Err(Error::NotFound),
            Found::Untouched => (),
            Found::Inode(inode) => {
                let state = inode.state.read();
                if state.gone {
                    return Err(Error::NotFound);
                }
                if inode.kind != FileKind::Directory {
                    return Err(Error::NotDirectory);
                }
                if let Some(said) = state.names.as_ref().and_then(|names| names.get(name)) {
                    return Ok(said);
                }
                if !self.table.is_lower(dir) {
                    return Ok(None);
                }
            }
        }
        match self.lower.lookup(dir, name) {
            Ok(found) => Ok(found),
            Err(error) => match self.lower.attr(dir) {
                Ok(attr) if attr.kind != FileKind::Directory => Err(Error::NotDirectory),
                _ => Err(error.into()),
            },
        }
    }

    /// The attributes of `ino`.
    ///
    /// # Errors
    /// [`Error::NotFound`], or damage.
    pub fn attr(&self, ino: Ino) -> Result<Attr, Error> {
        match self.table.find(ino) {
            Found::Untouched => Ok(self.lower.attr(ino)?),
            Found::Absent => Err(Error::NotFound),
            Found::Inode(inode) => {
                self.look_if_lent(&inode)?;
                self.attr_of(&inode)
            }
        }
    }

    /// Permission bits and group of `ino`: what [`Union::attr`] says, without asking the host.
    ///
    /// # Errors
    /// [`Error::NotFound`], or damage.
    pub fn perm_and_group(&self, ino: Ino) -> Result<(u16, u32), Error> {
        match self.table.find(ino) {
            Found::Untouched => self
                .lower
                .attr(ino)
                .map(|a| (a.perm, a.gid))
                .map_err(Error::from),
            Found::Absent => Err(Error::NotFound),
            Found::Inode(inode) => inode.now().map(|now| (now.perm, now.gid)),
        }
    }

    /// How many names `ino` has; of a directory, as `st_nlink` counts.
    pub(crate) fn link_count(&self, ino: Ino) -> Result<u32, Error> {
        match self.table.find(ino) {
            Found::Untouched => Ok(self.lower.attr(ino)?.nlink),
            Found::Absent => Err(Error::NotFound),
            Found::Inode(inode) => Ok(inode.now()?.nlink),
        }
    }

    pub(crate) fn attr_of(&self, inode: &Inode) -> Result<Attr, Error> {
        let (now, data) = {
            let state = inode.state.read();
            if state.gone {
                return Err(Error::NotFound);
            }
            (state.now, state.data)
        };
        let whole = now.size.div_ceil(512);
        let blocks = match now.content {
            ContentSource::Lower => self.lower.attr(inode.ino)?.blocks.min(whole),
            ContentSource::Data | ContentSource::Mixed => match data.blocks {
                Some(blocks) => blocks,
                None => self.ask_blocks(inode, data.version)?,
            },
            ContentSource::Zero => match inode.kind {
                FileKind::Directory if self.table.is_lower(inode.ino) => {
                    self.lower.attr(inode.ino)?.blocks
                }
                FileKind::Directory => whole,
                _ => 0,
            },
        };
        Ok(attr_of(&now, blocks))
    }

    /// The target of symbolic link `ino`.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is none, [`Error::NotFound`], or damage.
    pub fn readlink(&self, ino: Ino) -> Result<Vec<u8>, Error> {
        if self.kind(ino)? != FileKind::Symlink {
            return Err(Error::Invalid);
        }
        if let Found::Inode(inode) = self.table.find(ino)
            && let Some(target) = &inode.state.read().target
        {
            return Ok(target.to_vec());
        }
        if self.table.is_lower(ino) {
            return Ok(self.lower.readlink(ino)?.into_owned());
        }
        Err(Error::damaged(format!("symbolic link {ino} has no target")))
    }

    /// The directory that holds directory `dir`; the root's is the root.
    ///
    /// # Errors
    /// [`Error::NotDirectory`], [`Error::NotFound`], or damage.
    pub fn parent(&self, dir: Ino) -> Result<Ino, Error> {
        match self.table.find(dir) {
            Found::Absent => Err(Error::NotFound),
            Found::Inode(inode) => {
                let now = inode.now()?;
                match now.kind {
                    FileKind::Directory => Ok(now.parent),
                    _ => Err(Error::NotDirectory),
                }
            }
            Found::Untouched => match self.kind(dir)? {
                FileKind::Directory => Ok(self.lower.parent(dir)?),
                _ => Err(Error::NotDirectory),
            },
        }
    }

    /// Whether `dir` is `ancestor` or somewhere in it. Bounded, whatever a log says of parents.
    pub(crate) fn is_within(&self, dir: Ino, ancestor: Ino) -> Result<bool, Error> {
        let mut at = dir;
        for _ in 0..self.ino_end() {
            if at == ancestor {
                return Ok(true);
            }
            let up = self.parent(at)?;
            if up == at || at == Ino::ROOT {
                return Ok(false);
            }
            at = up;
        }
        Err(Error::damaged(format!(
            "directory {dir} is its own ancestor"
        )))
    }

    /// Room on the host for changes. A read-only union counts its inodes and has no room.
    ///
    /// # Errors
    /// The host's errors.
    pub fn space(&self) -> Result<Space, Error> {
        if let Ok(upper) = self.upper() {
            return Ok(upper.space()?);
        }
        Ok(Space {
            block_size: 4096,
            total: 0,
            free: 0,
            available: 0,
            files: self.lower.inode_count(),
            files_free: 0,
        })
    }
}
