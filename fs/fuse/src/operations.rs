//! The operations: fuser's trait, each method a few lines around one call of the union.

use std::{ffi::OsStr, io, os::unix::ffi::OsStrExt, path::Path, time::SystemTime};

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo,
    IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags as KernelRenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl,
    ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow,
    WriteFlags,
};
use pellicle_union::{Caller, Error, FileKind, Ino, NewNode, RenameFlags, SetAttr};

use crate::{
    Message,
    adapter::{Adapter, FOREVER, GENERATION, with_buffer},
    convert, init, listing,
    passthrough::{Backings, Opening},
};

/// Longest stretch that one COPY_FILE_RANGE message copies, bytes: it holds a thread, and callers
/// must go on after a short copy anyway.
const MAX_COPY: u64 = 256 << 20;

fn caller(req: &Request, umask: u32) -> Caller {
    Caller {
        uid: req.uid(),
        gid: req.gid(),
        umask,
    }
}

/// The permission bits of a wire mode.
fn perm(mode: u32) -> u16 {
    (mode & 0o7777) as u16
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // A file that may be written cannot be handed over for reading: see TRANSPORT.md.
        let wanted = self.options.passthrough && self.union.is_read_only();
        if init::negotiate(config, &self.options, wanted)? {
            self.backings = Some(Backings::default());
        }
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.answer(Message::Lookup, parent, || {
            match self.union.lookup(Ino(parent.0), name.as_bytes()) {
                Err(Error::NotFound) => reply.entry(&FOREVER, &convert::nothing(), GENERATION),
                found => self.entry(Message::Lookup, parent, found, reply),
            }
        });
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.answer(Message::Forget, ino, || {
            self.union.forget(Ino(ino.0), nlookup)
        });
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        self.answer(Message::GetAttr, ino, || {
            match self.union.attr(Ino(ino.0)) {
                Ok(attr) => reply.attr(&FOREVER, &convert::attr(&attr)),
                Err(e) => reply.error(self.errno(Message::GetAttr, ino, &e)),
            }
        });
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.answer(Message::SetAttr, ino, || {
            // Under HANDLE_KILLPRIV_V2 a change of owner always clears set-id bits, a truncation
            // when FATTR_KILL_SUIDGID is set: without CAP_FSETID. fuser 0.18 does not pass that
            // bit on; the user that has the capability is root of the mount's user namespace.
            let kill = uid.is_some() || gid.is_some() || (size.is_some() && req.uid() != 0);
            let set = SetAttr {
                perm: mode.map(perm),
                uid,
                gid,
                size,
                atime: atime.map(convert::time),
                mtime: mtime.map(convert::time),
                ctime: ctime.map(convert::specific),
                kill_suid_sgid: kill,
            };
            match self.union.set_attr(Ino(ino.0), set) {
                Ok(attr) => reply.attr(&FOREVER, &convert::attr(&attr)),
                Err(e) => reply.error(self.errno(Message::SetAttr, ino, &e)),
            }
        });
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        self.answer(Message::ReadLink, ino, || {
            match self.union.readlink(Ino(ino.0)) {
                Ok(target) => reply.data(&target),
                Err(e) => reply.error(self.errno(Message::ReadLink, ino, &e)),
            }
        });
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        self.answer(Message::MkNod, parent, || {
            let device = convert::decode_device(rdev);
            let what = match FileKind::from_mode(mode) {
                // A type of 0 means a regular file: mknod(2).
                Some(FileKind::Regular) | None => NewNode::Regular,
                Some(FileKind::CharDevice) => NewNode::CharDevice(device),
                Some(FileKind::BlockDevice) => NewNode::BlockDevice(device),
                Some(FileKind::Fifo) => NewNode::Fifo,
                Some(FileKind::Socket) => NewNode::Socket,
                Some(FileKind::Directory | FileKind::Symlink) => {
                    return reply.error(Errno::EINVAL);
                }
            };
            let made = self.union.make(
                Ino(parent.0),
                name.as_bytes(),
                what,
                perm(mode),
                caller(req, umask),
            );
            self.entry(Message::MkNod, parent, made, reply);
        });
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        self.answer(Message::MkDir, parent, || {
            let made = self.union.make(
                Ino(parent.0),
                name.as_bytes(),
                NewNode::Directory,
                perm(mode),
                caller(req, umask),
            );
            self.entry(Message::MkDir, parent, made, reply);
        });
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.answer(Message::Unlink, parent, || {
            let done = self.union.unlink(Ino(parent.0), name.as_bytes());
            self.empty(Message::Unlink, parent, done, reply);
        });
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.answer(Message::RmDir, parent, || {
            let done = self.union.rmdir(Ino(parent.0), name.as_bytes());
            self.empty(Message::RmDir, parent, done, reply);
        });
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        self.answer(Message::SymLink, parent, || {
            let target = NewNode::Symlink(target.as_os_str().as_bytes());
            let made = self.union.make(
                Ino(parent.0),
                name.as_bytes(),
                target,
                0o777,
                caller(req, 0),
            );
            self.entry(Message::SymLink, parent, made, reply);
        });
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: KernelRenameFlags,
        reply: ReplyEmpty,
    ) {
        self.answer(Message::Rename, parent, || {
            let known = KernelRenameFlags::RENAME_NOREPLACE | KernelRenameFlags::RENAME_EXCHANGE;
            if !(flags - known).is_empty() {
                // RENAME_WHITEOUT: what a whiteout looks like from above is no concern of ours.
                return reply.error(Errno::EINVAL);
            }
            let done = self.union.rename(
                Ino(parent.0),
                name.as_bytes(),
                Ino(newparent.0),
                newname.as_bytes(),
                RenameFlags {
                    no_replace: flags.contains(KernelRenameFlags::RENAME_NOREPLACE),
                    exchange: flags.contains(KernelRenameFlags::RENAME_EXCHANGE),
                },
            );
            self.empty(Message::Rename, parent, done, reply);
        });
    }

    fn link(
        &self,
        _req: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        self.answer(Message::Link, newparent, || {
            let made = self
                .union
                .link(Ino(ino.0), Ino(newparent.0), newname.as_bytes());
            self.entry(Message::Link, newparent, made, reply);
        });
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.answer(Message::Open, ino, || {
            let Some(backings) = &self.backings else {
                // The kernel opens by itself from now on (`fc->no_open`), keeping its pages.
                return reply.error(Errno::ENOSYS);
            };
            if flags.0 & libc::O_ACCMODE != libc::O_RDONLY {
                return reply.error(Errno::EROFS);
            }
            let file = || self.union.backing(Ino(ino.0), false);
            match backings.open(ino, file, |f| reply.open_backing(f)) {
                Ok(Opening::Passed(handle, id)) => {
                    reply.opened_passthrough(handle, FopenFlags::FOPEN_NOFLUSH, &id);
                }
                Ok(Opening::Cached(handle)) => reply.opened(
                    handle,
                    FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH,
                ),
                Ok(Opening::Never) => reply.error(Errno::ENOSYS),
                Err(e) => reply.error(self.errno(Message::Open, ino, &e)),
            }
        });
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.answer(Message::Read, ino, || {
            with_buffer(size.min(init::MAX_TRANSFER) as usize, |buffer| {
                match self.union.read(Ino(ino.0), offset, buffer) {
                    Ok(n) => reply.data(buffer.get(..n).unwrap_or_default()),
                    Err(e) => reply.error(self.errno(Message::Read, ino, &e)),
                }
            });
        });
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.answer(Message::Write, ino, || {
            let kill = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
            match self.union.write(Ino(ino.0), offset, data, kill) {
                Ok(n) => reply.written(u32::try_from(n).unwrap_or(u32::MAX)),
                Err(e) => reply.error(self.errno(Message::Write, ino, &e)),
            }
        });
    }

    fn flush(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        // Nothing waits for a close: once told so the kernel does not ask again.
        self.answer(Message::Flush, ino, || reply.error(Errno::ENOSYS));
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.answer(Message::Release, ino, || {
            if let Some(backings) = &self.backings {
                backings.release(ino, fh);
            }
            reply.ok();
        });
    }

    fn fsync(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.answer(Message::Fsync, ino, || {
            self.empty(Message::Fsync, ino, self.union.sync_file(Ino(ino.0)), reply);
        });
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // As for OPEN: `fc->no_opendir`, with listings kept (FOPEN_CACHE_DIR).
        self.answer(Message::OpenDir, ino, || reply.error(Errno::ENOSYS));
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        self.answer(Message::ReadDir, ino, || {
            match listing::plain(&self.union, Ino(ino.0), offset, &mut reply) {
                Ok(()) => reply.ok(),
                Err(e) => reply.error(self.errno(Message::ReadDir, ino, &e)),
            }
        });
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        self.answer(Message::ReadDirPlus, ino, || {
            match listing::plus(&self.union, Ino(ino.0), offset, &mut reply) {
                Ok(()) => reply.ok(),
                Err(e) => reply.error(self.errno(Message::ReadDirPlus, ino, &e)),
            }
        });
    }

    fn releasedir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.answer(Message::ReleaseDir, ino, || reply.ok());
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.answer(Message::FsyncDir, ino, || {
            self.empty(
                Message::FsyncDir,
                ino,
                self.union.sync_file(Ino(ino.0)),
                reply,
            );
        });
    }

    fn statfs(&self, _req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        self.answer(Message::StatFs, ino, || match self.union.space() {
            Ok(s) => {
                let unit = u64::from(s.block_size.max(1));
                reply.statfs(
                    s.total / unit,
                    s.free / unit,
                    s.available / unit,
                    s.files,
                    s.files_free,
                    s.block_size.max(1),
                    255,
                    s.block_size.max(1),
                );
            }
            Err(e) => reply.error(self.errno(Message::StatFs, ino, &e)),
        });
    }

    fn setxattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        self.answer(Message::SetXattr, ino, || {
            let done = self.union.set_xattr(
                Ino(ino.0),
                name.as_bytes(),
                value,
                flags & libc::XATTR_CREATE != 0,
                flags & libc::XATTR_REPLACE != 0,
            );
            self.empty(Message::SetXattr, ino, done, reply);
        });
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        self.answer(Message::GetXattr, ino, || {
            let got = self.union.xattr(Ino(ino.0), name.as_bytes());
            self.xattr_bytes(Message::GetXattr, ino, got, size, reply);
        });
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.answer(Message::ListXattr, ino, || {
            let got = self.union.xattr_names(Ino(ino.0));
            self.xattr_bytes(Message::ListXattr, ino, got, size, reply);
        });
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.answer(Message::RemoveXattr, ino, || {
            let done = self.union.remove_xattr(Ino(ino.0), name.as_bytes());
            self.empty(Message::RemoveXattr, ino, done, reply);
        });
    }

    fn access(&self, _req: &Request, ino: INodeNo, _mask: fuser::AccessFlags, reply: ReplyEmpty) {
        // The kernel decides (default_permissions) and does not even ask.
        self.answer(Message::Access, ino, || reply.error(Errno::ENOSYS));
    }

    fn create(
        &self,
        _req: &Request,
        parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        // From then on the kernel makes files by MKNOD and opens them as any other, which costs no
        // message; what CREATE opens would cost a RELEASE each (`fuse_create_open`, fs/fuse/dir.c).
        self.answer(Message::Create, parent, || reply.error(Errno::ENOSYS));
    }

    fn ioctl(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        self.answer(Message::IoCtl, ino, || reply.error(Errno::ENOTTY));
    }

    fn poll(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _ph: fuser::PollNotifier,
        _events: fuser::PollEvents,
        _flags: fuser::PollFlags,
        reply: ReplyPoll,
    ) {
        // Always ready, and the kernel need not ask again (`fc->no_poll`).
        self.answer(Message::Poll, ino, || reply.error(Errno::ENOSYS));
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.answer(Message::Fallocate, ino, || {
            let done = self.union.fallocate(Ino(ino.0), mode, offset, length);
            self.empty(Message::Fallocate, ino, done, reply);
        });
    }

    fn lseek(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        self.answer(Message::Lseek, ino, || {
            let (Ok(from), libc::SEEK_DATA | libc::SEEK_HOLE) = (u64::try_from(offset), whence)
            else {
                return reply.error(if offset < 0 {
                    Errno::ENXIO
                } else {
                    Errno::EINVAL
                });
            };
            match self.union.seek(Ino(ino.0), from, whence == libc::SEEK_DATA) {
                Ok(at) => reply.offset(i64::try_from(at).unwrap_or(i64::MAX)),
                Err(e) => reply.error(self.errno(Message::Lseek, ino, &e)),
            }
        });
    }

    fn copy_file_range(
        &self,
        _req: &Request,
        ino_in: INodeNo,
        _fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        _fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        self.answer(Message::CopyFileRange, ino_out, || {
            let length = len.min(MAX_COPY);
            match self.union.copy_range(
                Ino(ino_in.0),
                offset_in,
                Ino(ino_out.0),
                offset_out,
                length,
            ) {
                Ok(n) => reply.written(u32::try_from(n).unwrap_or(u32::MAX)),
                Err(e) => reply.error(self.errno(Message::CopyFileRange, ino_out, &e)),
            }
        });
    }
}
