//! What survives which end.

use super::*;
use std::time::Duration;

#[test]
fn what_was_committed_is_there_after_a_kill_and_after_a_close() {
    for end in [kill as fn(Journal), |j: Journal| j.close().unwrap()] {
        let (_keep, dir) = scratch();
        let journal = create(&dir);
        let mut all = Vec::new();
        for i in 0..100 {
            commit(&journal, &batch(i)).unwrap();
            all.extend(batch(i));
        }
        end(journal);
        let (journal, records, recovery) = reopen(&dir).unwrap();
        assert_eq!(records, all);
        assert_eq!(recovery.batches, 100);
        assert_eq!(recovery.torn_bytes, 0);
        assert!(!recovery.host_crashed);
        // And goes on from there.
        commit(&journal, &batch(100)).unwrap();
        drop(journal);
        assert_eq!(reopen(&dir).unwrap().1.len(), 202);
    }
}

#[test]
fn clean_is_said_of_a_close_and_not_of_a_kill() {
    let (_keep, dir) = scratch();
    create(&dir).close().unwrap();
    let (journal, _, recovery) = reopen(&dir).unwrap();
    assert!(recovery.clean);
    kill(journal);
    assert!(!reopen(&dir).unwrap().2.clean);
    // The one above was dropped, which closes it.
    assert!(reopen(&dir).unwrap().2.clean);
}

#[test]
fn the_log_grows_past_every_step_and_all_of_it_comes_back() {
    let (_keep, dir) = scratch();
    let journal = create(&dir);
    let value = vec![3u8; 60_000];
    for i in 0..700u64 {
        let big = Kept::Xattr(Ino(i + 1), b"user.big".to_vec(), value.clone());
        commit(&journal, &[big]).unwrap();
    }
    assert!(journal.stats().log_bytes > 40 << 20);
    kill(journal);
    let (journal, records, _) = reopen(&dir).unwrap();
    assert_eq!(records.len(), 700);
    assert!(
        records
            .iter()
            .all(|r| matches!(r, Kept::Xattr(_, _, v) if *v == value))
    );
    journal.close().unwrap();
    let length = std::fs::metadata(dir.join("journal")).unwrap().len();
    assert!(length < 44 << 20, "unused room is given back: {length}");
}

#[test]
fn after_a_host_crash_an_unsynced_copy_is_not_believed() {
    let (_keep, dir) = scratch();
    let journal = create(&dir);
    commit(&journal, &batch(0)).unwrap();
    put_data(&journal, 50, b"lower", true);
    commit(&journal, &batch(1)).unwrap();
    kill(journal);
    reboot(&dir);
    let (journal, records, recovery) = reopen(&dir).unwrap();
    assert_eq!(records, batch(0), "replay stops before the copy");
    assert!(recovery.host_crashed && recovery.torn_bytes > 0);
    // Its data file leads nowhere and goes, what comes next takes the place in the log.
    journal.sync_all().unwrap();
    assert!(data_names(&dir).is_empty());
    commit(&journal, &batch(2)).unwrap();
    journal.close().unwrap();
    assert_eq!(reopen(&dir).unwrap().1, [batch(0), batch(2)].concat());
}

#[test]
fn after_a_host_crash_a_synced_copy_is_there() {
    let (_keep, dir) = scratch();
    let journal = create(&dir);
    put_data(&journal, 50, b"lower", true);
    journal.sync_file(Ino(50)).unwrap();
    commit(&journal, &batch(1)).unwrap();
    kill(journal);
    reboot(&dir);
    let (journal, records, recovery) = reopen(&dir).unwrap();
    assert_eq!(records.len(), 3);
    assert!(recovery.host_crashed);
    let mut content = [0; 5];
    journal
        .data(Ino(50))
        .unwrap()
        .read_exact_at(&mut content, 0)
        .unwrap();
    assert_eq!(&content, b"lower");
}

#[test]
fn a_copy_that_an_earlier_process_left_unsynced_is_flushed_by_the_next_sync() {
    let (_keep, dir) = scratch();
    let journal = create(&dir);
    put_data(&journal, 50, b"lower", true);
    kill(journal);
    let (options, faults) = with_faults();
    let (journal, ..) = read(Journal::open(&dir, LOWER, options).unwrap()).unwrap();
    assert!(faults.arm("journal::sync_data::eio", 1));
    // Another file is synced, but the copy belongs to the log before it.
    assert_eq!(errno(journal.sync_file(Ino(9))), Some(libc::EIO));
    drop(journal);
    let (journal, ..) = reopen(&dir).unwrap();
    journal.sync_file(Ino(9)).unwrap();
    kill(journal);
    reboot(&dir);
    assert_eq!(reopen(&dir).unwrap().1.len(), 1);
}

#[test]
fn new_content_that_the_host_lost_reads_as_zeros_and_not_as_an_error() {
    let (_keep, dir) = scratch();
    let journal = create(&dir);
    put_data(&journal, 150, b"fresh", false);
    kill(journal);
    std::fs::remove_file(dir.join("data/0000000000000096")).unwrap();
    reboot(&dir);
    let (journal, ..) = reopen(&dir).unwrap();
    assert_eq!(journal.data(Ino(150)).unwrap().metadata().unwrap().len(), 0);
}

#[test]
fn a_synced_data_file_that_is_missing_is_damage() {
    let (_keep, dir) = scratch();
    let journal = create(&dir);
    put_data(&journal, 150, b"kept", false);
    journal.close().unwrap();
    std::fs::remove_file(dir.join("data/0000000000000096")).unwrap();
    let (journal, ..) = reopen(&dir).unwrap();
    assert!(matches!(
        journal.data(Ino(150)),
        Err(UpperError::Corrupt { .. })
    ));
}

#[test]
fn a_synced_file_that_is_removed_stays_until_the_removal_is_synced() {
    let (_keep, dir) = scratch();
    let journal = create(&dir);
    put_data(&journal, 150, b"old", false);
    journal.sync_all().unwrap();
    commit(&journal, &[Kept::Gone(Ino(150))]).unwrap();
    journal.remove_data(Ino(150));
    assert_eq!(
        data_names(&dir).len(),
        1,
        "a host crash now would bring the file back"
    );
    journal.sync_all().unwrap();
    assert!(data_names(&dir).is_empty());
}

#[test]
fn a_file_that_was_never_synced_goes_at_once() {
    let (_keep, dir) = scratch();
    let journal = create(&dir);
    put_data(&journal, 150, b"temporary", false);
    commit(&journal, &[Kept::Gone(Ino(150))]).unwrap();
    journal.remove_data(Ino(150));
    assert!(data_names(&dir).is_empty());
}

#[test]
fn a_data_file_made_again_is_not_taken_for_the_removed_one() {
    let (_keep, dir) = scratch();
    let journal = create(&dir);
    put_data(&journal, 150, b"first", false);
    journal.sync_all().unwrap();
    commit(&journal, &[Kept::Node(node(150, ContentSource::Zero))]).unwrap();
    journal.remove_data(Ino(150));
    put_data(&journal, 150, b"again", false);
    journal.sync_all().unwrap();
    let mut content = [0; 5];
    journal
        .data(Ino(150))
        .unwrap()
        .read_exact_at(&mut content, 0)
        .unwrap();
    assert_eq!(&content, b"again");
    assert_eq!(data_names(&dir).len(), 1);
}

#[test]
fn files_that_nothing_leads_to_are_removed_and_foreign_ones_left() {
    let (_keep, dir) = scratch();
    let journal = create(&dir);
    put_data(&journal, 150, b"kept", false);
    journal.create_data(Ino(151)).unwrap();
    kill(journal);
    std::fs::write(dir.join("data/README"), b"not ours").unwrap();
    let (journal, ..) = reopen(&dir).unwrap();
    journal.sync_all().unwrap();
    assert_eq!(data_names(&dir), ["0000000000000096", "README"]);
}

#[test]
fn a_volatile_upper_flushes_nothing_and_survives_its_process() {
    let (_keep, dir) = scratch();
    let (options, faults) = with_faults();
    for point in ["sync_log", "sync_data", "sync_dir"] {
        assert!(faults.arm(&format!("journal::{point}::eio"), 1));
    }
    let options = JournalOptions {
        volatile: true,
        ..options
    };
    let journal = Journal::create(&dir, LOWER, options).unwrap();
    put_data(&journal, 150, b"kept", true);
    journal.sync_all().unwrap();
    journal.sync_file(Ino(150)).unwrap();
    journal.close().unwrap();
    let (_, records, recovery) = reopen(&dir).unwrap();
    assert_eq!(records.len(), 1);
    assert!(recovery.clean);
}

#[test]
fn the_background_sync_comes_by_itself_and_stops_with_the_journal() {
    let (_keep, dir) = scratch();
    let options = JournalOptions {
        sync_interval: Some(Duration::from_millis(20)),
        ..JournalOptions::default()
    };
    let journal = Journal::create(&dir, LOWER, options).unwrap();
    for round in 1..=2 {
        commit(&journal, &batch(round)).unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(120);
        while journal.stats().syncs < round {
            assert!(std::time::Instant::now() < deadline, "no sync came");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let shared = Arc::clone(&journal.shared);
    journal.close().unwrap();
    assert_eq!(Arc::strong_count(&shared), 1, "the thread is gone");
}

#[test]
fn a_log_without_mapping_keeps_as_much() {
    let (_keep, dir) = scratch();
    let journal = create(&dir);
    journal.shared.log.lock().as_mut().unwrap().avoid_mapping();
    let all: Vec<_> = (0..3000).flat_map(batch).collect();
    for i in 0..3000 {
        commit(&journal, &batch(i)).unwrap();
    }
    journal.sync_all().unwrap();
    kill(journal);
    assert_eq!(reopen(&dir).unwrap().1, all);
}
