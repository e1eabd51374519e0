//! Damaged logs, mended.

use std::{collections::BTreeMap, io};

use super::*;
use crate::{
    Examined, Faults, Host, Lost, Mended, Mode, Op, Remedy, examine, journal::mend::mend_on, mend,
};

type Aside = BTreeMap<String, Vec<u8>>;

fn mended(dir: &Path) -> (Result<Mended, UpperError>, Aside) {
    let mut aside = BTreeMap::new();
    let done = mend(dir, Some(&LOWER), &mut |path, name| {
        aside.insert(name.to_owned(), std::fs::read(path)?);
        Ok(())
    });
    (done, aside)
}

fn log(dir: &Path) -> Vec<u8> {
    std::fs::read(dir.join("journal")).unwrap()
}

fn write_log(dir: &Path, bytes: &[u8]) {
    std::fs::write(dir.join("journal"), bytes).unwrap();
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Six synced batches, the third with a data file; their records and where each begins.
fn synced(dir: &Path) -> (Vec<Kept>, Vec<u64>) {
    let journal = create(dir);
    let (mut all, mut at) = (Vec::new(), Vec::new());
    for i in 0..6 {
        at.push(journal.stats().log_bytes);
        let mut records = batch(i);
        if i == 2 {
            journal.create_data(Ino(101 + i)).unwrap();
            records[0] = Kept::Node(node(101 + i, ContentSource::Data));
        }
        commit(&journal, &records).unwrap();
        all.extend(records);
    }
    at.push(journal.stats().log_bytes);
    journal.close().unwrap();
    (all, at)
}

#[test]
fn any_single_bit_is_turned_back_and_nothing_is_lost() {
    let (_keep, dir) = in_memory();
    let (all, at) = synced(&dir);
    let whole = log(&dir)[..at[6] as usize].to_vec();
    let mut turned = 0;
    for byte in (0..128).chain(1024..1040).chain(4096..whole.len()) {
        let mut bytes = whole.clone();
        bytes[byte] ^= 1 << (byte % 8);
        write_log(&dir, &bytes);
        let found = examine(&dir, Some(&LOWER));
        // A newer version, or another image: not for this program to judge.
        let not_ours = matches!(
            found,
            Err(UpperError::Version { .. } | UpperError::OtherLower { .. })
        );
        assert!(!not_ours, "byte {byte}: under a checksum");
        let damage = found.unwrap().damage;
        let (done, aside) = mended(&dir);
        let done = done.unwrap();
        assert_eq!(done.left, None, "byte {byte}");
        assert_eq!(done.mended, damage.clone().into_iter().collect::<Vec<_>>());
        if let Some(damage) = damage {
            assert!(
                matches!(damage.remedy, Remedy::TurnBit { offset, .. } if offset == byte as u64),
                "byte {byte}: {damage:?}"
            );
            assert_eq!(aside["journal"], bytes);
            assert!(log(&dir) == whole, "byte {byte}");
            turned += 1;
        }
        assert_eq!(reopen(&dir).unwrap().1, all, "byte {byte}");
    }
    // One of the two marks alone is no damage.
    assert!(turned >= whole.len() - 4096 + 120, "{turned}");
}

#[test]
fn what_cannot_be_turned_back_is_cut_only_when_asked_and_all_of_it_is_kept() {
    let (_keep, dir) = in_memory();
    let (all, at) = synced(&dir);
    let mut bytes = log(&dir)[..at[6] as usize].to_vec();
    for byte in &mut bytes[at[2] as usize + 30..at[2] as usize + 34] {
        *byte ^= 0x55;
    }
    write_log(&dir, &bytes);
    let Examined { damage, .. } = examine(&dir, Some(&LOWER)).unwrap();
    let damage = damage.unwrap();
    assert_eq!(damage.offset, at[2]);
    let Remedy::Cut(lost) = &damage.remedy else {
        panic!("{damage:?}")
    };
    let Lost {
        kept, synced, last, ..
    } = *lost;
    assert_eq!((kept, synced, last), (2, 6, 6));
    assert_eq!(lost.bytes, at[6] - at[2]);
    assert!(lost.names.contains(&(Ino::ROOT, b"file-5".to_vec())));
    assert!(lost.inodes.contains(&Ino(104)));
    assert!(log(&dir) == bytes, "looking changes nothing");
    assert!(matches!(
        reopen(&dir).map(|o| o.1),
        Err(UpperError::Corrupt { .. })
    ));

    let (done, aside) = mended(&dir);
    let done = done.unwrap();
    assert_eq!((done.left, done.files_kept), (None, 1));
    assert_eq!(done.mended, [damage]);
    assert_eq!(aside["journal"], bytes);
    let data = format!("data/{:016x}", 103);
    assert!(aside.contains_key(&data), "{aside:?}");
    let (journal, records, recovery) = reopen(&dir).unwrap();
    assert_eq!(records, all[..4]);
    assert_eq!((recovery.batches, recovery.torn_bytes), (2, 0));
    commit(&journal, &batch(9)).unwrap();
    journal.close().unwrap();
    assert_eq!(examine(&dir, Some(&LOWER)).unwrap().damage, None);
}

#[test]
fn a_log_that_ends_too_early_is_cut_where_it_ends() {
    let (_keep, dir) = in_memory();
    let (all, at) = synced(&dir);
    let bytes = log(&dir)[..at[4] as usize + 11].to_vec();
    write_log(&dir, &bytes);
    let (done, aside) = mended(&dir);
    assert_eq!(done.unwrap().left, None);
    assert_eq!(aside["journal"], bytes);
    assert_eq!(reopen(&dir).unwrap().1, all[..8]);
}

#[test]
fn a_header_is_made_again_as_long_as_its_salt_is_known() {
    let (_keep, dir) = in_memory();
    let (all, at) = synced(&dir);
    let whole = log(&dir)[..at[6] as usize].to_vec();
    let mut bytes = whole.clone();
    bytes[..24].fill(0xAA);
    bytes[40..128].fill(0xAA);
    bytes[80..88].copy_from_slice(&1u64.to_le_bytes());
    write_log(&dir, &bytes);
    let nobody = mend(&dir, None, &mut |_, _| panic!("nothing is done")).unwrap();
    assert!(matches!(nobody.left.unwrap().remedy, Remedy::Nothing));
    assert!(log(&dir) == bytes);
    assert_eq!(mended(&dir).0.unwrap().left, None);
    assert_eq!(reopen(&dir).unwrap().1, all);

    // Both marks.
    let mut bytes = whole.clone();
    bytes[1024..1040].fill(1);
    bytes[1536..1552].fill(2);
    write_log(&dir, &bytes);
    let (done, _) = mended(&dir);
    assert!(matches!(
        done.unwrap().mended[0].remedy,
        Remedy::NewHeader(_)
    ));
    assert_eq!(reopen(&dir).unwrap().1, all);

    // Nothing is known any more.
    for bytes in [vec![0; 4096], whole[..100].to_vec(), vec![7; 8192]] {
        write_log(&dir, &bytes);
        let (done, aside) = mended(&dir);
        assert!(done.unwrap().left.is_some() && aside.is_empty());
        assert!(log(&dir) == bytes);
    }
    assert_eq!(files(&dir), ["data", "journal", "lock"]);
}

#[test]
fn several_damaged_places_are_all_mended() {
    let (_keep, dir) = in_memory();
    let (all, at) = synced(&dir);
    let mut bytes = log(&dir)[..at[6] as usize].to_vec();
    bytes[50] ^= 4;
    for start in &at[..6] {
        bytes[*start as usize + 40] ^= 16;
    }
    write_log(&dir, &bytes);
    assert_eq!(mended(&dir).0.unwrap().mended.len(), 7);
    assert_eq!(reopen(&dir).unwrap().1, all);
}

#[test]
fn an_upper_in_use_and_one_that_cannot_be_set_aside_stay_as_they_are() {
    let (_keep, dir) = in_memory();
    let (_, at) = synced(&dir);
    let journal = reopen(&dir).unwrap().0;
    assert!(matches!(mended(&dir).0, Err(UpperError::InUse { .. })));
    assert_eq!(examine(&dir, Some(&LOWER)).unwrap().damage, None);
    kill(journal);

    let mut bytes = log(&dir)[..at[6] as usize].to_vec();
    bytes[at[1] as usize..at[2] as usize].fill(0x33);
    write_log(&dir, &bytes);
    for allowed in 0..2 {
        let mut left = allowed;
        let refused = mend(&dir, Some(&LOWER), &mut |_, _| {
            left -= 1;
            if left < 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(())
        });
        assert!(matches!(refused, Err(UpperError::Io { .. })), "{refused:?}");
        assert!(log(&dir) == bytes);
        assert_eq!(files(&dir), ["data", "journal", "lock"]);
    }
    // As a process leaves it that is killed before the new log has the name.
    std::fs::write(dir.join("journal.new"), "half").unwrap();
    assert_eq!(mended(&dir).0.unwrap().left, None);
    assert_eq!(files(&dir), ["data", "journal", "lock"]);
}

#[test]
fn a_missing_data_file_is_named() {
    let (_keep, dir) = in_memory();
    synced(&dir);
    assert_eq!(
        examine(&dir, None).unwrap(),
        Examined {
            batches: 6,
            ..Examined::default()
        }
    );
    std::fs::remove_file(dir.join(format!("data/{:016x}", 103))).unwrap();
    assert_eq!(examine(&dir, None).unwrap().missing, [Ino(103)]);
}

/// Damages that between them take every remedy.
fn damages(whole: &[u8], at: &[u64]) -> [Vec<u8>; 3] {
    let mut turned = whole.to_vec();
    turned[at[1] as usize + 40] ^= 16;
    let mut headless = whole.to_vec();
    headless[1024..1040].fill(1);
    headless[1536..1552].fill(2);
    let mut cut = whole.to_vec();
    cut[at[1] as usize..at[3] as usize].fill(0x33);
    [turned, headless, cut]
}

/// Mends while the calls of `faults` fail; what was set aside.
fn mended_with(faults: &Faults, dir: &Path) -> (Result<Mended, UpperError>, Aside) {
    let host = Host {
        faults: faults.clone(),
        ..Host::default()
    };
    let mut aside = BTreeMap::new();
    let done = mend_on(&host, dir, Some(&LOWER), &mut |path, name| {
        aside.insert(name.to_owned(), std::fs::read(path)?);
        Ok(())
    });
    (done, aside)
}

#[test]
fn whatever_call_fails_the_log_is_the_old_one_or_mended_and_the_next_try_ends_it() {
    let mut reached = std::collections::BTreeSet::new();
    for damage in 0..3 {
        let (_keep, dir) = in_memory();
        let (_, at) = synced(&dir);
        let whole = log(&dir)[..at[6] as usize].to_vec();
        let damaged = damages(&whole, &at)[damage].clone();
        let data = dir.join("data").join(crate::journal::data::file_name(103));
        let content = std::fs::read(&data).unwrap();
        write_log(&dir, &damaged);
        assert_eq!(mended(&dir).0.unwrap().left, None);
        let expected = (log(&dir), data.exists());
        for (op, call) in Op::ALL {
            for (mode, name) in Mode::ALL {
                if mode == Mode::Short && !op.writes() {
                    continue;
                }
                for skip in 0.. {
                    write_log(&dir, &damaged);
                    std::fs::write(&data, &content).unwrap();
                    let faults = Faults::default();
                    assert!(faults.arm_after(&format!("{call}::{name}"), skip, 1));
                    let (done, aside) = mended_with(&faults, &dir);
                    if faults.hits() == 0 {
                        assert_eq!(done.unwrap().left, None);
                        break;
                    }
                    reached.insert(call);
                    let what = format!("damage {damage}, {call}::{name} after {skip}");
                    assert!(
                        matches!(done, Err(UpperError::Io { .. })),
                        "{what}: {done:?}"
                    );
                    let now = log(&dir);
                    assert!(now == damaged || now == expected.0, "{what}");
                    assert!(data.exists() || aside.len() == 2, "{what}");
                    let again = mended(&dir).0.unwrap();
                    assert_eq!(again.left, None, "{what}");
                    assert!(log(&dir) == expected.0, "{what}");
                    reopen(&dir).unwrap().0.close().unwrap();
                    assert_eq!(data.exists(), expected.1, "{what}");
                    assert_eq!(files(&dir), ["data", "journal", "lock"], "{what}");
                }
            }
        }
    }
    let all: Vec<_> = reached.into_iter().collect();
    assert_eq!(
        all,
        [
            "journal::create_log",
            "journal::mark",
            "journal::remove",
            "journal::rename",
            "journal::rewrite",
            "journal::snapshot",
            "journal::sync_dir",
            "journal::sync_log",
            "journal::truncate",
        ]
    );
}
