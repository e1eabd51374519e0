//! Writing files into the tree of a stage, as COPY and ADD do.

use std::{
    io::{self, Read},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use pellicle_store::{Attr, FileKind, Ino, Time, import::Cancel};
use pellicle_union::{Caller, Error, NewNode, SetAttr, Union};

use super::{
    BuildError,
    chmod::Chmod,
    source::{Entry, Source, Xattrs},
};
use crate::container::root;

/// Bytes copied at a time.
const BUFFER: usize = 1 << 20;

/// Puts files into a tree.
pub(super) struct Placer<'a> {
    union: &'a Union,
    /// Whose everything new is.
    owner: Caller,
    /// What becomes of the permission bits of everything copied.
    chmod: Option<Chmod>,
    cancel: &'a Cancel,
    buffer: Vec<u8>,
    /// Set at the end: what is put into a directory changes its time.
    times: Vec<(Ino, Time)>,
}

/// What a new inode gets beside its name and content.
#[derive(Clone, Debug)]
pub(super) struct Looks {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) perm: u16,
    pub(super) mtime: Time,
    pub(super) xattrs: Xattrs,
}

impl<'a> Placer<'a> {
    /// Writes into `union`; everything is `owner`'s (user, group).
    pub(super) fn new(
        union: &'a Union,
        owner: (u32, u32),
        chmod: Option<Chmod>,
        cancel: &'a Cancel,
    ) -> Self {
        Self {
            union,
            owner: Caller {
                uid: owner.0,
                gid: owner.1,
                umask: 0,
            },
            chmod,
            cancel,
            buffer: vec![0; BUFFER],
            times: Vec::new(),
        }
    }

    /// Sets what had to wait until everything is there.
    ///
    /// # Errors
    /// What the tree says.
    pub(super) fn finish(self) -> Result<(), BuildError> {
        for (ino, mtime) in self.times.iter().rev() {
            let set = SetAttr {
                mtime: Some(*mtime),
                ..SetAttr::default()
            };
            self.union.set_attr(*ino, set)?;
        }
        Ok(())
    }

    /// The inode that absolute `path` leads to.
    ///
    /// # Errors
    /// What the tree says.
    pub(super) fn find(&self, path: &Path) -> Result<Option<Attr>, BuildError> {
        Ok(root::find(self.union, path.as_os_str().as_bytes())?)
    }

    /// The directory that absolute `path` leads to, made where it is missing, with those above it.
    ///
    /// # Errors
    /// If something else is in the way, and what the tree says.
    pub(super) fn directory(&self, path: &Path) -> Result<Ino, BuildError> {
        let mut at = Ino::ROOT;
        let mut done = PathBuf::from("/");
        for part in path.components() {
            let std::path::Component::Normal(name) = part else {
                continue;
            };
            done.push(name);
            match self.find(&done)? {
                Some(attr) if attr.kind == FileKind::Directory => at = attr.ino,
                Some(_) => return Err(in_the_way(&done)),
                None => {
                    let made =
                        self.union
                            .make(at, name.as_bytes(), NewNode::Directory, 0o755, self.owner);
                    at = match made {
                        Err(Error::Exists) => return Err(in_the_way(&done)),
                        other => other?.ino,
                    };
                }
            }
        }
        Ok(at)
    }

    /// Copies what is in directory `from` into directory `to`.
    ///
    /// # Errors
    /// What source and tree say.
    pub(super) fn contents(
        &mut self,
        source: &dyn Source,
        from: &Path,
        to: Ino,
    ) -> Result<(), BuildError> {
        let mut todo = vec![(from.to_owned(), to)];
        while let Some((dir, into)) = todo.pop() {
            for name in source.names(&dir)? {
                let path = dir.join(&name);
                let Some(entry) = source.entry(&path)? else {
                    continue;
                };
                if let Some(made) = self.one(source, &path, &entry, into, name.as_bytes())? {
                    todo.push((path, made));
                }
            }
        }
        Ok(())
    }

    /// Copies the file or link at `from`, but nothing that is in a directory; gives the directory.
    ///
    /// # Errors
    /// What source and tree say.
    pub(super) fn one(
        &mut self,
        source: &dyn Source,
        from: &Path,
        entry: &Entry,
        dir: Ino,
        name: &[u8],
    ) -> Result<Option<Ino>, BuildError> {
        if self.cancel.is_cancelled() {
            return Err(BuildError::Cancelled);
        }
        let looks = self.looks(entry, source.xattrs(from)?);
        let target;
        let what = match entry.kind {
            FileKind::Directory => {
                let ino = self.new_directory(dir, name, &looks, source.is_only_a_way(from))?;
                return Ok(Some(ino));
            }
            FileKind::Regular => {
                let mut file = source.open(from)?;
                self.file(dir, name, &mut file, &looks)?;
                return Ok(None);
            }
            FileKind::Symlink => {
                target = source.link(from)?;
                NewNode::Symlink(&target)
            }
            FileKind::CharDevice => NewNode::CharDevice(entry.rdev),
            FileKind::BlockDevice => NewNode::BlockDevice(entry.rdev),
            FileKind::Fifo => NewNode::Fifo,
            // It has no form in a layer.
            FileKind::Socket => return Ok(None),
        };
        self.node(dir, name, what, &looks)?;
        Ok(None)
    }

    /// What becomes of permission bits.
    pub(super) fn perm(&self, perm: u16, is_dir: bool) -> u16 {
        let chmod = self.chmod.as_ref();
        chmod.map_or(perm, |chmod| chmod.apply(perm, is_dir))
    }

    fn looks(&self, entry: &Entry, xattrs: Xattrs) -> Looks {
        Looks {
            uid: self.owner.uid,
            gid: self.owner.gid,
            perm: self.perm(entry.perm, entry.kind == FileKind::Directory),
            mtime: entry.mtime,
            xattrs,
        }
    }

    /// A directory; one that is there stays and gets these looks, unless they are not to be told.
    ///
    /// # Errors
    /// If something else is in the way, and what the tree says.
    pub(super) fn new_directory(
        &mut self,
        dir: Ino,
        name: &[u8],
        looks: &Looks,
        plain: bool,
    ) -> Result<Ino, BuildError> {
        match self.there(dir, name)? {
            Some(ino) => {
                if !plain {
                    self.give(ino, FileKind::Directory, looks)?;
                }
                Ok(ino)
            }
            None if plain => {
                let made = self
                    .union
                    .make(dir, name, NewNode::Directory, 0o755, self.owner)?;
                Ok(made.ino)
            }
            None => self.node(dir, name, NewNode::Directory, looks),
        }
    }

    /// The directory that `name` leads to, if it does.
    fn there(&self, dir: Ino, name: &[u8]) -> Result<Option<Ino>, BuildError> {
        let attr = match self.union.lookup(dir, name) {
            Err(Error::NotFound) => return Ok(None),
            other => other?,
        };
        if attr.kind == FileKind::Directory {
            return Ok(Some(attr.ino));
        }
        // Images link /bin to usr/bin: what is copied to /bin belongs there.
        let path = self.path(dir, name);
        match self.find(&path)? {
            Some(attr) if attr.kind == FileKind::Directory => Ok(Some(attr.ino)),
            _ => Err(in_the_way(&path)),
        }
    }

    fn path(&self, dir: Ino, name: &[u8]) -> PathBuf {
        let mut path = self.union.path_of(dir).unwrap_or_default();
        if !path.ends_with(b"/") {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        PathBuf::from(std::ffi::OsStr::from_bytes(&path))
    }

    /// A regular file with the bytes of `from`, in the place of what was there.
    ///
    /// # Errors
    /// If a directory is in the way, what `from` and the tree say.
    pub(super) fn file(
        &mut self,
        dir: Ino,
        name: &[u8],
        from: &mut dyn Read,
        looks: &Looks,
    ) -> Result<Ino, BuildError> {
        self.make_room(dir, name)?;
        let made = self
            .union
            .make(dir, name, NewNode::Regular, 0o600, self.owner)?;
        let mut at = 0u64;
        loop {
            if self.cancel.is_cancelled() {
                return Err(BuildError::Cancelled);
            }
            let n = match from.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(BuildError::io("copy", self.path(dir, name))(e)),
            };
            let mut rest = self.buffer.get(..n).unwrap_or_default();
            while !rest.is_empty() {
                let written = self.union.write(made.ino, at, rest, false)?;
                at += written as u64;
                rest = rest.get(written..).unwrap_or_default();
            }
        }
        self.give(made.ino, FileKind::Regular, looks)?;
        Ok(made.ino)
    }

    /// Anything else, in the place of what was there.
    ///
    /// # Errors
    /// As [`Placer::file`].
    pub(super) fn node(
        &mut self,
        dir: Ino,
        name: &[u8],
        what: NewNode<'_>,
        looks: &Looks,
    ) -> Result<Ino, BuildError> {
        self.make_room(dir, name)?;
        let made = self.union.make(dir, name, what, looks.perm, self.owner)?;
        self.give(made.ino, what.kind(), looks)?;
        Ok(made.ino)
    }

    /// One more name of a file.
    ///
    /// # Errors
    /// As [`Placer::file`].
    pub(super) fn link(&mut self, ino: Ino, dir: Ino, name: &[u8]) -> Result<(), BuildError> {
        self.make_room(dir, name)?;
        self.union.link(ino, dir, name)?;
        Ok(())
    }

    fn make_room(&self, dir: Ino, name: &[u8]) -> Result<(), BuildError> {
        match self.union.unlink(dir, name) {
            Ok(()) | Err(Error::NotFound) => Ok(()),
            Err(Error::IsDirectory | Error::NotPermitted) => {
                let path = self.path(dir, name);
                Err(BuildError::request(
                    format!(
                        "cannot put a file in the place of the directory {}",
                        path.display()
                    ),
                    "give another destination, or remove the directory before",
                ))
            }
            Err(e) => Err(e.into()),
        }
    }

    fn give(&mut self, ino: Ino, kind: FileKind, looks: &Looks) -> Result<(), BuildError> {
        for (name, value) in &looks.xattrs {
            self.union.set_xattr(ino, name, value, false, false)?;
        }
        self.union.set_attr(
            ino,
            SetAttr {
                perm: (kind != FileKind::Symlink).then_some(looks.perm),
                uid: Some(looks.uid),
                gid: Some(looks.gid),
                mtime: Some(looks.mtime),
                ..SetAttr::default()
            },
        )?;
        if kind == FileKind::Directory {
            self.times.push((ino, looks.mtime));
        }
        Ok(())
    }
}

fn in_the_way(path: &Path) -> BuildError {
    BuildError::request(
        format!("{} is in the image and no directory", path.display()),
        "give another destination, or remove that file before",
    )
}
