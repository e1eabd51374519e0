//! The changes of a writable layer become a layer of a store.
//!
//! 1. What is to be said is told from the changes ([`Union::layer_changes`]); nothing of the lower
//!    tree is walked.
//! 2. Contents that the store has are named, not read. A data file of a writable layer that nobody
//!    writes to ([`Upper::is_held`](pellicle_upper::Upper::is_held)) becomes an object by one more name
//!    on the host; other contents are copied into objects.
//! 3. The layer's archive is written to nowhere but a hash: that is the diff id. The archive can be
//!    had again from the tree at any time ([`Union::write_archive`]), so it is not kept.
//! 4. Objects are made durable, then the tree is published under its diff id.
//!
//! Ended at any moment before the last step it leaves objects that nothing names, which collection
//! removes, and the writable layer as it was: only the links of its data files tell that it was tried.

mod build;

use std::{io, sync::Arc};

use pellicle_layer::TreeLower;
use pellicle_store::{Digest, Hasher, Store, StoreError, Tree, TreeError, TreeHeader, TreeKind};

use crate::{
    Archived, Union, Watch,
    error::Error,
    request::{LayerChange, Options},
};

/// Why no layer was made, or no archive written.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The tree could not be read.
    #[error(transparent)]
    Union(#[from] Error),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Whoever was to take the archive did not.
    #[error("cannot write the archive")]
    Write {
        /// What it said.
        source: io::Error,
    },
    /// Somebody asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl CommitError {
    pub(crate) fn tree(error: TreeError) -> Self {
        Self::Store(error.into())
    }
}

/// A layer that was made, or found already made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommittedLayer {
    /// Digest of its archive; the name of its tree.
    pub diff_id: Digest,
    /// Bytes of its archive.
    pub archive_bytes: u64,
    /// What is in it.
    pub archived: Archived,
    /// Data files that became objects without being copied.
    pub moved: u64,
    /// The tree of this diff id was in the store before.
    pub already_there: bool,
}

impl Union {
    /// Makes `changes`, which [`Union::layer_changes`] (or [`Union::layer_of_everything`]) told, a
    /// layer of `store`.
    ///
    /// The caller sees to it that nothing changes meanwhile; what does is in the layer as it was or as
    /// it became, file by file.
    ///
    /// # Errors
    /// [`CommitError`]; no layer is made then.
    pub fn commit(
        &self,
        changes: &[LayerChange],
        store: &Store,
        watch: &Watch<'_>,
    ) -> Result<CommittedLayer, CommitError> {
        // Collection must not take the objects before the tree that names them is there.
        let _lock = store.lock_shared()?;
        let mut builder = build::Builder::new(self, store, watch);
        for change in changes {
            builder.add(change)?;
        }
        let (tree, moved, sockets) = builder.finish();
        let (hash, mut archived) = hash_archive(tree.clone(), store, watch)?;
        archived.sockets += sockets;
        let (diff_id, archive_bytes) = hash.finish();
        watch.check()?;
        let already_there = store.has_tree(&diff_id);
        if !already_there {
            store.publish_tree(&diff_id, tree)?;
        }
        Ok(CommittedLayer {
            diff_id,
            archive_bytes,
            archived,
            moved,
            already_there,
        })
    }
}

/// The archive of a layer in the making, hashed.
fn hash_archive(
    tree: pellicle_store::TreeBuilder,
    store: &Store,
    watch: &Watch<'_>,
) -> Result<(Hasher, Archived), CommitError> {
    // Its name is not known yet.
    let header = TreeHeader {
        kind: TreeKind::Layer,
        identity: Digest([0; 32]),
        layers: vec![Digest([0; 32])],
    };
    let tree = tree.finish(&header).and_then(Tree::from_bytes);
    let tree = tree.map_err(CommitError::tree)?;
    let mut hash = Hasher::default();
    let archived = write_layer(&tree, store, &mut hash, watch)?;
    Ok((hash, archived))
}

/// Writes the archive of a layer: its whiteouts, and all that it has. A layer that
/// [`Union::commit`] made gives the bytes that its diff id is the digest of; one that was imported from
/// another archive need not.
///
/// # Errors
/// As [`Union::write_archive`].
pub fn write_layer(
    tree: &Tree,
    store: &Store,
    out: impl io::Write,
    watch: &Watch<'_>,
) -> Result<Archived, CommitError> {
    let lower = Arc::new(TreeLower::new(tree.clone(), store));
    let (union, _) = Union::open(lower, None, Options { read_only: true })?;
    union.write_archive(Some(tree), out, watch)
}
