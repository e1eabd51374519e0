//! How an import tells what it has done so far, and how it is told to stop.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::ImportError;

/// Told how far an import is. Called from several threads, once per buffer (256 KiB) or batch of
/// entries: cheap enough for an atomic counter, not for drawing at every call.
pub trait Progress: Sync {
    /// `n` more bytes of the source were read.
    fn bytes(&self, n: u64) {
        let _ = n;
    }

    /// `n` more entries are in the tree.
    fn entries(&self, n: u64) {
        let _ = n;
    }
}

/// Progress that nobody watches.
impl Progress for () {}

/// A request to stop, shared between who waits for Ctrl-C and the imports that look at it.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A request that looks at (and sets) `flag`, such as one that a signal handler sets.
    #[must_use]
    pub fn from_flag(flag: Arc<AtomicBool>) -> Self {
        Self(flag)
    }

    /// Asks all imports that share this to stop at their next buffer.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether someone asked.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// `Err(Cancelled)` if someone asked.
    ///
    /// # Errors
    /// [`ImportError::Cancelled`].
    pub fn check(&self) -> Result<(), ImportError> {
        if self.is_cancelled() {
            return Err(ImportError::Cancelled);
        }
        Ok(())
    }
}
