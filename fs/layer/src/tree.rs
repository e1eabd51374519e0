//! A tree file of the store as a lower layer.

use std::{borrow::Cow, fs::File, sync::Arc};

use pellicle_store::{Attr, FileKind, Ino, Store, Tree};

use crate::{Entry, Lower, LowerError};

/// A [`Tree`] with its contents.
pub struct TreeLower {
    _tree: Tree,
}

impl TreeLower {
    /// The tree with contents from `store`.
    #[must_use]
    pub fn new(_tree: Tree, _store: &Store) -> Self {
        Self { _tree }
    }
}

impl Lower for TreeLower {
    fn inode_count(&self) -> u64 {
        todo!()
    }
    fn identity(&self) -> [u8; 32] {
        todo!()
    }
    fn attr(&self, _ino: Ino) -> Result<Attr, LowerError> {
        todo!()
    }
    fn lookup(&self, _dir: Ino, _name: &[u8]) -> Result<Option<(Ino, FileKind)>, LowerError> {
        todo!()
    }
    fn entry(&self, _dir: Ino, _at: u64) -> Result<Option<Entry<'_>>, LowerError> {
        todo!()
    }
    fn parent(&self, _dir: Ino) -> Result<Ino, LowerError> {
        todo!()
    }
    fn readlink(&self, _ino: Ino) -> Result<Cow<'_, [u8]>, LowerError> {
        todo!()
    }
    fn has_xattrs(&self, _ino: Ino) -> Result<bool, LowerError> {
        todo!()
    }
    fn xattrs(&self, _ino: Ino, _each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), LowerError> {
        todo!()
    }
    fn read(&self, _ino: Ino, _offset: u64, _buf: &mut [u8]) -> Result<usize, LowerError> {
        todo!()
    }
    fn backing(&self, _ino: Ino) -> Result<Option<Arc<File>>, LowerError> {
        todo!()
    }
    fn seek(&self, _ino: Ino, _offset: u64, _data: bool) -> Result<Option<u64>, LowerError> {
        todo!()
    }
    fn layer_of(&self, _ino: Ino) -> Result<u32, LowerError> {
        todo!()
    }
}
