//! A log of anyone's making, under the union: an error, or a tree that can be used, and that is the
//! same when it is opened once more.
//!
//! The first byte of an input: bit 0, the rest is a short form and not the file; bits 1 and 2, same
//! boot and clean; bit 3, changes are made and the log is compacted before it is opened once more.
//! In a short form the second byte is the number of the last batch that was synced.

#![no_main]

use std::{path::Path, sync::Arc};

use libfuzzer_sys::fuzz_target;
use pellicle_fuzz::{Disguise, forge_log, limit_files, scratch, tour};
use pellicle_layer::Lower as _;
use pellicle_union::{Caller, Ino, NewNode, Options, Union};
use pellicle_upper::{Journal, JournalLower, JournalOptions};

#[allow(dead_code, reason = "the union's tests use all of it")]
#[path = "../../../fs/union/tests/support/lower.rs"]
mod lower;

use lower::MemLower;

fn sample() -> Arc<MemLower> {
    let mut tree = MemLower::new();
    let dir = tree.dir(Ino::ROOT, "a");
    tree.file(dir, "b", b"a lower file");
    tree.symlink(dir, "c", "over/there");
    tree.file(Ino::ROOT, "b", &[1; 5000]);
    Arc::new(tree)
}

fn open(dir: &Path, lower: &Arc<MemLower>) -> Option<Union> {
    let of = JournalLower {
        identity: lower.identity(),
        inode_count: lower.inode_count(),
    };
    let options = JournalOptions {
        volatile: true,
        sync_interval: None,
        ..JournalOptions::default()
    };
    let journal = Journal::open(dir, of, options).ok()?;
    let opened = Union::open(lower.clone(), Some(Box::new(journal)), Options::default());
    opened.ok().map(|(union, _)| union)
}

fn change(union: &Union) {
    let who = Caller {
        uid: 0,
        gid: 0,
        umask: 0o022,
    };
    if let Ok(made) = union.make(Ino::ROOT, b"new", NewNode::Regular, 0o644, who) {
        let _ = union.write(made.ino, 3, b"text", pellicle_union::KillSetId::No);
        let _ = union.link(made.ino, Ino::ROOT, b"link");
    }
    let _ = union.make(Ino::ROOT, b"dir", NewNode::Directory, 0o755, who);
    let _ = union.rename(Ino::ROOT, b"a", Ino::ROOT, b"dir", Default::default());
    let _ = union.unlink(Ino::ROOT, b"b");
    let _ = union.compact();
}

fuzz_target!(init: limit_files(8 << 20), |input: &[u8]| {
    let [first, synced, rest @ ..] = input else {
        return;
    };
    let lower = sample();
    let dir = scratch();
    let log = match first & 1 {
        0 => rest.to_vec(),
        _ => {
            let disguise = Disguise {
                inodes: lower.inode_count(),
                synced: u64::from(*synced),
                same_boot: first & 2 != 0,
                clean: first & 4 != 0,
            };
            forge_log(disguise, rest)
        }
    };
    let data = dir.path().join("data");
    let written = std::fs::write(dir.path().join("journal"), log)
        .and_then(|()| std::fs::create_dir(&data));
    if written.is_err() {
        return;
    }
    // Content for some of what the log may say has some.
    for ino in 2..12u64 {
        let _ = std::fs::write(data.join(format!("{ino:016x}")), ino.to_le_bytes());
    }
    let Some(union) = open(dir.path(), &lower) else {
        return;
    };
    let mut before = tour(&union);
    let _ = union.differences();
    if first & 8 != 0 {
        change(&union);
        before = tour(&union);
    }
    drop(union);
    if first & 1 != 0 {
        // A forged log may contradict itself (a directory without names that the lower tree has a name
        // for), which is not all found out: it may be taken in another way when it was compacted, or be
        // refused then. It must be taken or refused, and no more.
        if let Some(union) = open(dir.path(), &lower) {
            let _ = tour(&union);
        }
        return;
    }
    let union = open(dir.path(), &lower).expect("what was opened once opens again");
    let after = tour(&union);
    if let Some((now, then)) = after.iter().zip(&before).find(|(a, b)| a != b) {
        panic!("opened once more it is another tree:\n  before {then}\n  after  {now}");
    }
    assert_eq!(after.len(), before.len());
});
