//! The operations of the random run, and the few values they choose from.

/// One operation; small numbers choose among what there is.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Make {
        dir: u8,
        name: u8,
        kind: u8,
        perm: u8,
    },
    Link {
        node: u8,
        dir: u8,
        name: u8,
    },
    Unlink {
        dir: u8,
        name: u8,
    },
    Rmdir {
        dir: u8,
        name: u8,
    },
    Rename {
        from: u8,
        a: u8,
        to: u8,
        b: u8,
        flags: u8,
    },
    Write {
        node: u8,
        offset: u8,
        len: u8,
        byte: u8,
        kill: bool,
    },
    Truncate {
        node: u8,
        size: u8,
    },
    Allocate {
        node: u8,
        mode: u8,
        offset: u8,
        len: u8,
    },
    Copy {
        from: u8,
        at: u8,
        to: u8,
        to_at: u8,
        len: u8,
    },
    Chmod {
        node: u8,
        perm: u8,
    },
    Chown {
        node: u8,
        who: u8,
    },
    Utimens {
        node: u8,
        time: u8,
    },
    SetXattr {
        node: u8,
        name: u8,
        value: u8,
        flag: u8,
    },
    RemoveXattr {
        node: u8,
        name: u8,
    },
    Hold {
        node: u8,
    },
    Release {
        node: u8,
    },
    ListBegin {
        dir: u8,
    },
    ListMore {
        n: u8,
    },
    Remount {
        compact: bool,
    },
    /// The host has room for `after` more calls while `op` runs.
    Full {
        after: u8,
        op: Box<Op>,
    },
}

pub(crate) const NAMES: [&[u8]; 4] = [b"a", b"b", b"c", b"\xff\n"];
pub(crate) const XATTRS: [&[u8]; 3] = [b"user.x", b"user.y", b"security.capability"];
pub(crate) const PERMS: [u16; 6] = [0o644, 0o4755, 0o2755, 0o2745, 0o1777, 0o2775];
pub(crate) const OFFSETS: [usize; 5] = [0, 3, 100, 4096, 9000];
pub(crate) const LENGTHS: [usize; 4] = [0, 1, 7, 5000];
pub(crate) const MODES: [i32; 6] = [
    0,
    libc::FALLOC_FL_KEEP_SIZE,
    libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
    libc::FALLOC_FL_ZERO_RANGE,
    libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE,
    libc::FALLOC_FL_COLLAPSE_RANGE,
];
