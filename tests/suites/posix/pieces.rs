//! Large lower files that are changed here and there, held against a file of the host that the same is
//! done to.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::Path,
};

use pellicle_tests::{Overlay, Way};
use rustix::fs::{FallocateFlags, SeekFrom, copy_file_range, fallocate, seek};

use crate::{can_run, full, write};

const SIZE: u64 = 3_000_000;

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    /// Some of an edge of a page, a few bytes, or many.
    fn range(&mut self) -> (u64, u64) {
        let at = self.below(SIZE);
        let at = if self.below(2) == 0 {
            at / 4096 * 4096
        } else {
            at
        };
        let length = match self.below(4) {
            0 => 1 + self.below(10),
            1 => 4096,
            2 => 1 + self.below(20_000),
            _ => 1 + self.below(300_000),
        };
        (at, length)
    }
}

/// Bytes none of which is 0, so that a hole is none by chance.
fn pattern(seed: u64, length: u64) -> Vec<u8> {
    let byte = |at: u64| ((seed * 31 + at * 7 + at / 251) % 255) as u8 + 1;
    (0..length).map(byte).collect()
}

/// Does one thing to each of `files`.
fn change(dice: &mut Dice, seed: u64, files: [&File; 2]) -> String {
    let (at, length) = dice.range();
    let (from, _) = dice.range();
    let what = dice.below(12);
    let said = format!("change {seed}: {what} at {at}, {length} bytes, from {from}");
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    for file in files {
        match what {
            0..6 => {
                let bytes = pattern(seed, length);
                file.write_all_at(&bytes, at).expect("write");
            }
            6 => fallocate(file, punch, at, length).expect("punch"),
            7 => {
                // The host's files may not know ZERO_RANGE; what it does is the same.
                fallocate(file, punch, at, length).expect("punch");
                let end = file.metadata().expect("stat").len().max(at + length);
                file.set_len(end).expect("truncate");
            }
            8 => fallocate(file, FallocateFlags::empty(), at, length).expect("allocate"),
            9 | 10 => {
                let length = length.min(from.abs_diff(at));
                let (mut source, mut target, mut left) = (from, at, length);
                while left > 0 {
                    let n = copy_file_range(
                        file,
                        Some(&mut source),
                        file,
                        Some(&mut target),
                        usize::try_from(left).expect("length"),
                    );
                    match n.expect("copy") {
                        0 => break,
                        n => left -= n as u64,
                    }
                }
            }
            _ => file.set_len(at.max(SIZE / 2)).expect("truncate"),
        }
    }
    said
}

fn open(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).open(path).expect("open")
}

/// Reads all, and that no hole is told where there is something.
fn compare(file: &File, like: &Path, said: &str) {
    let want = fs::read(like).expect("read");
    let mut got = vec![0; want.len() + 1];
    let mut length = 0;
    loop {
        match file
            .read_at(&mut got[length..], length as u64)
            .expect("read")
        {
            0 => break,
            n => length += n,
        }
    }
    assert_eq!(length, want.len(), "{said}: length");
    let differs = got.iter().zip(&want).position(|(a, b)| a != b);
    assert_eq!(differs, None, "{said}: the first byte that differs");
    let mut at = 0;
    while let Ok(data) = seek(file, SeekFrom::Data(at)) {
        let hole = &want[at as usize..data as usize];
        assert!(hole.iter().all(|byte| *byte == 0), "{said}: hole at {at}");
        at = seek(file, SeekFrom::Hole(data)).expect("a hole at the end");
        assert!(at > data, "{said}: no data at {data}");
    }
}

#[test]
fn a_large_lower_file_is_as_another_file_whatever_is_done_to_it() {
    if !can_run("a_large_lower_file_is_as_another_file_whatever_is_done_to_it") {
        return;
    }
    let rounds = if full() { 40 } else { 6 };
    for way in Way::all() {
        let mut overlay = Overlay::new(way, |low, _| {
            let mut bytes = pattern(0, SIZE);
            bytes[400_000..900_000].fill(0);
            write(low.join("large"), bytes);
        });
        let like = overlay.path("like");
        fs::copy(overlay.path("low/large"), &like).expect("copy");
        let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
        for round in 0..rounds {
            let path = overlay.at().join("large");
            // Opened before anything is changed, and read through to the end of the round.
            let reader = File::open(&path).expect("open");
            let (ours, theirs) = (open(&path), open(&like));
            let mut said = String::new();
            for n in 0..40 {
                said = format!(
                    "{way}: {}",
                    change(&mut dice, round * 40 + n, [&ours, &theirs])
                );
                if n % 4 == 0 {
                    compare(&reader, &like, &said);
                }
            }
            if round % 3 == 0 {
                ours.sync_all().expect("fsync");
            }
            compare(&reader, &like, &said);
            drop((reader, ours));
            if round % 2 == 0 {
                overlay.kill();
                overlay.again();
            } else {
                overlay.remount();
            }
            compare(&open(&overlay.at().join("large")), &like, "after a mount");
        }
    }
}

#[test]
fn one_byte_into_a_large_lower_file_takes_a_page_of_the_host() {
    if !can_run("one_byte_into_a_large_lower_file_takes_a_page_of_the_host") {
        return;
    }
    for way in Way::all().into_iter().filter(|way| way.copies_pieces()) {
        let overlay = Overlay::new(way, |low, _| {
            write(low.join("large"), pattern(0, SIZE));
        });
        let path = overlay.at().join("large");
        open(&path).write_all_at(b"!", SIZE / 2).expect("write");
        let mut want = pattern(0, SIZE);
        want[SIZE as usize / 2] = b'!';
        assert!(fs::read(&path).expect("read") == want, "{way}");
        let data = fs::read_dir(overlay.path("upper/data")).expect("list");
        let taken: u64 = data
            .map(|file| file.expect("entry").metadata().expect("stat").blocks() * 512)
            .sum();
        assert!((1..=16_384).contains(&taken), "{way}: {taken} bytes");
    }
}
