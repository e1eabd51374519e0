//! The bytes of the log file: its header page and the frame around each batch.
//!
//! `fs/docs/JOURNAL.md` is the same in prose. Everything is little-endian and laid out by
//! `repr(C)` structures of fixed-size byte-order types, so the compiler never chooses an offset.
//!
//! A frame's checksum is seeded with the checksum of the frame before it, the first one's with the
//! file's random salt. So no frame of an earlier log, and none that once stood behind another
//! frame than the one it stands behind now, is ever taken for valid.

use xxhash_rust::xxh3::xxh3_64_with_seed;
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout,
    little_endian::{U32, U64},
};

pub(super) const MAGIC: [u8; 8] = *b"PELJRNL\0";
pub(super) const VERSION: u32 = 1;
/// Incompatible feature: content that is partly in the lower tree and partly in a data file.
pub(super) const MIXED: u32 = 1;
/// Incompatible features that this program understands.
pub(super) const KNOWN_FEATURES: u32 = MIXED;
/// Where the first frame begins.
pub(super) const HEADER_LEN: u64 = 4096;
/// The [`SessionWord`].
pub(super) const SESSION_AT: u64 = 512;
/// Two places for a [`Synced`], in sectors of their own and written in turn.
pub(super) const SYNCED_AT: [u64; 2] = [1024, 1536];
pub(super) const FRAME_HEADER_LEN: usize = size_of::<FrameHeader>();
/// The longest frame, bytes: bounds the memory that a damaged length can ask for.
pub(super) const FRAME_MAX: usize = 16 << 20;

/// The part of the header page that never changes in the life of a log file.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Header {
    pub(super) magic: [u8; 8],
    pub(super) version: U32,
    /// Features without which the file cannot be read right.
    pub(super) incompatible: U32,
    /// Features that may be ignored.
    pub(super) compatible: U32,
    pub(super) header_len: U32,
    /// Counts the compactions.
    pub(super) generation: U64,
    /// Random; seeds the checksum of the first frame.
    pub(super) salt: U64,
    pub(super) lower_identity: [u8; 32],
    pub(super) lower_inode_count: U64,
    /// Sequence number of the first frame.
    pub(super) first_seq: U64,
    pub(super) reserved: [u8; 32],
    /// Over all before. In every version it is at this place and made like this.
    pub(super) checksum: U64,
}

/// Says that every frame up to `seq` was on disk when it was written.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Synced {
    pub(super) seq: U64,
    /// Over `seq`, seeded with the file's salt.
    pub(super) checksum: U64,
}

/// What stands before the records of a batch. The first word is stored last.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, PartialEq, Eq)]
#[repr(C)]
pub(super) struct FrameHeader {
    /// Bytes of the frame with this header; a multiple of 8.
    pub(super) length: U32,
    /// Records in it, at least one.
    pub(super) records: U32,
    /// One more than that of the frame before.
    pub(super) seq: U64,
    /// See [`frame_checksum`].
    pub(super) checksum: U64,
}

const _: () = assert!(size_of::<Header>() == 128 && size_of::<Header>() < SESSION_AT as usize);
const _: () = assert!(std::mem::offset_of!(Header, salt) == 32);
const _: () = assert!(std::mem::offset_of!(Header, lower_identity) == 40);
const _: () = assert!(std::mem::offset_of!(Header, checksum) == 120);
const _: () = assert!(size_of::<Synced>() == 16);
const _: () = assert!(FRAME_HEADER_LEN == 24);
const _: () = assert!(std::mem::offset_of!(FrameHeader, seq) == 8);
const _: () = assert!(std::mem::offset_of!(FrameHeader, checksum) == 16);

impl Header {
    pub(super) fn sealed(mut self) -> Self {
        self.checksum = U64::new(self.sum());
        self
    }

    pub(super) fn sum(&self) -> u64 {
        let bytes = self.as_bytes();
        xxh3_64_with_seed(bytes.get(..120).unwrap_or(bytes), 0)
    }
}

impl Synced {
    pub(super) fn new(seq: u64, salt: u64) -> Self {
        Self {
            seq: U64::new(seq),
            checksum: U64::new(xxh3_64_with_seed(&seq.to_le_bytes(), salt)),
        }
    }

    /// The sequence number, if the checksum says that it is one.
    pub(super) fn checked(&self, salt: u64) -> Option<u64> {
        (*self == Self::new(self.seq.get(), salt)).then(|| self.seq.get())
    }
}

/// Which boot of the host the last opener ran in, and whether it closed in good order: one word,
/// so that a process killed while storing it leaves the old or the new one. Bit 0 is the latter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SessionWord(pub(super) u64);

impl SessionWord {
    pub(super) fn new(boot: u64, clean: bool) -> Self {
        Self((boot & !1) | u64::from(clean))
    }

    pub(super) fn clean(self) -> bool {
        self.0 & 1 == 1
    }

    pub(super) fn same_boot(self, boot: u64) -> bool {
        self.0 & !1 == boot & !1
    }
}

/// The first page of a new log file.
pub(super) fn header_page(header: Header, session: SessionWord, synced: u64) -> Vec<u8> {
    let header = header.sealed();
    let mark = Synced::new(synced, header.salt.get());
    let mut page = vec![0; HEADER_LEN as usize];
    let mut put = |at: u64, bytes: &[u8]| {
        for (to, from) in page.iter_mut().skip(at as usize).zip(bytes) {
            *to = *from;
        }
    };
    put(0, header.as_bytes());
    put(SESSION_AT, &session.0.to_le_bytes());
    for at in SYNCED_AT {
        put(at, mark.as_bytes());
    }
    page
}

/// The checksum of a frame: over its first two words and its records, with `chain`, the checksum
/// of the frame before it, as the seed.
pub(super) fn frame_checksum(header: &FrameHeader, records: &[u8], chain: u64) -> u64 {
    let front = header.as_bytes();
    let seed = xxh3_64_with_seed(front.get(..16).unwrap_or(front), chain);
    xxh3_64_with_seed(records, seed)
}

/// Fills in the header of the frame in `frame`, whose first [`FRAME_HEADER_LEN`] bytes are kept
/// free for it. Returns the checksum, which is the chain value for the next frame.
pub(super) fn seal_frame(frame: &mut [u8], records: u32, seq: u64, chain: u64) -> u64 {
    let length = frame.len();
    let Some((front, body)) = frame.split_at_mut_checked(FRAME_HEADER_LEN) else {
        return chain;
    };
    let mut header = FrameHeader {
        length: U32::new(u32::try_from(length).unwrap_or(0)),
        records: U32::new(records),
        seq: U64::new(seq),
        checksum: U64::new(0),
    };
    let sum = frame_checksum(&header, body, chain);
    header.checksum = U64::new(sum);
    front.copy_from_slice(header.as_bytes());
    sum
}
