//! One of the two mounts: operations on it through the kernel, and what they gave.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path as HostPath, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use pellicle_tests::repository;
use rustix::{
    fs::{
        AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, RenameFlags, SeekFrom, Stat,
        StatxFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, XattrFlags,
    },
    io::Errno,
};

use super::operation::{Clock, How, Op, Path, SLOTS, Special, Who};

/// What a call gave: its answer in words, or its error.
pub(super) type Said = Result<String, Errno>;

/// The user that is not root.
const USER: u32 = 12_345;

/// A mount and the files that are open in it.
pub(super) struct Side {
    root: PathBuf,
    slots: [Option<OwnedFd>; SLOTS],
}

/// Asks as somebody else until dropped.
struct As;

impl As {
    fn user() -> Self {
        setfsgid(Gid::from_raw(USER));
        setfsuid(Uid::from_raw(USER));
        Self
    }
}

impl Drop for As {
    fn drop(&mut self) {
        setfsuid(Uid::from_raw(0));
        setfsgid(Gid::from_raw(0));
    }
}

/// Seconds and nanoseconds of the last change of content, and of any, of one inode.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) modified: (i64, u32),
    pub(super) changed: (i64, u32),
    pub(super) has_other_names: bool,
    pub(super) ino: u64,
}

/// What an operation is about, for those times that it may change.
#[derive(Clone, Debug)]
pub(super) enum Object {
    At(PathBuf),
    /// The directory that something is in, where copying that up is a change.
    Above(PathBuf),
    Open(usize),
}

impl Side {
    pub(super) fn new(root: PathBuf) -> Self {
        let slots = [const { None }; SLOTS];
        Self { root, slots }
    }

    fn at(&self, path: &Path) -> PathBuf {
        self.root.join(path.relative())
    }

    /// The object's times, where it is there.
    pub(super) fn times(&self, object: &Object) -> Option<Times> {
        let wanted = StatxFlags::MTIME | StatxFlags::CTIME | StatxFlags::NLINK | StatxFlags::INO;
        let found = match object {
            Object::At(path) | Object::Above(path) => {
                let path = self.root.join(path);
                rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, wanted)
            }
            Object::Open(slot) => {
                let file = self.slots[*slot].as_ref()?;
                rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, wanted)
            }
        };
        let time = |of: rustix::fs::StatxTimestamp| (of.tv_sec, of.tv_nsec);
        found.ok().map(|found| Times {
            modified: time(found.stx_mtime),
            changed: time(found.stx_ctime),
            has_other_names: found.stx_nlink > 1,
            ino: found.stx_ino,
        })
    }

    pub(super) fn close_all(&mut self) {
        self.slots = [const { None }; SLOTS];
    }

    fn slot(&self, slot: usize) -> Result<&OwnedFd, Errno> {
        self.slots[slot].as_ref().ok_or(Errno::BADF)
    }

    /// Does it. [`Op::Remount`] is not for here.
    pub(super) fn perform(&mut self, op: &Op, mapper: Option<&mut Mapper>) -> Said {
        let _as = (who(op) == Who::User).then(As::user);
        match op {
            Op::Open {
                slot, path, how, ..
            } => {
                self.slots[*slot] = None;
                let mode = Mode::from_raw_mode(how.mode);
                let file = rustix::fs::open(self.at(path), flags(*how), mode)?;
                self.slots[*slot] = Some(file);
                Ok(String::new())
            }
            Op::Tmpfile { slot, dir } => {
                self.slots[*slot] = None;
                let flags = OFlags::TMPFILE | OFlags::RDWR;
                let file = rustix::fs::open(self.at(dir), flags, Mode::from_raw_mode(0o640))?;
                self.slots[*slot] = Some(file);
                Ok(String::new())
            }
            Op::Close(slot) => {
                self.slots[*slot] = None;
                Ok(String::new())
            }
            Op::Map(path, at, len, byte, how) => match mapper {
                Some(mapper) => mapper.ask(&self.at(path), *at, *len, *byte, how),
                None => Ok(String::new()),
            },
            Op::Remount => unreachable!("both sides at once"),
            op => self
                .content(op)
                .or_else(|| self.names(op))
                .unwrap_or_else(|| self.attributes(op)),
        }
    }

    fn content(&self, op: &Op) -> Option<Said> {
        Some(match op {
            Op::LinkSlot { slot, path } => self.slot(*slot).and_then(|file| {
                let from = format!("/proc/self/fd/{}", file.as_raw_fd());
                done(rustix::fs::linkat(
                    CWD,
                    from,
                    CWD,
                    self.at(path),
                    AtFlags::SYMLINK_FOLLOW,
                ))
            }),
            Op::Read(slot, at, len) => self.slot(*slot).and_then(|file| {
                let mut bytes = vec![0; *len];
                let n = rustix::io::pread(file, &mut bytes[..], *at)?;
                Ok(format!("{n} bytes, {:?}", runs(&bytes[..n])))
            }),
            Op::Write(slot, at, len, byte, _) => self.slot(*slot).and_then(|file| {
                let bytes = vec![*byte; *len];
                let n = match at {
                    Some(at) => rustix::io::pwrite(file, &bytes, *at),
                    None => rustix::io::write(file, &bytes),
                };
                Ok(format!("{} bytes", n?))
            }),
            Op::SetLen(slot, size, _) => self
                .slot(*slot)
                .and_then(|file| done(rustix::fs::ftruncate(file, *size))),
            Op::Allocate(slot, mode, at, len, _) => self.slot(*slot).and_then(|file| {
                let keep = FallocateFlags::KEEP_SIZE;
                let mode = match mode {
                    0 => FallocateFlags::empty(),
                    1 => keep,
                    2 => FallocateFlags::PUNCH_HOLE | keep,
                    3 => FallocateFlags::ZERO_RANGE,
                    4 => FallocateFlags::ZERO_RANGE | keep,
                    _ => FallocateFlags::PUNCH_HOLE,
                };
                done(rustix::fs::fallocate(file, mode, *at, *len))
            }),
            Op::Seek(slot, at, hole) => self.slot(*slot).and_then(|file| {
                // Of a directory, each file system says something else.
                let kind = FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode);
                if kind != FileType::RegularFile {
                    return Err(Errno::INVAL);
                }
                // Where the file stands is asked by writes.
                let stands = rustix::fs::seek(file, SeekFrom::Current(0))?;
                let to = if *hole {
                    SeekFrom::Hole(*at)
                } else {
                    SeekFrom::Data(*at)
                };
                let found = rustix::fs::seek(file, to);
                rustix::fs::seek(file, SeekFrom::Start(stands))?;
                Ok(format!("at {}", found?))
            }),
            Op::Copy { from, to, len } => self.slot(from.0).and_then(|source| {
                let (mut a, mut b) = (from.1, to.1);
                let file = self.slot(to.0)?;
                let n =
                    rustix::fs::copy_file_range(source, Some(&mut a), file, Some(&mut b), *len)?;
                Ok(format!("{n} bytes"))
            }),
            Op::Sync(slot, data) => self.slot(*slot).and_then(|file| {
                done(if *data {
                    rustix::fs::fdatasync(file)
                } else {
                    rustix::fs::fsync(file)
                })
            }),
            Op::StatSlot(slot) => self
                .slot(*slot)
                .and_then(|file| Ok(shown(&rustix::fs::fstat(file)?))),
            Op::ChmodSlot(slot, mode) => self
                .slot(*slot)
                .and_then(|file| done(rustix::fs::fchmod(file, Mode::from_raw_mode(*mode)))),
            _ => return None,
        })
    }

    fn names(&self, op: &Op) -> Option<Said> {
        Some(match op {
            Op::Mkdir(path, mode, _) => {
                done(rustix::fs::mkdir(self.at(path), Mode::from_raw_mode(*mode)))
            }
            Op::Mknod(path, kind, _) => {
                let (kind, dev) = match kind {
                    Special::Fifo => (FileType::Fifo, 0),
                    Special::Socket => (FileType::Socket, 0),
                    Special::Null => (FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
                    Special::Block => (FileType::BlockDevice, rustix::fs::makedev(7, 200)),
                    Special::Regular => (FileType::RegularFile, 0),
                };
                let mode = Mode::from_raw_mode(0o644);
                done(rustix::fs::mknodat(CWD, self.at(path), kind, mode, dev))
            }
            Op::Symlink(path, to, _) => done(rustix::fs::symlink(*to, self.at(path))),
            Op::Link(from, to, _) => done(rustix::fs::link(self.at(from), self.at(to))),
            Op::Unlink(path, _) => done(rustix::fs::unlink(self.at(path))),
            Op::Rmdir(path, _) => done(rustix::fs::rmdir(self.at(path))),
            Op::Rename(from, to, flags, _) => {
                let flags = RenameFlags::from_bits_retain(*flags);
                done(rustix::fs::renameat_with(
                    CWD,
                    self.at(from),
                    CWD,
                    self.at(to),
                    flags,
                ))
            }
            Op::List(path, _) => list(&self.at(path)),
            Op::Stat(path) => rustix::fs::lstat(self.at(path)).map(|stat| shown(&stat)),
            Op::Access(path, _) => {
                let may =
                    |what| rustix::fs::accessat(CWD, self.at(path), what, AtFlags::EACCESS).is_ok();
                use rustix::fs::Access;
                rustix::fs::accessat(CWD, self.at(path), Access::EXISTS, AtFlags::EACCESS).map(
                    |()| {
                        let all = [Access::READ_OK, Access::WRITE_OK, Access::EXEC_OK].map(may);
                        format!("{all:?}")
                    },
                )
            }
            Op::Readlink(path) => {
                rustix::fs::readlink(self.at(path), Vec::new()).map(|target| format!("{target:?}"))
            }
            _ => return None,
        })
    }

    fn attributes(&self, op: &Op) -> Said {
        match op {
            Op::Chmod(path, mode, _) => {
                done(rustix::fs::chmod(self.at(path), Mode::from_raw_mode(*mode)))
            }
            Op::Chown(path, user, group, _) => {
                let uid = user.map(rustix::fs::Uid::from_raw);
                let gid = group.map(rustix::fs::Gid::from_raw);
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                done(rustix::fs::chownat(CWD, self.at(path), uid, gid, flags))
            }
            Op::Utimens(path, access, modification, _) => {
                let times = Timestamps {
                    last_access: clock(*access),
                    last_modification: clock(*modification),
                };
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                done(rustix::fs::utimensat(CWD, self.at(path), &times, flags))
            }
            Op::Truncate(path, size, _) => {
                let size = i64::try_from(*size).expect("small");
                done(
                    nix::unistd::truncate(&self.at(path), size)
                        .map_err(|e| Errno::from_raw_os_error(e as i32)),
                )
            }
            Op::SetXattr(path, name, value, flags, _) => {
                let flags = XattrFlags::from_bits_retain(*flags);
                done(rustix::fs::lsetxattr(self.at(path), *name, value, flags))
            }
            Op::GetXattr(path, name) => {
                let mut value = [0; 512];
                let n = rustix::fs::lgetxattr(self.at(path), *name, &mut value[..])?;
                Ok(format!("{:?}", &value[..n]))
            }
            Op::RemoveXattr(path, name, _) => done(rustix::fs::lremovexattr(self.at(path), *name)),
            Op::ListXattr(path) => {
                let mut names = [0; 4096];
                let n = rustix::fs::llistxattr(self.at(path), &mut names[..])?;
                let mut names: Vec<_> = names[..n].split(|b| *b == 0).map(|n| n.to_vec()).collect();
                names.sort();
                Ok(names
                    .iter()
                    .map(|n| String::from_utf8_lossy(n) + " ")
                    .collect())
            }
            other => unreachable!("{other:?} was done before"),
        }
    }
}

/// Who asks for `op`.
pub(super) fn who(op: &Op) -> Who {
    match op {
        Op::Open { who, .. }
        | Op::Write(.., who)
        | Op::SetLen(.., who)
        | Op::Allocate(.., who)
        | Op::Mkdir(.., who)
        | Op::Mknod(.., who)
        | Op::Symlink(.., who)
        | Op::Link(.., who)
        | Op::Unlink(.., who)
        | Op::Rmdir(.., who)
        | Op::Rename(.., who)
        | Op::Chmod(.., who)
        | Op::Chown(.., who)
        | Op::Utimens(.., who)
        | Op::Truncate(.., who)
        | Op::SetXattr(.., who)
        | Op::RemoveXattr(.., who)
        | Op::List(.., who)
        | Op::Access(.., who) => *who,
        _ => Who::Root,
    }
}

/// Whose times `op` may change: what it names and the directories they are in, or open files.
pub(super) fn objects(op: &Op) -> Vec<Object> {
    let named = |path: &Path| {
        let path = path.relative();
        let above = path.parent().map(HostPath::to_path_buf).unwrap_or_default();
        [Object::At(path), Object::Above(above)]
    };
    match op {
        Op::Open { path, .. }
        | Op::Mkdir(path, ..)
        | Op::Mknod(path, ..)
        | Op::Symlink(path, ..)
        | Op::Unlink(path, ..)
        | Op::Rmdir(path, ..)
        | Op::Chmod(path, ..)
        | Op::Chown(path, ..)
        | Op::Utimens(path, ..)
        | Op::Truncate(path, ..)
        | Op::RemoveXattr(path, ..) => named(path).into(),
        Op::Link(from, to, _) | Op::Rename(from, to, ..) => [named(from), named(to)].concat(),
        Op::LinkSlot { slot, path } => {
            let mut all = named(path).to_vec();
            all.push(Object::Open(*slot));
            all
        }
        Op::Write(slot, ..)
        | Op::SetLen(slot, ..)
        | Op::Allocate(slot, ..)
        | Op::ChmodSlot(slot, ..) => vec![Object::Open(*slot)],
        Op::Copy { to, .. } => vec![Object::Open(to.0)],
        _ => Vec::new(),
    }
}

fn done(result: Result<(), Errno>) -> Said {
    result.map(|()| String::new())
}

fn flags(how: How) -> OFlags {
    let access = [OFlags::RDONLY, OFlags::WRONLY, OFlags::RDWR][usize::from(how.access)];
    // What would wait for somebody at the other end of a FIFO does not.
    let mut flags = access | OFlags::NONBLOCK | OFlags::CLOEXEC;
    for (on, flag) in [
        (how.create, OFlags::CREATE),
        (how.exclusive, OFlags::EXCL),
        (how.truncate, OFlags::TRUNC),
        (how.append, OFlags::APPEND),
        (how.directory, OFlags::DIRECTORY),
        (how.no_follow, OFlags::NOFOLLOW),
    ] {
        flags.set(flag, on);
    }
    flags
}

fn clock(clock: Clock) -> Timespec {
    let of = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    match clock {
        Clock::Omit => of(0, UTIME_OMIT),
        Clock::Now => of(0, UTIME_NOW),
        Clock::At(seconds, nanoseconds) => of(seconds, nanoseconds),
    }
}

/// What `stat` must say alike.
fn shown(stat: &Stat) -> String {
    let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let (links, size) = if is_dir {
        (0, 0)
    } else {
        (stat.st_nlink, stat.st_size)
    };
    format!(
        "mode {:o}, {links} links, of {}:{}, {size} bytes, device {}",
        stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev
    )
}

fn list(path: &HostPath) -> Said {
    let fail = |e: std::io::Error| Errno::from_io_error(&e).unwrap_or(Errno::IO);
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        names.push(format!(
            "{:?} {:?}",
            entry.file_name(),
            entry.file_type().map_err(fail)?
        ));
    }
    names.sort();
    Ok(names.join(", "))
}

/// Bytes as runs of one value.
fn runs(bytes: &[u8]) -> Vec<(u8, usize)> {
    let mut runs: Vec<(u8, usize)> = Vec::new();
    for byte in bytes {
        match runs.last_mut() {
            Some((last, n)) if last == byte => *n += 1,
            _ => runs.push((*byte, 1)),
        }
    }
    runs
}

/// A process that maps files: no safe Rust does.
pub(super) struct Mapper {
    process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Mapper {
    /// `None` where there is no python3.
    pub(super) fn start() -> Option<Self> {
        let script = repository().join("tests/suites/posix/oracle/mapping.py");
        let mut process = Command::new("python3")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let (to, from) = (process.stdin.take()?, process.stdout.take()?);
        let from = BufReader::new(from);
        Some(Self { process, to, from })
    }

    fn ask(&mut self, path: &HostPath, at: u64, len: usize, byte: u8, how: &str) -> Said {
        let hex: String = path
            .as_os_str()
            .as_bytes()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        writeln!(self.to, "{hex} {at} {len} {byte} {how}").expect("the mapper lives");
        let mut answer = String::new();
        self.from.read_line(&mut answer).expect("the mapper lives");
        let answer = answer.trim();
        match answer.strip_prefix("errno ") {
            Some(number) => Err(Errno::from_raw_os_error(number.parse().expect("a number"))),
            None => Ok(answer.to_owned()),
        }
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
