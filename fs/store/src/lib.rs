//! Content-addressed storage of image layers: objects, trees and the blobs they came from.
//!
//! See `fs/docs/ARCHITECTURE.md` and `fs/docs/FORMAT.md`.

mod cas;
mod collect;
pub mod digest;
mod error;
mod flatten;
pub mod import;
mod lock;
pub mod node;
mod pool;
mod store;
mod temp;
pub mod tree;
mod verify;

pub use cas::{Blobs, Objects};
pub use collect::{Collected, Roots};
pub use digest::Digest;
pub use error::StoreError;
pub use flatten::{Whiteouts, flatten};
pub use lock::StoreLock;
pub use node::{Attr, Device, FileKind, Ino, Time};
pub use pool::Writer;
pub use store::Store;
pub use tree::{
    Body, Child, Content, Extent, INLINE_MAX, INLINE_TOTAL_MAX, Meta, NodeId, Packed, Tree,
    TreeBuilder, TreeError, TreeHeader, TreeKind,
};
pub use verify::{Damage, VerifyReport};
