//! Trees: everything about the files of a layer or an image except large contents.
//!
//! A [`TreeBuilder`] is a tree being made, in memory; [`TreeBuilder::write`] turns it into the tree
//! file that `fs/docs/FORMAT.md` describes byte by byte, and [`Tree`] answers questions from such a
//! file in place, through a mapping.

mod build;
mod check;
mod error;
mod file;
mod format;
mod names;
mod number;
mod read;
mod write;

pub use build::{
    Body, Child, Content, Extent, INLINE_MAX, INLINE_TOTAL_MAX, Meta, NodeId, Packed, TreeBuilder,
    TreeHeader, TreeKind,
};
pub use error::TreeError;
pub use read::{ContentRef, Extents, PackedRef, Tree, TreeEntry};
