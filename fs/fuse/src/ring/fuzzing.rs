//! What the fuzz targets send their bytes to.

use std::{io, sync::Arc};

use pellicle_sys::fuse_ring::Parts;
use pellicle_union::Union;

use super::request::{Context, dispatch};
use crate::{ServeOptions, Stats, operations::Operations};

/// Answers requests as a thread of a ring does.
pub struct Requests(Operations);

impl Requests {
    /// Answers from `union`.
    #[must_use]
    pub fn new(union: Arc<Union>) -> Self {
        let stats = Arc::new(Stats::default());
        Self(Operations::new(union, ServeOptions::default(), stats, 2))
    }

    /// Answers one request; the length of the answer in the payload.
    ///
    /// # Errors
    /// The errno that the kernel would get.
    pub fn answer(&self, parts: Parts<'_>) -> Result<usize, i32> {
        let context = Context {
            operations: &self.0,
            register: &|_| Err(io::ErrorKind::Unsupported.into()),
        };
        dispatch(&context, parts).map_err(|errno| errno.code())
    }
}
