//! Import: a tar stream or a host directory becomes a layer of the store, in one pass.
//!
//! `fs/docs/IMPORT.md` says what each kind of entry becomes and what bad input is answered with.

mod assemble;
mod chunks;
mod contents;
mod decode;
mod directory;
mod error;
mod index;
mod layer;
mod paths;
mod pipeline;
mod progress;
mod tar;
#[cfg(test)]
mod tests;

pub use directory::import_directory;
pub use error::{DirectoryProblem, ImportError, TarError, TarProblem};
pub use index::{IndexedArchive, index_archive};
pub use layer::import_layer;
pub(crate) use layer::restore_layer;
pub use progress::{Cancel, Progress};

use crate::Digest;

/// How to import. `ImportOptions::default()` imports anything; give the layer a name.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// What messages call the source: a path, a digest. Empty reads as "the layer".
    pub name: String,
    /// Digest that the source must have (a descriptor of a manifest promises it).
    pub expect_blob: Option<Digest>,
    /// Digest that the uncompressed stream must have (the image configuration promises it).
    pub expect_diff_id: Option<Digest>,
    /// Looked at once per buffer.
    pub cancel: Cancel,
    /// Owners of what [`import_directory`] reads.
    pub owners: Owners,
    /// Compression of the blob that [`import_directory`] makes.
    pub compression: Compression,
}

impl ImportOptions {
    /// What messages call the source.
    fn source_name(&self) -> &str {
        match self.name.as_str() {
            "" => "the layer",
            name => name,
        }
    }
}

/// Who owns the files of an imported directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owners {
    /// Who owns them on the host.
    #[default]
    Keep,
    /// One owner and group for all (an ordinary user's tree becomes root's: `All { uid: 0, gid: 0 }`).
    All {
        /// Owner of everything.
        uid: u32,
        /// Group of everything.
        gid: u32,
    },
}

/// How a blob is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, which every registry and engine reads.
    Gzip,
    /// zstd: several times faster than gzip, read by every engine of the last years.
    #[default]
    Zstd,
}

/// What an import made, or found already made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedLayer {
    /// Digest of the uncompressed tar stream; the name of the tree.
    pub diff_id: Digest,
    /// Digest of the source as it came; the name of the blob.
    pub blob: Digest,
    /// Bytes of the blob.
    pub blob_size: u64,
    /// OCI media type of the blob (image-spec layer.md).
    pub media_type: &'static str,
    /// Entries of the stream, extension headers not counted.
    pub entries: u64,
    /// Bytes of file contents, holes not counted.
    pub content_bytes: u64,
    /// The tree of this diff id was in the store before.
    pub already_there: bool,
}
