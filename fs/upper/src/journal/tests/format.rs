//! The format, byte for byte.

use super::*;
use crate::journal::{
    compact,
    format::{FRAME_HEADER_LEN, SessionWord, header_page, seal_frame},
    new_header, record,
};
use zerocopy::little_endian::U64;

const GOLDEN: &[u8] = include_bytes!("journal-v1.golden");

/// One record of each kind, and of each kind of file.
pub(super) fn every_kind() -> Vec<Kept> {
    let kinds = [
        FileKind::Regular,
        FileKind::Directory,
        FileKind::Symlink,
        FileKind::CharDevice,
        FileKind::BlockDevice,
        FileKind::Fifo,
        FileKind::Socket,
    ];
    let mut all: Vec<_> = (0u64..)
        .zip(kinds)
        .map(|(i, kind)| {
            let rdev = Device {
                major: i as u32,
                minor: u32::MAX,
            };
            let content = if i == 1 {
                ContentSource::Lower
            } else {
                ContentSource::Zero
            };
            Kept::Node(Node {
                kind,
                rdev,
                ..node(200 + i, content)
            })
        })
        .collect();
    all.extend([
        Kept::Entry(
            Ino::ROOT,
            b"caf\xe9 \xff".to_vec(),
            Ino(201),
            FileKind::Directory,
        ),
        Kept::NoEntry(Ino(3), vec![b'n'; 255]),
        Kept::Symlink(Ino(202), b"../elsewhere".to_vec()),
        Kept::Xattr(Ino(200), b"user.x".to_vec(), b"\0value".to_vec()),
        Kept::Xattr(Ino(200), b"user.empty".to_vec(), vec![]),
        Kept::NoXattr(Ino(5), b"security.capability".to_vec()),
        Kept::Gone(Ino(u64::MAX)),
    ]);
    all
}

/// A log made of the format's own pieces with nothing random in it.
fn golden_now() -> Vec<u8> {
    let mut header = new_header(&LOWER, 3, 10).unwrap();
    header.salt = U64::new(0x0123_4567_89AB_CDEF);
    let mut bytes = header_page(header, SessionWord::new(0xB007_B007_B007_B006, true), 11);
    let mut chain = header.salt.get();
    let all = every_kind();
    for (seq, part) in (10u64..).zip(all.chunks(7)) {
        let mut frame = vec![0; FRAME_HEADER_LEN];
        part.iter()
            .for_each(|r| record::encode(&r.record(), false, &mut frame));
        chain = seal_frame(&mut frame, part.len() as u32, seq, chain);
        bytes.extend_from_slice(&frame);
    }
    bytes
}

#[test]
fn version_1_is_written_as_it_always_was() {
    let now = golden_now();
    if let Some(path) = std::env::var_os("PELLICLE_WRITE_GOLDEN") {
        std::fs::write(path, &now).unwrap();
    }
    assert_eq!(now.len(), GOLDEN.len());
    let first = now.iter().zip(GOLDEN).position(|(a, b)| a != b);
    assert_eq!(first, None, "the first byte that differs");
}

#[test]
fn version_1_is_read_as_it_always_was() {
    let (_keep, dir) = scratch();
    std::fs::create_dir_all(dir.join("data")).unwrap();
    std::fs::write(dir.join("journal"), GOLDEN).unwrap();
    let (journal, records, recovery) = reopen(&dir).unwrap();
    assert_eq!(records, every_kind());
    assert_eq!(recovery.batches, 2);
    assert!(recovery.clean && recovery.torn_bytes == 0);
    assert_eq!(journal.stats().generation, 3);
    commit(&journal, &batch(0)).unwrap();
    journal.close().unwrap();
    assert_eq!(reopen(&dir).unwrap().1.len(), every_kind().len() + 2);
}

#[test]
fn no_two_logs_have_the_same_salt() {
    assert_ne!(compact::salt().unwrap(), compact::salt().unwrap());
}
