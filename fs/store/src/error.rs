//! Why the store could not do what it was asked.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{Digest, tree::TreeError};

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The host failed.
    #[error("cannot {doing} {}{}", path.display(), hint(source))]
    Io {
        /// What was being done, as `write`.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// A tree is damaged or cannot be made.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// There is no such thing in the store.
    #[error("the store has no {what} {id}; import or pull its image again")]
    Missing {
        /// `object`, `blob` or `tree`.
        what: &'static str,
        /// Its name.
        id: Digest,
    },
    /// What came is not what was announced.
    #[error("{what} {expected} was announced, but what came is {found}; fetch it again")]
    Mismatch {
        /// `object` or `blob`.
        what: &'static str,
        /// The digest announced.
        expected: Digest,
        /// The digest of what came.
        found: Digest,
    },
    /// Another process holds a lock that excludes ours.
    #[error("the store {} is in use{}; try again when that has ended", root.display(), holders(by))]
    Busy {
        /// The store's root.
        root: PathBuf,
        /// Who holds it, as far as this process may know: pid and command.
        by: Vec<(u32, String)>,
    },
    /// The directory is no store, or one of a newer program.
    #[error("{} is not a store that this program knows: {detail}", root.display())]
    Layout {
        /// The store's root.
        root: PathBuf,
        /// What is wrong.
        detail: String,
    },
}

impl StoreError {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }
}

/// The error with its causes, in one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        next = cause.source();
    }
    text
}

/// What the host's answer means here, where it alone does not tell.
fn hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::ENOLCK | libc::EOPNOTSUPP | libc::ENOSYS) => {
            ": this file system lacks something a store needs, such as file locks (Lustre: mount it \
             with -o flock); put the store elsewhere with --root or PELLICLE_ROOT"
        }
        _ => "",
    }
}

fn holders(by: &[(u32, String)]) -> String {
    if by.is_empty() {
        return String::new();
    }
    let list: Vec<_> = by
        .iter()
        .map(|(pid, name)| format!("process {pid} ({name})"))
        .collect();
    format!(" by {}", list.join(", "))
}
