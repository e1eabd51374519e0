//! The operations, and how they are chosen: few names and numbers, so that they meet.

use std::path::PathBuf;

use proptest::{collection::vec, prelude::*};

/// How many files are open at most.
pub(super) const SLOTS: usize = 3;

/// What a file system can be asked for. A path is relative to the mount, a slot is a file that
/// [`Op::Open`] left open.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Open {
        slot: usize,
        path: Path,
        how: How,
        who: Who,
    },
    Tmpfile {
        slot: usize,
        dir: Path,
    },
    LinkSlot {
        slot: usize,
        path: Path,
    },
    Close(usize),
    Read(usize, u64, usize),
    /// `None`: where the file stands, or at its end if opened so.
    Write(usize, Option<u64>, usize, u8, Who),
    SetLen(usize, u64, Who),
    Allocate(usize, u8, u64, u64, Who),
    Seek(usize, u64, bool),
    Copy {
        from: (usize, u64),
        to: (usize, u64),
        len: usize,
    },
    Sync(usize, bool),
    StatSlot(usize),
    ChmodSlot(usize, u32),
    Mkdir(Path, u32, Who),
    Mknod(Path, Special, Who),
    Symlink(Path, &'static str, Who),
    Link(Path, Path, Who),
    Unlink(Path, Who),
    Rmdir(Path, Who),
    Rename(Path, Path, u32, Who),
    Chmod(Path, u32, Who),
    Chown(Path, Option<u32>, Option<u32>, Who),
    Utimens(Path, Clock, Clock, Who),
    Truncate(Path, u64, Who),
    SetXattr(Path, &'static str, &'static [u8], u32, Who),
    GetXattr(Path, &'static str),
    RemoveXattr(Path, &'static str, Who),
    ListXattr(Path),
    List(Path, Who),
    Stat(Path),
    Access(Path, Who),
    Readlink(Path),
    Map(Path, u64, usize, u8, &'static str),
    Remount,
}

/// A path of one to four names.
#[derive(Clone)]
pub(super) struct Path(Vec<&'static str>);

impl std::fmt::Debug for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0.join("/"))
    }
}

impl Path {
    pub(super) fn relative(&self) -> PathBuf {
        self.0.iter().collect()
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Root,
    /// Nobody in particular, in root's group still.
    User,
}

/// Flags of open(2).
#[derive(Clone, Copy, Debug)]
pub(super) struct How {
    pub(super) access: u8,
    pub(super) create: bool,
    pub(super) exclusive: bool,
    pub(super) truncate: bool,
    pub(super) append: bool,
    pub(super) directory: bool,
    pub(super) no_follow: bool,
    pub(super) mode: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Special {
    Fifo,
    Socket,
    Null,
    Block,
    Regular,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Clock {
    Omit,
    Now,
    At(i64, i64),
}

/// Access lists as the kernel takes them: version 2, then tag, permissions and id of each entry.
/// The first says no more than a mode, the second lets a user in, the third is cut off.
const ACLS: [&[u8]; 3] = [
    b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x04\0\x04\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff",
    b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x02\0\x06\0\x39\x30\0\0\x04\0\x05\0\xff\xff\xff\xff\x10\0\x07\0\xff\xff\xff\xff\x20\0\x01\0\xff\xff\xff\xff",
    b"\x02\0\0\0\x01\0",
];
const XATTRS: [&str; 6] = [
    "user.x",
    "user.y",
    "trusted.t",
    "security.s",
    "system.posix_acl_access",
    "system.posix_acl_default",
];
const VALUES: [&[u8]; 3] = [b"", b"short", &[b'v'; 300]];

fn path() -> impl Strategy<Value = Path> {
    let name = || prop::sample::select(&["a", "b", "c", "d", "e"][..]);
    prop_oneof![
        3 => vec(name(), 1..=1),
        4 => vec(name(), 2..=2),
        3 => vec(name(), 3..=3),
        1 => vec(name(), 4..=4),
        1 => (vec(name(), 1..=2), prop::sample::select(&["..", "."][..]), name())
            .prop_map(|(mut names, dots, last)| { names.push(dots); names.push(last); names }),
    ]
    .prop_map(Path)
}

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![5 => Just(Who::Root), 1 => Just(Who::User)]
}

fn how() -> impl Strategy<Value = How> {
    let often = || prop::bool::weighted(0.4);
    let seldom = || prop::bool::weighted(0.1);
    let mode = prop::sample::select(&[0o644_u32, 0o600, 0o666, 0o755, 0o6755][..]);
    let flags = (often(), seldom(), seldom(), seldom(), seldom(), seldom());
    (0..3_u8, flags, mode).prop_map(|(access, flags, mode)| How {
        access,
        create: flags.0,
        exclusive: flags.1,
        truncate: flags.2,
        append: flags.3,
        directory: flags.4,
        no_follow: flags.5,
        mode,
    })
}

fn offset() -> impl Strategy<Value = u64> {
    prop::sample::select(&[0_u64, 1, 100, 4_095, 4_096, 5_000, 10_000, 70_000][..])
}

fn length() -> impl Strategy<Value = usize> {
    prop::sample::select(&[0_usize, 1, 100, 4_096, 9_000][..])
}

fn mode() -> impl Strategy<Value = u32> {
    let modes = &[
        0o644_u32, 0o600, 0o755, 0o700, 0o1777, 0o2775, 0o4755, 0o6711, 0o2640, 0,
    ][..];
    prop::sample::select(modes)
}

fn clock() -> impl Strategy<Value = Clock> {
    prop_oneof![
        Just(Clock::Omit),
        Just(Clock::Now),
        (0..4_i64, 0..1_000_000_000_i64)
            .prop_map(|(n, nanoseconds)| Clock::At(n * 100_000_000 - 1, nanoseconds)),
    ]
}

fn xattr() -> impl Strategy<Value = (&'static str, &'static [u8])> {
    (prop::sample::select(&XATTRS[..]), 0..3_usize).prop_map(|(name, n)| {
        let values = if name.starts_with("system.") {
            &ACLS
        } else {
            &VALUES
        };
        (name, values[n])
    })
}

fn id() -> impl Strategy<Value = Option<u32>> {
    prop::sample::select(&[None, Some(0), Some(12_345), Some(7)][..])
}

/// One operation.
pub(super) fn any_op() -> impl Strategy<Value = Op> {
    let slot = || 0..SLOTS;
    let content = prop_oneof![
        12 => (slot(), path(), how(), who())
            .prop_map(|(slot, path, how, who)| Op::Open { slot, path, how, who }),
        2 => (slot(), path()).prop_map(|(slot, dir)| Op::Tmpfile { slot, dir }),
        2 => (slot(), path()).prop_map(|(slot, path)| Op::LinkSlot { slot, path }),
        2 => slot().prop_map(Op::Close),
        6 => (slot(), offset(), length()).prop_map(|(s, at, n)| Op::Read(s, at, n)),
        8 => (slot(), prop::option::of(offset()), length(), 1..9_u8, who())
            .prop_map(|(s, at, n, byte, who)| Op::Write(s, at, n, byte, who)),
        3 => (slot(), offset(), who()).prop_map(|(s, n, who)| Op::SetLen(s, n, who)),
        3 => (slot(), 0..6_u8, offset(), length(), who())
            .prop_map(|(s, mode, at, n, who)| Op::Allocate(s, mode, at, n as u64, who)),
        3 => (slot(), offset(), any::<bool>()).prop_map(|(s, at, hole)| Op::Seek(s, at, hole)),
        3 => (slot(), offset(), slot(), offset(), length())
            .prop_map(|(a, from, b, to, len)| Op::Copy { from: (a, from), to: (b, to), len }),
        1 => (slot(), any::<bool>()).prop_map(|(s, data)| Op::Sync(s, data)),
        4 => slot().prop_map(Op::StatSlot),
        1 => (slot(), mode()).prop_map(|(s, mode)| Op::ChmodSlot(s, mode)),
        3 => (path(), offset(), length(), 1..9_u8, prop::sample::select(&["shared", "private", "reader"][..]))
            .prop_map(|(path, at, n, byte, how)| Op::Map(path, at, n, byte, how)),
        3 => (path(), offset(), who()).prop_map(|(p, n, who)| Op::Truncate(p, n, who)),
    ];
    let specials = [
        Special::Fifo,
        Special::Socket,
        Special::Null,
        Special::Block,
        Special::Regular,
    ];
    let special = prop::sample::select(specials.to_vec());
    let target = prop::sample::select(&["a", "../c", "a/b/c", "nowhere", "."][..]);
    let names = prop_oneof![
        5 => (path(), mode(), who()).prop_map(|(p, mode, who)| Op::Mkdir(p, mode, who)),
        3 => (path(), special, who()).prop_map(|(p, kind, who)| Op::Mknod(p, kind, who)),
        3 => (path(), target, who()).prop_map(|(p, to, who)| Op::Symlink(p, to, who)),
        5 => (path(), path(), who()).prop_map(|(a, b, who)| Op::Link(a, b, who)),
        6 => (path(), who()).prop_map(|(p, who)| Op::Unlink(p, who)),
        5 => (path(), who()).prop_map(|(p, who)| Op::Rmdir(p, who)),
        14 => (path(), path(), prop::sample::select(&[0_u32, 0, 0, 1, 2, 2, 3, 4][..]), who())
            .prop_map(|(a, b, flags, who)| Op::Rename(a, b, flags, who)),
        4 => (path(), who()).prop_map(|(p, who)| Op::List(p, who)),
        1 => Just(Op::Remount),
    ];
    let attributes = prop_oneof![
        5 => (path(), mode(), who()).prop_map(|(p, mode, who)| Op::Chmod(p, mode, who)),
        4 => (path(), id(), id(), who()).prop_map(|(p, u, g, who)| Op::Chown(p, u, g, who)),
        4 => (path(), clock(), clock(), who()).prop_map(|(p, a, m, who)| Op::Utimens(p, a, m, who)),
        6 => (path(), xattr(), 0..3_u32, who())
            .prop_map(|(p, (name, value), flags, who)| Op::SetXattr(p, name, value, flags, who)),
        2 => (path(), prop::sample::select(&XATTRS[..])).prop_map(|(p, n)| Op::GetXattr(p, n)),
        2 => (path(), prop::sample::select(&XATTRS[..]), who())
            .prop_map(|(p, n, who)| Op::RemoveXattr(p, n, who)),
        2 => path().prop_map(Op::ListXattr),
        4 => path().prop_map(Op::Stat),
        2 => (path(), who()).prop_map(|(p, who)| Op::Access(p, who)),
        2 => path().prop_map(Op::Readlink),
    ];
    prop_oneof![10 => content, 9 => names, 6 => attributes]
}
