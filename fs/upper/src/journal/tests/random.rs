//! Batches nobody thought of.

use super::*;
use proptest::prelude::*;

fn time() -> impl Strategy<Value = Time> {
    (any::<i64>(), 0..1_000_000_000u32).prop_map(|(sec, nsec)| Time { sec, nsec })
}

fn kind() -> impl Strategy<Value = FileKind> {
    prop_oneof![
        Just(FileKind::Regular),
        Just(FileKind::Directory),
        Just(FileKind::Symlink),
        Just(FileKind::CharDevice),
        Just(FileKind::Socket),
    ]
}

fn ino() -> impl Strategy<Value = Ino> {
    (1..=u64::MAX).prop_map(Ino)
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![1..b'/', b'0'..=255], 1..=255)
        .prop_filter("dots", |n| n != b"." && n != b"..")
}

fn any_node() -> impl Strategy<Value = Node> {
    let ids = (
        ino(),
        kind(),
        0..=0o7777u16,
        any::<(u32, u32, u32, u32, u32)>(),
    );
    let rest = (0..=i64::MAX as u64, 0..4u8, time(), time(), time(), ino());
    (ids, rest).prop_map(
        |((ino, kind, perm, n), (size, content, atime, mtime, ctime, parent))| Node {
            ino,
            kind,
            perm,
            nlink: n.0,
            uid: n.1,
            gid: n.2,
            rdev: Device {
                major: n.3,
                minor: n.4,
            },
            size,
            content: match content {
                0 => ContentSource::Lower,
                1 if kind == FileKind::Regular => ContentSource::Data,
                3 if kind == FileKind::Regular => ContentSource::Mixed,
                _ => ContentSource::Zero,
            },
            atime,
            mtime,
            ctime,
            parent,
        },
    )
}

fn record() -> impl Strategy<Value = Kept> {
    let bytes = prop::collection::vec(any::<u8>(), 0..2000);
    let target = prop::collection::vec(1..=255u8, 1..4096);
    prop_oneof![
        any_node().prop_map(Kept::Node),
        (ino(), 0..u64::MAX, 1..u64::MAX).prop_map(|(i, start, n)| Kept::Own(
            i,
            start,
            start.saturating_add(n)
        )),
        (ino(), name(), ino(), kind()).prop_map(|(p, n, i, k)| Kept::Entry(p, n, i, k)),
        (ino(), name()).prop_map(|(p, n)| Kept::NoEntry(p, n)),
        (ino(), target).prop_map(|(i, t)| Kept::Symlink(i, t)),
        (ino(), name(), bytes).prop_map(|(i, n, v)| Kept::Xattr(i, n, v)),
        (ino(), name()).prop_map(|(i, n)| Kept::NoXattr(i, n)),
        ino().prop_map(Kept::Gone),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_batches_come_back_as_they_were_through_kills_syncs_and_closes(
        batches in prop::collection::vec((prop::collection::vec(record(), 1..20), 0..8u8), 1..20)
    ) {
        let (_keep, dir) = scratch();
        let mut journal = create(&dir);
        let mut all = Vec::new();
        for (batch, then) in batches {
            commit(&journal, &batch).unwrap();
            all.extend(batch);
            match then {
                0 => {
                    kill(journal);
                    journal = reopen(&dir).unwrap().0;
                }
                1 => {
                    journal.close().unwrap();
                    journal = reopen(&dir).unwrap().0;
                }
                2 => journal.sync_all().unwrap(),
                _ => {}
            }
        }
        kill(journal);
        let (_, records, recovery) = reopen(&dir).unwrap();
        prop_assert_eq!(records, all);
        prop_assert_eq!(recovery.torn_bytes, 0);
    }

    #[test]
    fn any_bytes_as_a_record_are_refused_or_mean_something_valid(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        tag in 0..10u8,
    ) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = tag;
        }
        if let Ok((record, copied, rest)) = crate::journal::record::decode(&bytes) {
            prop_assert_eq!(crate::journal::record::check(&record), Ok(()));
            let mut again = Vec::new();
            crate::journal::record::encode(&record, copied, &mut again);
            prop_assert_eq!(&bytes[..bytes.len() - rest.len()], &again[..]);
        }
    }
}
