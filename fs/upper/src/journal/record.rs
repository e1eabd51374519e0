//! Records as bytes, and the rules a record has to meet.
//!
//! The same rules are checked before a record is written and after it was read, so a log never
//! refuses tomorrow what it took today. Every record begins at a multiple of 8 with a [`Head`].

use pellicle_store::{Device, FileKind, Ino, Time};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout,
    little_endian::{I64, U16, U32, U64},
};

use crate::{ContentSource, Node, Record};

const NODE: u8 = 1;
const ENTRY: u8 = 2;
const NO_ENTRY: u8 = 3;
const SYMLINK: u8 = 4;
const XATTR: u8 = 5;
const NO_XATTR: u8 = 6;
const GONE: u8 = 7;
const OWN: u8 = 8;

/// On a node: its data file was filled from the lower tree and may not have been on disk yet.
const COPIED: u8 = 1;

/// Longest value of an extended attribute, as `XATTR_SIZE_MAX` of Linux has it.
const XATTR_VALUE_MAX: usize = 65_536;
/// Longest target of a symbolic link: `PATH_MAX` without its NUL.
const TARGET_MAX: usize = 4_095;
/// Longest name of an entry (`NAME_MAX`) or extended attribute (`XATTR_NAME_MAX`).
const NAME_MAX: usize = 255;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Head {
    tag: u8,
    /// Of a node: [`COPIED`] or 0. Of an entry: the kind.
    flags: u8,
    name_len: U16,
    value_len: U32,
    /// The inode, or the parent of an entry.
    ino: U64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct NodeBody {
    kind: u8,
    content: u8,
    perm: U16,
    nlink: U32,
    uid: U32,
    gid: U32,
    major: U32,
    minor: U32,
    size: U64,
    sec: [I64; 3],
    nsec: [U32; 3],
    reserved: U32,
    parent: U64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct OwnBody {
    start: U64,
    end: U64,
}

const _: () = assert!(size_of::<OwnBody>() == 16);
const _: () = assert!(size_of::<Head>() == 16 && size_of::<NodeBody>() == 80);
const _: () = assert!(std::mem::offset_of!(NodeBody, size) == 24);
const _: () = assert!(std::mem::offset_of!(NodeBody, parent) == 72);

fn kind_byte(kind: FileKind) -> u8 {
    (kind.mode_bits() >> 12) as u8
}

fn kind_of(byte: u8) -> Result<FileKind, &'static str> {
    (byte < 16)
        .then(|| FileKind::from_mode(u32::from(byte) << 12))
        .flatten()
        .ok_or("no such kind of file")
}

/// Whether `record` may be in a log; else which rule it breaks.
pub(super) fn check(record: &Record<'_>) -> Result<(), &'static str> {
    let ino = match record {
        Record::Node(node) => {
            check_node(node)?;
            node.ino
        }
        Record::Own { ino, start, end } => {
            if start >= end {
                return Err("a range of content that is empty");
            }
            *ino
        }
        Record::Entry {
            parent, name, ino, ..
        } => {
            check_entry_name(name)?;
            check_ino(*ino)?;
            *parent
        }
        Record::NoEntry { parent, name } => {
            check_entry_name(name)?;
            *parent
        }
        Record::Symlink { ino, target } => {
            if target.is_empty() || target.len() > TARGET_MAX || target.contains(&0) {
                return Err("a link target that is empty, too long or holds a NUL");
            }
            *ino
        }
        Record::Xattr { ino, name, value } => {
            check_xattr_name(name)?;
            if value.len() > XATTR_VALUE_MAX {
                return Err("an attribute value of more than 64 KiB");
            }
            *ino
        }
        Record::NoXattr { ino, name } => {
            check_xattr_name(name)?;
            *ino
        }
        Record::Gone { ino } => *ino,
    };
    check_ino(ino)
}

fn check_ino(ino: Ino) -> Result<(), &'static str> {
    if ino.0 == 0 {
        Err("inode number 0")
    } else {
        Ok(())
    }
}

fn check_node(node: &Node) -> Result<(), &'static str> {
    check_ino(node.parent)?;
    if node.perm > 0o7777 {
        return Err("permission bits above 07777");
    }
    if node.size > i64::MAX as u64 {
        return Err("a size above 2^63");
    }
    if [node.atime, node.mtime, node.ctime]
        .iter()
        .any(|t| t.nsec >= 1_000_000_000)
    {
        return Err("a time with a second or more of nanoseconds");
    }
    if node.content.has_data() && node.kind != FileKind::Regular {
        return Err("a data file of what is no regular file");
    }
    Ok(())
}

fn check_entry_name(name: &[u8]) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > NAME_MAX {
        return Err("a name that is empty or longer than 255 bytes");
    }
    if name.contains(&b'/') || name.contains(&0) || name == b"." || name == b".." {
        return Err("a name that is . or .. or holds a slash or NUL");
    }
    Ok(())
}

fn check_xattr_name(name: &[u8]) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > NAME_MAX || name.contains(&0) {
        return Err("an attribute name that is empty, longer than 255 bytes or holds a NUL");
    }
    Ok(())
}

/// Whether only a log with [`super::format::MIXED`] may have `record`.
pub(super) fn is_mixed(record: &Record<'_>) -> bool {
    match record {
        Record::Node(node) => node.content == ContentSource::Mixed,
        Record::Own { .. } => true,
        _ => false,
    }
}

/// Appends `record`, which has passed [`check`], to `out`. `copied` is only heeded for nodes.
pub(super) fn encode(record: &Record<'_>, copied: bool, out: &mut Vec<u8>) {
    match *record {
        Record::Node(node) => {
            head(
                out,
                NODE,
                if copied { COPIED } else { 0 },
                node.ino,
                &[],
                &[],
            );
            out.extend_from_slice(node_body(&node).as_bytes());
        }
        Record::Own { ino, start, end } => {
            head(out, OWN, 0, ino, &[], &[]);
            let body = OwnBody {
                start: U64::new(start),
                end: U64::new(end),
            };
            out.extend_from_slice(body.as_bytes());
        }
        Record::Entry {
            parent,
            name,
            ino,
            kind,
        } => {
            head(out, ENTRY, kind_byte(kind), parent, name, &[]);
            out.extend_from_slice(&ino.0.to_le_bytes());
            padded(out, &[name]);
        }
        Record::NoEntry { parent, name } => {
            head(out, NO_ENTRY, 0, parent, name, &[]);
            padded(out, &[name]);
        }
        Record::Symlink { ino, target } => {
            head(out, SYMLINK, 0, ino, &[], target);
            padded(out, &[target]);
        }
        Record::Xattr { ino, name, value } => {
            head(out, XATTR, 0, ino, name, value);
            padded(out, &[name, value]);
        }
        Record::NoXattr { ino, name } => {
            head(out, NO_XATTR, 0, ino, name, &[]);
            padded(out, &[name]);
        }
        Record::Gone { ino } => head(out, GONE, 0, ino, &[], &[]),
    }
}

fn head(out: &mut Vec<u8>, tag: u8, flags: u8, ino: Ino, name: &[u8], value: &[u8]) {
    let head = Head {
        tag,
        flags,
        // `check` bounds both far below the type's.
        name_len: U16::new(name.len() as u16),
        value_len: U32::new(value.len() as u32),
        ino: U64::new(ino.0),
    };
    out.extend_from_slice(head.as_bytes());
}

fn padded(out: &mut Vec<u8>, parts: &[&[u8]]) {
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out.resize(out.len().next_multiple_of(8), 0);
}

fn node_body(node: &Node) -> NodeBody {
    let times = [node.atime, node.mtime, node.ctime];
    NodeBody {
        kind: kind_byte(node.kind),
        content: match node.content {
            ContentSource::Lower => 0,
            ContentSource::Data => 1,
            ContentSource::Zero => 2,
            ContentSource::Mixed => 3,
        },
        perm: U16::new(node.perm),
        nlink: U32::new(node.nlink),
        uid: U32::new(node.uid),
        gid: U32::new(node.gid),
        major: U32::new(node.rdev.major),
        minor: U32::new(node.rdev.minor),
        size: U64::new(node.size),
        sec: times.map(|t| I64::new(t.sec)),
        nsec: times.map(|t| U32::new(t.nsec)),
        reserved: U32::new(0),
        parent: U64::new(node.parent.0),
    }
}

/// Reads the record at the start of `bytes`; returns it, whether it carries the copied flag, and
/// what follows.
pub(super) fn decode(bytes: &[u8]) -> Result<(Record<'_>, bool, &[u8]), &'static str> {
    const SHORT: &str = "a record that reaches out of its batch";
    let (head, rest) = Head::ref_from_prefix(bytes).map_err(|_| SHORT)?;
    let ino = Ino(head.ino.get());
    let name_len = usize::from(head.name_len.get());
    let value_len = head.value_len.get() as usize;
    let (fixed, rest) = match head.tag {
        NODE => rest.split_at_checked(size_of::<NodeBody>()),
        OWN => rest.split_at_checked(size_of::<OwnBody>()),
        ENTRY => rest.split_at_checked(8),
        _ => Some((&[] as &[u8], rest)),
    }
    .ok_or(SHORT)?;
    let (tail, after) = name_len
        .checked_add(value_len)
        .and_then(|n| n.checked_next_multiple_of(8))
        .and_then(|n| rest.split_at_checked(n))
        .ok_or(SHORT)?;
    let (name, tail) = tail.split_at_checked(name_len).ok_or(SHORT)?;
    let (value, padding) = tail.split_at_checked(value_len).ok_or(SHORT)?;
    if padding.iter().any(|b| *b != 0) {
        return Err("padding that is not zero");
    }
    let takes = match head.tag {
        ENTRY | NO_ENTRY | NO_XATTR => value.is_empty(),
        SYMLINK => name.is_empty(),
        NODE | OWN | GONE => name.is_empty() && value.is_empty(),
        _ => true,
    };
    if !takes {
        return Err("a record with parts that it does not take");
    }
    if head.flags != 0 && head.tag != ENTRY && (head.tag != NODE || head.flags != COPIED) {
        return Err("an unknown record flag");
    }
    let record = match head.tag {
        NODE => Record::Node(node(ino, fixed)?),
        OWN => {
            let body = OwnBody::ref_from_bytes(fixed).map_err(|_| SHORT)?;
            Record::Own {
                ino,
                start: body.start.get(),
                end: body.end.get(),
            }
        }
        ENTRY => Record::Entry {
            parent: ino,
            name,
            ino: Ino(U64::ref_from_bytes(fixed).map_err(|_| SHORT)?.get()),
            kind: kind_of(head.flags)?,
        },
        NO_ENTRY => Record::NoEntry { parent: ino, name },
        SYMLINK => Record::Symlink { ino, target: value },
        XATTR => Record::Xattr { ino, name, value },
        NO_XATTR => Record::NoXattr { ino, name },
        GONE => Record::Gone { ino },
        _ => return Err("an unknown kind of record"),
    };
    check(&record)?;
    Ok((record, head.tag == NODE && head.flags == COPIED, after))
}

fn node(ino: Ino, body: &[u8]) -> Result<Node, &'static str> {
    let body = NodeBody::ref_from_bytes(body).map_err(|_| "a node of the wrong length")?;
    let [atime, mtime, ctime] = [0, 1, 2].map(|i| Time {
        sec: body.sec.get(i).map_or(0, |s| s.get()),
        nsec: body.nsec.get(i).map_or(0, |n| n.get()),
    });
    if body.reserved.get() != 0 {
        return Err("a reserved field that is not zero");
    }
    Ok(Node {
        ino,
        kind: kind_of(body.kind)?,
        perm: body.perm.get(),
        nlink: body.nlink.get(),
        uid: body.uid.get(),
        gid: body.gid.get(),
        rdev: Device {
            major: body.major.get(),
            minor: body.minor.get(),
        },
        size: body.size.get(),
        content: match body.content {
            0 => ContentSource::Lower,
            1 => ContentSource::Data,
            2 => ContentSource::Zero,
            3 => ContentSource::Mixed,
            _ => return Err("an unknown place of content"),
        },
        atime,
        mtime,
        ctime,
        parent: Ino(body.parent.get()),
    })
}
