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
    /// Which set-id bits go; the kernel's KILL_SUIDGID.
    pub kill_suid_sgid: KillSetId,
}

impl SetAttr {
    /// Whether nothing is to change.
    #[must_use]
    pub fn asks_nothing(&self) -> bool {
        let Self {
            perm,
            uid,
            gid,
            size,
            atime,
            mtime,
            ctime,
            kill_suid_sgid,
        } = self;
        let ids = uid.or(*gid).is_some();
        let times = atime.or(*mtime).or(*ctime).is_some();
        perm.is_none() && !ids && size.is_none() && !times && *kill_suid_sgid == KillSetId::No
    }
}

/// Which set-id bits of a regular file its change takes away (`setattr_should_drop_suidgid` of the
/// kernel's `fs/attr.c`). File capabilities go with any change of content, whoever makes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KillSetId {
    /// None: the one who changes it has `CAP_FSETID`.
    #[default]
    No,
    /// Set-user-ID, and set-group-ID where the group may execute (else it is no set-id bit but the
    /// old mark of mandatory locking).
    Member,
    /// Both: the one who changes it is not in the file's group either.
    Stranger,
}

impl From<bool> for KillSetId {
    fn from(kill: bool) -> Self {
        if kill { Self::Member } else { Self::No }
    }
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

/// What a layer says of one path, for [`Union::layer_changes`](crate::Union::layer_changes).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerChange {
    /// Absolute path in the tree, bytes; empty for the root.
    pub path: Vec<u8>,
    /// What is there.
    pub entry: LayerEntry,
}

/// What a layer has at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerEntry {
    /// Nothing, whatever the layers below have.
    Whiteout,
    /// This inode.
    Node {
        /// Its number.
        ino: Ino,
        /// A directory that hides what the layers below have in it.
        opaque: bool,
    },
}

/// How to open a union.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Refuse every change with [`Error::ReadOnly`](crate::Error::ReadOnly) (no upper needed then).
    pub read_only: bool,
}
