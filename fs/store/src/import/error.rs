//! Why an import failed.

use std::{fmt, io, path::PathBuf};

use crate::{Digest, StoreError};

/// Why a layer was not imported. Whatever it is, no tree and no blob of the layer is left behind.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The bytes of the source could not be had.
    #[error("cannot read {name} at byte {offset}")]
    Read {
        /// The source, as [`super::ImportOptions::name`] calls it.
        name: String,
        /// Bytes of the source that were read before.
        offset: u64,
        /// The host's answer.
        source: io::Error,
    },
    /// The compressed stream is cut off or damaged.
    #[error(
        "{name} is damaged or cut off: its {format} data breaks at byte {offset} ({detail}); fetch or write it again"
    )]
    Compression {
        /// The source.
        name: String,
        /// `gzip` or `zstd`.
        format: &'static str,
        /// Bytes of the source that were decoded before.
        offset: u64,
        /// What the decoder says.
        detail: String,
    },
    /// The source is compressed in a way that layers are not.
    #[error(
        "{name} is compressed with {format}; layers are plain tar, gzip or zstd: unpack it first"
    )]
    Unsupported {
        /// The source.
        name: String,
        /// The format.
        format: &'static str,
    },
    /// The tar stream is damaged, or holds what no layer may hold.
    #[error("cannot import {name}")]
    Tar {
        /// The source.
        name: String,
        /// Where and what.
        #[source]
        error: TarError,
    },
    /// The source is not what it was said to be.
    #[error("{name}: the {what} is {actual}, but {expected} was promised; fetch it again")]
    WrongDigest {
        /// The source.
        name: String,
        /// `blob` or `diff id`.
        what: &'static str,
        /// The promise.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The caller asked to stop.
    #[error("the import was cancelled; nothing of it was kept")]
    Cancelled,
    /// A host directory could not be read as a layer.
    #[error("cannot take {} as a layer: {problem}", path.display())]
    Directory {
        /// The file or directory at fault.
        path: PathBuf,
        /// What is wrong.
        problem: DirectoryProblem,
    },
    /// A host resource other than the store or the source was refused (a thread, memory).
    #[error("cannot {action}")]
    Host {
        /// What was tried.
        action: &'static str,
        /// The host's answer.
        source: io::Error,
    },
}

/// What is wrong with a file of a directory that is imported.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryProblem {
    /// A system call failed.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The host's answer.
        source: io::Error,
    },
    /// The file was removed between the listing of its directory and its turn.
    #[error(
        "it vanished while the directory was read; stop what changes the directory and try again"
    )]
    Vanished,
    /// The file was written to or replaced while it was read.
    #[error("it changed while it was read; stop what changes the directory and try again")]
    Changed,
}

/// A fault of a tar stream: at which entry, where, and what.
#[derive(Debug, thiserror::Error)]
#[error("{}at byte {offset} of the tar stream: {problem}", EntryName(entry.as_deref()))]
pub struct TarError {
    /// Name of the entry as the stream has it, if it got so far.
    pub entry: Option<Vec<u8>>,
    /// Offset of the entry's first header block in the uncompressed stream, in bytes.
    pub offset: u64,
    /// What is wrong.
    pub problem: TarProblem,
}

struct EntryName<'a>(Option<&'a [u8]>);

impl fmt::Display for EntryName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(f, "entry \"{}\" ", Shown(name)),
            None => Ok(()),
        }
    }
}

/// Bytes of a file name as text that can stand in a message: cut to a line's length, everything
/// that is not printable ASCII escaped.
struct Shown<'a>(&'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 300;
        match self.0.split_at_checked(MOST) {
            Some((head, rest)) => {
                write!(f, "{}...({} more bytes)", head.escape_ascii(), rest.len())
            }
            None => write!(f, "{}", self.0.escape_ascii()),
        }
    }
}

/// What can be wrong with a tar stream.
#[derive(Debug, thiserror::Error)]
pub enum TarProblem {
    /// There is not one byte.
    #[error("the source is empty; a tar archive without entries still has 1024 zero bytes")]
    Empty,
    /// The stream ends where it may not.
    #[error("the stream ends inside {inside}; the archive is cut off")]
    Truncated {
        /// What was being read.
        inside: &'static str,
    },
    /// A header block that is none.
    #[error("this is no tar header (checksum is wrong); the file is damaged or no tar archive")]
    Checksum,
    /// One block of zeros with data behind it.
    #[error("a single block of zeros followed by data; the archive is damaged")]
    LoneZeroBlock,
    /// A number that is none or is out of the range that its meaning has.
    #[error("the {field} is not a number from {min} to {max}")]
    Number {
        /// The header field or PAX key.
        field: &'static str,
        /// Smallest value that has a meaning.
        min: i64,
        /// Largest value that has a meaning.
        max: u64,
    },
    /// A PAX header that breaks its own syntax.
    #[error("the PAX header is malformed: {detail}")]
    Pax {
        /// How.
        detail: &'static str,
    },
    /// A header that describes another entry and is larger than any real one.
    #[error("its {what} claims {size} bytes; more than {limit} are not accepted")]
    TooLarge {
        /// What kind of header.
        what: &'static str,
        /// Claimed size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A sparse map that contradicts itself or its file.
    #[error("the sparse map is malformed: {detail}")]
    Sparse {
        /// How.
        detail: &'static str,
    },
    /// A type that has no meaning in a layer.
    #[error("entries of type {0:?} are not supported")]
    Type(char),
    /// A long name or PAX header with nothing behind it that it describes.
    #[error("the stream ends after a header that describes another entry")]
    Dangling,
    /// A name that leads out of the layer, or that no file can have.
    #[error("the {what} {why}")]
    Path {
        /// `name`, `link target`.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A parent of the entry is no directory.
    #[error(
        "its parent \"{}\" is a {kind} in this layer, which is not followed",
        Shown(parent)
    )]
    ParentNotDirectory {
        /// Path of that parent.
        parent: Vec<u8>,
        /// What it is.
        kind: &'static str,
    },
    /// A hard link to what the layer does not hold.
    #[error(
        "it is a hard link to \"{}\", which this layer does not hold before it",
        Shown(target)
    )]
    LinkToNothing {
        /// The target as the stream has it.
        target: Vec<u8>,
    },
    /// A hard link to a directory.
    #[error("it is a hard link to the directory \"{}\"", Shown(target))]
    LinkToDirectory {
        /// The target as the stream has it.
        target: Vec<u8>,
    },
    /// An attribute that no Linux file can have.
    #[error("its extended attribute \"{}\" {why}", Shown(name))]
    Xattr {
        /// Name of the attribute.
        name: Vec<u8>,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A number of entries or a nesting that no image has.
    #[error("the archive is larger than a layer can be: {0}")]
    Limit(&'static str),
}
