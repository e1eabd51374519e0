//! Answers from a tree file in place.

use std::{path::Path, sync::Arc};

use super::{Extent, TreeError, TreeKind};
use crate::{Attr, Digest, FileKind, Ino};

/// A tree file, mapped (or in memory), answering in place. Cloning shares the mapping.
#[derive(Clone)]
pub struct Tree {
    _inner: Arc<()>,
}

/// One name in a directory of a [`Tree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeEntry<'a> {
    /// The name.
    pub name: &'a [u8],
    /// The inode it leads to.
    pub ino: Ino,
    /// That inode's kind.
    pub kind: FileKind,
}

/// Where the content of a regular file of a [`Tree`] is; as [`super::Content`].
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "documented at Content")]
pub enum ContentRef<'a> {
    Empty,
    Inline(&'a [u8]),
    Object(Digest),
    Sparse {
        extents: Extents<'a>,
        data: PackedRef<'a>,
    },
    Span {
        offset: u64,
    },
    SparseSpan {
        extents: Extents<'a>,
        offset: u64,
    },
}

/// The data of a sparse file; as [`super::Packed`].
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "documented at Packed")]
pub enum PackedRef<'a> {
    Inline(&'a [u8]),
    Object(Digest),
}

/// The extents of one sparse file.
#[derive(Clone, Copy, Debug)]
pub struct Extents<'a> {
    _records: &'a [u8],
}

impl Extents<'_> {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        todo!()
    }
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The `i`-th extent, and where in the packed data it starts.
    #[must_use]
    pub fn get(&self, _i: usize) -> Option<(Extent, u64)> {
        todo!()
    }
    /// Index of the first extent that ends after `offset`; [`Extents::len`] if there is none.
    #[must_use]
    pub fn at(&self, _offset: u64) -> usize {
        todo!()
    }
}

#[allow(
    missing_docs,
    clippy::missing_errors_doc,
    reason = "signatures first, see the next commit"
)]
impl Tree {
    pub fn open(_path: &Path) -> Result<Self, TreeError> {
        todo!()
    }
    pub fn from_bytes(_bytes: Vec<u8>) -> Result<Self, TreeError> {
        todo!()
    }
    pub fn kind(&self) -> TreeKind {
        todo!()
    }
    pub fn identity(&self) -> Digest {
        todo!()
    }
    /// Diff ids, lowest first.
    pub fn layers(&self) -> &[Digest] {
        todo!()
    }
    pub fn inode_count(&self) -> u64 {
        todo!()
    }
    pub fn attr(&self, _ino: Ino) -> Result<Attr, TreeError> {
        todo!()
    }
    pub fn lookup(&self, _dir: Ino, _name: &[u8]) -> Result<Option<(Ino, FileKind)>, TreeError> {
        todo!()
    }
    pub fn entry(&self, _dir: Ino, _at: u64) -> Result<Option<TreeEntry<'_>>, TreeError> {
        todo!()
    }
    pub fn parent(&self, _dir: Ino) -> Result<Ino, TreeError> {
        todo!()
    }
    pub fn readlink(&self, _ino: Ino) -> Result<&[u8], TreeError> {
        todo!()
    }
    pub fn has_xattrs(&self, _ino: Ino) -> Result<bool, TreeError> {
        todo!()
    }
    pub fn xattrs(&self, _ino: Ino, _each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), TreeError> {
        todo!()
    }
    pub fn content(&self, _ino: Ino) -> Result<ContentRef<'_>, TreeError> {
        todo!()
    }
    pub fn layer_of(&self, _ino: Ino) -> Result<u32, TreeError> {
        todo!()
    }
    /// The `at`-th whiteout of directory `dir`.
    pub fn whiteout(&self, _dir: Ino, _at: u64) -> Result<Option<&[u8]>, TreeError> {
        todo!()
    }
    pub fn is_opaque(&self, _dir: Ino) -> Result<bool, TreeError> {
        todo!()
    }
    /// Verifies every block and the whole structure.
    pub fn check(&self) -> Result<(), TreeError> {
        todo!()
    }
}
