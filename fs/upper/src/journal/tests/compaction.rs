//! Replacing the log.

use super::*;

/// An upper in which entry `0..10` was said many times; its state is the last ten batches.
fn grown(dir: &Path, options: JournalOptions) -> (Journal, Vec<Kept>) {
    let journal = Journal::create(dir, LOWER, options).unwrap();
    for round in 0..50 {
        for i in 0..10 {
            commit(&journal, &batch(i)).unwrap();
        }
        if round == 25 {
            put_data(&journal, 50, b"lower", true);
        }
    }
    let mut live: Vec<_> = (0..10).flat_map(batch).collect();
    live.push(Kept::Node(node(50, ContentSource::Data)));
    (journal, live)
}

fn compact(journal: &Journal, live: &[Kept]) -> Result<(), UpperError> {
    journal.compact(journal.position(), &mut |each| {
        live.iter().for_each(|r| each(r.record()))
    })
}

#[test]
fn a_compacted_log_says_the_same_in_less_and_goes_on() {
    let (_keep, dir) = scratch();
    let (journal, live) = grown(&dir, quiet());
    let before = journal.stats();
    compact(&journal, &live).unwrap();
    let after = journal.stats();
    assert!(after.log_bytes * 10 < before.log_bytes);
    assert_eq!(after.generation, 2);
    commit(&journal, &batch(70)).unwrap();
    journal.sync_all().unwrap();
    kill(journal);
    reboot(&dir);
    let (journal, records, _) = reopen(&dir).unwrap();
    assert_eq!(records, [live.clone(), batch(70)].concat());
    // Again, over a log that is a compacted one, to nothing at all.
    compact(&journal, &[]).unwrap();
    commit(&journal, &batch(1)).unwrap();
    kill(journal);
    assert_eq!(reopen(&dir).unwrap().1, batch(1));
}

#[test]
fn a_compaction_that_fails_leaves_the_old_log_in_use() {
    for point in [
        "snapshot::enospc",
        "sync_log::eio",
        "rename::eio",
        "sync_data::eio",
    ] {
        let (_keep, dir) = scratch();
        let (options, faults) = with_faults();
        let (journal, live) = grown(&dir, options);
        let before = journal.stats();
        assert!(faults.arm(&format!("journal::{point}"), 1));
        assert!(
            matches!(compact(&journal, &live), Err(UpperError::Io { .. })),
            "{point}"
        );
        assert_eq!(journal.stats(), before);
        assert!(!dir.join("journal.new").exists());
        commit(&journal, &batch(70)).unwrap();
        compact(&journal, &[live.clone(), batch(70)].concat()).unwrap();
        journal.close().unwrap();
        assert_eq!(reopen(&dir).unwrap().1, [live, batch(70)].concat());
    }
}

#[test]
fn a_crash_at_any_step_of_a_compaction_leaves_one_whole_log() {
    let points = [
        "snapshot",
        "sync_data",
        "sync_log",
        "rename",
        "sync_dir",
        "remove",
    ];
    for point in points {
        for host_too in [false, true] {
            let (_keep, dir) = scratch();
            let (options, faults) = with_faults();
            let (journal, live) = grown(&dir, options);
            journal.sync_all().unwrap();
            // One after the sync, so that there is a copy to flush and a name to keep.
            put_data(&journal, 60, b"lower", true);
            let live = [live, vec![Kept::Node(node(60, ContentSource::Data))]].concat();
            commit(&journal, &[Kept::Gone(Ino(50))]).unwrap();
            journal.remove_data(Ino(50));
            let live: Vec<_> = live
                .into_iter()
                .filter(|r| *r != Kept::Node(node(50, ContentSource::Data)))
                .collect();
            assert!(faults.arm(&format!("journal::{point}::crash"), 1));
            let _ = compact(&journal, &live);
            kill(journal);
            if host_too {
                reboot(&dir);
            }
            let (journal, records, _) = reopen(&dir).unwrap();
            let mut state = std::collections::BTreeMap::new();
            for record in records {
                match record {
                    Kept::Gone(ino) => drop(state.remove(&(ino.0, false))),
                    Kept::Node(n) => drop(state.insert((n.ino.0, false), Kept::Node(n))),
                    Kept::Entry(p, n, i, k) => {
                        drop(state.insert((i.0, true), Kept::Entry(p, n, i, k)))
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert!(state.len() >= 21, "{point}: {} records live", state.len());
            for ino in state.values().filter_map(|r| match r {
                Kept::Node(n) if n.content == ContentSource::Data => Some(n.ino),
                _ => None,
            }) {
                let mut content = [0; 5];
                journal
                    .data(ino)
                    .unwrap()
                    .read_exact_at(&mut content, 0)
                    .unwrap();
                assert_eq!(&content, b"lower", "{point}: {ino}");
            }
            assert!(
                !dir.join("journal.new").exists(),
                "{point}: what was left is cleared"
            );
        }
    }
}

#[test]
fn it_is_wanted_when_the_log_is_large_and_mostly_dead() {
    let (_keep, dir) = scratch();
    let journal = create(&dir);
    assert!(!journal.wants_compaction(0), "an empty one is not worth it");
    let value = vec![3u8; 50_000];
    for _ in 0..90 {
        let big = Kept::Xattr(Ino(5), b"user.big".to_vec(), value.clone());
        commit(&journal, &[big]).unwrap();
    }
    assert!(journal.wants_compaction(1));
    assert!(!journal.wants_compaction(60), "two thirds are live");
    assert!(journal.stats().live_guess > 60 * 50_000);
    let live = [Kept::Xattr(Ino(5), b"user.big".to_vec(), value)];
    compact(&journal, &live).unwrap();
    assert!(!journal.wants_compaction(1));
}

#[test]
fn syncs_and_snapshots_may_run_beside_it() {
    let (_keep, dir) = scratch();
    let journal = create(&dir);
    commit(&journal, &batch(0)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| (0..50).for_each(|_| journal.sync_all().unwrap()));
        scope.spawn(|| {
            for _ in 0..50 {
                let opened = Journal::open_read_only(&dir, LOWER).unwrap();
                assert_eq!(read(opened).unwrap().1, batch(0));
            }
        });
        (0..20).for_each(|_| compact(&journal, &batch(0)).unwrap());
    });
    assert_eq!(journal.stats().generation, 21);
}
