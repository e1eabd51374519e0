//! Tar archives: the checksums of their headers, and blocks that are all there.

const BLOCK: usize = 512;

/// A tar of `short`: what is missing of its last block is filled up, and every header that is found
/// by going from one to the next gets its checksum.
#[must_use]
pub fn forge_tar(short: &[u8]) -> Vec<u8> {
    let mut tar = short.to_vec();
    tar.resize(short.len().next_multiple_of(BLOCK), 0);
    let mut at = 0;
    while at + BLOCK <= tar.len() {
        let header = &mut tar[at..at + BLOCK];
        if header.iter().any(|b| *b != 0) {
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let data = size(&tar[at + 124..at + 136]).next_multiple_of(BLOCK);
        at += BLOCK;
        if at + data <= tar.len() {
            at += data;
        }
    }
    tar
}

/// The short form of `tar`: without the two empty blocks (and more) at its end.
#[must_use]
pub fn shorten_tar(tar: &[u8]) -> Vec<u8> {
    let used = tar.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
    tar[..used.next_multiple_of(BLOCK).min(tar.len())].to_vec()
}

/// The octal number in `field`, as far as it is one.
fn size(field: &[u8]) -> usize {
    field
        .iter()
        .filter(|b| b.is_ascii_digit())
        .fold(0usize, |n, b| n * 8 + usize::from(b & 7))
}
