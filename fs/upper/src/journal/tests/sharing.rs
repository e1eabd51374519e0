//! Many threads, many processes.

use super::*;
use std::collections::HashSet;

#[test]
fn a_second_opener_is_refused_and_told_who_holds_it() {
    let (_keep, dir) = scratch();
    let journal = create(&dir);
    match Journal::open(&dir, LOWER, quiet()) {
        Err(UpperError::InUse { holder, .. }) => assert_eq!(holder, Some(std::process::id())),
        other => panic!("{other:?}"),
    }
    drop(journal);
    reopen(&dir).unwrap();
}

#[test]
fn another_lower_and_a_second_creation_are_refused_and_change_nothing() {
    let (_keep, dir) = scratch();
    let journal = create(&dir);
    commit(&journal, &batch(0)).unwrap();
    journal.close().unwrap();
    let other = JournalLower {
        identity: [8; 32],
        ..LOWER
    };
    assert!(matches!(
        Journal::open(&dir, other, quiet()),
        Err(UpperError::OtherLower { .. })
    ));
    let other = JournalLower {
        inode_count: 99,
        ..LOWER
    };
    assert!(matches!(
        Journal::open(&dir, other, quiet()),
        Err(UpperError::OtherLower { .. })
    ));
    let again = Journal::create(&dir, LOWER, quiet()).map(drop);
    assert_eq!(errno(again), Some(libc::EEXIST));
    assert_eq!(reopen(&dir).unwrap().1, batch(0));
}

#[test]
fn opening_what_is_not_there_says_so_and_makes_nothing() {
    let keep = tempfile::tempdir().unwrap();
    let result = Journal::open(keep.path(), LOWER, quiet()).map(drop);
    assert_eq!(errno(result), Some(libc::ENOENT));
    assert_eq!(std::fs::read_dir(keep.path()).unwrap().count(), 0);
}

#[test]
fn a_snapshot_beside_a_writer_is_a_prefix_and_refuses_changes() {
    let (_keep, dir) = scratch();
    let journal = shared(create(&dir));
    let writer = Arc::clone(&journal);
    let thread = std::thread::spawn(move || {
        for i in 0..20_000 {
            commit(&writer, &batch(i)).unwrap();
            if i % 5_000 == 0 {
                writer.sync_all().unwrap();
            }
        }
    });
    let mut seen = 0;
    while !thread.is_finished() {
        let (snapshot, records, _) = read(Journal::open_read_only(&dir, LOWER).unwrap()).unwrap();
        assert!(records.len() >= seen && records.len() % 2 == 0);
        seen = records.len();
        let expected: Vec<_> = (0..seen as u64 / 2).flat_map(batch).collect();
        assert_eq!(records, expected);
        assert_eq!(errno(commit(&snapshot, &batch(0))), Some(libc::EROFS));
        assert_eq!(
            errno(snapshot.create_data(Ino(1)).map(drop)),
            Some(libc::EROFS)
        );
    }
    thread.join().unwrap();
    assert_eq!(
        read(Journal::open_read_only(&dir, LOWER).unwrap())
            .unwrap()
            .1
            .len(),
        40_000
    );
}

#[test]
fn eight_threads_commit_and_sync_at_once_and_nothing_is_lost() {
    let (_keep, dir) = scratch();
    let options = JournalOptions {
        sync_interval: Some(std::time::Duration::from_millis(1)),
        ..JournalOptions::default()
    };
    let journal = shared(Journal::create(&dir, LOWER, options).unwrap());
    std::thread::scope(|scope| {
        for t in 0..8u64 {
            let journal = &journal;
            scope.spawn(move || {
                for i in 0..300 {
                    let ino = 1000 + t * 1000 + i;
                    if i % 10 == 0 {
                        put_data(journal, ino, b"content", i % 20 == 0);
                    } else {
                        commit(journal, &batch(ino)).unwrap();
                    }
                    if i % 60 == 0 {
                        journal.sync_file(Ino(ino)).unwrap();
                    }
                    if i % 10 == 5 && i % 20 != 5 {
                        let old = Ino(ino - 5);
                        commit(journal, &[Kept::Gone(old)]).unwrap();
                        journal.remove_data(old);
                    }
                }
            });
        }
    });
    Arc::into_inner(journal).unwrap().close().unwrap();
    let (_, records, recovery) = reopen(&dir).unwrap();
    assert!(recovery.clean);
    assert_eq!(recovery.batches, 8 * (300 + 15));
    let names: HashSet<_> = records
        .iter()
        .filter_map(|r| match r {
            Kept::Entry(_, name, ..) => Some(name.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(names.len(), 8 * 270);
    assert_eq!(data_names(&dir).len(), 8 * 15);
}

#[test]
fn one_flush_serves_many_waiters() {
    let (_keep, dir) = scratch();
    let journal = create(&dir);
    commit(&journal, &batch(0)).unwrap();
    let turn = journal.shared.gate.enter();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| journal.sync_file(Ino(1)).unwrap());
        }
        wait_for_waiters(&journal, 8);
        drop(turn);
    });
    assert_eq!(journal.stats().syncs, 1);
}

#[test]
fn more_files_than_may_be_open_are_all_reachable() {
    let (_keep, dir) = scratch();
    let journal = create(&dir);
    for i in 0..600u64 {
        put_data(&journal, 200 + i, &i.to_le_bytes(), false);
    }
    for i in 0..600u64 {
        let mut content = [0; 8];
        journal
            .data(Ino(200 + i))
            .unwrap()
            .read_exact_at(&mut content, 0)
            .unwrap();
        assert_eq!(content, i.to_le_bytes());
    }
    assert!(journal.data_dir_bytes().unwrap() >= 600 * 512);
}
