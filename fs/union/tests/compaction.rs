//! Compaction while others change the tree.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs::File,
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use pellicle_layer::{Entry, Lower, LowerError};
use pellicle_union::{Attr, Caller, FileKind, Ino, NewNode, Options, RenameFlags, Union};
use pellicle_upper::{Event, Journal, JournalLower, JournalOptions, Op};

/// Nothing but a root directory.
struct Empty;

impl Lower for Empty {
    fn inode_count(&self) -> u64 {
        1
    }
    fn identity(&self) -> [u8; 32] {
        [1; 32]
    }
    fn attr(&self, ino: Ino) -> Result<Attr, LowerError> {
        Ok(Attr {
            ino,
            kind: FileKind::Directory,
            perm: 0o755,
            nlink: 2,
            uid: 0,
            gid: 0,
            rdev: pellicle_union::Device::default(),
            size: 4096,
            blocks: 0,
            atime: pellicle_union::Time::default(),
            mtime: pellicle_union::Time::default(),
            ctime: pellicle_union::Time::default(),
        })
    }
    fn lookup(&self, _: Ino, _: &[u8]) -> Result<Option<(Ino, FileKind)>, LowerError> {
        Ok(None)
    }
    fn entry(&self, _: Ino, _: u64) -> Result<Option<Entry<'_>>, LowerError> {
        Ok(None)
    }
    fn parent(&self, _: Ino) -> Result<Ino, LowerError> {
        Ok(Ino::ROOT)
    }
    fn readlink(&self, _: Ino) -> Result<Cow<'_, [u8]>, LowerError> {
        Ok(Cow::Borrowed(b""))
    }
    fn has_xattrs(&self, _: Ino) -> Result<bool, LowerError> {
        Ok(false)
    }
    fn xattrs(&self, _: Ino, _: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), LowerError> {
        Ok(())
    }
    fn read(&self, _: Ino, _: u64, _: &mut [u8]) -> Result<usize, LowerError> {
        Ok(0)
    }
    fn backing(&self, _: Ino) -> Result<Option<Arc<File>>, LowerError> {
        Ok(None)
    }
    fn seek(&self, _: Ino, _: u64, _: bool) -> Result<Option<u64>, LowerError> {
        Ok(None)
    }
    fn layer_of(&self, _: Ino) -> Result<u32, LowerError> {
        Ok(0)
    }
}

fn lower() -> JournalLower {
    JournalLower {
        identity: Empty.identity(),
        inode_count: 1,
    }
}

fn create(dir: &Path, options: JournalOptions) -> Union {
    let journal = Journal::create(dir, lower(), options).unwrap();
    over(journal)
}

fn over(journal: Journal) -> Union {
    let options = Options::default();
    Union::open(Arc::new(Empty), Some(Box::new(journal)), options)
        .unwrap()
        .0
}

/// Every path with its attributes, times too.
fn tree(union: &Union) -> BTreeMap<Vec<u8>, (Attr, Vec<u8>)> {
    let mut tree = BTreeMap::new();
    let mut todo = vec![(Vec::new(), Ino::ROOT)];
    while let Some((path, ino)) = todo.pop() {
        let attr = union.attr(ino).unwrap();
        let mut content = vec![0; 16];
        if attr.kind == FileKind::Regular {
            let n = union.read(ino, 0, &mut content).unwrap();
            content.truncate(n);
        } else {
            union
                .list(ino, 0, &mut |entry| {
                    todo.push(([&path[..], b"/", entry.name].concat(), entry.ino));
                    ControlFlow::Continue(())
                })
                .unwrap();
        }
        tree.insert(path, (attr, content));
    }
    tree
}

/// Makes, fills, moves and removes names that all workers share.
fn stir(union: &Union, seed: u64, dirs: &[Ino], until: &AtomicBool, done: &AtomicU64) {
    let mut state = seed * 77 + 1;
    let mut pick = |n: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as usize % n
    };
    while !until.load(Ordering::Relaxed) {
        done.fetch_add(1, Ordering::Relaxed);
        let (from, to) = (dirs[pick(dirs.len())], dirs[pick(dirs.len())]);
        let (a, b) = (format!("n{}", pick(40)), format!("n{}", pick(40)));
        let (a, b) = (a.as_bytes(), b.as_bytes());
        let who = Caller::default();
        // That a name is there, or is not, is as the others have it.
        let _ = match pick(5) {
            0 => union.make(from, a, NewNode::Regular, 0o644, who).map(drop),
            1 => union.lookup(from, a).and_then(|attr| {
                union
                    .write(attr.ino, 0, &pick(1 << 30).to_le_bytes(), false)
                    .map(drop)
            }),
            2 => union.rename(from, a, to, b, RenameFlags::default()),
            3 => union.unlink(from, a),
            _ => union
                .lookup(from, a)
                .and_then(|attr| union.link(attr.ino, to, b))
                .map(drop),
        };
    }
}

#[test]
fn a_log_compacted_while_four_threads_change_the_tree_says_what_they_made() {
    // In memory where there is such a place: what is tried here is not the disk.
    let scratch = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let scratch = scratch.unwrap();
    let dir = scratch.path().join("upper");
    let union = create(&dir, JournalOptions::default());
    let who = Caller::default();
    let dirs: Vec<Ino> = (0..3)
        .map(|i| {
            let name = format!("d{i}");
            let made = union.make(Ino::ROOT, name.as_bytes(), NewNode::Directory, 0o755, who);
            made.unwrap().ino
        })
        .collect();
    for round in 0..10 {
        let (until, done) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let (union, dirs, until, done) = (&union, &dirs, &until, &done);
                scope.spawn(move || stir(union, round * 10 + seed, dirs, until, done));
            }
            // Once at least, however long this thread had to wait for its turn.
            loop {
                union.compact().unwrap();
                if done.load(Ordering::Relaxed) >= 4_000 {
                    break;
                }
            }
            union.sync_all().unwrap();
            until.store(true, Ordering::Relaxed);
        });
        let journal = Journal::open_read_only(&dir, lower()).unwrap();
        assert!(journal_generation(&dir) > round + 1);
        assert!(tree(&over_read_only(journal)) == tree(&union));
    }
    let before = tree(&union);
    drop(union);
    let journal = Journal::open(&dir, lower(), JournalOptions::default()).unwrap();
    assert!(tree(&over(journal)) == before);
}

fn over_read_only(journal: Journal) -> Union {
    let options = Options { read_only: true };
    Union::open(Arc::new(Empty), Some(Box::new(journal)), options)
        .unwrap()
        .0
}

/// By the log's header page (`fs/docs/JOURNAL.md`).
fn journal_generation(dir: &Path) -> u64 {
    let bytes = std::fs::read(dir.join("journal")).unwrap();
    u64::from_le_bytes(*bytes[24..].first_chunk().unwrap())
}

#[test]
fn changes_go_on_while_a_compaction_flushes() {
    let scratch = tempfile::tempdir().unwrap();
    let options = JournalOptions {
        sync_interval: None,
        ..JournalOptions::default()
    };
    let faults = options.faults.clone();
    let union = Arc::new(create(&scratch.path().join("upper"), options));
    let (other, flushes) = (Arc::downgrade(&union), Arc::new(AtomicBool::new(false)));
    let seen = Arc::clone(&flushes);
    faults.watch(move |event| {
        if matches!(event, Event::Before(Op::SyncLog)) && !seen.swap(true, Ordering::SeqCst) {
            let union = other.upgrade().unwrap();
            // Another thread, which would wait for ever for a lock that is held over the flush.
            let made = std::thread::spawn(move || {
                let who = Caller::default();
                union.make(Ino::ROOT, b"meanwhile", NewNode::Directory, 0o755, who)
            });
            made.join().unwrap().unwrap();
        }
    });
    union.compact().unwrap();
    assert!(flushes.load(Ordering::SeqCst));
    union.lookup(Ino::ROOT, b"meanwhile").unwrap();
}
