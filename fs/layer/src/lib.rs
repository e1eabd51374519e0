//! Read-only layers that a union stands on.

mod lower;

pub use lower::{Entry, Lower, LowerError};
