//! Hosts that say no.

use super::*;
use crate::journal::format::HEADER_LEN;

#[test]
fn a_full_disk_refuses_the_commit_and_changes_nothing_and_goes_on_once_there_is_room() {
    for point in ["allocate::enospc", "allocate::edquot", "append::enospc"] {
        let (_keep, dir) = scratch();
        let (options, faults) = with_faults();
        let journal = Journal::create(&dir, LOWER, options).unwrap();
        let mut kept = Vec::new();
        assert!(faults.arm(&format!("journal::{point}"), u32::MAX));
        let mut i = 0;
        let (before, error) = loop {
            let before = journal.stats();
            match commit(&journal, &batch(i)) {
                Ok(()) => kept.extend(batch(i)),
                Err(e) => break (before, e),
            }
            i += 1;
        };
        let UpperError::Io { source, .. } = &error else {
            panic!("{error}")
        };
        assert!(matches!(
            source.raw_os_error(),
            Some(libc::ENOSPC | libc::EDQUOT)
        ));
        assert_eq!(journal.stats(), before);
        faults.clear();
        commit(&journal, &batch(i)).unwrap();
        kept.extend(batch(i));
        kill(journal);
        assert_eq!(reopen(&dir).unwrap().1, kept);
    }
}

#[test]
fn a_small_volatile_log_has_no_blocks_and_gets_room_when_it_grows_or_something_is_set_aside() {
    let (_keep, dir) = scratch();
    let (options, faults) = with_faults();
    let options = JournalOptions {
        volatile: true,
        ..options
    };
    let journal = Journal::create(&dir, LOWER, options.clone()).unwrap();
    assert!(faults.arm("journal::allocate::enospc", u32::MAX));
    let mut kept = Vec::new();
    let mut i = 0;
    while commit(&journal, &batch(i)).is_ok() {
        assert_eq!(journal.stats().log_allocated, HEADER_LEN);
        kept.extend(batch(i));
        i += 1;
    }
    let small = journal.stats().log_bytes;
    assert!((12 << 10..=16 << 10).contains(&small), "{small}");
    let full = |e: UpperError| errno(Err(e)) == Some(libc::ENOSPC);
    assert!(full(journal.reserve().unwrap_err()));
    // What a refused growth gives back is nothing that was written.
    faults.clear();
    journal.reserve().unwrap();
    journal.release();
    assert!(journal.stats().log_allocated > small);
    for i in i..2 * i {
        commit(&journal, &batch(i)).unwrap();
        kept.extend(batch(i));
    }
    kill(journal);
    assert_eq!(reopen(&dir).unwrap().1, kept);

    let (_keep, dir) = scratch();
    let journal = Journal::create(&dir, LOWER, options).unwrap();
    for point in ["append::enospc", "append::short"] {
        assert!(faults.arm(&format!("journal::{point}"), 1));
        assert!(full(commit(&journal, &batch(0)).unwrap_err()));
    }
    commit(&journal, &batch(1)).unwrap();
    kill(journal);
    assert_eq!(reopen(&dir).unwrap().1, batch(1));
}

#[test]
fn what_is_retired_takes_no_change() {
    let (_keep, dir) = scratch();
    let journal = create(&dir);
    journal.retire();
    assert!(commit(&journal, &batch(0)).is_err());
    assert!(journal.create_data(Ino(9)).is_err());
    assert!(data_names(&dir).is_empty());
}

#[test]
fn what_is_cleared_out_can_be_made_anew_and_content_is_not_cleared_out() {
    let (_keep, dir) = scratch();
    let journal = create(&dir);
    commit(&journal, &batch(0)).unwrap();
    journal.close().unwrap();
    assert!(Journal::clear_out(&dir).unwrap());
    let journal = create(&dir);
    assert!(journal.create_data(Ino(9)).is_ok());
    kill(journal);
    assert!(!Journal::clear_out(&dir).unwrap());
    assert!(reopen(&dir).unwrap().1.is_empty());
    assert!(Journal::clear_out(&dir.join("none")).is_err());
}

#[test]
fn after_a_failed_sync_nothing_more_is_taken_until_it_is_opened_again() {
    for point in ["sync_log", "sync_data", "sync_dir"] {
        let (_keep, dir) = scratch();
        let (options, faults) = with_faults();
        let journal = Journal::create(&dir, LOWER, options).unwrap();
        put_data(&journal, 150, b"content", true);
        assert!(faults.arm(&format!("journal::{point}::eio"), 1));
        assert_eq!(errno(journal.sync_all()), Some(libc::EIO), "{point}");
        for result in [
            journal.sync_all(),
            journal.sync_file(Ino(150)),
            commit(&journal, &batch(1)),
            journal.create_data(Ino(9)).map(drop),
            journal.compact(journal.position(), &mut |_| {}),
        ] {
            assert!(
                matches!(result, Err(UpperError::Poisoned { .. })),
                "{point}: {result:?}"
            );
        }
        assert!(matches!(journal.close(), Err(UpperError::Poisoned { .. })));
        let (journal, records, recovery) = reopen(&dir).unwrap();
        assert_eq!(records.len(), 1);
        assert!(!recovery.clean);
        commit(&journal, &batch(1)).unwrap();
        journal.close().unwrap();
    }
}

#[test]
fn waiters_of_a_failed_sync_fail_too() {
    let (_keep, dir) = scratch();
    let (options, faults) = with_faults();
    let journal = Journal::create(&dir, LOWER, options).unwrap();
    commit(&journal, &batch(0)).unwrap();
    let turn = journal.shared.gate.enter();
    std::thread::scope(|scope| {
        let waiters: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| journal.sync_file(Ino(1))))
            .collect();
        wait_for_waiters(&journal, 4);
        assert!(faults.arm("journal::sync_log::eio", 1));
        drop(turn);
        for waiter in waiters {
            waiter.join().unwrap().unwrap_err();
        }
    });
}

#[test]
fn a_creation_that_fails_leaves_nothing_that_opens() {
    for point in ["allocate::enospc", "rename::eio"] {
        let (_keep, dir) = scratch();
        let (options, faults) = with_faults();
        assert!(faults.arm(&format!("journal::{point}"), 1));
        let failed = Journal::create(&dir, LOWER, options.clone()).map(drop);
        assert!(matches!(failed, Err(UpperError::Io { .. })));
        assert!(!dir.join("journal").exists() && !dir.join("journal.new").exists());
        let journal = Journal::create(&dir, LOWER, options).unwrap();
        commit(&journal, &batch(0)).unwrap();
    }
}

#[test]
fn a_data_file_that_cannot_be_made_is_an_error_and_no_more() {
    let (_keep, dir) = scratch();
    let (options, faults) = with_faults();
    let journal = Journal::create(&dir, LOWER, options).unwrap();
    assert!(faults.arm("journal::create::enospc", 1));
    let failed = journal.create_data(Ino(150)).map(drop);
    assert_eq!(errno(failed), Some(libc::ENOSPC));
    put_data(&journal, 150, b"now", false);
    journal.sync_all().unwrap();
}

#[test]
fn room_of_removed_files_is_used_before_a_commit_is_refused() {
    let (_keep, dir) = scratch();
    let (options, faults) = with_faults();
    let journal = Journal::create(&dir, LOWER, options).unwrap();
    put_data(&journal, 150, b"old", false);
    journal.sync_all().unwrap();
    commit(&journal, &[Kept::Gone(Ino(150))]).unwrap();
    journal.remove_data(Ino(150));
    assert!(faults.arm("journal::create::enospc", 1));
    journal.create_data(Ino(151)).unwrap();
    assert_eq!(data_names(&dir), ["0000000000000097"]);
}

#[test]
fn commits_before_replay_are_refused() {
    let (_keep, dir) = scratch();
    create(&dir).close().unwrap();
    let journal = Journal::open(&dir, LOWER, quiet()).unwrap();
    commit(&journal, &batch(0)).unwrap_err();
    journal.replay(&mut |_| {}).unwrap();
    commit(&journal, &batch(0)).unwrap();
}

#[test]
fn a_batch_of_impossible_size_is_refused_whole() {
    let (_keep, dir) = scratch();
    let journal = create(&dir);
    let value = vec![1; 65_536];
    let many: Vec<_> = (1..300)
        .map(|i| Kept::Xattr(Ino(i), b"user.a".to_vec(), value.clone()))
        .collect();
    commit(&journal, &many).unwrap_err();
    commit(&journal, &batch(0)).unwrap();
    kill(journal);
    assert_eq!(reopen(&dir).unwrap().1, batch(0));
}

#[test]
fn what_is_written_once_more_stays_as_sparse_as_it_was() {
    use std::os::unix::fs::MetadataExt;

    let file = tempfile::tempfile().unwrap();
    file.set_len(8 << 20).unwrap();
    file.write_all_at(b"data", 3 << 20).unwrap();
    file.write_all_at(&[0; 4096], 5 << 20).unwrap();
    let host = crate::Host::default();
    host.rewrite(&file, 0, 8 << 20).unwrap();
    assert!(file.metadata().unwrap().blocks() * 512 <= 256 << 10);
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, 3 << 20).unwrap();
    assert_eq!(&bytes, b"data");
}

#[test]
fn what_is_written_while_a_file_is_written_once_more_is_not_lost() {
    const SLOTS: u64 = 64;
    let file = tempfile::tempfile().unwrap();
    let host = crate::Host::default();
    host.write_all_data(&file, &[0xff; 64 << 10], 0).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for n in 0..200_000_u64 {
                let slot = n % SLOTS;
                host.write_all_data(&file, &n.to_le_bytes(), slot * 1024)
                    .unwrap();
                let mut there = [0; 8];
                file.read_exact_at(&mut there, slot * 1024).unwrap();
                assert_eq!(u64::from_le_bytes(there), n);
            }
        });
        while !writer.is_finished() {
            assert_eq!(host.rewrite(&file, 0, u64::MAX).unwrap(), 64 << 10);
        }
    });
    for slot in 0..SLOTS {
        let mut there = [0; 8];
        file.read_exact_at(&mut there, slot * 1024).unwrap();
        let last = 200_000 - SLOTS + slot;
        assert_eq!(u64::from_le_bytes(there), last, "slot {slot}");
    }
}

#[test]
fn a_file_that_is_cut_off_meanwhile_is_not_made_longer_by_writing_it_once_more() {
    let file = tempfile::tempfile().unwrap();
    let host = crate::Host::default();
    host.write_all_data(&file, &[1; 100_000], 0).unwrap();
    host.truncate_data(&file, 70_000).unwrap();
    assert_eq!(host.rewrite(&file, 0, 100_000).unwrap(), 70_000);
    assert_eq!(file.metadata().unwrap().len(), 70_000);
    crate::journal::log::rewrite(&host, &file, 0, 100_000).unwrap_err();
}
