//! The writable layer of a union: where changes are kept.

pub mod journal;
mod upper;

pub use journal::{Journal, JournalLower, JournalOptions, JournalStats};
pub use upper::{ContentSource, Node, Record, Recovery, Space, Upper, UpperError};
