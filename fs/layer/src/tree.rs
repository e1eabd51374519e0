//! A tree of the store as a lower layer.
//!
//! Names and attributes come from the mapped tree file, without a lock. Contents come from the tree
//! too where they are small, else from objects, of which as many are kept open as a fair share of
//! this process's limit allows. That table is the only lock here: it is split by digest, and held
//! neither while a file is opened nor while it is read.

use std::{fs::File, sync::Arc};

use pellicle_store::{
    Digest, Objects, Store, StoreError, Tree,
    tree::{ContentRef, PackedRef},
};

use crate::{
    LowerError,
    content::Files,
    opened::{Opened, open_limit},
};

/// A [`Tree`] with its contents.
pub struct TreeLower {
    tree: Tree,
    objects: Objects,
    open: Opened<Digest>,
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
        Self {
            tree,
            objects: store.objects().clone(),
            open: Opened::new(limit),
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
        if let Some(file) = self.open.get(id) {
            return Ok(file);
        }
        let file = Arc::new(self.objects.open(id).map_err(from_store)?);
        self.open.put(*id, &file);
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
