//! Read-only layers that a union stands on.

mod archive;
mod content;
pub mod host;
mod lower;
mod opened;
mod tree;

pub use archive::{Archive, ArchiveError};
pub use host::{HostError, HostOptions, HostStack};
pub use lower::{Entry, Lower, LowerError};
pub use tree::TreeLower;
