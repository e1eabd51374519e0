//! Why something about images could not be done.

use std::{io, path::PathBuf};

use pellicle_store::{Digest, StoreError};

/// Why something about images could not be done.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A text that is no image reference.
    #[error("{text:?} is no image name: {why}")]
    BadReference {
        /// What was given, cut to a sane length.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Nothing in the store goes by that name.
    #[error("no image {0:?} in the store")]
    NotFound(String),
    /// The start of an id fits more than one image.
    #[error("{prefix:?} fits {count} images")]
    Ambiguous {
        /// The start of an id.
        prefix: String,
        /// How many images start so.
        count: usize,
    },
    /// A containers stands on the image.
    #[error("image {image} is used by container {containers}")]
    InUse {
        /// What was to be removed.
        image: String,
        /// The containers' ids, comma-separated.
        containers: String,
    },
    /// An id names an image with several names.
    #[error("image {id} has more than one name: {names}")]
    SeveralNames {
        /// Short id.
        id: String,
        /// The names.
        names: String,
    },
    /// A manifest or configuration in the store makes no sense.
    #[error("the {what} {id} of an image in the store is damaged: {detail}")]
    Damaged {
        /// `manifest` or `configuration`.
        what: &'static str,
        /// Its digest.
        id: Digest,
        /// What is wrong.
        detail: String,
    },
    /// The list of names is not readable.
    #[error("the list of image names {} is damaged: {detail}", path.display())]
    Index {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// A container's state is not readable.
    #[error("the state of a container, {}, is damaged: {detail}", path.display())]
    Container {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The host failed.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ImageError {
    pub(crate) fn io(
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
