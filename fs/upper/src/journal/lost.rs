//! What a log says behind a place where it is damaged, as far as it can still be read.
//!
//! None of this counts for anything: the checksums cannot be checked. It is for the person who has
//! to know what a cut loses.

use std::{collections::BTreeSet, fs::File, io};

use pellicle_store::Ino;

use super::{
    examine::{frame_at, read_some},
    format::{FRAME_HEADER_LEN, FRAME_MAX},
    record,
    scan::leftover,
};
use crate::Record;

/// Names and inodes listed at most.
const LISTED_MAX: usize = 1000;
/// Read at a time.
const PIECE: usize = 1 << 20;
/// A batch that can be told from chance has a number close behind the one before.
const FAR: u64 = 1 << 20;

/// What cutting a log loses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// The last batch that stays.
    pub kept: u64,
    /// The last batch that was synced: of those that go, the ones up to this were promised to stay.
    pub synced: u64,
    /// The last batch that goes, as far as can be told.
    pub last: u64,
    /// Bytes that go.
    pub bytes: u64,
    /// Names, each in its directory, that what can be read of it speaks of. At most 1000.
    pub names: Vec<(Ino, Vec<u8>)>,
    /// Inodes that it speaks of. At most 1000.
    pub inodes: Vec<Ino>,
}

/// What is behind `offset`, where batch `kept` ends.
pub(super) fn lost_behind(file: &File, offset: u64, kept: u64, synced: u64) -> io::Result<Lost> {
    let length = file.metadata()?.len();
    // A record may end in zeros.
    let bytes = leftover(file, offset, length)?.next_multiple_of(8);
    let bytes = bytes.min(length.saturating_sub(offset));
    let mut reader = Reader {
        file,
        end: offset + bytes,
        window: Vec::new(),
        at: offset,
    };
    let mut found = Listing::default();
    let mut last = kept;
    while reader.at + (FRAME_HEADER_LEN as u64) < reader.end {
        match reader.frame(last)? {
            Some((seq, length, body)) => {
                found.note(body);
                last = seq;
                reader.at += length;
            }
            None => reader.at += 8,
        }
    }
    Ok(Lost {
        kept,
        synced,
        last: last.max(synced),
        bytes,
        names: found.names.into_iter().collect(),
        inodes: found.inodes.into_iter().map(Ino).collect(),
    })
}

struct Reader<'f> {
    file: &'f File,
    end: u64,
    /// Bytes from `at` on, some of them used up.
    window: Vec<u8>,
    at: u64,
}

impl Reader<'_> {
    /// What looks like a batch behind number `last`: its number, length and records.
    fn frame(&mut self, last: u64) -> io::Result<Option<(u64, u64, &[u8])>> {
        let head = read_some(self.file, self.at, FRAME_HEADER_LEN)?;
        let length = head
            .first_chunk::<4>()
            .map_or(0, |word| u32::from_le_bytes(*word) as usize);
        if length <= FRAME_HEADER_LEN || length > FRAME_MAX.min(PIECE) {
            return Ok(None);
        }
        self.window = read_some(self.file, self.at, length)?;
        Ok(frame_at(&self.window).and_then(|(header, body)| {
            let seq = header.seq.get();
            let near = seq > last && seq - last < FAR;
            near.then_some((seq, length as u64, body))
        }))
    }
}

#[derive(Default)]
struct Listing {
    names: BTreeSet<(Ino, Vec<u8>)>,
    inodes: BTreeSet<u64>,
}

impl Listing {
    /// Notes what the records in `body` speak of, as far as they are records.
    fn note(&mut self, mut body: &[u8]) {
        while let Ok((record, _, rest)) = record::decode(body) {
            body = rest;
            let ino = match record {
                Record::Entry { parent, name, .. } | Record::NoEntry { parent, name } => {
                    if self.names.len() < LISTED_MAX {
                        self.names.insert((parent, name.to_vec()));
                    }
                    continue;
                }
                Record::Node(node) => node.ino,
                Record::Symlink { ino, .. }
                | Record::Xattr { ino, .. }
                | Record::NoXattr { ino, .. }
                | Record::Own { ino, .. }
                | Record::Gone { ino } => ino,
            };
            if self.inodes.len() < LISTED_MAX {
                self.inodes.insert(ino.0);
            }
        }
    }
}
