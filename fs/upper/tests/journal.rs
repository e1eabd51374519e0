//! The journal against real ends: processes killed with SIGKILL, file systems that are full.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the whole file is a test"
)]

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use pellicle_store::{Device, FileKind, Ino, Time};
use pellicle_upper::{
    ContentSource, Journal, JournalLower, JournalOptions, Node, Record, Upper, UpperError,
};

const LOWER: JournalLower = JournalLower {
    identity: [9; 32],
    inode_count: 10,
};
const CHILD_DIR: &str = "PELLICLE_TEST_KILLED_CHILD";

fn node(ino: u64, size: u64) -> Node {
    Node {
        ino: Ino(ino),
        kind: FileKind::Regular,
        perm: 0o644,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: Device::default(),
        size,
        content: ContentSource::Data,
        atime: Time::default(),
        mtime: Time::default(),
        ctime: Time::default(),
        parent: Ino::ROOT,
    }
}

/// Number `i`: a node with a data file every 16th time, its name, and an attribute of a length
/// that varies. The name is `i`.
fn put(journal: &Journal, i: u64) -> Result<(), UpperError> {
    let ino = 11 + i;
    let name = i.to_string();
    let mut node = node(ino, 8);
    if i.is_multiple_of(16) {
        journal
            .create_data(Ino(ino))?
            .write_all_at(&i.to_le_bytes(), 0)
            .unwrap();
    } else {
        node.content = ContentSource::Zero;
    }
    let value = vec![i as u8; (i * 37 % 3000) as usize];
    journal.commit(&[
        Record::Node(node),
        Record::Entry {
            parent: Ino::ROOT,
            name: name.as_bytes(),
            ino: Ino(ino),
            kind: FileKind::Regular,
        },
        Record::Xattr {
            ino: Ino(ino),
            name: b"user.v",
            value: &value,
        },
    ])
}

/// Opens the upper and checks that it holds numbers `0..n`, whole and in order; returns `n`.
fn check(dir: &Path) -> (Journal, u64) {
    let journal = Journal::open(dir, LOWER, JournalOptions::default()).unwrap();
    let mut next = 0u64;
    let mut in_batch = 0;
    let mut with_data = Vec::new();
    journal
        .replay(&mut |record| {
            match record {
                Record::Node(n) => {
                    assert_eq!(n.ino.0, 11 + next);
                    if n.content == ContentSource::Data {
                        with_data.push(next);
                    }
                }
                Record::Entry { name, .. } => assert_eq!(name, next.to_string().as_bytes()),
                Record::Xattr { value, .. } => {
                    assert!(value.len() as u64 == next * 37 % 3000);
                    assert!(value.iter().all(|b| *b == next as u8));
                    next += 1;
                }
                other => panic!("{other:?}"),
            }
            in_batch = (in_batch + 1) % 3;
        })
        .unwrap();
    assert_eq!(in_batch, 0, "half a batch");
    for i in with_data {
        let mut content = [0; 8];
        journal
            .data(Ino(11 + i))
            .unwrap()
            .read_exact_at(&mut content, 0)
            .unwrap();
        assert_eq!(content, i.to_le_bytes());
    }
    (journal, next)
}

/// Not a test of its own: what the process does that the test below kills.
#[test]
#[ignore = "the child half of everything_acknowledged_survives_kill_9"]
fn commit_until_killed() {
    let Some(dir) = std::env::var_os(CHILD_DIR).map(PathBuf::from) else {
        return;
    };
    let (journal, from) = if dir.join("journal").exists() {
        check(&dir)
    } else {
        (
            Journal::create(&dir, LOWER, JournalOptions::default()).unwrap(),
            0,
        )
    };
    let mut out = std::io::stdout().lock();
    for i in from.. {
        put(&journal, i).unwrap();
        writeln!(out, "kept {i}").unwrap();
        out.flush().unwrap();
        if i % 300 == 299 {
            journal.sync_all().unwrap();
        }
    }
}

#[test]
fn everything_acknowledged_survives_kill_9() {
    let keep = tempfile::tempdir().unwrap();
    let dir = keep.path().join("upper");
    let mut acknowledged = 0;
    for round in 0..20u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "commit_until_killed", "--ignored", "--nocapture"])
            .env(CHILD_DIR, &dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        // Killed from another thread at a time that has nothing to do with what it does.
        let pid = rustix::process::Pid::from_child(&child);
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(30_000 + round * 7_919 % 60_000));
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        });
        let mut last = None;
        for line in out.lines() {
            let line = line.unwrap();
            if let Some((_, i)) = line.split_once("kept ") {
                last = i.parse::<u64>().ok().or(last);
            }
        }
        killer.join().unwrap();
        assert!(!child.wait().unwrap().success());
        acknowledged = last.map_or(acknowledged, |l| l + 1);
        if dir.join("journal").exists() {
            let (journal, kept) = check(&dir);
            assert!(
                kept >= acknowledged,
                "round {round}: {kept} of {acknowledged}"
            );
            drop(journal);
        }
    }
    assert!(
        acknowledged > 100,
        "the children came to do something: {acknowledged}"
    );
}

/// A file system of its own in memory; unmounted when dropped.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(dir.path())
            .output();
        match done {
            Ok(o) if o.status.success() => Some(Self(dir)),
            other => {
                println!("skipped: cannot mount a tmpfs here: {other:?}");
                None
            }
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

fn full(result: Result<(), UpperError>) -> bool {
    match result {
        Err(UpperError::Io { source, .. }) => source.kind() == std::io::ErrorKind::StorageFull,
        _ => false,
    }
}

#[test]
fn a_full_file_system_is_an_error_and_goes_on_when_there_is_room_again() {
    let Some(small) = Small::mount("size=4m") else {
        return;
    };
    let dir = small.0.path().join("upper");
    let journal = Journal::create(&dir, LOWER, JournalOptions::default()).unwrap();
    let ballast = small.0.path().join("ballast");
    File::create(&ballast)
        .unwrap()
        .write_all(&vec![1; 1 << 20])
        .unwrap();
    let mut n = 0;
    let refused = loop {
        match put(&journal, n) {
            Ok(()) => n += 1,
            Err(e) => break e,
        }
        assert!(n < 100_000, "it never got full");
    };
    assert!(full(Err(refused)));
    assert!(full(put(&journal, n)), "and still is");
    std::fs::remove_file(ballast).unwrap();
    for _ in 0..100 {
        put(&journal, n).unwrap();
        n += 1;
    }
    journal.sync_all().unwrap();
    drop(journal);
    assert_eq!(check(&dir).1, n);
}

#[test]
fn a_removed_file_makes_room_on_a_full_file_system_at_once() {
    let Some(small) = Small::mount("size=4m") else {
        return;
    };
    let dir = small.0.path().join("upper");
    let journal = Journal::create(&dir, LOWER, JournalOptions::default()).unwrap();
    let big = journal.create_data(Ino(11)).unwrap();
    journal.commit(&[Record::Node(node(11, 3 << 20))]).unwrap();
    big.write_all_at(&vec![1; 3 << 20], 0).unwrap();
    journal.sync_all().unwrap();
    drop(big);
    journal.commit(&[Record::Gone { ino: Ino(11) }]).unwrap();
    journal.remove_data(Ino(11));
    let next = journal.create_data(Ino(12)).unwrap();
    next.write_all_at(&vec![2; 3 << 20], 0).unwrap();
}

#[test]
fn without_inodes_no_data_file_but_commits_go_on() {
    let Some(small) = Small::mount("size=4m,nr_inodes=6") else {
        return;
    };
    let dir = small.0.path().join("upper");
    let journal = Journal::create(&dir, LOWER, JournalOptions::default()).unwrap();
    let refused = (0..10)
        .map(|i| journal.create_data(Ino(11 + i)).map(drop))
        .find(Result::is_err);
    assert!(full(refused.unwrap()));
    journal.commit(&[Record::Gone { ino: Ino(11) }]).unwrap();
}

/// How many calls of the read and the write kind this thread has made (proc(5), `/proc/pid/io`).
fn calls() -> (u64, u64) {
    let io = fs::read_to_string("/proc/thread-self/io").unwrap();
    let count = |key| {
        let line = io.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim().parse().unwrap()
    };
    (count("syscr:"), count("syscw:"))
}

#[test]
fn a_commit_makes_no_system_call() {
    let keep = tempfile::tempdir().unwrap();
    let options = JournalOptions {
        volatile: true,
        ..JournalOptions::default()
    };
    let journal = Journal::create(&keep.path().join("upper"), LOWER, options).unwrap();
    // Until it has room.
    journal.reserve().unwrap();
    journal.release();
    // What reading the counters costs, and that they count.
    let (start, again) = (calls(), calls());
    fs::write(keep.path().join("x"), b"x").unwrap();
    let (reading, begun) = (again.0 - start.0, calls());
    assert_eq!(begun.1, again.1 + 1);
    for _ in 0..1000 {
        let entry = Record::NoEntry {
            parent: Ino::ROOT,
            name: b"some-file-name.txt",
        };
        journal.commit(&[entry, Record::Node(node(11, 8))]).unwrap();
    }
    assert_eq!(calls(), (begun.0 + reading, begun.1));
}
