//! Re-hashing a store.

use std::path::PathBuf;

use crate::Digest;

/// What [`crate::Store::verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Objects read.
    pub objects: u64,
    /// Blobs read.
    pub blobs: u64,
    /// Trees read.
    pub trees: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Everything that is not as its name says.
    pub damaged: Vec<Damage>,
}

/// One damaged or missing thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// `object`, `blob` or `tree`.
    pub what: &'static str,
    /// Its name.
    pub id: Digest,
    /// Its file.
    pub path: PathBuf,
    /// What is wrong.
    pub detail: String,
    /// Names of the trees (diff ids, chain ids) that need it; for a tree, its own and those of the
    /// image trees made of it.
    pub used_by: Vec<Digest>,
}
