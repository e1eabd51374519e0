//! The structures of `include/uapi/linux/fuse.h` that come and go over the ring, in native byte
//! order. Sizes are asserted: the kernel refuses an answer of another length
//! (`fuse_copy_out_args` in `fs/fuse/dev.c`).

use pellicle_union::{Attr, Time};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::convert::{self, FOREVER_SECONDS};

/// `enum fuse_opcode`, as far as it can come over a ring: INIT, DESTROY, FORGET and INTERRUPT stay
/// on the device.
pub(super) mod opcode {
    pub(in crate::ring) const LOOKUP: u32 = 1;
    pub(in crate::ring) const GETATTR: u32 = 3;
    pub(in crate::ring) const SETATTR: u32 = 4;
    pub(in crate::ring) const READLINK: u32 = 5;
    pub(in crate::ring) const SYMLINK: u32 = 6;
    pub(in crate::ring) const MKNOD: u32 = 8;
    pub(in crate::ring) const MKDIR: u32 = 9;
    pub(in crate::ring) const UNLINK: u32 = 10;
    pub(in crate::ring) const RMDIR: u32 = 11;
    pub(in crate::ring) const RENAME: u32 = 12;
    pub(in crate::ring) const LINK: u32 = 13;
    pub(in crate::ring) const OPEN: u32 = 14;
    pub(in crate::ring) const READ: u32 = 15;
    pub(in crate::ring) const WRITE: u32 = 16;
    pub(in crate::ring) const STATFS: u32 = 17;
    pub(in crate::ring) const RELEASE: u32 = 18;
    pub(in crate::ring) const FSYNC: u32 = 20;
    pub(in crate::ring) const SETXATTR: u32 = 21;
    pub(in crate::ring) const GETXATTR: u32 = 22;
    pub(in crate::ring) const LISTXATTR: u32 = 23;
    pub(in crate::ring) const REMOVEXATTR: u32 = 24;
    pub(in crate::ring) const FLUSH: u32 = 25;
    pub(in crate::ring) const OPENDIR: u32 = 27;
    pub(in crate::ring) const READDIR: u32 = 28;
    pub(in crate::ring) const RELEASEDIR: u32 = 29;
    pub(in crate::ring) const FSYNCDIR: u32 = 30;
    pub(in crate::ring) const GETLK: u32 = 31;
    pub(in crate::ring) const SETLK: u32 = 32;
    pub(in crate::ring) const SETLKW: u32 = 33;
    pub(in crate::ring) const ACCESS: u32 = 34;
    pub(in crate::ring) const CREATE: u32 = 35;
    pub(in crate::ring) const BMAP: u32 = 37;
    pub(in crate::ring) const IOCTL: u32 = 39;
    pub(in crate::ring) const POLL: u32 = 40;
    pub(in crate::ring) const FALLOCATE: u32 = 43;
    pub(in crate::ring) const READDIRPLUS: u32 = 44;
    pub(in crate::ring) const RENAME2: u32 = 45;
    pub(in crate::ring) const LSEEK: u32 = 46;
    pub(in crate::ring) const COPY_FILE_RANGE: u32 = 47;
    pub(in crate::ring) const TMPFILE: u32 = 51;
    pub(in crate::ring) const COPY_FILE_RANGE_64: u32 = 53;
}

/// Bits of [`SetAttrIn::valid`].
pub(super) mod fattr {
    pub(in crate::ring) const MODE: u32 = 1 << 0;
    pub(in crate::ring) const UID: u32 = 1 << 1;
    pub(in crate::ring) const GID: u32 = 1 << 2;
    pub(in crate::ring) const SIZE: u32 = 1 << 3;
    pub(in crate::ring) const ATIME: u32 = 1 << 4;
    pub(in crate::ring) const MTIME: u32 = 1 << 5;
    pub(in crate::ring) const ATIME_NOW: u32 = 1 << 7;
    pub(in crate::ring) const MTIME_NOW: u32 = 1 << 8;
    pub(in crate::ring) const CTIME: u32 = 1 << 10;
    pub(in crate::ring) const KILL_SUIDGID: u32 = 1 << 11;
}

/// `FUSE_WRITE_KILL_SUIDGID`
pub(super) const WRITE_KILL_SUIDGID: u32 = 1 << 2;
/// `FOPEN_KEEP_CACHE`
pub(super) const OPEN_KEEP_CACHE: u32 = 1 << 1;
/// `FOPEN_NOFLUSH`
pub(super) const OPEN_NOFLUSH: u32 = 1 << 5;
/// `FOPEN_PASSTHROUGH`
pub(super) const OPEN_PASSTHROUGH: u32 = 1 << 7;

/// Declares structures that are read from requests.
macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),+ $(,)? } = $size:literal)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub(super) struct $name { $(pub(super) $field: $type),+ }
        const _: () = assert!(size_of::<$name>() == $size);
    )+};
}

requests! {
    /// `struct fuse_in_header`
    InHeader {
        len: u32, opcode: u32, unique: u64, node: u64, uid: u32, gid: u32, pid: u32,
        extensions: u16, padding: u16,
    } = 40
    /// `struct fuse_setattr_in`
    SetAttrIn {
        valid: u32, padding: u32, handle: u64, size: u64, lock_owner: u64,
        atime: i64, mtime: i64, ctime: i64, atime_nsec: u32, mtime_nsec: u32, ctime_nsec: u32,
        mode: u32, unused4: u32, uid: u32, gid: u32, unused5: u32,
    } = 88
    /// `struct fuse_mknod_in`
    MkNodIn { mode: u32, rdev: u32, umask: u32, padding: u32 } = 16
    /// `struct fuse_create_in`, of TMPFILE
    CreateIn { flags: u32, mode: u32, umask: u32, open_flags: u32 } = 16
    /// `struct fuse_mkdir_in`
    MkDirIn { mode: u32, umask: u32 } = 8
    /// `struct fuse_rename_in`
    RenameIn { new_dir: u64 } = 8
    /// `struct fuse_rename2_in`
    Rename2In { new_dir: u64, flags: u32, padding: u32 } = 16
    /// `struct fuse_link_in`
    LinkIn { old_node: u64 } = 8
    /// `struct fuse_open_in`
    OpenIn { flags: u32, open_flags: u32 } = 8
    /// `struct fuse_release_in`
    ReleaseIn { handle: u64, flags: u32, release_flags: u32, lock_owner: u64 } = 24
    /// `struct fuse_read_in`, also of READDIR and READDIRPLUS
    ReadIn {
        handle: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32,
        padding: u32,
    } = 40
    /// `struct fuse_write_in`
    WriteIn {
        handle: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32,
        padding: u32,
    } = 40
    /// `struct fuse_setxattr_in` without `FUSE_SETXATTR_EXT`
    SetXattrIn { size: u32, flags: u32 } = 8
    /// `struct fuse_getxattr_in`, also of LISTXATTR
    GetXattrIn { size: u32, padding: u32 } = 8
    /// `struct fuse_fallocate_in`
    FallocateIn { handle: u64, offset: u64, length: u64, mode: u32, padding: u32 } = 32
    /// `struct fuse_lseek_in`
    LseekIn { handle: u64, offset: u64, whence: u32, padding: u32 } = 24
    /// `struct fuse_copy_file_range_in`
    CopyIn {
        handle_in: u64, offset_in: u64, node_out: u64, handle_out: u64, offset_out: u64, len: u64,
        flags: u64,
    } = 56

    /// `struct fuse_attr`
    AttrOut {
        ino: u64, size: u64, blocks: u64, atime: i64, mtime: i64, ctime: i64,
        atime_nsec: u32, mtime_nsec: u32, ctime_nsec: u32, mode: u32, nlink: u32, uid: u32,
        gid: u32, rdev: u32, block_size: u32, flags: u32,
    } = 88
    /// `struct fuse_entry_out`
    EntryOut {
        node: u64, generation: u64, entry_valid: u64, attr_valid: u64, entry_valid_nsec: u32,
        attr_valid_nsec: u32, attr: AttrOut,
    } = 128
    /// `struct fuse_attr_out`
    AttrReply { valid: u64, valid_nsec: u32, dummy: u32, attr: AttrOut } = 104
    /// `struct fuse_open_out`
    OpenOut { handle: u64, flags: u32, backing: i32 } = 16
    /// `struct fuse_write_out`, also of COPY_FILE_RANGE; `struct fuse_getxattr_out`
    SizeOut { size: u32, padding: u32 } = 8
    /// `struct fuse_statfs_out`
    StatFsOut {
        blocks: u64, free: u64, available: u64, files: u64, files_free: u64, block: u32,
        name_max: u32, fragment: u32, padding: u32, spare: [u32; 6],
    } = 80
    /// `struct fuse_dirent` without its name
    DirEntry { ino: u64, next: u64, name_len: u32, kind: u32 } = 24
    /// `struct fuse_direntplus` without its name
    DirEntryPlus { entry: EntryOut, names: DirEntry } = 152
}

/// A time of the wire; nanoseconds of a second or more are not a time.
pub(super) fn time(sec: i64, nsec: u32) -> Time {
    Time {
        sec,
        nsec: nsec.min(999_999_999),
    }
}

impl AttrOut {
    pub(super) fn new(a: &Attr) -> Self {
        Self {
            ino: a.ino.0,
            size: a.size,
            blocks: a.blocks,
            atime: a.atime.sec,
            mtime: a.mtime.sec,
            ctime: a.ctime.sec,
            atime_nsec: a.atime.nsec,
            mtime_nsec: a.mtime.nsec,
            ctime_nsec: a.ctime.nsec,
            mode: a.kind.mode_bits() | u32::from(a.perm),
            nlink: a.nlink,
            uid: a.uid,
            gid: a.gid,
            rdev: convert::encode_device(a.rdev),
            block_size: convert::BLOCK_SIZE,
            flags: 0,
        }
    }
}

impl EntryOut {
    pub(super) fn new(a: &Attr) -> Self {
        Self {
            node: a.ino.0,
            generation: 0,
            entry_valid: FOREVER_SECONDS,
            attr_valid: FOREVER_SECONDS,
            entry_valid_nsec: 0,
            attr_valid_nsec: 0,
            attr: AttrOut::new(a),
        }
    }

    /// Inode 0: there is no such name, which the kernel keeps (`fuse_lookup_name`).
    pub(super) fn nothing() -> Self {
        let mut nothing: Self = zerocopy::FromZeros::new_zeroed();
        nothing.entry_valid = FOREVER_SECONDS;
        nothing.attr_valid = FOREVER_SECONDS;
        nothing
    }
}

impl AttrReply {
    pub(super) fn new(a: &Attr) -> Self {
        Self {
            valid: FOREVER_SECONDS,
            valid_nsec: 0,
            dummy: 0,
            attr: AttrOut::new(a),
        }
    }
}
