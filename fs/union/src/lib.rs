//! One tree out of a read-only lower tree and a writable layer, with copy-on-write.
//!
//! A plain Rust interface over [`Ino`]s that returns [`Result`]s; no FUSE types, no mount needed.
//! See `fs/docs/UNION.md` for what each operation promises.
//!
//! # Invariants
//! - `1..=lower.inode_count()` are the lower tree's inodes for ever; new ones are numbered above
//!   every number seen. Node id, `st_ino` and `d_ino` are one.
//! - What memory says is what a replay of the upper's records would say, at every moment that no
//!   change is being applied. A change that fails leaves both as they were.
//! - An inode that was never touched is answered by the lower tree without a lock.
//!
//! # Lock order
//! 1. the *content lock* of an inode (`inode::ContentLock`), two of them by ascending number;
//!    the only lock held across reading or writing file data;
//! 2. the *change lock* (`change::Change`), held from validation through the upper's commit until
//!    memory says the same;
//! 3. a shard of the table, or the state of an inode: for a moment, one at a time, with nothing
//!    called meanwhile; only `change::Change::commit` holds several states, by ascending number.
//!
//! Readers take only locks of the third kind, so no reader waits for the host or for the log.

mod acl;
mod allocate;
mod archive;
mod attrs;
mod change;
mod check;
mod commit;
mod compact;
mod content;
mod diff;
mod entries;
mod error;
mod file;
mod inode;
mod lent;
mod list;
mod mixed;
mod names;
mod orphan;
mod path;
mod query;
mod ranges;
mod rename;
mod replay;
mod request;
mod table;
mod union;
mod xattrs;

pub use archive::{Archived, Watch};
pub use commit::{CommitError, CommittedLayer, write_layer};
pub use error::Error;
pub use file::COPY_MAX;
pub use pellicle_store::{Attr, Device, FileKind, Ino, Time};
pub use request::{
    Caller, Difference, DifferenceKind, KillSetId, LayerChange, LayerEntry, Listed, NewNode,
    Options, RenameFlags, SetAttr,
};
pub use union::Union;

/// How many names a regular file, link or device may have, as on ext4. Directories have no such bound.
pub const LINK_MAX: u32 = 65_000;
