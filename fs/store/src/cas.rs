//! A directory of files named by the SHA-256 of what is in them: what [`crate::Objects`] and
//! [`crate::Blobs`] have in common.

use std::{fs::File, io};

use crate::{Digest, StoreError};

/// File contents, each stored once over all layers and images. Cloning is cheap.
#[derive(Clone)]
pub struct Objects;

/// Blobs as registries know them: compressed layers, manifests, configurations. Cloning is cheap.
#[derive(Clone)]
pub struct Blobs;

/// Takes bytes for one object or blob, hashing them on the way. Dropping it without
/// [`Writer::finish`] leaves nothing.
pub struct Writer;

impl io::Write for Writer {
    fn write(&mut self, _buf: &[u8]) -> io::Result<usize> {
        todo!()
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[allow(
    clippy::missing_errors_doc,
    reason = "signatures first, see the next commit"
)]
impl Writer {
    /// Bytes taken so far.
    #[must_use]
    pub fn len(&self) -> u64 {
        todo!()
    }
    /// Whether none were.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Digest of the bytes taken so far: an import compares it with what was promised before it
    /// publishes anything.
    #[must_use]
    pub fn digest(&self) -> Digest {
        todo!()
    }
    /// Publishes what was written under its digest.
    pub fn finish(self) -> Result<Digest, StoreError> {
        todo!()
    }
    /// Publishes it only if its digest is `expected`.
    pub fn finish_as(self, _expected: &Digest) -> Result<(), StoreError> {
        todo!()
    }
}

#[allow(
    clippy::missing_errors_doc,
    reason = "signatures first, see the next commit"
)]
impl Objects {
    /// Starts a new one.
    pub fn writer(&self) -> Result<Writer, StoreError> {
        todo!()
    }
    /// Stores `bytes`.
    pub fn put(&self, _bytes: &[u8]) -> Result<Digest, StoreError> {
        todo!()
    }
    /// Opens it for reading.
    pub fn open(&self, _id: &Digest) -> Result<File, StoreError> {
        todo!()
    }
    /// Whether it is there.
    #[must_use]
    pub fn contains(&self, _id: &Digest) -> bool {
        todo!()
    }
    /// Its bytes; `None` if it is not there.
    pub fn size(&self, _id: &Digest) -> Result<Option<u64>, StoreError> {
        todo!()
    }
}

#[allow(
    clippy::missing_errors_doc,
    reason = "signatures first, see the next commit"
)]
impl Blobs {
    /// Starts a new one.
    pub fn writer(&self) -> Result<Writer, StoreError> {
        todo!()
    }
    /// Stores `bytes`.
    pub fn put(&self, _bytes: &[u8]) -> Result<Digest, StoreError> {
        todo!()
    }
    /// Opens it for reading.
    pub fn open(&self, _id: &Digest) -> Result<File, StoreError> {
        todo!()
    }
    /// Whether it is there.
    #[must_use]
    pub fn contains(&self, _id: &Digest) -> bool {
        todo!()
    }
    /// Its bytes; `None` if it is not there.
    pub fn size(&self, _id: &Digest) -> Result<Option<u64>, StoreError> {
        todo!()
    }
    /// Removes it, if it is there; whether it was.
    pub fn remove(&self, _id: &Digest) -> Result<bool, StoreError> {
        todo!()
    }
}
