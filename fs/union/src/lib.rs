//! One tree out of a read-only lower tree and a writable layer, with copy-on-write.
//!
//! A plain Rust interface over [`Ino`]s that returns [`Result`]s; no FUSE types, no mount needed.

#![allow(
    clippy::todo,
    unused_variables,
    missing_docs,
    clippy::missing_errors_doc,
    dead_code
)]

use std::{fs::File, ops::ControlFlow, sync::Arc};

use pellicle_layer::Lower;
pub use pellicle_store::{Attr, Device, FileKind, Ino, Time};
use pellicle_upper::{Recovery, Space, Upper};

mod error;
mod request;

pub use error::Error;
pub use request::{
    Caller, Difference, DifferenceKind, Listed, NewNode, Options, RenameFlags, SetAttr,
};

/// How many names a regular file, link or device may have, as on ext4. Directories have no such bound.
pub const LINK_MAX: u32 = 65_000;

/// The merged tree.
pub struct Union {
    _lower: Arc<dyn Lower>,
    _upper: Option<Box<dyn Upper>>,
}

impl Union {
    /// Opens the tree of `lower` with the changes of `upper` replayed.
    pub fn open(
        lower: Arc<dyn Lower>,
        upper: Option<Box<dyn Upper>>,
        options: Options,
    ) -> Result<(Self, Recovery), Error> {
        todo!()
    }
    pub fn is_read_only(&self) -> bool {
        todo!()
    }
    pub fn lookup(&self, dir: Ino, name: &[u8]) -> Result<Attr, Error> {
        todo!()
    }
    pub fn attr(&self, ino: Ino) -> Result<Attr, Error> {
        todo!()
    }
    pub fn readlink(&self, ino: Ino) -> Result<Vec<u8>, Error> {
        todo!()
    }
    pub fn parent(&self, dir: Ino) -> Result<Ino, Error> {
        todo!()
    }
    /// Lists `dir` from `from` (0, or a `next` of an earlier call) until `each` breaks. Without
    /// `.` and `..`. `each` is called without any lock held that a call back into the union needs.
    /// A name that is there from the first call to the last is listed exactly once, whatever
    /// changes meanwhile.
    pub fn list(
        &self,
        dir: Ino,
        from: u64,
        each: &mut dyn FnMut(Listed<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        todo!()
    }
    /// Reads into `buf`; short only at the end of the file.
    pub fn read(&self, ino: Ino, offset: u64, buf: &mut [u8]) -> Result<usize, Error> {
        todo!()
    }
    /// Writes all of `data`. `kill_suid_sgid` as in [`SetAttr`].
    pub fn write(
        &self,
        ino: Ino,
        offset: u64,
        data: &[u8],
        kill_suid_sgid: bool,
    ) -> Result<usize, Error> {
        todo!()
    }
    /// Makes a node (not a hard link) with `perm` already masked by the umask or by the default ACL.
    /// A set-group-ID directory hands down its group, and a directory in it the bit.
    pub fn make(
        &self,
        dir: Ino,
        name: &[u8],
        what: NewNode<'_>,
        perm: u16,
        who: Caller,
    ) -> Result<Attr, Error> {
        todo!()
    }
    pub fn link(&self, ino: Ino, dir: Ino, name: &[u8]) -> Result<Attr, Error> {
        todo!()
    }
    pub fn unlink(&self, dir: Ino, name: &[u8]) -> Result<(), Error> {
        todo!()
    }
    pub fn rmdir(&self, dir: Ino, name: &[u8]) -> Result<(), Error> {
        todo!()
    }
    pub fn rename(
        &self,
        from: Ino,
        from_name: &[u8],
        to: Ino,
        to_name: &[u8],
        flags: RenameFlags,
    ) -> Result<(), Error> {
        todo!()
    }
    pub fn set_attr(&self, ino: Ino, set: SetAttr) -> Result<Attr, Error> {
        todo!()
    }
    /// The value of extended attribute `name`.
    pub fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, Error> {
        todo!()
    }
    /// All names, each followed by a NUL, as `listxattr(2)` gives them.
    pub fn xattr_names(&self, ino: Ino) -> Result<Vec<u8>, Error> {
        todo!()
    }
    /// `create`: fail if it exists (XATTR_CREATE); `replace`: fail if it does not.
    pub fn set_xattr(
        &self,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        create: bool,
        replace: bool,
    ) -> Result<(), Error> {
        todo!()
    }
    pub fn remove_xattr(&self, ino: Ino, name: &[u8]) -> Result<(), Error> {
        todo!()
    }
    /// `mode` is fallocate(2)'s: 0, KEEP_SIZE, PUNCH_HOLE|KEEP_SIZE, ZERO_RANGE[|KEEP_SIZE]; others are Unsupported.
    pub fn fallocate(&self, ino: Ino, mode: i32, offset: u64, length: u64) -> Result<(), Error> {
        todo!()
    }
    /// `SEEK_DATA` (`data`) or `SEEK_HOLE`; [`Error::NoSuchOffset`] is ENXIO.
    pub fn seek(&self, ino: Ino, offset: u64, data: bool) -> Result<u64, Error> {
        todo!()
    }
    pub fn copy_range(
        &self,
        from: Ino,
        from_offset: u64,
        to: Ino,
        to_offset: u64,
        length: u64,
    ) -> Result<u64, Error> {
        todo!()
    }
    pub fn sync_file(&self, ino: Ino) -> Result<(), Error> {
        todo!()
    }
    pub fn sync_all(&self) -> Result<(), Error> {
        todo!()
    }
    pub fn space(&self) -> Result<Space, Error> {
        todo!()
    }
    /// The kernel was told of `ino` once more (a lookup, an entry of READDIRPLUS, a new node).
    /// Takes no lock for inodes of the lower tree.
    pub fn remember(&self, ino: Ino) {
        todo!()
    }
    /// The kernel forgot `count` tellings. An inode without names goes with the last.
    pub fn forget(&self, ino: Ino, count: u64) {
        todo!()
    }
    /// The whole content of `ino` as one host file, for passthrough: of the lower tree, or, with
    /// `write`, the upper's data file (copied up first where need be).
    pub fn backing(&self, ino: Ino, write: bool) -> Result<Option<Arc<File>>, Error> {
        todo!()
    }
    /// What differs from the lower tree, sorted by path; costs as much as there are changes.
    pub fn differences(&self) -> Result<Vec<Difference>, Error> {
        todo!()
    }
    /// The path of the first name found for `ino`, for messages.
    pub fn path_of(&self, ino: Ino) -> Option<Vec<u8>> {
        todo!()
    }
}
