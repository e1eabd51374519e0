//! What the union asks of the read-only tree under it.

use std::{borrow::Cow, fs::File, io, sync::Arc};

use pellicle_store::{Attr, Content, FileKind, Ino};

/// Why a read-only layer could not answer.
#[derive(Debug, thiserror::Error)]
pub enum LowerError {
    /// No inode has that number, or it is not of the kind the question is about.
    #[error("inode {ino} does not exist in the layer, or is not a {wanted}")]
    NoSuchNode {
        /// The inode asked about.
        ino: Ino,
        /// What it was taken for.
        wanted: &'static str,
    },
    /// The layer's own data contradicts itself or fails its checksum.
    #[error("{what} is damaged: {detail}; `pellicle store verify` tells which images it touches")]
    Corrupt {
        /// The file that is damaged: a tree or an object.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A host file is not what it was when the layer was opened.
    #[error(
        "{what} was changed while it was in use: {detail}; unmount before changing lower layers"
    )]
    Changed {
        /// The file.
        what: String,
        /// In what.
        detail: &'static str,
    },
    /// The host failed to give the data.
    #[error("cannot read {what}")]
    Io {
        /// The file that was to be read.
        what: String,
        /// The host's answer.
        source: io::Error,
    },
}

/// One name in a directory of a [`Lower`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The name: bytes without `/` and NUL, neither `.` nor `..`.
    pub name: &'a [u8],
    /// The inode it names.
    pub ino: Ino,
    /// That inode's kind.
    pub kind: FileKind,
}

/// A read-only tree with stable inode numbers `1..=inode_count()`, 1 being the root directory.
///
/// It never changes while it is in use, so every answer may be cached for ever. Implementations
/// take no lock to answer about names and attributes.
pub trait Lower: Send + Sync {
    /// How many inodes there are.
    fn inode_count(&self) -> u64;

    /// Identity of the tree, so that a writable layer is never laid over another one:
    /// an image tree's chain id, or a digest made of what the tree stands for.
    fn identity(&self) -> [u8; 32];

    /// Attributes of `ino`.
    ///
    /// # Errors
    /// [`LowerError::NoSuchNode`], or damage found on the way.
    fn attr(&self, ino: Ino) -> Result<Attr, LowerError>;

    /// The inode that `name` names in directory `dir`; `None` if there is no such name.
    ///
    /// # Errors
    /// [`LowerError::NoSuchNode`] if `dir` is no directory, or damage.
    fn lookup(&self, dir: Ino, name: &[u8]) -> Result<Option<(Ino, FileKind)>, LowerError>;

    /// The `at`-th name of directory `dir` in the tree's own order, from 0; `None` past the last.
    /// `.` and `..` are not listed.
    ///
    /// # Errors
    /// As [`Lower::lookup`].
    fn entry(&self, dir: Ino, at: u64) -> Result<Option<Entry<'_>>, LowerError>;

    /// The directory that holds directory `dir`; the root's is the root.
    ///
    /// # Errors
    /// As [`Lower::lookup`].
    fn parent(&self, dir: Ino) -> Result<Ino, LowerError>;

    /// The target of symbolic link `ino`.
    ///
    /// # Errors
    /// [`LowerError::NoSuchNode`] if it is none, or damage.
    fn readlink(&self, ino: Ino) -> Result<Cow<'_, [u8]>, LowerError>;

    /// Whether `ino` has any extended attribute.
    ///
    /// # Errors
    /// As [`Lower::attr`].
    fn has_xattrs(&self, ino: Ino) -> Result<bool, LowerError>;

    /// Calls `each` with every extended attribute of `ino`: full name (`user.x`) and value.
    ///
    /// # Errors
    /// As [`Lower::attr`].
    fn xattrs(&self, ino: Ino, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), LowerError>;

    /// Reads from regular file `ino` at `offset`; returns how many bytes, fewer than asked only at
    /// the end of the file. Holes read as zeros.
    ///
    /// # Errors
    /// [`LowerError::NoSuchNode`] if it is no regular file, damage, or the host's error.
    fn read(&self, ino: Ino, offset: u64, buf: &mut [u8]) -> Result<usize, LowerError>;

    /// The whole content of regular file `ino` as one host file, byte for byte from offset 0, where
    /// there is such a file (for passthrough, reflink and in-kernel copies).
    ///
    /// # Errors
    /// As [`Lower::read`].
    fn backing(&self, ino: Ino) -> Result<Option<Arc<File>>, LowerError>;

    /// The content of regular file `ino` in the words of a tree, where objects of a store and bytes at
    /// hand are all of it: so that a layer can have it without anything being read. `None` where
    /// they are not.
    ///
    /// # Errors
    /// As [`Lower::read`].
    fn stored(&self, ino: Ino) -> Result<Option<Content>, LowerError> {
        let _ = ino;
        Ok(None)
    }

    /// The start of the first data (`data`) or hole (not `data`) at or after `offset` in regular
    /// file `ino`, as `lseek(2)` with `SEEK_DATA` and `SEEK_HOLE`; the end of the file counts as
    /// a hole; `None` is ENXIO.
    ///
    /// # Errors
    /// As [`Lower::read`].
    fn seek(&self, ino: Ino, offset: u64, data: bool) -> Result<Option<u64>, LowerError>;

    /// Calls `each` with every name that leads to `ino`: the directory and the name in it; the root
    /// has none. `false`, without a call, if the layer cannot tell but by listing everything.
    ///
    /// # Errors
    /// As [`Lower::attr`].
    fn names_of(&self, ino: Ino, each: &mut dyn FnMut(Ino, &[u8])) -> Result<bool, LowerError> {
        let _ = (ino, each);
        Ok(false)
    }

    /// Index (lowest layer 0) of the image layer that `ino` came from.
    ///
    /// # Errors
    /// As [`Lower::attr`].
    fn layer_of(&self, ino: Ino) -> Result<u32, LowerError>;

    /// The kernel has forgotten many inodes: whatever memory was filled by answering about them
    /// may go. It is called now and then while other threads ask.
    fn release_memory(&self) {}
}
