//! Why an image was not built, and where in the Containerfile.

use std::{error::Error, fmt, io, path::PathBuf, sync::Arc};

use pellicle_store::StoreError;
use pellicle_union::CommitError;

use crate::{container::ContainerError, image::ImageError};

/// A line of a Containerfile, as editors jump to it: `Containerfile:12`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The file, as the person named it.
    pub file: Arc<str>,
    /// Counted from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Why an image was not built. Nothing is tagged then.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A line that cannot be done as it is written.
    #[error("{place}: {what}")]
    Bad {
        /// Where.
        place: Place,
        /// What is wrong.
        what: String,
        /// What to do about it.
        next: String,
    },
    /// The command of a RUN failed.
    #[error("{place}: the command of RUN ended with exit code {code}: {command}")]
    Run {
        /// Where.
        place: Place,
        /// The command, cut to a sane length.
        command: String,
        /// Its exit code, 128+n for signal n.
        code: i32,
    },
    /// A RUN's container could not be made.
    #[error("{place}: the container for RUN could not be made: {why}")]
    Container {
        /// Where.
        place: Place,
        /// What the container's process said.
        why: String,
        /// What to do about it, if known.
        next: Option<String>,
    },
    /// A line that is right, but could not be carried out.
    #[error("{place}: cannot do {instruction}")]
    Step {
        /// Where.
        place: Place,
        /// The instruction's name.
        instruction: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// What was asked for on the command line, or a file of the build as a whole.
    #[error("{what}")]
    Request {
        /// What is wrong.
        what: String,
        /// What to do about it.
        next: String,
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
    /// Somebody asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// The images of the store.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A container.
    #[error(transparent)]
    Engine(#[from] ContainerError),
    /// A layer could not be made.
    #[error(transparent)]
    Commit(CommitError),
    /// A tree could not be read or changed.
    #[error(transparent)]
    Union(#[from] pellicle_union::Error),
}

impl From<CommitError> for BuildError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Cancelled => Self::Cancelled,
            other => Self::Commit(other),
        }
    }
}

impl BuildError {
    pub(super) fn bad(place: &Place, what: impl Into<String>, next: impl Into<String>) -> Self {
        Self::Bad {
            place: place.clone(),
            what: what.into(),
            next: next.into(),
        }
    }

    pub(super) fn request(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self::Request {
            what: what.into(),
            next: next.into(),
        }
    }

    pub(super) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }

    /// The same, said of a line, unless it says so already.
    pub(super) fn at(self, place: &Place, instruction: &str) -> Self {
        match self {
            Self::Bad { .. }
            | Self::Run { .. }
            | Self::Container { .. }
            | Self::Step { .. }
            | Self::Cancelled => self,
            Self::Request { what, next } => Self::bad(place, what, next),
            other => Self::Step {
                place: place.clone(),
                instruction: instruction.to_owned(),
                source: Box::new(other),
            },
        }
    }

    /// What to do about it, if that is known here.
    #[must_use]
    pub fn next(&self) -> Option<String> {
        match self {
            Self::Bad { next, .. } | Self::Request { next, .. } => Some(next.clone()),
            Self::Container { next, .. } => next.clone(),
            Self::Run { .. } => Some(
                "what it printed is above; the steps before it are kept, so the next build goes on here"
                    .to_owned(),
            ),
            Self::Step { .. }
            | Self::Io { .. }
            | Self::Cancelled
            | Self::Image(_)
            | Self::Store(_)
            | Self::Engine(_)
            | Self::Commit(_)
            | Self::Union(_) => None,
        }
    }
}
