//! Removing what nothing needs any more.

use std::collections::BTreeSet;

use crate::Digest;

/// What is still wanted.
#[derive(Clone, Debug, Default)]
pub struct Roots {
    /// Blobs: manifests, configurations, compressed layers.
    pub blobs: BTreeSet<Digest>,
    /// The diff ids of each image, lowest layer first.
    pub stacks: Vec<Vec<Digest>>,
}

/// What [`crate::Store::collect`] removed, or would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Objects.
    pub objects: u64,
    /// Blobs.
    pub blobs: u64,
    /// Trees.
    pub trees: u64,
    /// Bytes of all of them, as allocated on the host.
    pub bytes: u64,
}
