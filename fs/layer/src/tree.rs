//! A tree of the store as a lower layer.
//!
//! Names and attributes come from the mapped tree file, without a lock. Contents come from the tree
//! too where they are small, else from objects, of which as many are kept open as a fair share of
//! this process's limit allows. That table is the only lock here: it is split by digest, and held
//! neither while a file is opened nor while it is read.

use std::{borrow::Cow, fs::File, num::NonZeroUsize, os::unix::fs::FileExt as _, sync::Arc};

use lru::LruCache;
use parking_lot::Mutex;
use pellicle_store::{
    Attr, Digest, FileKind, Ino, Objects, Store, StoreError, Tree, TreeError,
    tree::{ContentRef, Extents, PackedRef},
};

use crate::{Entry, Lower, LowerError};

/// Parts of the table of open objects: as many as threads are likely to meet there.
const PARTS: usize = 16;

/// Never more open objects than this, however many the host allows.
const OPEN_MAX: u64 = 4096;

/// A [`Tree`] with its contents.
pub struct TreeLower {
    tree: Tree,
    objects: Objects,
    open: [Mutex<LruCache<Digest, Arc<File>>>; PARTS],
}

/// Where the bytes of a content are.
enum Source<'a> {
    Bytes(&'a [u8]),
    Object(Digest),
}

impl TreeLower {
    /// The tree with contents from `store`.
    #[must_use]
    pub fn new(tree: Tree, store: &Store) -> Self {
        Self::with_open_limit(tree, store, open_limit())
    }

    /// The same with about `limit` objects kept open at most (16 at least).
    #[must_use]
    pub fn with_open_limit(tree: Tree, store: &Store, limit: usize) -> Self {
        let part = NonZeroUsize::new(limit / PARTS).unwrap_or(NonZeroUsize::MIN);
        Self {
            tree,
            objects: store.objects().clone(),
            open: std::array::from_fn(|_| Mutex::new(LruCache::new(part))),
        }
    }

    /// The tree itself.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    fn object(&self, id: &Digest) -> Result<Arc<File>, LowerError> {
        let part = self.open.get(usize::from(id.0[0]) % PARTS);
        if let Some(file) = part.and_then(|p| p.lock().get(id).cloned()) {
            return Ok(file);
        }
        let file = Arc::new(self.objects.open(id).map_err(from_store)?);
        // Dropped after the lock: closing a file may take its time.
        let _old = part.and_then(|p| p.lock().push(*id, Arc::clone(&file)));
        Ok(file)
    }

    fn read_source(
        &self,
        source: &Source<'_>,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<(), LowerError> {
        match source {
            Source::Bytes(bytes) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                let there = bytes
                    .get(from..)
                    .and_then(|b| b.get(..buf.len()))
                    .ok_or_else(|| self.damaged("a content is shorter than its file"))?;
                buf.copy_from_slice(there);
                Ok(())
            }
            Source::Object(id) => {
                let read = self.object(id)?.read_exact_at(buf, offset);
                read.map_err(|source| match source.kind() {
                    std::io::ErrorKind::UnexpectedEof => LowerError::Corrupt {
                        what: format!("object {id}"),
                        detail: "it is shorter than the file it is the content of".into(),
                    },
                    _ => LowerError::Io {
                        what: format!("object {id}"),
                        source,
                    },
                })
            }
        }
    }

    fn read_sparse(
        &self,
        extents: Extents<'_>,
        source: &Source<'_>,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<(), LowerError> {
        buf.fill(0);
        let end = offset.saturating_add(buf.len() as u64);
        let mut i = extents.at(offset);
        while let Some((extent, packed)) = extents.get(i).filter(|(e, _)| e.offset < end) {
            let from = extent.offset.max(offset);
            let to = extent.offset.saturating_add(extent.len).min(end);
            let range = usize::try_from(from - offset)
                .ok()
                .zip(to.checked_sub(offset).and_then(|n| usize::try_from(n).ok()));
            let part = range
                .and_then(|(from, to)| buf.get_mut(from..to))
                .ok_or_else(|| self.damaged("its extents are out of order"))?;
            let at = packed.saturating_add(from - extent.offset);
            self.read_source(source, at, part)?;
            i += 1;
        }
        Ok(())
    }

    fn damaged(&self, detail: &str) -> LowerError {
        LowerError::Corrupt {
            what: self.tree.name().to_owned(),
            detail: detail.into(),
        }
    }
}

impl Lower for TreeLower {
    fn inode_count(&self) -> u64 {
        self.tree.inode_count()
    }

    fn identity(&self) -> [u8; 32] {
        self.tree.identity().0
    }

    fn attr(&self, ino: Ino) -> Result<Attr, LowerError> {
        self.tree.attr(ino).map_err(from_tree)
    }

    fn lookup(&self, dir: Ino, name: &[u8]) -> Result<Option<(Ino, FileKind)>, LowerError> {
        self.tree.lookup(dir, name).map_err(from_tree)
    }

    fn entry(&self, dir: Ino, at: u64) -> Result<Option<Entry<'_>>, LowerError> {
        let entry = self.tree.entry(dir, at).map_err(from_tree)?;
        Ok(entry.map(|e| Entry {
            name: e.name,
            ino: e.ino,
            kind: e.kind,
        }))
    }

    fn parent(&self, dir: Ino) -> Result<Ino, LowerError> {
        self.tree.parent(dir).map_err(from_tree)
    }

    fn readlink(&self, ino: Ino) -> Result<Cow<'_, [u8]>, LowerError> {
        self.tree
            .readlink(ino)
            .map(Cow::Borrowed)
            .map_err(from_tree)
    }

    fn has_xattrs(&self, ino: Ino) -> Result<bool, LowerError> {
        self.tree.has_xattrs(ino).map_err(from_tree)
    }

    fn xattrs(&self, ino: Ino, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), LowerError> {
        self.tree.xattrs(ino, each).map_err(from_tree)
    }

    fn read(&self, ino: Ino, offset: u64, buf: &mut [u8]) -> Result<usize, LowerError> {
        let (content, size) = self.tree.content_and_size(ino).map_err(from_tree)?;
        let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = buf.len().min(left);
        let Some(buf) = buf.get_mut(..wanted).filter(|b| !b.is_empty()) else {
            return Ok(0);
        };
        match content {
            ContentRef::Empty => buf.fill(0),
            ContentRef::Inline(bytes) => self.read_source(&Source::Bytes(bytes), offset, buf)?,
            ContentRef::Object(id) => self.read_source(&Source::Object(id), offset, buf)?,
            ContentRef::Sparse { extents, data } => {
                let source = match data {
                    PackedRef::Inline(bytes) => Source::Bytes(bytes),
                    PackedRef::Object(id) => Source::Object(id),
                };
                self.read_sparse(extents, &source, offset, buf)?;
            }
            ContentRef::Span { .. } | ContentRef::SparseSpan { .. } => {
                return Err(self.damaged("a content is in an archive, but the store has none"));
            }
        }
        Ok(wanted)
    }

    fn backing(&self, ino: Ino) -> Result<Option<Arc<File>>, LowerError> {
        match self.tree.content(ino).map_err(from_tree)? {
            ContentRef::Object(id) => self.object(&id).map(Some),
            _ => Ok(None),
        }
    }

    fn seek(&self, ino: Ino, offset: u64, data: bool) -> Result<Option<u64>, LowerError> {
        let (content, size) = self.tree.content_and_size(ino).map_err(from_tree)?;
        if offset >= size {
            return Ok(None);
        }
        Ok(match content {
            ContentRef::Empty => seek_extents(None, size, offset, data),
            ContentRef::Sparse { extents, .. } | ContentRef::SparseSpan { extents, .. } => {
                seek_extents(Some(extents), size, offset, data)
            }
            _ => Some(if data { offset } else { size }),
        })
    }

    fn layer_of(&self, ino: Ino) -> Result<u32, LowerError> {
        self.tree.layer_of(ino).map_err(from_tree)
    }
}

/// `SEEK_DATA` or `SEEK_HOLE` from `offset`, which is inside the file, over a file of only
/// `extents`.
fn seek_extents(extents: Option<Extents<'_>>, size: u64, offset: u64, data: bool) -> Option<u64> {
    let Some(extents) = extents else {
        return (!data).then_some(offset);
    };
    let mut i = extents.at(offset);
    if data {
        return extents.get(i).map(|(e, _)| e.offset.max(offset));
    }
    let mut hole = offset;
    while let Some((e, _)) = extents.get(i).filter(|(e, _)| e.offset <= hole) {
        hole = e.offset.saturating_add(e.len);
        i += 1;
    }
    Some(hole.min(size))
}

/// How many objects may be kept open: a quarter of what this process may have open at all.
fn open_limit() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    usize::try_from((limit.unwrap_or(OPEN_MAX) / 4).min(OPEN_MAX)).unwrap_or(PARTS)
}

fn from_tree(error: TreeError) -> LowerError {
    match error {
        TreeError::NoSuchNode { ino, wanted } => LowerError::NoSuchNode { ino, wanted },
        TreeError::Io { path, source, .. } => LowerError::Io {
            what: path.display().to_string(),
            source,
        },
        TreeError::Damaged {
            file,
            block,
            detail,
        } => LowerError::Corrupt {
            what: file,
            detail: match block {
                Some(block) => format!("block {block}: {detail}"),
                None => detail,
            },
        },
        other @ (TreeError::NotATree { .. }
        | TreeError::Unknown { .. }
        | TreeError::Unstorable { .. }
        | TreeError::TooMany { .. }) => LowerError::Corrupt {
            what: "a tree".into(),
            detail: other.to_string(),
        },
    }
}

fn from_store(error: StoreError) -> LowerError {
    match error {
        StoreError::Io { path, source, .. } => LowerError::Io {
            what: path.display().to_string(),
            source,
        },
        StoreError::Missing { what, id } => LowerError::Corrupt {
            what: format!("{what} {id}"),
            detail: "it is not in the store".into(),
        },
        other => LowerError::Corrupt {
            what: "the store".into(),
            detail: other.to_string(),
        },
    }
}
