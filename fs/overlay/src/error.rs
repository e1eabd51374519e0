//! Why a mount was not made, and what to do about it.

use std::{io, path::PathBuf};

use pellicle_fuse::FuseError;

/// A command line that is not understood, or contradicts itself.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UsageError {
    #[error("-o needs options behind it, as in -o lowerdir=DIR")]
    NoOptions,
    #[error("no mountpoint given: it is the last argument")]
    NoMountpoint,
    #[error(
        "{} arguments that are no options: at most a source and the mountpoint are taken; \
         is a blank in a path that the shell split?",
        arguments.len()
    )]
    TooMany { arguments: Vec<String> },
    #[error("no lower directory given: add -o lowerdir=DIR[:DIR...], topmost first")]
    NoLower,
    #[error(
        "workdir not specified: add -o workdir=DIR, an empty directory on the same file system as \
         upperdir={}",
        upper.display()
    )]
    NoWork { upper: PathBuf },
    #[error("{option} needs a value, as in -o {option}={example}")]
    NoValue {
        option: &'static str,
        example: &'static str,
    },
    #[error("{option}={value}: it takes {wanted}")]
    Value {
        option: &'static str,
        value: String,
        wanted: &'static str,
    },
    #[error("{option}={value}: {why}")]
    Mapping {
        option: &'static str,
        value: String,
        why: String,
    },
    #[error("{one} and {other} contradict each other: leave one out")]
    Contradiction { one: String, other: String },
    #[error("{option} is not possible here: {why}")]
    NotOurs {
        option: &'static str,
        why: &'static str,
    },
}

/// What keeps a directory from being a layer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LayerError {
    #[error("{role} directory {} does not exist", path.display())]
    Missing { role: &'static str, path: PathBuf },
    #[error("{role} {} is not a directory", path.display())]
    NotDirectory { role: &'static str, path: PathBuf },
    #[error("cannot open {role} directory {}", path.display())]
    Open {
        role: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "{role} {} is inside {other_role} {}: what is written there would change it under the mount; \
         put them beside each other",
        path.display(), other.display()
    )]
    Inside {
        role: &'static str,
        path: PathBuf,
        other_role: &'static str,
        other: PathBuf,
    },
    #[error("{} is given both as {role} and as {other_role}", path.display())]
    Same {
        role: &'static str,
        other_role: &'static str,
        path: PathBuf,
    },
    #[error(
        "workdir {} is on another file system than upperdir {}: files are moved from one to the \
         other, so make the workdir beside the upperdir",
        work.display(), upper.display()
    )]
    OtherFileSystem { work: PathBuf, upper: PathBuf },
    #[error(
        "{role} {} cannot be written to: it is on a read-only file system; leave upperdir out for a \
         read-only mount",
        path.display()
    )]
    ReadOnly { role: &'static str, path: PathBuf },
    #[error("{role} {} cannot be written to by this user", path.display())]
    Denied {
        role: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "upperdir {} was written with upper={found}: give that, or an empty directory",
        path.display()
    )]
    OtherKind { path: PathBuf, found: &'static str },
    #[error(
        "the mountpoint {} covers the upperdir {} of a journal: mount beside it",
        mountpoint.display(), upper.display()
    )]
    Covered { mountpoint: PathBuf, upper: PathBuf },
}

/// Why a mount was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OverlayError {
    #[error(transparent)]
    Layer(#[from] LayerError),
    #[error(transparent)]
    Lower(#[from] pellicle_layer::HostError),
    #[error(transparent)]
    Upper(#[from] pellicle_upper::UpperError),
    #[error(transparent)]
    Union(#[from] pellicle_union::Error),
    #[error(transparent)]
    Fuse(#[from] FuseError),
    #[error("cannot {doing}")]
    Process {
        doing: &'static str,
        source: io::Error,
    },
}

impl OverlayError {
    /// For `map_err` around a system call.
    pub(crate) fn process<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Process {
            doing,
            source: source.into(),
        }
    }
}
