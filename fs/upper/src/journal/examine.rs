//! Looking for damage in an upper, and what could be done about it: reading only, without a lock.
//!
//! A log is read as opening reads it. Where that finds damage, it is tried whether turning a single
//! bit makes the checksum right, which a random change of more than a bit has no chance to pass for.
//! Then nothing is lost. Else all that helps is to cut the log before the damage, since what follows
//! was said of a state that is not known; what that would lose is told.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use pellicle_store::Ino;
use rustix::fs::OFlags;
use xxhash_rust::xxh3::xxh3_64_with_seed;
use zerocopy::{
    FromBytes, IntoBytes,
    little_endian::{U32, U64},
};

use super::{
    DATA, JournalLower, LOG,
    data::{DataFiles, file_name},
    format::{
        FRAME_HEADER_LEN, FrameHeader, HEADER_LEN, Header, MAGIC, MIXED, SYNCED_AT, Synced,
        VERSION, frame_checksum,
    },
    io_error,
    lost::{Lost, lost_behind},
    open::boot,
    open_dir,
    recover::{self, Replayed},
    scan::{Front, Scan, Step, read_front, read_front_over_any},
};
use crate::{UpperError, host::open_at};

/// Batches up to this many bytes are tried bit by bit: a second or so.
const BITS_MAX: usize = 32 << 10;

/// What [`examine`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Examined {
    /// Batches that count.
    pub batches: u64,
    /// Bytes of an unfinished tail, which the next opening sets aside. No damage: none of it was
    /// synced.
    pub torn_bytes: u64,
    /// What is damaged in the log, if anything.
    pub damage: Option<LogDamage>,
    /// Inodes whose content was in a data file that is not there.
    pub missing: Vec<Ino>,
}

/// Damage of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDamage {
    /// The log.
    pub path: PathBuf,
    /// Where it is damaged.
    pub offset: u64,
    /// How.
    pub detail: String,
    /// What can be done.
    pub remedy: Remedy,
}

/// What can be done about a damaged log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// A single bit is turned: the one with this mask in the byte at that offset. Turned back,
    /// nothing is lost.
    TurnBit {
        /// Which byte.
        offset: u64,
        /// Which bit of it.
        mask: u8,
    },
    /// The header page is made again of what else is known. Nothing is lost that can be told, but
    /// nobody knows any more up to where the log had been synced.
    NewHeader(Vec<u8>),
    /// The log is cut there, and what follows is lost.
    Cut(Lost),
    /// None.
    Nothing,
}

/// What came of reading a log.
pub(super) enum Diagnosis {
    Sound(Box<Replayed>),
    Damaged(Box<LogDamage>),
}

/// Looks for damage in the upper in directory `dir`, over `lower` if that is known. Changes nothing.
/// Of an upper that is in use it is a look at this instant.
///
/// # Errors
/// [`UpperError::OtherLower`], [`UpperError::Version`], and the host's errors. Damage is no error.
pub fn examine(dir: &Path, lower: Option<&JournalLower>) -> Result<Examined, UpperError> {
    let opened = open_dir(dir).map_err(io_error("open", dir))?;
    let path = dir.join(LOG);
    let file = open_at(&opened, LOG, OFlags::RDONLY).map_err(io_error("open", &path))?;
    let found = match diagnose(&file, &path, lower)? {
        Diagnosis::Sound(found) => found,
        Diagnosis::Damaged(damage) => {
            return Ok(Examined {
                damage: Some(*damage),
                ..Examined::default()
            });
        }
    };
    let files = data_files(&opened, dir)?;
    let mut missing: Vec<Ino> = Vec::new();
    for (ino, seq) in &found.data {
        // Of what was not synced, a crash of the host may have left no file: it counts as empty.
        let excused = found.recovery.host_crashed && *seq > found.end.durable;
        if !excused && !is_file(files.dir(), *ino) {
            missing.push(Ino(*ino));
        }
    }
    missing.sort_unstable();
    Ok(Examined {
        batches: found.recovery.batches,
        torn_bytes: found.recovery.torn_bytes,
        damage: None,
        missing,
    })
}

pub(super) fn data_files(dir: &File, path: &Path) -> Result<DataFiles, UpperError> {
    let path = path.join(DATA);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let data = open_at(dir, DATA, flags).map_err(io_error("open", &path))?;
    Ok(DataFiles::new(data, path, true))
}

fn is_file(dir: &File, ino: u64) -> bool {
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::statat(dir, file_name(ino), flags)
        .is_ok_and(|s| rustix::fs::FileType::from_raw_mode(s.st_mode).is_file())
}

/// Reads the log in `file`, which messages call `path`.
pub(super) fn diagnose(
    file: &File,
    path: &Path,
    lower: Option<&JournalLower>,
) -> Result<Diagnosis, UpperError> {
    let damaged = |offset, detail, remedy| {
        Ok(Diagnosis::Damaged(Box::new(LogDamage {
            path: path.to_owned(),
            offset,
            detail,
            remedy,
        })))
    };
    let front = match lower {
        Some(lower) => read_front(file, path, lower),
        None => read_front_over_any(file, path),
    };
    let front = match front {
        Ok(front) => front,
        Err(UpperError::Corrupt { offset, detail, .. }) => {
            let remedy = header_remedy(file, lower).map_err(io_error("read", path))?;
            return damaged(offset, detail, remedy);
        }
        Err(error) => return Err(error),
    };
    match recover::replay(file, path, &front, boot(), &mut |_| ()) {
        Ok(found) => Ok(Diagnosis::Sound(Box::new(found))),
        Err(UpperError::Corrupt { offset, detail, .. }) => {
            let remedy = frame_remedy(file, &front, offset).map_err(io_error("read", path))?;
            damaged(offset, detail, remedy)
        }
        Err(error) => Err(error),
    }
}

fn frame_remedy(file: &File, front: &Front, offset: u64) -> io::Result<Remedy> {
    let mut scan = Scan::new(file, &front.header)?;
    while scan.at < offset {
        if !matches!(scan.next()?, Step::Frame { .. }) {
            break;
        }
    }
    let (chain, seq) = (scan.chain, scan.seq);
    let mut bytes = read_some(file, offset, BITS_MAX)?;
    if let Some(bit) = turned_bit(&mut bytes, chain, seq + 1) {
        return Ok(turn(offset, bit));
    }
    Ok(Remedy::Cut(lost_behind(file, offset, seq, front.synced)?))
}

fn turn(offset: u64, bit: usize) -> Remedy {
    Remedy::TurnBit {
        offset: offset + bit as u64 / 8,
        mask: 1 << (bit % 8),
    }
}

/// Up to `most` bytes from `at` on.
pub(super) fn read_some(file: &File, at: u64, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; most];
    let mut got = 0;
    while let Some(rest) = bytes.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + got as u64) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    bytes.truncate(got);
    Ok(bytes)
}

/// The first bit of `bits` bits of `bytes` that, turned, makes `is_right` say yes.
fn find_bit(
    bytes: &mut [u8],
    bits: std::ops::Range<usize>,
    mut is_right: impl FnMut(&[u8]) -> bool,
) -> Option<usize> {
    bits.into_iter().find(|bit| {
        let turn = |bytes: &mut [u8]| {
            if let Some(byte) = bytes.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
        };
        turn(bytes);
        let right = is_right(bytes);
        turn(bytes);
        right
    })
}

/// The bit of the frame at the start of `bytes` that, turned, makes it batch `seq` behind `chain`.
fn turned_bit(bytes: &mut [u8], chain: u64, seq: u64) -> Option<usize> {
    let front = find_bit(bytes, 0..FRAME_HEADER_LEN * 8, |bytes| {
        frame_at(bytes).is_some_and(|(header, body)| {
            header.seq.get() == seq && frame_checksum(&header, body, chain) == header.checksum.get()
        })
    });
    if front.is_some() {
        return front;
    }
    let (header, body) = frame_at(bytes)?;
    let length = body.len();
    // As `frame_checksum`, whose first half is the same for all.
    let seed = xxh3_64_with_seed(header.as_bytes().get(..16)?, chain);
    let sum = header.checksum.get();
    let body = bytes.get_mut(FRAME_HEADER_LEN..FRAME_HEADER_LEN + length)?;
    find_bit(body, 0..length * 8, |body| {
        xxh3_64_with_seed(body, seed) == sum
    })
    .map(|bit| FRAME_HEADER_LEN * 8 + bit)
}

/// The frame at the start of `bytes`, if that can be one and all of it is there.
pub(super) fn frame_at(bytes: &[u8]) -> Option<(FrameHeader, &[u8])> {
    let (header, _) = FrameHeader::read_from_prefix(bytes).ok()?;
    let length = header.length.get() as usize;
    let possible = length > FRAME_HEADER_LEN && length.is_multiple_of(8);
    let body = bytes.get(FRAME_HEADER_LEN..length)?;
    possible.then_some((header, body))
}

fn header_remedy(file: &File, lower: Option<&JournalLower>) -> io::Result<Remedy> {
    let mut page = read_some(file, 0, HEADER_LEN as usize)?;
    if page.len() < HEADER_LEN as usize || page.iter().all(|b| *b == 0) {
        return Ok(Remedy::Nothing);
    }
    let sealed = |page: &[u8]| {
        Header::read_from_prefix(page)
            .ok()
            .map(|(header, _)| header)
            .filter(|h| h.magic == MAGIC && h.checksum.get() == h.sum())
    };
    if let Some(header) = sealed(&page) {
        return mark_remedy(file, &mut page, &header);
    }
    if let Some(bit) = find_bit(&mut page, 0..size_of::<Header>() * 8, |page| {
        sealed(page).is_some()
    }) {
        return Ok(turn(0, bit));
    }
    Ok(lower
        .and_then(|lower| guess_header(&page, lower))
        .map_or(Remedy::Nothing, |header| {
            put(&mut page, 0, header.sealed().as_bytes());
            Remedy::NewHeader(page)
        }))
}

fn put(page: &mut [u8], at: u64, bytes: &[u8]) {
    for (to, from) in page.iter_mut().skip(at as usize).zip(bytes) {
        *to = *from;
    }
}

fn mark_at(page: &[u8], at: u64) -> Option<Synced> {
    let (mark, _) = Synced::read_from_prefix(page.get(at as usize..)?).ok()?;
    Some(mark)
}

/// The header is right, but both marks of the last sync are not.
fn mark_remedy(file: &File, page: &mut Vec<u8>, header: &Header) -> io::Result<Remedy> {
    let salt = header.salt.get();
    for at in SYNCED_AT {
        let bits = at as usize * 8..(at as usize + size_of::<Synced>()) * 8;
        let right = |page: &[u8]| mark_at(page, at).is_some_and(|m| m.checked(salt).is_some());
        if right(page) {
            // Then it is something else that is wrong.
            return Ok(Remedy::Nothing);
        }
        if let Some(bit) = find_bit(page, bits, right) {
            return Ok(turn(0, bit));
        }
    }
    let mut scan = Scan::new(file, header)?;
    while matches!(scan.next()?, Step::Frame { .. }) {}
    let mark = Synced::new(scan.seq, salt);
    for at in SYNCED_AT {
        put(page, at, mark.as_bytes());
    }
    Ok(Remedy::NewHeader(std::mem::take(page)))
}

/// The header as it must have been, if the part of it that nobody else knows, the salt, is still
/// right, which a mark proves.
fn guess_header(page: &[u8], lower: &JournalLower) -> Option<Header> {
    let (read, _) = Header::read_from_prefix(page).ok()?;
    let salt = read.salt.get();
    SYNCED_AT
        .iter()
        .find_map(|at| mark_at(page, *at)?.checked(salt))?;
    Some(Header {
        magic: MAGIC,
        version: U32::new(VERSION),
        incompatible: U32::new(MIXED),
        compatible: U32::new(0),
        header_len: U32::new(HEADER_LEN as u32),
        generation: U64::new(read.generation.get().max(1)),
        salt: read.salt,
        lower_identity: lower.identity,
        lower_inode_count: U64::new(lower.inode_count),
        first_seq: U64::new(read.first_seq.get().max(1)),
        reserved: [0; 32],
        checksum: U64::new(0),
    })
}
