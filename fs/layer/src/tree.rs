//! A tree of the store as a lower layer.
//!
//! Names and attributes come from the mapped tree file, without a lock. Contents come from the tree
//! too where they are small, else from objects, of which as many are kept open as a fair share of
//! this process's limit allows. That table is the only lock here: it is split by digest, and held
//! neither while a file is opened nor while it is read.

use std::{fs::File, num::NonZeroUsize, sync::Arc};

use lru::LruCache;
use parking_lot::Mutex;
use pellicle_store::{
    Digest, Objects, Store, StoreError, Tree,
    tree::{ContentRef, PackedRef},
};

use crate::{LowerError, content::Files};

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
}

impl Files for TreeLower {
    fn tree(&self) -> &Tree {
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

    fn archive(&self) -> Result<Arc<File>, LowerError> {
        Err(LowerError::Corrupt {
            what: self.tree.name().to_owned(),
            detail: "a content is in an archive, but the store has none".into(),
        })
    }

    fn name(&self, content: &ContentRef<'_>) -> String {
        match content {
            ContentRef::Object(id)
            | ContentRef::Sparse {
                data: PackedRef::Object(id),
                ..
            } => format!("object {id}"),
            _ => self.tree.name().to_owned(),
        }
    }
}

/// How many objects may be kept open: a quarter of what this process may have open at all.
fn open_limit() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    usize::try_from((limit.unwrap_or(OPEN_MAX) / 4).min(OPEN_MAX)).unwrap_or(PARTS)
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
