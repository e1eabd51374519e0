//! Content-addressed storage of image layers: objects, trees and the blobs they came from.
//!
//! See `fs/docs/ARCHITECTURE.md` and `fs/docs/FORMAT.md`.

pub mod archive;
mod cas;
mod collect;
pub mod digest;
mod error;
mod flatten;
pub mod import;
mod lock;
pub mod node;
mod pool;
mod quarantine;
mod repair;
mod store;
mod temp;
pub mod tree;
mod verify;

pub use cas::{Blobs, Objects};
pub use collect::{Collected, Roots};
pub use digest::{Digest, Hasher};
pub use error::StoreError;
pub use flatten::{Whiteouts, flatten};
pub use lock::{Hold, StoreLock};
pub use node::{Attr, Device, FileKind, Ino, Time};
pub use pool::{Taking, Writer};
pub use quarantine::Quarantine;
pub use repair::{Outcome, Repaired, Sources};
pub use store::Store;
pub use tree::{
    Body, Child, Content, Extent, INLINE_MAX, INLINE_TOTAL_MAX, Meta, NodeId, Packed, Tree,
    TreeBuilder, TreeError, TreeHeader, TreeKind,
};
pub use verify::{Damage, DamagedDirectory, VerifyReport};
