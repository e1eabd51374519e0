//! What the union answers when it cannot do what was asked, and the errno that says it.

use std::io;

use pellicle_layer::LowerError;
use pellicle_store::Ino;
use pellicle_upper::UpperError;

/// Why an operation was refused or failed. Nothing was changed then, except that a failed write may
/// have changed bytes inside the range it was given.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such name, or the inode is gone.
    #[error("no such file or directory")]
    NotFound,
    /// A directory is needed.
    #[error("not a directory")]
    NotDirectory,
    /// Something else than a directory is needed.
    #[error("is a directory")]
    IsDirectory,
    /// The name is taken.
    #[error("file exists")]
    Exists,
    /// The directory still has names.
    #[error("directory not empty")]
    NotEmpty,
    /// The union takes no changes.
    #[error("read-only file system")]
    ReadOnly,
    /// The arguments contradict each other or the inode's kind.
    #[error("invalid argument")]
    Invalid,
    /// A name of more than 255 bytes or a target of more than 4095.
    #[error("file name too long")]
    NameTooLong,
    /// The inode has [`crate::LINK_MAX`] names.
    #[error("too many links")]
    TooManyLinks,
    /// No extended attribute of that name.
    #[error("no such attribute")]
    NoAttribute,
    /// Not allowed for this kind of inode.
    #[error("operation not permitted")]
    NotPermitted,
    /// A seek found nothing.
    #[error("no data or hole there")]
    NoSuchOffset,
    /// Past the largest file size, `i64::MAX`.
    #[error("file too large")]
    TooLarge,
    /// A name or buffer of the wrong size.
    #[error("result does not fit")]
    Range,
    /// A value of more than 64 KiB.
    #[error("attribute value too long")]
    TooBig,
    /// More attributes than `listxattr(2)` can name.
    #[error("no room for one more attribute")]
    NoSpace,
    /// Not done by this file system.
    #[error("operation not supported")]
    Unsupported,
    /// No memory for a tree of that size.
    #[error("not enough memory for a tree of {inodes} inodes")]
    NoMemory {
        /// Inodes of the lower tree.
        inodes: u64,
    },
    /// The lower tree or the journal contradicts itself.
    #[error("the tree is damaged: {detail}; run `pellicle store verify`")]
    Damaged {
        /// What was found.
        detail: String,
    },
    /// The host failed on a data file.
    #[error("cannot {doing} the content of inode {ino}")]
    Content {
        /// Whose content.
        ino: Ino,
        /// What was being done, as `write`.
        doing: &'static str,
        /// The host's answer.
        source: io::Error,
    },
    /// The read-only tree could not answer.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// The writable layer could not keep the change.
    #[error(transparent)]
    Upper(#[from] UpperError),
}

impl Error {
    /// The errno that says this to a program.
    ///
    /// Disputed: a poisoned upper is `EIO`, not `EROFS`, because data was lost and a program must
    /// not take it for a deliberate read-only mount.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Self::NotFound => libc::ENOENT,
            Self::NotDirectory => libc::ENOTDIR,
            Self::IsDirectory => libc::EISDIR,
            Self::Exists => libc::EEXIST,
            Self::NotEmpty => libc::ENOTEMPTY,
            Self::ReadOnly => libc::EROFS,
            Self::Invalid => libc::EINVAL,
            Self::NameTooLong => libc::ENAMETOOLONG,
            Self::TooManyLinks => libc::EMLINK,
            Self::NoAttribute => libc::ENODATA,
            Self::NotPermitted => libc::EPERM,
            Self::NoSuchOffset => libc::ENXIO,
            Self::TooLarge => libc::EFBIG,
            Self::Range => libc::ERANGE,
            Self::TooBig => libc::E2BIG,
            Self::NoSpace => libc::ENOSPC,
            Self::Unsupported => libc::EOPNOTSUPP,
            Self::NoMemory { .. } => libc::ENOMEM,
            Self::Damaged { .. } => libc::EIO,
            Self::Content { source, .. } => of_host(source),
            Self::Lower(e) => of_lower(e),
            Self::Upper(e) => match e {
                UpperError::Io { source, .. } => of_host(source),
                UpperError::InUse { .. } => libc::EBUSY,
                UpperError::OtherLower { .. }
                | UpperError::Version { .. }
                | UpperError::Unsuitable { .. } => libc::EINVAL,
                UpperError::Lower(e) => of_lower(e),
                UpperError::Corrupt { .. } | UpperError::Poisoned { .. } => libc::EIO,
            },
        }
    }

    pub(crate) fn damaged(detail: impl Into<String>) -> Self {
        Self::Damaged {
            detail: detail.into(),
        }
    }
}

fn of_lower(e: &LowerError) -> i32 {
    match e {
        LowerError::NoSuchNode { .. } => libc::ENOENT,
        LowerError::Corrupt { .. } | LowerError::Changed { .. } => libc::EIO,
        LowerError::Io { source, .. } => of_host(source),
    }
}

/// The host's own errno: ENOSPC, EDQUOT and the like are the answer a program can act on.
fn of_host(e: &io::Error) -> i32 {
    e.raw_os_error().unwrap_or(libc::EIO)
}
