//! What callers hand in and get back, besides inode numbers and bytes.

use pellicle_store::{Device, FileKind, Ino, Time};

/// Who asks: the ids that a new inode gets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Caller {
    /// Owner of what is made.
    pub uid: u32,
    /// Group of what is made, unless the directory hands down its own.
    pub gid: u32,
    /// Taken off the permission bits of what is made where the directory has no default ACL.
    pub umask: u32,
}

/// What `set_attr` changes; `None` leaves as is.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    /// Permission, set-id and sticky bits: `0..=0o7777`.
    pub perm: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Bytes of content of a regular file.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<Time>,
    /// Last change of content; a change of size alone sets it to now.
    pub mtime: Option<Time>,
    /// Last change of the inode; now if `None`.
    pub ctime: Option<Time>,
    /// Clear set-user-ID (and set-group-ID of a group-executable file): the kernel's KILL_SUIDGID.
    pub kill_suid_sgid: bool,
}

/// A new inode, for [`Union::make`](crate::Union::make).
#[derive(Clone, Copy, Debug)]
pub enum NewNode<'a> {
    /// An empty regular file.
    Regular,
    /// An empty directory.
    Directory,
    /// A symbolic link with this target, 1 to 4095 bytes without NUL.
    Symlink(&'a [u8]),
    /// A character device; 0:0 is a device like any other.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl NewNode<'_> {
    /// The kind of inode this makes.
    #[must_use]
    pub fn kind(&self) -> FileKind {
        match self {
            Self::Regular => FileKind::Regular,
            Self::Directory => FileKind::Directory,
            Self::Symlink(_) => FileKind::Symlink,
            Self::CharDevice(_) => FileKind::CharDevice,
            Self::BlockDevice(_) => FileKind::BlockDevice,
            Self::Fifo => FileKind::Fifo,
            Self::Socket => FileKind::Socket,
        }
    }
}

/// One name of a listing.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    /// The name.
    pub name: &'a [u8],
    /// The inode it leads to.
    pub ino: Ino,
    /// That inode's kind.
    pub kind: FileKind,
    /// Where to go on after this one; never 0 and below `1 << 63`.
    pub next: u64,
}

/// `renameat2(2)`'s flags.
#[derive(Clone, Copy, Debug, Default)]
pub struct RenameFlags {
    /// Fail if the new name is there.
    pub no_replace: bool,
    /// Swap the two names; both must be there.
    pub exchange: bool,
}

/// One difference from the lower tree, for `diff`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Absolute path in the tree, bytes.
    pub path: Vec<u8>,
    /// What happened to it.
    pub kind: DifferenceKind,
}

/// `docker diff`'s letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DifferenceKind {
    /// `A`: not in the lower tree.
    Added,
    /// `C`: there before and now, but not the same; or a directory over such a path.
    Changed,
    /// `D`: in the lower tree only.
    Deleted,
}

/// How to open a union.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Refuse every change with [`Error::ReadOnly`](crate::Error::ReadOnly) (no upper needed then).
    pub read_only: bool,
}
