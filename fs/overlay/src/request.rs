//! What a command line asks for.

use std::path::PathBuf;

use pellicle_fuse::{MountOptions, Opens, View};

/// Where changes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UpperKind {
    /// The on-disk format of kernel overlayfs, which fuse-overlayfs reads as well.
    Directory,
    /// Pellicle's log.
    Journal,
}

/// Whom the mount lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Whoever mounts.
    Owner,
    /// Whoever mounts, and root.
    OwnerAndRoot,
    /// Everyone, as far as the permissions of the files go.
    All,
}

/// Where the ids and modes of files are, which `xattr_permissions` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum StatIn {
    /// In the inodes themselves, where this process may set them.
    #[default]
    Inode,
    /// In `user.containers.override_stat`.
    Attribute,
}

/// The writable layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UpperRequest {
    pub(crate) kind: UpperKind,
    pub(crate) dir: PathBuf,
    /// Where files are prepared; always there for [`UpperKind::Directory`].
    pub(crate) work: Option<PathBuf>,
}

/// One mount.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Topmost first, at least one.
    pub(crate) lower: Vec<PathBuf>,
    /// `None`: the mount is read-only.
    pub(crate) upper: Option<UpperRequest>,
    pub(crate) mountpoint: PathBuf,
    pub(crate) mount: MountOptions,
    pub(crate) audience: Audience,
    pub(crate) view: View,
    pub(crate) stat_in: StatIn,
    /// Whiteouts and the like are `user.overlay.*`, also where this process could write others.
    pub(crate) user_marks: bool,
    /// Syncs reach the disk.
    pub(crate) fsync: bool,
    pub(crate) threads: Option<usize>,
    pub(crate) clone_fd: bool,
    pub(crate) opens: Opens,
    pub(crate) foreground: bool,
    pub(crate) debug: bool,
}

/// What a command line is.
#[derive(Clone, Debug)]
pub(crate) enum Invocation {
    /// `--help`.
    Help,
    /// `--version`.
    Version,
    /// A mount, and the arguments that mean nothing to this program, as they were written.
    Mount {
        request: Box<Request>,
        ignored: Vec<String>,
    },
}

/// Who runs the program, as far as it changes what a command line means.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Runner {
    /// Effective user id 0, also that of a user namespace.
    pub(crate) root: bool,
    /// What stands for users and groups without a number.
    pub(crate) overflow: (u32, u32),
}
