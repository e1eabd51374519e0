//! Tree files, format version 1: `fs/docs/FORMAT.md`.

use xxhash_rust::xxh3::xxh3_64;

const HEADER: usize = 4096;
/// What of the header means something.
const FRONT: usize = 320;
const BLOCK: usize = 1 << 16;

/// A tree file of `short`: the front of its header, then its body. Lengths, places and checksums are
/// put right; what the header says of its sections is left as it is.
#[must_use]
pub fn forge_tree(short: &[u8]) -> Vec<u8> {
    let (front, body) = short.split_at(short.len().min(FRONT));
    let mut file = front.to_vec();
    file.resize(HEADER, 0);
    file.extend_from_slice(body);
    let sums: Vec<u8> = body
        .chunks(BLOCK)
        .flat_map(|block| xxh3_64(block).to_le_bytes())
        .collect();
    let (body, sums_len) = (body.len() as u64, sums.len() as u64);
    let all = HEADER as u64 + body + sums_len;
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"PLCLTREE");
    put(8, &1u32.to_le_bytes());
    put(12, &(HEADER as u32).to_le_bytes());
    put(16, &[0; 8]);
    put(36, &12u32.to_le_bytes());
    put(72, &all.to_le_bytes());
    put(80, &(HEADER as u64).to_le_bytes());
    put(88, &body.to_le_bytes());
    put(96, &(HEADER as u64 + body).to_le_bytes());
    put(104, &sums_len.to_le_bytes());
    put(112, &xxh3_64(&sums).to_le_bytes());
    put(120, &(BLOCK as u32).to_le_bytes());
    let sum = xxh3_64(&file[..HEADER - 8]);
    file[HEADER - 8..HEADER].copy_from_slice(&sum.to_le_bytes());
    file.extend_from_slice(&sums);
    file
}

/// The short form of tree file `file`.
#[must_use]
pub fn shorten_tree(file: &[u8]) -> Vec<u8> {
    let sums_at = u64::from_le_bytes(file[96..104].try_into().unwrap_or_default()) as usize;
    [&file[..FRONT], &file[HEADER..sums_at]].concat()
}
