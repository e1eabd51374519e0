//! What the kernel may ask for, each a few lines around one call of the union.
//!
//! Both transports call these: `dev.rs` for what fuser read from `/dev/fuse`, `ring/` for what came
//! over io_uring. Arguments are decoded and checked for their form there; what is given back is
//! turned into bytes there. Everything that is decided is decided here, once.
//!
//! Every operation runs inside [`Operations::answer`], which times the message and turns a panic
//! into EIO for that one request. Nothing is locked here. A node is remembered before its reply
//! leaves, since the kernel may forget it right after.

use std::{
    borrow::Cow,
    fs::File,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, OnceLock},
    time::Instant,
};

use fuser::{Errno, INodeNo, Notifier};
use pellicle_union::{
    Attr, Caller, Error, FileKind, Ino, KillSetId, NewNode, RenameFlags, SetAttr, Union,
};

use crate::{
    Message, SERVER_XATTR, ServeOptions, Stats,
    caller::Sender,
    convert, listing,
    passthrough::{Backing, OpenPolicy, Opening},
    room::Room,
    transport::Serving,
    view::Way,
};

/// Longest stretch that one COPY_FILE_RANGE message copies, bytes: it holds a thread, and callers
/// must go on after a short copy anyway.
const MAX_COPY: u64 = 256 << 20;

/// Why there is no answer: the union says so, or the operation is not one of ours.
pub(crate) enum Failure {
    Union(Error),
    Refused(Errno),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Union(error)
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Refused(errno)
    }
}

/// The bytes of an extended attribute or of the list of names, or how many they are.
pub(crate) enum XattrAnswer {
    Size(u32),
    Bytes(Vec<u8>),
}

/// `statfs(2)`'s numbers, in blocks of `block` bytes.
pub(crate) struct Space {
    pub(crate) blocks: u64,
    pub(crate) free: u64,
    pub(crate) available: u64,
    pub(crate) files: u64,
    pub(crate) files_free: u64,
    pub(crate) block: u32,
}

/// Longest name, bytes, as `statfs(2)` tells it.
pub(crate) const NAME_MAX: u32 = 255;

/// The extended attribute that is a file's capabilities.
const CAPABILITY: &[u8] = b"security.capability";

/// The extended attribute that is the access control list.
const ACCESS_ACL: &[u8] = b"system.posix_acl_access";

/// `renameat2(2)`'s flags as they come over the wire.
const NO_REPLACE: u32 = libc::RENAME_NOREPLACE;
const EXCHANGE: u32 = libc::RENAME_EXCHANGE;

pub(crate) struct Operations {
    pub(crate) union: Arc<Union>,
    pub(crate) options: ServeOptions,
    pub(crate) stats: Arc<Stats>,
    /// What opening a file means, once agreed with the kernel.
    pub(crate) opens: OnceLock<OpenPolicy>,
    /// Tells the kernel what it cannot know; set before the first request but INIT is answered.
    notifier: OnceLock<Notifier>,
    /// Which way requests come; set before the first that programs cause.
    pub(crate) serving: OnceLock<Serving>,
    room: Room,
}

impl Operations {
    /// `threads` read `/dev/fuse`.
    pub(crate) fn new(
        union: Arc<Union>,
        options: ServeOptions,
        stats: Arc<Stats>,
        threads: usize,
    ) -> Self {
        Self {
            union,
            options,
            stats,
            opens: OnceLock::new(),
            notifier: OnceLock::new(),
            serving: OnceLock::new(),
            room: Room::new(threads),
        }
    }

    pub(crate) fn set_notifier(&self, notifier: Notifier) {
        let _ = self.notifier.set(notifier);
    }

    /// Does `work` for one message; what is not the asking program's own doing is logged.
    fn answer<T>(
        &self,
        message: Message,
        ino: Ino,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Errno> {
        let begun = Instant::now();
        let done = catch_unwind(AssertUnwindSafe(work));
        self.stats.record(message, begun.elapsed());
        match done {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Failure::Refused(errno))) => Err(errno),
            Ok(Err(Failure::Union(error))) => Err(self.errno(message, ino, &error)),
            Err(_) => {
                tracing::error!(
                    message = message.name(),
                    ino = ino.0,
                    path = %self.path(ino),
                    "a bug stopped this request; it failed with EIO, the mount goes on"
                );
                Err(Errno::EIO)
            }
        }
    }

    /// As [`Operations::answer`], for work that takes room of the host.
    fn answer_with_room<T>(
        &self,
        message: Message,
        ino: Ino,
        work: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T, Errno> {
        self.answer(message, ino, || {
            self.room.for_work(|| self.union.unnamed(), work)
        })
    }

    fn errno(&self, message: Message, ino: Ino, error: &Error) -> Errno {
        if let Error::Lower(_) | Error::Upper(_) = error {
            let cause = std::error::Error::source(error)
                .map(ToString::to_string)
                .unwrap_or_default();
            tracing::error!(
                message = message.name(), ino = ino.0, path = %self.path(ino), cause, "{error}"
            );
        }
        Errno::from_i32(error.errno())
    }

    fn path(&self, ino: Ino) -> String {
        // Reached from the panic handler as well: a second panic must not leave it.
        catch_unwind(AssertUnwindSafe(|| self.union.path_of(ino)))
            .ok()
            .flatten()
            .map_or_else(
                || "?".to_owned(),
                |p| String::from_utf8_lossy(&p).into_owned(),
            )
    }

    /// The kernel is about to be told of `attr.ino` once more.
    fn told(&self, attr: Attr) -> Attr {
        self.union.remember(attr.ino);
        self.options.view.show(attr)
    }

    /// Refuses what this mount has no extended attributes for.
    fn check_xattr(&self, name: &[u8]) -> Result<(), Failure> {
        if self.options.view.no_xattrs {
            // The kernel does not ask again (`fc->no_getxattr` and the like).
            return Err(Errno::ENOSYS.into());
        }
        if self.options.view.hides(name) {
            return Err(Errno::EOPNOTSUPP.into());
        }
        Ok(())
    }

    /// What the kernel is to do without from now on, or for good, since it is told so once.
    pub(crate) fn refuse<T>(&self, message: Message, ino: Ino, errno: Errno) -> Result<T, Errno> {
        self.answer(message, ino, || Err(errno.into()))
    }

    /// `Ok(None)`: there is no such name, which the kernel may keep.
    pub(crate) fn lookup(&self, dir: Ino, name: &[u8]) -> Result<Option<Attr>, Errno> {
        self.answer(Message::Lookup, dir, || {
            match self.union.lookup(dir, name) {
                Err(Error::NotFound) => Ok(None),
                found => Ok(Some(self.told(found?))),
            }
        })
    }

    pub(crate) fn forget(&self, ino: Ino, count: u64) {
        // Nobody waits for an answer.
        let _ = self.answer(Message::Forget, ino, || {
            self.room.forgetting(|| self.union.forget(ino, count));
            Ok(())
        });
    }

    pub(crate) fn getattr(&self, ino: Ino) -> Result<Attr, Errno> {
        self.answer(Message::GetAttr, ino, || {
            Ok(self.options.view.show(self.union.attr(ino)?))
        })
    }

    /// `kill`: set-id bits go.
    pub(crate) fn setattr(
        &self,
        ino: Ino,
        set: SetAttr,
        kill: bool,
        sender: Sender,
    ) -> Result<Attr, Errno> {
        self.answer_with_room(Message::SetAttr, ino, || {
            let mut set = set;
            let names_nobody = set.asks_nothing();
            set.kill_suid_sgid = self.kill(ino, kill || names_nobody, sender)?;
            if names_nobody && set.kill_suid_sgid == KillSetId::No {
                // chown(-1, -1), the one call that comes so: it sets the change time and takes file
                // capabilities away, as any change of owner (`chown_common`).
                set.kill_suid_sgid = KillSetId::Member;
            }
            let view = &self.options.view;
            Ok(view.show(self.union.set_attr(ino, view.keep_attr(set))?))
        })
    }

    /// Which set-id bits go if any do, and whether there are any. Only a file with a set-group-ID
    /// bit that is not for executing makes a difference between members of its group and others.
    fn kill(&self, ino: Ino, kill: bool, sender: Sender) -> Result<KillSetId, Failure> {
        if !kill {
            return Ok(KillSetId::No);
        }
        let (perm, group) = self.union.perm_and_group(ino)?;
        let group = self.options.view.gids.show(group);
        Ok(match perm & 0o6010 {
            0 | 0o0010 => KillSetId::No,
            0o2000 | 0o6000 if !sender.may_keep_set_id() && !sender.is_in(group) => {
                KillSetId::Stranger
            }
            _ => KillSetId::Member,
        })
    }

    /// After a change of content that took set-id bits: the kernel goes on with the mode it has
    /// cached, and would honour the bits, until it is told (`fuse_write_update_attr` doubts sizes
    /// and times only).
    fn killed(&self, ino: Ino, kill: KillSetId) {
        if kill != KillSetId::No
            && let Some(notifier) = self.notifier.get()
            // A negative offset spares the pages: `fuse_reverse_inval_inode`.
            && let Err(error) = notifier.inval_inode(INodeNo(ino.0), -1, 0)
        {
            tracing::warn!(%error, ino = ino.0, "the kernel may keep set-id bits that are gone");
        }
    }

    pub(crate) fn readlink(&self, ino: Ino) -> Result<Vec<u8>, Errno> {
        self.answer(Message::ReadLink, ino, || Ok(self.union.readlink(ino)?))
    }

    pub(crate) fn mknod(
        &self,
        dir: Ino,
        name: &[u8],
        mode: u32,
        rdev: u32,
        caller: Caller,
    ) -> Result<Attr, Errno> {
        self.answer_with_room(Message::MkNod, dir, || {
            let device = convert::decode_device(rdev);
            let what = match FileKind::from_mode(mode) {
                // A type of 0 means a regular file: mknod(2).
                Some(FileKind::Regular) | None => NewNode::Regular,
                Some(FileKind::CharDevice) => NewNode::CharDevice(device),
                Some(FileKind::BlockDevice) => NewNode::BlockDevice(device),
                Some(FileKind::Fifo) => NewNode::Fifo,
                Some(FileKind::Socket) => NewNode::Socket,
                Some(FileKind::Directory | FileKind::Symlink) => {
                    return Err(Errno::EINVAL.into());
                }
            };
            self.make(dir, name, what, convert::perm(mode), caller)
        })
    }

    pub(crate) fn mkdir(
        &self,
        dir: Ino,
        name: &[u8],
        mode: u32,
        caller: Caller,
    ) -> Result<Attr, Errno> {
        self.answer_with_room(Message::MkDir, dir, || {
            self.make(dir, name, NewNode::Directory, convert::perm(mode), caller)
        })
    }

    pub(crate) fn symlink(
        &self,
        dir: Ino,
        name: &[u8],
        target: &[u8],
        caller: Caller,
    ) -> Result<Attr, Errno> {
        self.answer_with_room(Message::SymLink, dir, || {
            self.make(dir, name, NewNode::Symlink(target), 0o777, caller)
        })
    }

    fn make(
        &self,
        dir: Ino,
        name: &[u8],
        what: NewNode<'_>,
        perm: u16,
        caller: Caller,
    ) -> Result<Attr, Failure> {
        let caller = self.options.view.keep_caller(caller);
        Ok(self.told(self.union.make(dir, name, what, perm, caller)?))
    }

    /// Makes a file without a name (`O_TMPFILE`) and opens it: through the kernel's cache, since it
    /// has no host file yet.
    pub(crate) fn tmpfile(
        &self,
        dir: Ino,
        mode: u32,
        caller: Caller,
    ) -> Result<(Attr, Opening), Errno> {
        self.answer_with_room(Message::TmpFile, dir, || {
            let caller = self.options.view.keep_caller(caller);
            let made = self.union.make_unnamed(dir, convert::perm(mode), caller)?;
            let opened = match self.opens.get() {
                Some(OpenPolicy::Passthrough(backings)) => backings.open_cached(made.ino),
                None | Some(OpenPolicy::Silent | OpenPolicy::Answered) => Opening::Cached(0),
            };
            Ok((self.options.view.show(made), opened))
        })
    }

    pub(crate) fn unlink(&self, dir: Ino, name: &[u8]) -> Result<(), Errno> {
        self.answer(Message::Unlink, dir, || {
            self.union.unlink(dir, name)?;
            self.room.removed();
            Ok(())
        })
    }

    pub(crate) fn rmdir(&self, dir: Ino, name: &[u8]) -> Result<(), Errno> {
        self.answer(Message::RmDir, dir, || Ok(self.union.rmdir(dir, name)?))
    }

    pub(crate) fn rename(
        &self,
        from: (Ino, &[u8]),
        to: (Ino, &[u8]),
        flags: u32,
    ) -> Result<(), Errno> {
        self.answer_with_room(Message::Rename, from.0, || {
            if flags & !(NO_REPLACE | EXCHANGE) != 0 {
                // RENAME_WHITEOUT: what a whiteout looks like from above is no concern of ours.
                return Err(Errno::EINVAL.into());
            }
            let flags = RenameFlags {
                no_replace: flags & NO_REPLACE != 0,
                exchange: flags & EXCHANGE != 0,
            };
            self.union.rename(from.0, from.1, to.0, to.1, flags)?;
            self.room.removed();
            Ok(())
        })
    }

    pub(crate) fn link(&self, ino: Ino, dir: Ino, name: &[u8]) -> Result<Attr, Errno> {
        self.answer_with_room(Message::Link, dir, || {
            Ok(self.told(self.union.link(ino, dir, name)?))
        })
    }

    /// `flags` are `open(2)`'s; `register` tells the kernel of a host file.
    pub(crate) fn open(
        &self,
        ino: Ino,
        flags: i32,
        register: impl FnOnce(&File) -> io::Result<Backing>,
    ) -> Result<Opening, Errno> {
        self.answer(Message::Open, ino, || {
            let backings = match self.opens.get() {
                // The kernel opens by itself from now on (`fc->no_open`), keeping its pages.
                None | Some(OpenPolicy::Silent) => return Err(Errno::ENOSYS.into()),
                Some(OpenPolicy::Answered) => return Ok(Opening::Cached(0)),
                Some(OpenPolicy::Passthrough(backings)) => backings,
            };
            let write = flags & libc::O_ACCMODE != libc::O_RDONLY;
            let file = || self.host_file(ino, write);
            match backings.open(ino, file, register)? {
                Opening::Never => {
                    self.union.take_back(ino)?;
                    Err(Errno::ENOSYS.into())
                }
                opened => Ok(opened),
            }
        })
    }

    pub(crate) fn release(&self, ino: Ino, handle: u64) -> Result<(), Errno> {
        self.answer(Message::Release, ino, || {
            if let Some(OpenPolicy::Passthrough(backings)) = self.opens.get() {
                let changed = backings.release(ino, handle, || self.union.take_back(ino))?;
                self.doubt(ino, changed);
            }
            Ok(())
        })
    }

    /// The host file that an open is to be served with, if any.
    fn host_file(&self, ino: Ino, write: bool) -> Result<Option<Arc<File>>, Error> {
        if self.union.is_read_only() {
            return self.union.backing(ino);
        }
        if write {
            // Who writes to a host file is not known: here it must be, for what is to go then.
            let (perm, _) = self.union.perm_and_group(ino)?;
            if perm & 0o6000 != 0 || self.union.xattr(ino, CAPABILITY).is_ok() {
                return Ok(None);
            }
        }
        self.union.lend(ino, write)
    }

    /// After the kernel wrote to a host file through a mapping: it has not noticed that times and
    /// blocks are other than it knows.
    fn doubt(&self, ino: Ino, changed: bool) {
        if changed
            && let Some(notifier) = self.notifier.get()
            && let Err(error) = notifier.inval_inode(INodeNo(ino.0), -1, 0)
        {
            tracing::debug!(%error, ino = ino.0, "the kernel may keep times that are gone");
        }
    }

    /// Fills the start of `buffer`; how many bytes there were.
    pub(crate) fn read(&self, ino: Ino, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        let read = self.answer(Message::Read, ino, || {
            Ok(self.union.read(ino, offset, buffer)?)
        })?;
        self.stats.moved(Message::Read, read as u64);
        Ok(read)
    }

    /// `kill`: set-id bits go as well.
    pub(crate) fn write(
        &self,
        ino: Ino,
        offset: u64,
        data: &[u8],
        kill: bool,
        sender: Sender,
    ) -> Result<u32, Errno> {
        let written = self.answer_with_room(Message::Write, ino, || {
            let kill = self.kill(ino, kill, sender)?;
            let n = self.union.write(ino, offset, data, kill)?;
            self.killed(ino, kill);
            Ok(n)
        })?;
        self.stats.moved(Message::Write, written as u64);
        Ok(u32::try_from(written).unwrap_or(u32::MAX))
    }

    /// FSYNC or FSYNCDIR.
    pub(crate) fn sync(&self, message: Message, ino: Ino) -> Result<(), Errno> {
        self.answer(message, ino, || {
            self.doubt(ino, self.union.look_at_lent(ino)?);
            Ok(self.union.sync_file(ino)?)
        })
    }

    /// Names from `offset` on, until `add` says that it is full.
    pub(crate) fn readdir(
        &self,
        dir: Ino,
        offset: u64,
        add: impl FnMut(&[u8], Ino, FileKind, u64) -> bool,
    ) -> Result<(), Errno> {
        self.answer(Message::ReadDir, dir, || {
            Ok(listing::plain(&self.union, dir, offset, add)?)
        })
    }

    /// Names and attributes from `offset` on, until `add` says that it is full.
    pub(crate) fn readdirplus(
        &self,
        dir: Ino,
        offset: u64,
        mut add: impl FnMut(&[u8], &Attr, u64) -> bool,
    ) -> Result<(), Errno> {
        let view = &self.options.view;
        let show = |name: &[u8], attr: &Attr, next| add(name, &view.show(*attr), next);
        self.answer(Message::ReadDirPlus, dir, || {
            Ok(listing::plus(&self.union, dir, offset, show)?)
        })
    }

    pub(crate) fn releasedir(&self, ino: Ino) -> Result<(), Errno> {
        self.answer(Message::ReleaseDir, ino, || Ok(()))
    }

    pub(crate) fn statfs(&self, ino: Ino) -> Result<Space, Errno> {
        self.answer(Message::StatFs, ino, || {
            let space = self.union.space()?;
            let block = space.block_size.max(1);
            let unit = u64::from(block);
            Ok(Space {
                blocks: space.total / unit,
                free: space.free / unit,
                available: space.available / unit,
                files: space.files,
                files_free: space.files_free,
                block,
            })
        })
    }

    /// `flags` are `setxattr(2)`'s.
    pub(crate) fn setxattr(
        &self,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        flags: i32,
        sender: Sender,
    ) -> Result<(), Errno> {
        self.answer(Message::SetXattr, ino, || {
            self.check_xattr(name)?;
            let create = flags & libc::XATTR_CREATE != 0;
            let replace = flags & libc::XATTR_REPLACE != 0;
            let mut value = Cow::Borrowed(value);
            if self.options.view.maps(name) {
                self.options.view.acl(value.to_mut(), Way::Keep);
            }
            self.union.set_xattr(ino, name, &value, create, replace)?;
            if name == ACCESS_ACL && !sender.may_keep_set_id() {
                self.drop_foreign_group_bit(ino, sender)?;
            }
            Ok(())
        })
    }

    /// An access control list set by one who is not in the inode's group takes its set-group-ID
    /// bit away: `posix_acl_update_mode` of the kernel's `fs/posix_acl.c`.
    fn drop_foreign_group_bit(&self, ino: Ino, sender: Sender) -> Result<(), Failure> {
        let (perm, group) = self.union.perm_and_group(ino)?;
        let group = self.options.view.gids.show(group);
        if perm & 0o2000 != 0 && !sender.is_in(group) {
            let set = SetAttr {
                perm: Some(perm & !0o2000),
                ..SetAttr::default()
            };
            self.union.set_attr(ino, set)?;
        }
        Ok(())
    }

    /// `size`: bytes that the caller has room for; 0 asks how many there are.
    pub(crate) fn getxattr(&self, ino: Ino, name: &[u8], size: u32) -> Result<XattrAnswer, Errno> {
        self.answer(Message::GetXattr, ino, || {
            if self.options.tells && ino == Ino::ROOT && name == SERVER_XATTR {
                return fitting(self.tell().into_bytes(), size);
            }
            self.check_xattr(name)?;
            let mut value = self.union.xattr(ino, name)?;
            if self.options.view.maps(name) {
                self.options.view.acl(&mut value, Way::Show);
            }
            fitting(value, size)
        })
    }

    /// Which way requests come, and which came.
    fn tell(&self) -> String {
        let serving = self.serving.get().map(ToString::to_string);
        format!("{}\n{}", serving.unwrap_or_default(), self.stats)
    }

    pub(crate) fn listxattr(&self, ino: Ino, size: u32) -> Result<XattrAnswer, Errno> {
        self.answer(Message::ListXattr, ino, || {
            self.check_xattr(b"")?;
            fitting(
                self.options.view.visible(self.union.xattr_names(ino)?),
                size,
            )
        })
    }

    pub(crate) fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<(), Errno> {
        self.answer(Message::RemoveXattr, ino, || {
            self.check_xattr(name)?;
            Ok(self.union.remove_xattr(ino, name)?)
        })
    }

    pub(crate) fn fallocate(
        &self,
        ino: Ino,
        mode: i32,
        offset: u64,
        length: u64,
        sender: Sender,
    ) -> Result<(), Errno> {
        self.answer_with_room(Message::Fallocate, ino, || {
            let kill = self.kill(ino, !sender.may_keep_set_id(), sender)?;
            self.union.fallocate(ino, mode, offset, length, kill)?;
            self.killed(ino, kill);
            Ok(())
        })
    }

    pub(crate) fn lseek(&self, ino: Ino, offset: i64, whence: i32) -> Result<i64, Errno> {
        self.answer(Message::Lseek, ino, || {
            let Ok(from) = u64::try_from(offset) else {
                return Err(Errno::ENXIO.into());
            };
            let for_data = match whence {
                libc::SEEK_DATA => true,
                libc::SEEK_HOLE => false,
                _ => return Err(Errno::EINVAL.into()),
            };
            let at = self.union.seek(ino, from, for_data)?;
            Ok(i64::try_from(at).unwrap_or(i64::MAX))
        })
    }

    pub(crate) fn copy_file_range(
        &self,
        from: (Ino, u64),
        to: (Ino, u64),
        length: u64,
        sender: Sender,
    ) -> Result<u64, Errno> {
        let copied = self.answer_with_room(Message::CopyFileRange, to.0, || {
            let length = length.min(MAX_COPY);
            let kill = self.kill(to.0, !sender.may_keep_set_id(), sender)?;
            let n = self
                .union
                .copy_range(from.0, from.1, to.0, to.1, length, kill)?;
            self.killed(to.0, kill);
            Ok(n)
        })?;
        self.stats.moved(Message::CopyFileRange, copied);
        Ok(copied)
    }
}

fn fitting(bytes: Vec<u8>, size: u32) -> Result<XattrAnswer, Failure> {
    match u32::try_from(bytes.len()) {
        Ok(length) if size == 0 => Ok(XattrAnswer::Size(length)),
        Ok(length) if length <= size => Ok(XattrAnswer::Bytes(bytes)),
        // What does not fit the caller's buffer, and what no caller's could hold.
        Ok(_) => Err(Errno::ERANGE.into()),
        Err(_) => Err(Errno::E2BIG.into()),
    }
}
