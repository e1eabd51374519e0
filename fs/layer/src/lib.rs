//! Read-only layers that a union stands on.

mod archive;
mod content;
mod lower;
mod tree;

pub use archive::{Archive, ArchiveError};
pub use lower::{Entry, Lower, LowerError};
pub use tree::TreeLower;
