//! The writable layer of a union: where changes are kept.

mod upper;

pub use upper::{ContentSource, Node, Record, Recovery, Space, Upper, UpperError};
