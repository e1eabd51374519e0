//! Locks that keep collection and everything else apart.

/// A lock on the store, released when dropped and when its process ends.
#[derive(Debug)]
#[must_use]
pub struct StoreLock;
