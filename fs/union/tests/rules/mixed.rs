//! Content in two places: how little is copied, and that nothing shows which is not content.

use std::{
    os::unix::fs::{FileExt, MetadataExt},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use pellicle_union::{DifferenceKind, Error, Ino, SetAttr, Union};
use pellicle_upper::{Chunks, ContentSource, Upper};

use crate::support::{
    content,
    lower::{LONG_AGO, MemLower},
    open,
    upper::{MemUpper, Said},
};

const CHUNK: u64 = 4096;
const SIZE: usize = 256 * CHUNK as usize;

/// Byte `at` of the large file.
fn byte(at: usize) -> u8 {
    (at / 4096 * 7 + at % 251) as u8 | 1
}

fn bytes() -> Vec<u8> {
    (0..SIZE).map(byte).collect()
}

fn large(bytes: &[u8]) -> (Arc<MemLower>, Ino, MemUpper) {
    let mut lower = MemLower::new();
    let ino = lower.file(Ino::ROOT, "f", bytes);
    let upper = MemUpper::new();
    upper.state.lock().chunks = Some(Chunks {
        whole: 10_000,
        size: CHUNK,
    });
    (Arc::new(lower), ino, upper)
}

fn resize(union: &Union, ino: Ino, size: u64) {
    let set = SetAttr {
        size: Some(size),
        ..SetAttr::default()
    };
    union.set_attr(ino, set).unwrap();
}

/// Bytes that the data file takes on the host.
fn taken(upper: &MemUpper, ino: Ino) -> u64 {
    upper.data(ino).unwrap().metadata().unwrap().blocks() * 512
}

/// The ranges that a compacted log would say.
fn ranges(union: &Union, upper: &MemUpper) -> Vec<(u64, u64)> {
    union.compact().unwrap();
    let log = &upper.state.lock().log;
    let own = log.iter().filter_map(|said| match said {
        Said::Own(_, start, end) => Some((*start, *end)),
        _ => None,
    });
    own.collect()
}

fn source(upper: &MemUpper, ino: Ino) -> ContentSource {
    let log = &upper.state.lock().log;
    let nodes = log.iter().rev().find_map(|said| match said {
        Said::Node(node) if node.ino == ino => Some(node.content),
        _ => None,
    });
    nodes.unwrap()
}

#[test]
fn one_byte_into_a_large_file_copies_a_chunk() {
    let (lower, ino, upper) = large(&bytes());
    let union = open(&lower, &upper);
    union.write(ino, 500_000, b"!", false).unwrap();
    let mut want = bytes();
    want[500_000] = b'!';
    assert!(content(&union, ino) == want);
    assert!(taken(&upper, ino) <= 2 * CHUNK);
    let end = SIZE as u64;
    assert_eq!(
        ranges(&union, &upper),
        [(499_712, 499_712 + CHUNK), (end, u64::MAX)]
    );
    assert_eq!(upper.state.lock().copied, [ino]);
    let blocks = union.attr(ino).unwrap().blocks;
    assert!((end / 512..=end / 512 + 16).contains(&blocks), "{blocks}");
    drop(union);
    assert!(content(&open(&lower, &upper), ino) == want);
}

#[test]
fn a_small_file_is_copied_whole() {
    let (lower, ino, upper) = large(&[1; 10_000]);
    let union = open(&lower, &upper);
    union.write(ino, 1, b"!", false).unwrap();
    assert_eq!(source(&upper, ino), ContentSource::Data);
}

#[test]
fn writing_on_and_on_copies_nothing_and_is_one_range() {
    let (lower, ino, upper) = large(&bytes());
    let union = open(&lower, &upper);
    let mut want = bytes();
    let at = 77_777;
    for n in 0..100 {
        let from = at + n * 1_000;
        union
            .write(ino, from as u64, &[n as u8; 1_000], false)
            .unwrap();
        want[from..from + 1_000].fill(n as u8);
    }
    assert!(content(&union, ino) == want);
    assert_eq!(
        ranges(&union, &upper),
        [(73_728, 177_777), (SIZE as u64, u64::MAX)],
        "the first stood alone"
    );
    // At its end as well.
    union.write(ino, SIZE as u64, b"more", false).unwrap();
    want.extend_from_slice(b"more");
    assert!(content(&union, ino) == want);
    assert_eq!(ranges(&union, &upper).len(), 2);
}

#[test]
fn a_file_that_was_written_over_from_end_to_end_is_no_longer_mixed() {
    let (lower, ino, upper) = large(&bytes());
    let union = open(&lower, &upper);
    for at in (0..SIZE).step_by(64 * 1024).rev() {
        assert!(union.lend(ino, true).unwrap().is_none(), "in two places");
        union.write(ino, at as u64, &[9; 64 * 1024], false).unwrap();
    }
    assert_eq!(source(&upper, ino), ContentSource::Data);
    assert!(content(&union, ino) == vec![9; SIZE]);
    assert!(ranges(&union, &upper).is_empty());
    assert!(union.lend(ino, true).unwrap().is_some());
}

#[test]
fn what_was_cut_off_is_zeros_for_ever() {
    let (lower, ino, upper) = large(&bytes());
    for touched in [false, true] {
        upper.state.lock().log.clear();
        let union = open(&lower, &upper);
        let mut want = bytes();
        if touched {
            union.write(ino, 300_000, b"x", false).unwrap();
        }
        resize(&union, ino, 200_000);
        resize(&union, ino, 400_000);
        want.truncate(200_000);
        want.resize(400_000, 0);
        assert!(content(&union, ino) == want);
        union.write(ino, 350_000, b"yes", false).unwrap();
        want[350_000..350_003].copy_from_slice(b"yes");
        resize(&union, ino, 100_000);
        want.truncate(100_000);
        let union = open(&lower, &upper);
        union.write(ino, 999_999, b"!", false).unwrap();
        want.resize(1_000_000, 0);
        want[999_999] = b'!';
        assert!(content(&union, ino) == want);
        assert!(content(&open(&lower, &upper), ino) == want);
        assert!(taken(&upper, ino) <= 4 * CHUNK);
    }
}

#[test]
fn a_hole_punched_into_what_is_below_is_zeros_and_a_hole() {
    let (lower, ino, upper) = large(&bytes());
    let union = open(&lower, &upper);
    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    union.fallocate(ino, punch, 40_961, 400_000, false).unwrap();
    let mut want = bytes();
    want[40_961..440_961].fill(0);
    assert!(content(&union, ino) == want);
    let hole = union.seek(ino, 0, false).unwrap();
    assert!((40_961..=45_056).contains(&hole), "{hole}");
    let data = union.seek(ino, hole, true).unwrap();
    assert!((436_000..=440_961).contains(&data), "{data}");
    assert_eq!(union.seek(ino, data, false).unwrap(), SIZE as u64);
    assert!(taken(&upper, ino) <= 4 * CHUNK);
    let zero = libc::FALLOC_FL_ZERO_RANGE;
    union.fallocate(ino, zero, 500_000, 1_000, false).unwrap();
    want[500_000..501_000].fill(0);
    // Room and nothing else.
    union.fallocate(ino, 0, 600_000, 50_000, false).unwrap();
    assert!(content(&union, ino) == want);
    assert!(content(&open(&lower, &upper), ino) == want);
}

/// A process that is killed, or a host that has no room, leaves bytes that no change speaks of.
#[test]
fn bytes_that_no_change_speaks_of_are_never_seen() {
    let mut below = bytes();
    below[8 * 4096..16 * 4096].fill(0);
    let (lower, ino, upper) = large(&below);
    open(&lower, &upper).write(ino, 0, b"x", false).unwrap();
    let file = upper.data(ino).unwrap();
    file.write_all_at(&vec![0xEE; 2 * SIZE - 4096], 4096)
        .unwrap();
    let union = open(&lower, &upper);
    let mut want = below.clone();
    want[0] = b'x';
    assert!(content(&union, ino) == want);
    // A chunk that is a hole below; a hole; an end; and behind it.
    union.write(ino, 10 * 4096 + 5, b"y", false).unwrap();
    want[10 * 4096 + 5] = b'y';
    assert!(content(&union, ino) == want);
    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    union.fallocate(ino, punch, 300_000, 9_000, false).unwrap();
    want[300_000..309_000].fill(0);
    assert!(content(&union, ino) == want);
    resize(&union, ino, 700_000);
    resize(&union, ino, 800_000);
    want.truncate(700_000);
    want.resize(800_000, 0);
    assert!(content(&union, ino) == want);
    union.write(ino, 900_000, b"z", false).unwrap();
    want.resize(900_001, 0);
    want[900_000] = b'z';
    assert!(content(&union, ino) == want);
    assert!(content(&open(&lower, &upper), ino) == want);
}

#[test]
fn a_copy_reads_from_both_places_and_puts_into_both() {
    let (lower, ino, upper) = large(&bytes());
    let union = open(&lower, &upper);
    let mut want = bytes();
    for at in [10_000, 50_000, 90_000, 600_000] {
        union.write(ino, at as u64, &[3; 5_000], false).unwrap();
        want[at..at + 5_000].fill(3);
    }
    let n = union
        .copy_range(ino, 5_001, ino, 595_000, 100_000, false)
        .unwrap();
    assert_eq!(n, 100_000);
    want.copy_within(5_001..105_001, 595_000);
    assert!(content(&union, ino) == want);
    assert!(content(&open(&lower, &upper), ino) == want);
}

#[test]
fn a_mixed_file_is_told_as_changed() {
    let (lower, ino, upper) = large(&bytes());
    let union = open(&lower, &upper);
    union.write(ino, 5, b"x", false).unwrap();
    let set = SetAttr {
        mtime: Some(LONG_AGO),
        ..SetAttr::default()
    };
    union.set_attr(ino, set).unwrap();
    let told = union.differences().unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].path.as_slice(), told[0].kind),
        (b"/f".as_slice(), DifferenceKind::Changed)
    );
}

#[test]
fn a_mixed_file_that_is_gone_leaves_nothing() {
    let (lower, ino, upper) = large(&bytes());
    let union = open(&lower, &upper);
    union.write(ino, 5, b"x", false).unwrap();
    assert_eq!(upper.data_files(), 1);
    union.unlink(Ino::ROOT, b"f").unwrap();
    assert_eq!(upper.data_files(), 0);
    assert!(ranges(&union, &upper).is_empty());
    assert!(matches!(union.read(ino, 0, &mut [0]), Err(Error::NotFound)));
}

#[test]
fn readers_beside_writers_see_old_or_new_bytes() {
    let (lower, ino, upper) = large(&bytes());
    let union = open(&lower, &upper);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut buf = vec![0; 60_000];
                let mut at = 0;
                while !done.load(Ordering::Relaxed) {
                    let n = union.read(ino, at as u64, &mut buf).unwrap();
                    for (i, got) in buf[..n].iter().enumerate() {
                        assert!(*got == byte(at + i) || *got == 0xF0, "{got} at {}", at + i);
                    }
                    at = (at + 31_337) % SIZE;
                }
            });
        }
        let mut at = 1;
        for _ in 0..1_500 {
            at = at * 75 % 65_537;
            let offset = at * 16;
            let length = 700.min(SIZE - offset);
            union
                .write(ino, offset as u64, &vec![0xF0; length], false)
                .unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
}
