//! Tar streams, member by member, as every tar of the last forty years writes them.
//!
//! [`TarReader`] knows the format and nothing of trees: it gives each member's name, metadata and
//! stored bytes, with everything that extension headers say of it applied. It allocates for what
//! has arrived, never for what a header claims, and every failure names entry and offset.
//!
//! The `tar` crate gives the layout of the header blocks. Its iteration is not used: in raw mode it
//! loses its place after a PAX `size` or an old GNU sparse header, and otherwise it splits PAX
//! records at newlines inside binary values and does not know PAX sparse files.

mod header;
mod number;
mod pax;
mod reader;
mod sparse;

pub(super) use reader::{Bytes, Member, MemberKind, TarReader};

/// Bytes of a tar block.
pub(super) const BLOCK: usize = 512;
