//! A store: one root directory.

use std::path::Path;

use crate::{
    Blobs, Digest, Objects, StoreError, StoreLock, Tree, TreeBuilder,
    collect::{Collected, Roots},
    verify::VerifyReport,
};

/// One store. Cloning is cheap; all methods may be called from any thread.
#[derive(Clone)]
pub struct Store;

#[allow(
    clippy::missing_errors_doc,
    reason = "signatures first, see the next commit"
)]
impl Store {
    /// Opens the store at `root`, making its layout where it is missing.
    pub fn open(_root: &Path) -> Result<Self, StoreError> {
        todo!()
    }
    /// Its root directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        todo!()
    }
    /// File contents.
    #[must_use]
    pub fn objects(&self) -> &Objects {
        todo!()
    }
    /// Blobs.
    #[must_use]
    pub fn blobs(&self) -> &Blobs {
        todo!()
    }
    /// Whether it has the tree of that diff id (or chain id).
    #[must_use]
    pub fn has_tree(&self, _id: &Digest) -> bool {
        todo!()
    }
    /// The tree of a layer, by diff id.
    pub fn tree(&self, _id: &Digest) -> Result<Tree, StoreError> {
        todo!()
    }
    /// Makes a layer's tree and all objects it names durable and visible.
    pub fn publish_tree(&self, _id: &Digest, _tree: TreeBuilder) -> Result<Tree, StoreError> {
        todo!()
    }
    /// The flattened tree of that stack of layers, lowest first; made when first asked for.
    pub fn image_tree(&self, _diff_ids: &[Digest]) -> Result<Tree, StoreError> {
        todo!()
    }
    /// Holds off collection; held by running mounts and imports.
    pub fn lock_shared(&self) -> Result<StoreLock, StoreError> {
        todo!()
    }
    /// Holds off everything else; held by collection.
    pub fn lock_exclusive(&self) -> Result<StoreLock, StoreError> {
        todo!()
    }
    /// Re-hashes everything. `progress` hears what was read and how many bytes.
    pub fn verify(&self, _progress: &mut dyn FnMut(&str, u64)) -> Result<VerifyReport, StoreError> {
        todo!()
    }
    /// Removes everything that `live` does not name. Takes the exclusive lock itself.
    pub fn collect(&self, _live: &Roots, _dry_run: bool) -> Result<Collected, StoreError> {
        todo!()
    }
}
