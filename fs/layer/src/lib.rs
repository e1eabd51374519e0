//! Read-only layers that a union stands on.

mod lower;
mod tree;

pub use lower::{Entry, Lower, LowerError};
pub use tree::TreeLower;
