//! Why a tree could not be made or read.

use std::{io, path::PathBuf};

use crate::Ino;

/// Why a tree could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The host failed.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was being done, as `map`.
        doing: &'static str,
        /// The tree file.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// The file does not start as a tree file does.
    #[error("{file} is not a tree file")]
    NotATree {
        /// The file.
        file: String,
    },
    /// A version or a feature that this program does not know.
    #[error(
        "{file} has format {what} {found:#x}, which this program does not know; use a newer pellicle"
    )]
    Unknown {
        /// The file.
        file: String,
        /// What is unknown: `version` or `features`.
        what: &'static str,
        /// The value found.
        found: u64,
    },
    /// The file contradicts itself or fails a checksum.
    #[error("{file} is damaged{}: {detail}", block.map(|b| format!(" in block {b}")).unwrap_or_default())]
    Damaged {
        /// The file.
        file: String,
        /// The 64 KiB block of the body, counted from 0, where a checksum failed.
        block: Option<u64>,
        /// What is wrong.
        detail: String,
    },
    /// No inode has that number, or it is of another kind.
    #[error("inode {ino} does not exist, or is not a {wanted}")]
    NoSuchNode {
        /// The inode asked about.
        ino: Ino,
        /// What it was taken for.
        wanted: &'static str,
    },
    /// What was built cannot be a tree.
    #[error("{name:?} cannot be stored: {detail}", name = String::from_utf8_lossy(name))]
    Unstorable {
        /// The name of the entry, as far as known.
        name: Vec<u8>,
        /// What is wrong with it.
        detail: String,
    },
    /// More of something than the format can number.
    #[error("the tree has too many {what}: the format ends at {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: u64,
    },
}
