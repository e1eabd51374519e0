//! The format, byte for byte.

use super::*;
use crate::journal::{
    compact,
    format::{FRAME_HEADER_LEN, MIXED, SessionWord, header_page, seal_frame},
    new_header, record,
};
use zerocopy::little_endian::{U32, U64};

/// Of the first release, which knew no features.
const GOLDEN: &[u8] = include_bytes!("journal-v1.golden");
/// With [`MIXED`], which every log has since.
const GOLDEN_MIXED: &[u8] = include_bytes!("journal-v1-mixed.golden");

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

/// And what only a log with [`MIXED`] may say.
pub(super) fn every_kind_and_mixed() -> Vec<Kept> {
    let mut all = every_kind();
    all.extend([
        Kept::Node(node(5, ContentSource::Mixed)),
        Kept::Own(Ino(5), 4096, 0x0102_0304_0506_0708),
        Kept::Own(Ino(5), 1 << 60, u64::MAX),
    ]);
    all
}

/// A log of `all` made of the format's own pieces with nothing random in it.
fn log_of(all: &[Kept], features: u32) -> Vec<u8> {
    let mut header = new_header(&LOWER, 3, 10).unwrap();
    header.incompatible = U32::new(features);
    header.salt = U64::new(0x0123_4567_89AB_CDEF);
    let mut bytes = header_page(header, SessionWord::new(0xB007_B007_B007_B006, true), 11);
    let mut chain = header.salt.get();
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
    let mixed = log_of(&every_kind_and_mixed(), MIXED);
    for (name, now, golden) in [
        ("journal-v1.golden", log_of(&every_kind(), 0), GOLDEN),
        ("journal-v1-mixed.golden", mixed, GOLDEN_MIXED),
    ] {
        if let Some(dir) = std::env::var_os("PELLICLE_WRITE_GOLDEN") {
            std::fs::write(Path::new(&dir).join(name), &now).unwrap();
        }
        assert_eq!(now.len(), golden.len());
        let first = now.iter().zip(golden).position(|(a, b)| a != b);
        assert_eq!(first, None, "the first byte that differs");
    }
}

/// An upper whose log is `bytes`.
fn opened(dir: &Path, bytes: &[u8]) -> Result<Opened, UpperError> {
    std::fs::create_dir_all(dir.join("data")).unwrap();
    std::fs::write(dir.join("journal"), bytes).unwrap();
    reopen(dir)
}

#[test]
fn version_1_is_read_as_it_always_was() {
    let (_keep, dir) = scratch();
    let (journal, records, recovery) = opened(&dir, GOLDEN).unwrap();
    assert_eq!(records, every_kind());
    assert_eq!(recovery.batches, 2);
    assert!(recovery.clean && recovery.torn_bytes == 0);
    assert_eq!(journal.stats().generation, 3);
    commit(&journal, &batch(0)).unwrap();
    journal.close().unwrap();
    assert_eq!(reopen(&dir).unwrap().1.len(), every_kind().len() + 2);
}

#[test]
fn mixed_content_is_read_as_it_always_was() {
    let (_keep, dir) = scratch();
    let (journal, records, _) = opened(&dir, GOLDEN_MIXED).unwrap();
    assert_eq!(records, every_kind_and_mixed());
    assert!(journal.chunks().is_some());
}

/// So that a program that does not know it refuses the log by its header, not as a damaged one.
#[test]
fn a_log_without_the_feature_takes_no_mixed_content_until_it_was_compacted() {
    let mixed = [
        Kept::Node(node(5, ContentSource::Mixed)),
        Kept::Own(Ino(5), 0, 1),
    ];
    let (_keep, dir) = scratch();
    let (journal, _, _) = opened(&dir, GOLDEN).unwrap();
    assert_eq!(journal.chunks(), None);
    assert!(commit(&journal, &mixed).is_err());
    assert!(journal.wants_compaction(1000));
    let since = journal.position();
    let all = every_kind();
    let compacted = journal.compact(since, &mut |say| all.iter().for_each(|r| say(r.record())));
    compacted.unwrap();
    assert!(journal.chunks().is_some() && !journal.wants_compaction(1000));
    commit(&journal, &mixed).unwrap();
    journal.close().unwrap();
    let (_, records, _) = reopen(&dir).unwrap();
    assert_eq!(records, [every_kind(), mixed.to_vec()].concat());
}

#[test]
fn mixed_content_that_the_header_does_not_announce_is_damage() {
    let (_keep, dir) = scratch();
    let error = opened(&dir, &log_of(&every_kind_and_mixed(), 0)).unwrap_err();
    assert!(matches!(error, UpperError::Corrupt { .. }), "{error}");
}

#[test]
fn no_two_logs_have_the_same_salt() {
    assert_ne!(compact::salt().unwrap(), compact::salt().unwrap());
}
