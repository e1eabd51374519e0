//! Content-addressed storage of image layers: objects, trees and the blobs they came from.
//!
//! See `fs/docs/ARCHITECTURE.md`.

pub mod digest;
pub mod import;
pub mod node;

pub use digest::Digest;
pub use node::{Attr, Device, FileKind, Ino, Time};
