//! The writable layer of a union: where changes are kept.

pub mod dir;
mod host;
pub mod journal;
mod upper;

pub use dir::{DirOptions, DirUpper};
#[cfg(any(test, feature = "failpoints"))]
pub use host::{Event, Faults, Mode};
pub use host::{Host, Op};
pub use journal::{
    Examined, Journal, JournalLower, JournalOptions, JournalStats, LogDamage, Lost, Mended, Remedy,
    examine, mend,
};
pub use upper::{
    Chunks, ContentSource, LogPosition, Node, Record, Recovery, Space, Upper, UpperError,
};
