//! Journals, format version 1: `fs/docs/JOURNAL.md`.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

const HEADER: usize = 4096;
const FRAME: usize = 24;
const FRAME_MAX: usize = 16 << 20;
const SALT: u64 = 0x5a17_5a17_5a17_5a17;

/// The identity of the lower tree that forged logs are of.
pub const IDENTITY: [u8; 32] = [7; 32];

/// What the header of a forged log says.
#[derive(Clone, Copy, Debug)]
pub struct Disguise {
    /// Inodes of the lower tree.
    pub inodes: u64,
    /// Number of the last batch that was synced.
    pub synced: u64,
    /// Written in this boot of the host; else in another.
    pub same_boot: bool,
    /// Closed in good order.
    pub clean: bool,
}

/// A log of `short`, which is its frames: lengths that cannot be are put right, and sequence numbers
/// and checksums always are.
#[must_use]
pub fn forge_log(disguise: Disguise, short: &[u8]) -> Vec<u8> {
    let mut log = header(disguise);
    let mut rest = short;
    let (mut seq, mut chain) = (1u64, SALT);
    while rest.len() > FRAME {
        let said = u32::from_le_bytes(rest[..4].try_into().unwrap_or_default()) as usize;
        let most = (rest.len() & !7).min(FRAME_MAX);
        let length = if said > FRAME && said <= most && said.is_multiple_of(8) {
            said
        } else {
            most
        };
        if length <= FRAME {
            break;
        }
        let (frame, after) = rest.split_at(length);
        rest = after;
        let mut front = [0; FRAME];
        front[..4].copy_from_slice(&(length as u32).to_le_bytes());
        front[4..8].copy_from_slice(&frame[4..8]);
        front[8..16].copy_from_slice(&seq.to_le_bytes());
        let seed = xxh3_64_with_seed(&front[..16], chain);
        chain = xxh3_64_with_seed(&frame[FRAME..], seed);
        front[16..].copy_from_slice(&chain.to_le_bytes());
        log.extend_from_slice(&front);
        log.extend_from_slice(&frame[FRAME..]);
        seq += 1;
    }
    log
}

/// The short form of the log `file`.
#[must_use]
pub fn shorten_log(file: &[u8]) -> Vec<u8> {
    let frames = file.get(HEADER..).unwrap_or_default();
    let mut end = 0;
    while let Some(word) = frames.get(end..end + 4) {
        match u32::from_le_bytes(word.try_into().unwrap_or_default()) {
            0 => break,
            length => end += length as usize,
        }
    }
    frames.get(..end).unwrap_or(frames).to_vec()
}

fn header(disguise: Disguise) -> Vec<u8> {
    let mut page = vec![0; HEADER];
    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"PELJRNL\0");
    put(8, &1u32.to_le_bytes());
    put(20, &(HEADER as u32).to_le_bytes());
    put(24, &1u64.to_le_bytes());
    put(32, &SALT.to_le_bytes());
    put(40, &IDENTITY);
    put(72, &disguise.inodes.to_le_bytes());
    put(80, &1u64.to_le_bytes());
    let boot = match disguise.same_boot {
        true => std::fs::read("/proc/sys/kernel/random/boot_id")
            .map_or(0, |id| xxh3_64(id.trim_ascii())),
        false => 0xdead_beef_0000_0000,
    };
    put(
        512,
        &((boot & !1) | u64::from(disguise.clean)).to_le_bytes(),
    );
    let mark = disguise.synced.to_le_bytes();
    for at in [1024, 1536] {
        put(at, &mark);
        put(at + 8, &xxh3_64_with_seed(&mark, SALT).to_le_bytes());
    }
    let sum = xxh3_64(&page[..120]);
    page[120..128].copy_from_slice(&sum.to_le_bytes());
    page
}
