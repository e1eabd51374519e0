//! Tree files that someone made up.

use pellicle_store::{Ino, Tree, Whiteouts, flatten};
use xxhash_rust::xxh3::xxh3_64;

use crate::common::walk_with;

pub(crate) fn u64_at(file: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(file[at..at + 8].try_into().unwrap())
}

/// Puts all checksums right, as a forger would.
pub(crate) fn seal(file: &mut [u8]) {
    let sums_at = u64_at(file, 96) as usize;
    let sums: Vec<u8> = file[4096..sums_at]
        .chunks(1 << 16)
        .flat_map(|block| xxh3_64(block).to_le_bytes())
        .collect();
    file[sums_at..sums_at + sums.len()].copy_from_slice(&sums);
    let hash = xxh3_64(&file[sums_at..]);
    file[112..120].copy_from_slice(&hash.to_le_bytes());
    let hash = xxh3_64(&file[..4088]);
    file[4088..4096].copy_from_slice(&hash.to_le_bytes());
}

/// Asks everything there is to ask; whatever comes must not be a panic.
pub(crate) fn use_it(tree: &Tree) {
    let _ = walk_with(tree, false);
    let _ = tree.check();
    for ino in 0..tree.inode_count().min(100) + 2 {
        let ino = Ino(ino);
        let _ = (tree.content(ino), tree.readlink(ino), tree.parent(ino));
        let _ = (
            tree.lookup(ino, b"hello"),
            tree.whiteout(ino, 0),
            tree.layer_of(ino),
        );
        let _ = tree.names_of(ino, &mut |_, _| ());
    }
    let _ = flatten(std::slice::from_ref(tree), Whiteouts::Apply);
    let _ = flatten(std::slice::from_ref(tree), Whiteouts::Show);
}
