//! The operations over `/dev/fuse`: fuser's trait, its arguments and replies in the union's words.

use std::{
    cell::RefCell,
    ffi::OsStr,
    io,
    os::fd::OwnedFd,
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::{Arc, OnceLock, mpsc},
    time::{Duration, SystemTime},
};

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek,
    ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use pellicle_union::{Attr, Caller, Ino, SetAttr};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    Message,
    caller::Sender,
    convert::{self, FOREVER_SECONDS},
    init::{self, Agreed},
    operations::{NAME_MAX, Operations, Space, XattrAnswer},
    passthrough::{Backing, Opening},
    spin::Spin,
    watch::Watch,
};

const FOREVER: Duration = Duration::from_secs(FOREVER_SECONDS);

/// Inode numbers are never used again, so there is only one generation.
const GENERATION: Generation = Generation(0);

thread_local! {
    /// What READ reads into; grows to the largest read this thread has seen.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };

    static SPIN: RefCell<Spin> = RefCell::default();
}

/// Gives `work` this thread's buffer of `size` bytes, with whatever was in it.
fn with_buffer<T>(size: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.len() < size {
            buffer.resize(size, 0);
        }
        work(buffer.get_mut(..size).unwrap_or_default())
    })
}

/// Takes up the watch for the next message when it is dropped: after the answer to this one, before
/// fuser sleeps in its read.
struct LooksOn<'a>(&'a Dev);

impl Drop for LooksOn<'_> {
    fn drop(&mut self) {
        let Self(Dev { watch, device, .. }) = self;
        watch.take_up();
        let Some(device) = device else { return };
        let mut looked = 0_u32;
        let look = || {
            looked = looked.saturating_add(1);
            let mut device = [PollFd::new(device, PollFlags::IN)];
            let now = Timespec::default();
            Ok(poll(&mut device, Some(&now))? > 0)
        };
        // Whatever is wrong with the device, reading it tells fuser.
        let found = SPIN.with_borrow_mut(|spin| spin.look(look));
        if looked == 1 && matches!(found, Ok(true)) {
            // It was there before this answer was out: messages pile up.
            watch.call_back();
        }
    }
}

/// Takes up the watch again when it is dropped, after something that is not to be looked on for.
struct OffWatch<'a>(&'a Watch);

impl Drop for OffWatch<'_> {
    fn drop(&mut self) {
        self.0.take_up();
    }
}

/// What fuser serves.
pub(crate) struct Dev {
    pub(crate) operations: Arc<Operations>,
    /// Whether a ring stands ready, should the kernel offer it.
    pub(crate) ring_ready: bool,
    /// The descriptor that fuser reads once more, to look; `None` where no more are allowed.
    pub(crate) device: Option<OwnedFd>,
    /// Who of the threads waits for messages.
    pub(crate) watch: Watch,
    /// Filled by INIT.
    pub(crate) agreed: Arc<OnceLock<Agreed>>,
    /// Goes with the last thread that serves.
    pub(crate) _in_use: mpsc::Sender<()>,
}

fn caller(req: &Request, umask: u32) -> Caller {
    Caller {
        uid: req.uid(),
        gid: req.gid(),
        umask,
    }
}

fn sender(req: &Request) -> Sender {
    Sender {
        uid: req.uid(),
        gid: req.gid(),
        pid: req.pid(),
    }
}

fn entry(made: Result<Attr, Errno>, reply: ReplyEntry) {
    match made {
        Ok(attr) => reply.entry(&FOREVER, &convert::attr(&attr), GENERATION),
        Err(e) => reply.error(e),
    }
}

fn empty(done: Result<(), Errno>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(e),
    }
}

fn attributes(got: Result<Attr, Errno>, reply: ReplyAttr) {
    match got {
        Ok(attr) => reply.attr(&FOREVER, &convert::attr(&attr)),
        Err(e) => reply.error(e),
    }
}

fn written(done: Result<u32, Errno>, reply: ReplyWrite) {
    match done {
        Ok(n) => reply.written(n),
        Err(e) => reply.error(e),
    }
}

fn xattr(got: Result<XattrAnswer, Errno>, reply: ReplyXattr) {
    match got {
        Ok(XattrAnswer::Size(size)) => reply.size(size),
        Ok(XattrAnswer::Bytes(bytes)) => reply.data(&bytes),
        Err(e) => reply.error(e),
    }
}

impl Dev {
    fn looks_on(&self) -> LooksOn<'_> {
        SPIN.with_borrow_mut(Spin::came);
        self.watch.leave();
        LooksOn(self)
    }

    /// For what may take long: another thread is to see to what comes meanwhile.
    fn takes_long(&self) -> OffWatch<'_> {
        self.watch.leave();
        self.watch.call_back();
        OffWatch(&self.watch)
    }
}

impl Filesystem for Dev {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let operations = &self.operations;
        let wish = operations.options.opens;
        let agreed = init::negotiate(config, &operations.options, wish, self.ring_ready)?;
        let _ = self.agreed.set(agreed);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _looks_on = self.looks_on();
        match self.operations.lookup(Ino(parent.0), name.as_bytes()) {
            Ok(None) => reply.entry(&FOREVER, &convert::nothing(), GENERATION),
            Ok(Some(attr)) => entry(Ok(attr), reply),
            Err(e) => reply.error(e),
        }
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.operations.forget(Ino(ino.0), nlookup);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let _looks_on = self.looks_on();
        attributes(self.operations.getattr(Ino(ino.0)), reply);
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
        let _looks_on = self.looks_on();
        // Under HANDLE_KILLPRIV_V2 a change of owner always clears set-id bits, a truncation
        // when FATTR_KILL_SUIDGID is set: without CAP_FSETID. fuser 0.18 does not pass that
        // bit on; the user that has the capability is root of the mount's user namespace.
        let kill = uid.is_some() || gid.is_some() || (size.is_some() && req.uid() != 0);
        let set = SetAttr {
            perm: mode.map(convert::perm),
            uid,
            gid,
            size,
            atime: atime.map(convert::time),
            mtime: mtime.map(convert::time),
            ctime: ctime.map(convert::specific),
            ..SetAttr::default()
        };
        let sender = sender(req);
        attributes(
            self.operations.setattr(Ino(ino.0), set, kill, sender),
            reply,
        );
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        let _looks_on = self.looks_on();
        match self.operations.readlink(Ino(ino.0)) {
            Ok(target) => reply.data(&target),
            Err(e) => reply.error(e),
        }
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
        let _looks_on = self.looks_on();
        let caller = caller(req, umask);
        let made = self
            .operations
            .mknod(Ino(parent.0), name.as_bytes(), mode, rdev, caller);
        entry(made, reply);
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
        let _looks_on = self.looks_on();
        let caller = caller(req, umask);
        let made = self
            .operations
            .mkdir(Ino(parent.0), name.as_bytes(), mode, caller);
        entry(made, reply);
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _looks_on = self.looks_on();
        empty(
            self.operations.unlink(Ino(parent.0), name.as_bytes()),
            reply,
        );
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _looks_on = self.looks_on();
        empty(self.operations.rmdir(Ino(parent.0), name.as_bytes()), reply);
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let _looks_on = self.looks_on();
        let target = target.as_os_str().as_bytes();
        let made = self
            .operations
            .symlink(Ino(parent.0), name.as_bytes(), target, caller(req, 0));
        entry(made, reply);
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let _looks_on = self.looks_on();
        let from = (Ino(parent.0), name.as_bytes());
        let to = (Ino(newparent.0), newname.as_bytes());
        empty(self.operations.rename(from, to, flags.bits()), reply);
    }

    fn link(
        &self,
        _req: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let _looks_on = self.looks_on();
        let made = self
            .operations
            .link(Ino(ino.0), Ino(newparent.0), newname.as_bytes());
        entry(made, reply);
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let opened = self.operations.open(Ino(ino.0), flags.0, |file| {
            reply.open_backing(file).map(Backing::Dev)
        });
        match opened {
            Ok(Opening::Passed(handle, backing)) => match &*backing {
                Backing::Dev(id) => {
                    reply.opened_passthrough(FileHandle(handle), FopenFlags::FOPEN_NOFLUSH, id);
                }
                // The ring's, when this connection has none: no open mixes them.
                Backing::Ring(_) => reply.error(Errno::EIO),
            },
            Ok(Opening::Cached(handle)) => reply.opened(
                FileHandle(handle),
                FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH,
            ),
            Ok(Opening::Never) => reply.error(Errno::ENOSYS),
            Err(e) => reply.error(e),
        }
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
        let _looks_on = self.looks_on();
        with_buffer(size.min(init::MAX_TRANSFER) as usize, |buffer| {
            match self.operations.read(Ino(ino.0), offset, buffer) {
                Ok(n) => reply.data(buffer.get(..n).unwrap_or_default()),
                Err(e) => reply.error(e),
            }
        });
    }

    fn write(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let _looks_on = self.looks_on();
        let kill = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let done = self
            .operations
            .write(Ino(ino.0), offset, data, kill, sender(req));
        written(done, reply);
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
        let done = self
            .operations
            .refuse(Message::Flush, Ino(ino.0), Errno::ENOSYS);
        empty(done, reply);
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
        let _looks_on = self.looks_on();
        empty(self.operations.release(Ino(ino.0), fh.0), reply);
    }

    fn fsync(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let _off_watch = self.takes_long();
        empty(self.operations.sync(Message::Fsync, Ino(ino.0)), reply);
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // As for OPEN: `fc->no_opendir`, with listings kept (FOPEN_CACHE_DIR).
        if let Err(e) = self
            .operations
            .refuse::<()>(Message::OpenDir, Ino(ino.0), Errno::ENOSYS)
        {
            reply.error(e);
        }
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let _looks_on = self.looks_on();
        let add = |name: &[u8], ino: Ino, kind, next| {
            reply.add(
                INodeNo(ino.0),
                next,
                convert::kind(kind),
                OsStr::from_bytes(name),
            )
        };
        match self.operations.readdir(Ino(ino.0), offset, add) {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(e),
        }
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let _looks_on = self.looks_on();
        let add = |name: &[u8], attr: &Attr, next| {
            reply.add(
                INodeNo(attr.ino.0),
                next,
                OsStr::from_bytes(name),
                &FOREVER,
                &convert::attr(attr),
                GENERATION,
            )
        };
        match self.operations.readdirplus(Ino(ino.0), offset, add) {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(e),
        }
    }

    fn releasedir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        empty(self.operations.releasedir(Ino(ino.0)), reply);
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let _off_watch = self.takes_long();
        empty(self.operations.sync(Message::FsyncDir, Ino(ino.0)), reply);
    }

    fn statfs(&self, _req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let _looks_on = self.looks_on();
        match self.operations.statfs(Ino(ino.0)) {
            Ok(Space {
                blocks,
                free,
                available,
                files,
                files_free,
                block,
            }) => reply.statfs(
                blocks, free, available, files, files_free, block, NAME_MAX, block,
            ),
            Err(e) => reply.error(e),
        }
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let _looks_on = self.looks_on();
        let done = self
            .operations
            .setxattr(Ino(ino.0), name.as_bytes(), value, flags, sender(req));
        empty(done, reply);
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let _looks_on = self.looks_on();
        let got = self.operations.getxattr(Ino(ino.0), name.as_bytes(), size);
        xattr(got, reply);
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let _looks_on = self.looks_on();
        xattr(self.operations.listxattr(Ino(ino.0), size), reply);
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _looks_on = self.looks_on();
        empty(
            self.operations.removexattr(Ino(ino.0), name.as_bytes()),
            reply,
        );
    }

    fn access(&self, _req: &Request, ino: INodeNo, _mask: fuser::AccessFlags, reply: ReplyEmpty) {
        // The kernel decides (default_permissions) and does not even ask.
        let done = self
            .operations
            .refuse(Message::Access, Ino(ino.0), Errno::ENOSYS);
        empty(done, reply);
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
        if let Err(e) = self
            .operations
            .refuse::<()>(Message::Create, Ino(parent.0), Errno::ENOSYS)
        {
            reply.error(e);
        }
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
        let _looks_on = self.looks_on();
        if let Err(e) = self
            .operations
            .refuse::<()>(Message::IoCtl, Ino(ino.0), Errno::ENOTTY)
        {
            reply.error(e);
        }
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
        if let Err(e) = self
            .operations
            .refuse::<()>(Message::Poll, Ino(ino.0), Errno::ENOSYS)
        {
            reply.error(e);
        }
    }

    fn fallocate(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let _off_watch = self.takes_long();
        let done = self
            .operations
            .fallocate(Ino(ino.0), mode, offset, length, sender(req));
        empty(done, reply);
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
        let _looks_on = self.looks_on();
        match self.operations.lseek(Ino(ino.0), offset, whence) {
            Ok(at) => reply.offset(at),
            Err(e) => reply.error(e),
        }
    }

    fn copy_file_range(
        &self,
        req: &Request,
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
        let _off_watch = self.takes_long();
        let from = (Ino(ino_in.0), offset_in);
        let to = (Ino(ino_out.0), offset_out);
        let copied = self.operations.copy_file_range(from, to, len, sender(req));
        written(copied.map(|n| u32::try_from(n).unwrap_or(u32::MAX)), reply);
    }
}
