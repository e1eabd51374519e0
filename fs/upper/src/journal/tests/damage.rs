//! Logs that are not as they were written.

use super::*;

/// A closed upper with a few batches of every kind; returns its records and where its log ends.
fn sample(dir: &Path) -> (Vec<Kept>, u64) {
    let journal = create(dir);
    let all = super::format::every_kind_and_mixed();
    for record in &all {
        commit(&journal, std::slice::from_ref(record)).unwrap();
    }
    let end = journal.stats().log_bytes;
    journal.close().unwrap();
    (all, end)
}

fn open_bytes(bytes: &[u8]) -> Result<Opened, UpperError> {
    let (keep, dir) = in_memory();
    std::fs::create_dir(&dir).unwrap();
    std::fs::create_dir(dir.join("data")).unwrap();
    std::fs::write(dir.join("journal"), bytes).unwrap();
    let opened = reopen(&dir);
    drop(keep);
    opened
}

fn log_bytes(dir: &Path, end: u64) -> Vec<u8> {
    let mut bytes = std::fs::read(dir.join("journal")).unwrap();
    bytes.truncate(end as usize);
    bytes
}

#[test]
fn a_synced_log_cut_anywhere_is_damaged() {
    let (_keep, dir) = scratch();
    let (_, end) = sample(&dir);
    let bytes = log_bytes(&dir, end);
    for cut in 0..bytes.len() {
        let result = open_bytes(&bytes[..cut]).map(|o| o.1);
        assert!(
            matches!(result, Err(UpperError::Corrupt { .. })),
            "cut at {cut}: {result:?}"
        );
    }
}

#[test]
fn an_unsynced_log_cut_or_overwritten_anywhere_is_a_prefix() {
    let (_keep, dir) = scratch();
    let journal = create(&dir);
    let all: Vec<_> = (0..6).flat_map(batch).collect();
    for i in 0..6 {
        commit(&journal, &batch(i)).unwrap();
    }
    let end = journal.stats().log_bytes;
    kill(journal);
    let bytes = log_bytes(&dir, end);
    for at in 4096..bytes.len() {
        let cut = bytes[..at].to_vec();
        let mut garbage = bytes.clone();
        garbage[at..].iter_mut().for_each(|b| *b = 0xA5);
        let mut hole = bytes.clone();
        hole[at] ^= 0xFF;
        for (how, damaged) in [("cut", cut), ("garbage", garbage), ("hole", hole)] {
            let (journal, records, recovery) = open_bytes(&damaged).unwrap();
            assert!(
                all.starts_with(&records) && records.len() < all.len(),
                "{how} at {at}"
            );
            assert_eq!(records.len() as u64, recovery.batches * 2);
            let rest = damaged.len() as u64 - journal.stats().log_bytes;
            assert_eq!(
                recovery.torn_bytes > 0,
                damaged.iter().rev().take(rest as usize).any(|b| *b != 0)
            );
        }
    }
}

#[test]
fn what_comes_after_a_torn_tail_is_kept_and_the_tail_never_returns() {
    let (_keep, dir) = scratch();
    let journal = create(&dir);
    for i in 0..6 {
        commit(&journal, &batch(i)).unwrap();
    }
    let end = journal.stats().log_bytes;
    let frame = (end - 4096) / 6;
    kill(journal);
    let log = std::fs::OpenOptions::new()
        .write(true)
        .open(dir.join("journal"))
        .unwrap();
    // The fourth of six is damaged; the two after it are whole.
    log.write_all_at(&[0xEE; 8], 4096 + 3 * frame + 40).unwrap();
    let (journal, records, recovery) = reopen(&dir).unwrap();
    assert_eq!(records.len(), 6);
    // Zeros at its end, where names are padded, do not count.
    assert!((3 * frame - 7..=3 * frame).contains(&recovery.torn_bytes));
    // Same length, so the fifth would come to stand right behind it.
    commit(&journal, &batch(9)).unwrap();
    kill(journal);
    let (_, records, recovery) = reopen(&dir).unwrap();
    assert_eq!(records[6..], batch(9));
    assert_eq!(recovery.torn_bytes, 0);
}

#[test]
fn a_frame_of_another_chain_is_not_taken_for_valid() {
    let (_keep, dir) = scratch();
    let (_keep2, other) = scratch();
    let mut logs = Vec::new();
    for dir in [&dir, &other] {
        let journal = create(dir);
        for i in 0..4 {
            commit(&journal, &batch(i)).unwrap();
        }
        let end = journal.stats().log_bytes;
        kill(journal);
        logs.push(log_bytes(dir, end));
    }
    // Same batches, same sequence numbers, other salt.
    let frame = (logs[0].len() - 4096) / 4;
    let at = 4096 + 2 * frame;
    let mut mixed = logs[0].clone();
    mixed[at..].copy_from_slice(&logs[1][at..]);
    assert_eq!(open_bytes(&mixed).unwrap().1.len(), 4);
}

#[test]
fn a_bit_flipped_anywhere_in_a_synced_log_is_found_or_harmless() {
    let (_keep, dir) = scratch();
    let (all, end) = sample(&dir);
    let bytes = log_bytes(&dir, end + 64);
    let (mut found, mut harmless) = (0, 0);
    for at in 0..bytes.len() {
        // The reserved part of the header page is all alike.
        if (200..4000).contains(&at) && at % 64 >= 32 {
            continue;
        }
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            match open_bytes(&damaged) {
                Ok((_, records, _)) => {
                    harmless += 1;
                    let in_slack = at >= end as usize || (128..4096).contains(&at);
                    assert!(in_slack && records == all, "bit {bit} of byte {at}");
                }
                Err(UpperError::Corrupt { offset, .. }) => {
                    found += 1;
                    assert!(offset <= at as u64, "bit {bit} of byte {at}: told {offset}");
                }
                Err(other) => panic!("bit {bit} of byte {at}: {other}"),
            }
        }
    }
    assert!(found > 8 * (end as usize - 4096) && harmless > 0);
}

#[test]
fn a_newer_version_and_an_unknown_feature_are_refused_by_name() {
    use crate::journal::format::Header;
    use zerocopy::{FromBytes, IntoBytes, little_endian::U32};
    let (_keep, dir) = scratch();
    let (_, end) = sample(&dir);
    let bytes = log_bytes(&dir, end);
    let change = |how: &dyn Fn(&mut Header)| {
        let (mut header, _) = Header::read_from_prefix(&bytes).unwrap();
        how(&mut header);
        let mut changed = bytes.clone();
        changed[..128].copy_from_slice(header.sealed().as_bytes());
        open_bytes(&changed).map(drop)
    };
    assert!(matches!(
        change(&|h| h.version = U32::new(2)),
        Err(UpperError::Version {
            found: 2,
            known: 1,
            ..
        })
    ));
    assert!(matches!(
        change(&|h| h.incompatible = U32::new(2)),
        Err(UpperError::Version { .. })
    ));
    change(&|h| h.compatible = U32::new(1)).unwrap();
}

#[test]
fn records_that_break_a_rule_are_damage_although_the_checksum_is_right() {
    use crate::journal::format::{FRAME_HEADER_LEN, seal_frame};
    let long = vec![b'a'; 256];
    let good = node(1, ContentSource::Zero);
    let bad = [
        Kept::Entry(Ino(1), b"a/b".to_vec(), Ino(2), FileKind::Regular),
        Kept::Entry(Ino(1), b"a\0".to_vec(), Ino(2), FileKind::Regular),
        Kept::Entry(Ino(1), b"".to_vec(), Ino(2), FileKind::Regular),
        Kept::Entry(Ino(1), b"..".to_vec(), Ino(2), FileKind::Regular),
        Kept::Entry(Ino(1), long.clone(), Ino(2), FileKind::Regular),
        Kept::Entry(Ino(0), b"a".to_vec(), Ino(2), FileKind::Regular),
        Kept::NoEntry(Ino(1), b"/".to_vec()),
        Kept::Symlink(Ino(1), vec![]),
        Kept::Symlink(Ino(1), vec![b'x'; 4096]),
        Kept::Xattr(Ino(1), vec![], vec![]),
        Kept::Xattr(Ino(1), b"user.x".to_vec(), vec![0; 65_537]),
        Kept::NoXattr(Ino(1), long),
        Kept::Gone(Ino(0)),
        Kept::Node(Node {
            perm: 0o10000,
            ..good
        }),
        Kept::Node(Node {
            size: u64::MAX,
            ..good
        }),
        Kept::Node(Node {
            mtime: Time {
                sec: 0,
                nsec: 1_000_000_000,
            },
            ..good
        }),
        Kept::Node(Node {
            kind: FileKind::Fifo,
            content: ContentSource::Data,
            ..good
        }),
    ];
    let (_keep, dir) = scratch();
    let journal = create(&dir);
    let salt = journal.shared.log.lock().as_ref().unwrap().salt;
    for record in &bad {
        assert!(
            commit(&journal, std::slice::from_ref(record)).is_err(),
            "{record:?} is not taken"
        );
    }
    kill(journal);
    let empty = log_bytes(&dir, 4096);
    let with_frame = |records: u32, body: &[u8]| {
        let mut frame = vec![0; FRAME_HEADER_LEN];
        frame.extend_from_slice(body);
        seal_frame(&mut frame, records, 1, salt);
        open_bytes(&[empty.clone(), frame].concat()).map(drop)
    };
    let encoded = |record: &Kept| {
        let mut body = Vec::new();
        crate::journal::record::encode(&record.record(), false, &mut body);
        body
    };
    for record in &bad {
        let result = with_frame(1, &encoded(record));
        assert!(
            matches!(result, Err(UpperError::Corrupt { offset: 4096, .. })),
            "{record:?}"
        );
    }
    let gone = encoded(&Kept::Gone(Ino(5)));
    with_frame(1, &gone).unwrap();
    assert!(
        with_frame(2, &gone).is_err(),
        "another number of records than said"
    );
    // Every byte of a node's record set to every kind of wrong value: no panic, never half.
    let node = encoded(&Kept::Node(good));
    for at in 0..node.len() {
        for value in [0, 1, 7, 15, 16, 0x7F, 0x80, 0xFF] {
            let mut changed = node.clone();
            changed[at] = value;
            match with_frame(1, &changed) {
                Ok(()) | Err(UpperError::Corrupt { .. }) => {}
                Err(other) => panic!("byte {at} = {value}: {other}"),
            }
        }
    }
}

#[test]
fn what_is_no_log_at_all_is_refused() {
    for bytes in [&b""[..], b"hello", &[0; 8192], &[0xFF; 8192]] {
        assert!(matches!(open_bytes(bytes), Err(UpperError::Corrupt { .. })));
    }
    let (_keep, dir) = scratch();
    create(&dir).close().unwrap();
    std::fs::rename(dir.join("journal"), dir.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere", dir.join("journal")).unwrap();
    let linked = Journal::open(&dir, LOWER, quiet()).map(drop);
    assert_eq!(errno(linked), Some(libc::ELOOP), "a link is not followed");
}
