//! From a request's bytes to one of the operations, and its answer back into the payload.
//!
//! Over the ring the structure of an operation comes apart from what follows it: names and data
//! are in the payload (`fuse_uring_args_to_ring` in `fs/fuse/dev_uring.c`). Nothing here trusts a
//! length: what is too short or lacks its NUL is EINVAL.

use fuser::Errno;
use pellicle_sys::fuse_ring::{HEADER, Parts};
use pellicle_union::{Caller, Ino, SetAttr, Time};
use zerocopy::FromBytes;

use super::{
    answer::{self, Length, Listing},
    wire::{
        self, CopyIn, CreateIn, FallocateIn, GetXattrIn, InHeader, LinkIn, LseekIn, MkDirIn,
        MkNodIn, OpenIn, OpenOut, ReadIn, ReleaseIn, Rename2In, RenameIn, SetAttrIn, SetXattrIn,
        StatFsOut, WriteIn, fattr, opcode,
    },
};
use crate::{
    Message,
    caller::Sender,
    convert,
    operations::{NAME_MAX, Operations, Space},
    passthrough::{Backing, Opening},
};

/// What an answer may need besides the union.
pub(super) struct Context<'a> {
    pub(super) operations: &'a Operations,
    /// Tells the kernel of a host file that it may read by itself.
    pub(super) register: &'a dyn Fn(&std::fs::File) -> std::io::Result<Backing>,
}

/// Does what the request asks; gives the length of the answer in the payload.
pub(super) fn dispatch(context: &Context<'_>, parts: Parts<'_>) -> Result<Length, Errno> {
    let ops = context.operations;
    let Parts {
        header,
        operation,
        payload,
        length,
    } = parts;
    let header: InHeader = read(header)?;
    let ino = Ino(header.node);
    let caller = |umask| Caller {
        uid: header.uid,
        gid: header.gid,
        umask,
    };
    let sender = Sender {
        uid: header.uid,
        gid: header.gid,
        pid: header.pid,
    };
    let input = payload.get(..length).unwrap_or_default();
    match header.opcode {
        opcode::LOOKUP => match ops.lookup(ino, only_name(input)?)? {
            Some(attr) => answer::entry(payload, &attr),
            None => answer::value(payload, &wire::EntryOut::nothing()),
        },
        opcode::GETATTR => answer::attributes(payload, &ops.getattr(ino)?),
        opcode::SETATTR => {
            let (set, kill) = set_attr(&read(operation)?);
            answer::attributes(payload, &ops.setattr(ino, set, kill, sender)?)
        }
        opcode::READLINK => answer::bytes(payload, &ops.readlink(ino)?),
        opcode::SYMLINK => {
            let (name, rest) = name(input)?;
            let made = ops.symlink(ino, name, only_name(rest)?, caller(0))?;
            answer::entry(payload, &made)
        }
        opcode::MKNOD => {
            let op: MkNodIn = read(operation)?;
            let (name, _) = name(input)?;
            let made = ops.mknod(ino, name, op.mode, op.rdev, caller(op.umask))?;
            answer::entry(payload, &made)
        }
        opcode::MKDIR => {
            let op: MkDirIn = read(operation)?;
            let (name, _) = name(input)?;
            let made = ops.mkdir(ino, name, op.mode, caller(op.umask))?;
            answer::entry(payload, &made)
        }
        opcode::UNLINK => ops.unlink(ino, only_name(input)?).map(nothing),
        opcode::RMDIR => ops.rmdir(ino, only_name(input)?).map(nothing),
        opcode::RENAME => {
            let op: RenameIn = read(operation)?;
            rename(ops, ino, Ino(op.new_dir), input, 0)
        }
        opcode::RENAME2 => {
            let op: Rename2In = read(operation)?;
            rename(ops, ino, Ino(op.new_dir), input, op.flags)
        }
        opcode::LINK => {
            let op: LinkIn = read(operation)?;
            let made = ops.link(Ino(op.old_node), ino, only_name(input)?)?;
            answer::entry(payload, &made)
        }
        opcode::OPEN => {
            let op: OpenIn = read(operation)?;
            let opened = ops.open(ino, op.flags.cast_signed(), context.register)?;
            answer::value(payload, &open_out(&opened)?)
        }
        opcode::TMPFILE => {
            let op: CreateIn = read(operation)?;
            let (made, opened) = ops.tmpfile(ino, op.mode, caller(op.umask))?;
            let used = answer::entry(payload, &made)?;
            let rest = payload.get_mut(used..).unwrap_or_default();
            Ok(used + answer::value(rest, &open_out(&opened)?)?)
        }
        opcode::RELEASE => {
            let op: ReleaseIn = read(operation)?;
            ops.release(ino, op.handle).map(nothing)
        }
        opcode::READ => {
            let op: ReadIn = read(operation)?;
            let size = payload.len().min(op.size as usize);
            ops.read(ino, op.offset, payload.get_mut(..size).unwrap_or_default())
        }
        opcode::WRITE => {
            let op: WriteIn = read(operation)?;
            let data = input.get(..op.size as usize).ok_or(Errno::EINVAL)?;
            let kill = op.write_flags & wire::WRITE_KILL_SUIDGID != 0;
            let written = ops.write(ino, op.offset, data, kill, sender)?;
            answer::size(payload, written)
        }
        opcode::FSYNC => ops.sync(Message::Fsync, ino).map(nothing),
        opcode::FSYNCDIR => ops.sync(Message::FsyncDir, ino).map(nothing),
        opcode::STATFS => answer::value(payload, &statfs_out(&ops.statfs(ino)?)),
        opcode::READDIR => {
            let op: ReadIn = read(operation)?;
            let mut list = Listing::new(payload, op.size);
            ops.readdir(ino, op.offset, |name, ino, kind, next| {
                list.add(name, ino, kind, next)
            })?;
            Ok(list.used())
        }
        opcode::READDIRPLUS => {
            let op: ReadIn = read(operation)?;
            let mut list = Listing::new(payload, op.size);
            ops.readdirplus(ino, op.offset, |name, attr, next| {
                list.add_plus(name, attr, next)
            })?;
            Ok(list.used())
        }
        opcode::RELEASEDIR => ops.releasedir(ino).map(nothing),
        opcode::SETXATTR => {
            let op: SetXattrIn = read(operation)?;
            let (name, rest) = name(input)?;
            let value = rest.get(..op.size as usize).ok_or(Errno::EINVAL)?;
            ops.setxattr(ino, name, value, op.flags.cast_signed(), sender)
                .map(nothing)
        }
        opcode::GETXATTR => {
            let op: GetXattrIn = read(operation)?;
            let got = ops.getxattr(ino, only_name(input)?, op.size)?;
            answer::xattr(payload, &got)
        }
        opcode::LISTXATTR => {
            let op: GetXattrIn = read(operation)?;
            answer::xattr(payload, &ops.listxattr(ino, op.size)?)
        }
        opcode::REMOVEXATTR => ops.removexattr(ino, only_name(input)?).map(nothing),
        opcode::FALLOCATE => {
            let op: FallocateIn = read(operation)?;
            ops.fallocate(ino, op.mode.cast_signed(), op.offset, op.length, sender)
                .map(nothing)
        }
        opcode::LSEEK => {
            let op: LseekIn = read(operation)?;
            let whence = op.whence.cast_signed();
            let at = ops.lseek(ino, op.offset.cast_signed(), whence)?;
            answer::value(payload, &at)
        }
        opcode::COPY_FILE_RANGE => {
            let copied = copy(ops, ino, &read(operation)?, sender)?;
            answer::size(payload, u32::try_from(copied).unwrap_or(u32::MAX))
        }
        opcode::COPY_FILE_RANGE_64 => {
            let copied = copy(ops, ino, &read(operation)?, sender)?;
            answer::value(payload, &copied)
        }
        other => refuse(ops, ino, other),
    }
}

/// Whether it is READ.
pub(super) fn is_read(header: &[u8; HEADER]) -> bool {
    read::<InHeader>(header).is_ok_and(|header| header.opcode == opcode::READ)
}

/// Whether it may take long, whatever it is about.
pub(super) fn takes_long(header: &[u8; HEADER]) -> bool {
    const LONG: [u32; 5] = [
        opcode::FSYNC,
        opcode::FSYNCDIR,
        opcode::FALLOCATE,
        opcode::COPY_FILE_RANGE,
        opcode::COPY_FILE_RANGE_64,
    ];
    read::<InHeader>(header).is_ok_and(|header| LONG.contains(&header.opcode))
}

/// What the kernel does by itself once it was told so, and what nobody does.
fn refuse(ops: &Operations, ino: Ino, code: u32) -> Result<Length, Errno> {
    // `dev.rs` gives the reasons, which are the same there.
    let (message, errno) = match code {
        opcode::FLUSH => (Message::Flush, Errno::ENOSYS),
        opcode::OPENDIR => (Message::OpenDir, Errno::ENOSYS),
        opcode::ACCESS => (Message::Access, Errno::ENOSYS),
        opcode::CREATE => (Message::Create, Errno::ENOSYS),
        opcode::POLL => (Message::Poll, Errno::ENOSYS),
        opcode::IOCTL => (Message::IoCtl, Errno::ENOTTY),
        opcode::GETLK | opcode::SETLK | opcode::SETLKW => (Message::Lock, Errno::ENOSYS),
        opcode::BMAP => (Message::Bmap, Errno::ENOSYS),
        // STATX would bring a birth time, which is not kept: once refused, a program that asks for
        // one costs no message any more. SYNCFS is virtiofs's.
        _ => return Err(Errno::ENOSYS),
    };
    ops.refuse(message, ino, errno)
}

fn nothing((): ()) -> Length {
    0
}

/// The structure at the start of `bytes`.
fn read<T: FromBytes>(bytes: &[u8]) -> Result<T, Errno> {
    match T::read_from_prefix(bytes) {
        Ok((value, _)) => Ok(value),
        Err(_) => Err(Errno::EINVAL),
    }
}

/// The bytes before the first NUL, and those after it.
fn name(bytes: &[u8]) -> Result<(&[u8], &[u8]), Errno> {
    let end = bytes.iter().position(|&b| b == 0).ok_or(Errno::EINVAL)?;
    let (name, rest) = bytes.split_at_checked(end).ok_or(Errno::EINVAL)?;
    Ok((name, rest.get(1..).unwrap_or_default()))
}

fn only_name(bytes: &[u8]) -> Result<&[u8], Errno> {
    name(bytes).map(|(name, _)| name)
}

fn rename(ops: &Operations, from: Ino, to: Ino, names: &[u8], flags: u32) -> Result<Length, Errno> {
    let (old, rest) = name(names)?;
    ops.rename((from, old), (to, only_name(rest)?), flags)
        .map(nothing)
}

fn copy(ops: &Operations, ino: Ino, op: &CopyIn, sender: Sender) -> Result<u64, Errno> {
    let to = (Ino(op.node_out), op.offset_out);
    ops.copy_file_range((ino, op.offset_in), to, op.len, sender)
}

/// What is to change, and whether set-id bits go with it.
fn set_attr(op: &SetAttrIn) -> (SetAttr, bool) {
    let has = |bits| op.valid & bits != 0;
    let time = |given, now, sec, nsec| {
        if has(now) {
            Some(Time::now())
        } else {
            has(given).then(|| wire::time(sec, nsec))
        }
    };
    let set = SetAttr {
        perm: has(fattr::MODE).then(|| convert::perm(op.mode)),
        uid: has(fattr::UID).then_some(op.uid),
        gid: has(fattr::GID).then_some(op.gid),
        size: has(fattr::SIZE).then_some(op.size),
        atime: time(fattr::ATIME, fattr::ATIME_NOW, op.atime, op.atime_nsec),
        mtime: time(fattr::MTIME, fattr::MTIME_NOW, op.mtime, op.mtime_nsec),
        ctime: has(fattr::CTIME).then(|| wire::time(op.ctime, op.ctime_nsec)),
        ..SetAttr::default()
    };
    // Under HANDLE_KILLPRIV_V2 a change of owner always clears set-id bits, a truncation when the
    // kernel says so: by whoever has no CAP_FSETID.
    let kill = has(fattr::UID | fattr::GID | fattr::KILL_SUIDGID);
    (set, kill)
}

fn open_out(opened: &Opening) -> Result<OpenOut, Errno> {
    match opened {
        Opening::Passed(handle, backing) => match &**backing {
            Backing::Ring(id) => Ok(OpenOut {
                handle: *handle,
                flags: wire::OPEN_NOFLUSH | wire::OPEN_PASSTHROUGH,
                backing: id.number(),
            }),
            // Registered before there was a ring, which no open can be.
            Backing::Dev(_) => Err(Errno::EIO),
        },
        Opening::Cached(handle) => Ok(OpenOut {
            handle: *handle,
            flags: wire::OPEN_KEEP_CACHE | wire::OPEN_NOFLUSH,
            backing: 0,
        }),
        Opening::Never => Err(Errno::ENOSYS),
    }
}

fn statfs_out(space: &Space) -> StatFsOut {
    StatFsOut {
        blocks: space.blocks,
        free: space.free,
        available: space.available,
        files: space.files,
        files_free: space.files_free,
        block: space.block,
        name_max: NAME_MAX,
        fragment: space.block,
        padding: 0,
        spare: [0; 6],
    }
}

#[cfg(test)]
mod tests;
