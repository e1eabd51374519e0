//! Why images could not be loaded.

use std::{io, path::PathBuf};

use pellicle_store::{StoreError, import::ImportError};

use crate::image::ImageError;

/// Why images could not be loaded. Whatever it is, no image was listed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The host failed to give the source.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// It is something, but not images.
    #[error("{source_name} holds no images: {why}")]
    NoImages {
        /// What was to be loaded.
        source_name: String,
        /// What it seems to be instead.
        why: String,
    },
    /// A tar archive that cannot be read.
    #[error("{source_name} is damaged or no tar archive: {why}, at byte {offset}")]
    Tar {
        /// What was to be loaded.
        source_name: String,
        /// Where.
        offset: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// A part that others name is not there.
    #[error("{what} is missing: the source has no {member}")]
    Missing {
        /// What it is.
        what: String,
        /// Under which name it was looked for.
        member: String,
    },
    /// A part contradicts what names it, itself, or a limit.
    #[error("{what} cannot be used: {why}")]
    Invalid {
        /// What it is.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// It is not clear which of its images is meant, or there is none such.
    #[error("cannot choose an image of {source_name}: {why}")]
    Choice {
        /// What was to be loaded.
        source_name: String,
        /// What there is.
        why: String,
    },
    /// No image is for this machine.
    #[error("no image for {wanted} in {what}; there are: {found}")]
    Platform {
        /// The platform asked for.
        wanted: String,
        /// Where.
        what: String,
        /// The platforms there are.
        found: String,
    },
    /// A layer could not be imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The images could not be listed.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LoadError {
    pub(super) fn invalid(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid {
            what: what.into(),
            why: why.into(),
        }
    }

    pub(super) fn io(
        doing: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }
}
