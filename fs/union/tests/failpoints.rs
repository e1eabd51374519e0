//! Every call to the host on the way of a change, made to fail in every way, each time it comes.
//!
//! A small series of operations runs over a journal with one failpoint armed. The operation that
//! fails must leave the tree as it was, in memory and as another process reads it from the disk;
//! once the cause is gone it must succeed, on the same mount wherever the layer still takes
//! changes, else (a failed flush, a dead process) after it was opened again; and the tree that the
//! whole series makes must be the one it makes without failures, before and after a remount.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::OpenOptions,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use pellicle_layer::Lower;
use pellicle_union::{Caller, Error, FileKind, Ino, NewNode, Options, RenameFlags, SetAttr, Union};
use pellicle_upper::{
    Chunks, Faults, Journal, JournalLower, JournalOptions, Mode, Op, Upper, UpperError,
};
use support::{at, content, lower::MemLower, names};

/// What one path is, without times.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Thing {
    kind: FileKind,
    perm: u16,
    owner: (u32, u32),
    nlink: u32,
    size: u64,
    content: Vec<u8>,
    xattrs: Vec<u8>,
}

type Tree = BTreeMap<Vec<u8>, Thing>;

fn tree(union: &Union) -> Tree {
    let mut tree = Tree::new();
    let mut todo = vec![(Vec::new(), Ino::ROOT)];
    while let Some((path, ino)) = todo.pop() {
        let attr = union.attr(ino).unwrap();
        let content = match attr.kind {
            FileKind::Regular => content(union, ino),
            FileKind::Symlink => union.readlink(ino).unwrap(),
            _ => Vec::new(),
        };
        if attr.kind == FileKind::Directory {
            for (name, ino, _) in names(union, ino) {
                todo.push(([&path[..], b"/", &name].concat(), ino));
            }
        }
        let thing = Thing {
            kind: attr.kind,
            perm: attr.perm,
            owner: (attr.uid, attr.gid),
            nlink: attr.nlink,
            size: attr.size,
            content,
            xattrs: union.xattr_names(ino).unwrap(),
        };
        tree.insert(path, thing);
    }
    tree
}

fn lower() -> Arc<MemLower> {
    let mut lower = MemLower::new();
    lower.backed = true;
    let dir = lower.dir(Ino::ROOT, "lower");
    let mut sparse = vec![b's'; 20_000];
    sparse[4096..8192].fill(0);
    lower.file(dir, "sparse", &sparse);
    lower.file(dir, "small", b"a few bytes");
    lower.file(dir, "other", &[b'o'; 9_000]);
    let mut large = vec![b'l'; 100_000];
    large[61_440..73_728].fill(0);
    lower.file(dir, "large", &large);
    Arc::new(lower)
}

/// Where a run keeps its upper: in memory where there is such a place, for there are thousands.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    }
    .unwrap()
}

struct Stage {
    lower: Arc<MemLower>,
    dir: tempfile::TempDir,
}

impl Stage {
    fn new(lower: &Arc<MemLower>) -> Self {
        Self {
            lower: lower.clone(),
            dir: scratch(),
        }
    }

    fn upper(&self) -> PathBuf {
        self.dir.path().join("upper")
    }

    fn of(&self) -> JournalLower {
        JournalLower {
            identity: self.lower.identity(),
            inode_count: self.lower.inode_count(),
        }
    }

    fn union(&self, journal: Journal, read_only: bool) -> Result<Union, Error> {
        let options = Options { read_only };
        let upper: Box<dyn Upper> = Box::new(journal);
        Union::open(self.lower.clone(), Some(upper), options).map(|(union, _)| union)
    }

    fn create(&self, faults: &Faults) -> Result<Union, Error> {
        let journal = Journal::create(&self.upper(), self.of(), options(faults))?;
        self.union(journal, false)
    }

    fn open(&self, faults: &Faults) -> Result<Union, Error> {
        let journal = Journal::open(&self.upper(), self.of(), options(faults))?;
        self.union(journal, false)
    }

    /// What another process reads from the disk now.
    fn look(&self) -> Tree {
        let journal = Journal::open_read_only(&self.upper(), self.of()).unwrap();
        tree(&self.union(journal, true).unwrap())
    }
}

fn options(faults: &Faults) -> JournalOptions {
    JournalOptions {
        sync_interval: None,
        chunks: Chunks {
            whole: 32_000,
            size: 4096,
        },
        faults: faults.clone(),
        ..JournalOptions::default()
    }
}

type Step = fn(&Union) -> Result<(), Error>;

fn make(union: &Union, dir: &str, name: &str, what: NewNode<'_>) -> Result<(), Error> {
    let dir = at(union, dir);
    union
        .make(dir, name.as_bytes(), what, 0o640, Caller::default())
        .map(drop)
}

/// Writes all of it, as programs do.
fn write(union: &Union, path: &str, mut offset: u64, mut bytes: &[u8]) -> Result<(), Error> {
    let ino = at(union, path);
    while !bytes.is_empty() {
        let n = union.write(ino, offset, bytes, true)?;
        offset += n as u64;
        bytes = &bytes[n..];
    }
    Ok(())
}

fn resize(union: &Union, path: &str, size: u64) -> Result<(), Error> {
    let set = SetAttr {
        size: Some(size),
        ..SetAttr::default()
    };
    union.set_attr(at(union, path), set).map(drop)
}

fn rename(union: &Union, from: (&str, &str), to: (&str, &str)) -> Result<(), Error> {
    union.rename(
        at(union, from.0),
        from.1.as_bytes(),
        at(union, to.0),
        to.1.as_bytes(),
        RenameFlags::default(),
    )
}

const STEPS: &[Step] = &[
    |u| make(u, "", "d", NewNode::Directory),
    |u| make(u, "d", "new", NewNode::Regular),
    |u| write(u, "d/new", 0, &[b'n'; 10_000]),
    |u| u.sync_file(at(u, "d/new")),
    // Copied up, a hole in it, in the kernel and through memory.
    |u| write(u, "lower/sparse", 5_000, b"touched"),
    |u| u.sync_file(at(u, "lower/sparse")),
    |u| write(u, "lower/small", 3, b"er"),
    |u| u.sync_all(),
    |u| write(u, "d/new", 500, &[b'm'; 600]),
    |u| resize(u, "d/new", 3_000),
    |u| resize(u, "d/new", 20_000),
    |u| u.fallocate(at(u, "d/new"), 0, 0, 30_000, false),
    |u| {
        let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        u.fallocate(at(u, "d/new"), punch, 100, 1_000, false)
    },
    |u| {
        u.fallocate(
            at(u, "d/new"),
            libc::FALLOC_FL_ZERO_RANGE,
            2_000,
            500,
            false,
        )
    },
    |u| {
        let (from, to) = (at(u, "lower/sparse"), at(u, "d/new"));
        u.copy_range(from, 1_000, to, 5_000, 6_000, false).map(drop)
    },
    |u| u.lend(at(u, "lower/other"), true).map(drop),
    |u| resize(u, "lower/other", 12_000),
    |u| {
        let file = u.lend(at(u, "lower/other"), true)?;
        assert_eq!(file.unwrap().metadata().unwrap().len(), 12_000);
        Ok(())
    },
    // In pieces: alone, over what is there and on, a hole, cut off and grown, from itself, and whole.
    |u| write(u, "lower/large", 50_000, b"alone"),
    |u| u.sync_file(at(u, "lower/large")),
    |u| write(u, "lower/large", 50_100, &[b'L'; 30_000]),
    |u| {
        let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        u.fallocate(at(u, "lower/large"), punch, 10_000, 11_000, false)
    },
    |u| resize(u, "lower/large", 60_000),
    |u| resize(u, "lower/large", 90_000),
    |u| {
        let large = at(u, "lower/large");
        u.copy_range(large, 1_000, large, 46_000, 8_000, false)
            .map(drop)
    },
    |u| {
        assert!(u.lend(at(u, "lower/large"), true)?.is_none());
        Ok(())
    },
    |u| write(u, "lower/large", 0, &[b'w'; 60_000]),
    |u| {
        assert!(u.lend(at(u, "lower/large"), true)?.is_some());
        u.take_back(at(u, "lower/large")).map(drop)
    },
    |u| u.link(at(u, "d/new"), at(u, "lower"), b"link").map(drop),
    |u| rename(u, ("d", "new"), ("", "renamed")),
    |u| make(u, "d", "symlink", NewNode::Symlink(b"some/where")),
    |u| u.set_xattr(at(u, "renamed"), b"user.x", b"value", false, false),
    |u| {
        let set = SetAttr {
            perm: Some(0o4711),
            uid: Some(7),
            ..SetAttr::default()
        };
        u.set_attr(at(u, "renamed"), set).map(drop)
    },
    |u| make(u, "", "short-lived", NewNode::Regular),
    |u| write(u, "short-lived", 0, b"soon gone"),
    |u| u.sync_all(),
    |u| u.unlink(Ino::ROOT, b"short-lived"),
    |u| u.sync_all(),
    |u| rename(u, ("", "lower"), ("d", "moved")),
    |u| u.compact(),
    |u| make(u, "", "last", NewNode::Regular),
    |u| write(u, "last", 0, b"after the compaction"),
    // So much that the log needs more room.
    |u| {
        for i in 0..5 {
            let name = format!("user.{i}");
            let ino = at(u, "last");
            if u.xattr(ino, name.as_bytes()).is_err() {
                u.set_xattr(ino, name.as_bytes(), &[b'x'; 60_000], false, false)?;
            }
        }
        Ok(())
    },
    |u| u.unlink(at(u, "d/moved"), b"small"),
    |u| u.sync_all(),
];

/// The step that may be half-done when it fails.
const MANY_CHANGES: usize = 42;

/// Steps that change content where it is.
const IN_PLACE: [usize; 7] = [8, 12, 13, 14, 20, 24, 26];

/// Does all of `STEPS`; gives whether the failpoint was reached.
fn run(lower: &Arc<MemLower>, arm: &dyn Fn(&Faults), exact: bool, expected: Option<&Tree>) -> Tree {
    let stage = Stage::new(lower);
    let mut faults = Faults::default();
    let mut union = stage.create(&faults).unwrap();
    arm(&faults);
    for (n, step) in STEPS.iter().enumerate() {
        let before = tree(&union);
        let Err(error) = step(&union) else { continue };
        assert!(faults.hits() > 0, "step {n} fails by itself: {error}");
        // Content that is overwritten in place stays so if the host then does not take even the
        // few bytes of log that room was set aside for: what a failing disk does to any write. So
        // it does if the process dies half-way.
        let in_place = IN_PLACE.contains(&n)
            && (faults.hits_of_call("journal::append") > 0 || faults.is_dead());
        if exact && n != MANY_CHANGES && !in_place {
            assert!(tree(&union) == before, "step {n} failed and changed memory");
            assert!(
                stage.look() == before,
                "step {n} failed and changed the disk"
            );
        }
        let before = tree(&union);
        faults.clear();
        match step(&union) {
            Ok(()) => continue,
            Err(_) if is_spent(&union) => {}
            Err(error) => panic!("step {n}, again, with the cause gone: {error}"),
        }
        drop(union);
        faults = Faults::default();
        union = stage.open(&faults).unwrap();
        assert!(
            tree(&union) == before,
            "step {n}: another tree after opening"
        );
        step(&union).unwrap_or_else(|e| panic!("step {n}, opened again: {e}"));
    }
    let end = tree(&union);
    if let Some(expected) = expected {
        assert!(end == *expected, "the series made another tree");
    }
    drop(union);
    let again = stage.open(&Faults::default()).unwrap();
    assert!(tree(&again) == end, "another tree after remounting");
    end
}

/// Whether the layer takes no change any more, of anything.
fn is_spent(union: &Union) -> bool {
    let set = SetAttr {
        perm: Some(0o755),
        ..SetAttr::default()
    };
    let refused = union.set_attr(Ino::ROOT, set);
    matches!(
        refused,
        Err(Error::Upper(
            UpperError::Poisoned { .. } | UpperError::Io { .. }
        ))
    )
}

/// The ways a failpoint is tried: once, and until somebody makes room.
const TIMES: [u32; 2] = [1, u32::MAX];

/// Which failpoints were reached.
type Seen = BTreeSet<String>;

fn every_failure_of_a_series(seen: &mut Seen, mapped: bool) {
    let lower = lower();
    let no_map = |faults: &Faults| {
        if !mapped {
            assert!(faults.arm("journal::map::eio", u32::MAX));
        }
    };
    let expected = run(&lower, &no_map, true, None);
    // Where nothing is ever mapped, that cannot fail once more.
    let ops = Op::ALL
        .into_iter()
        .filter(|(op, _)| mapped || *op != Op::Map);
    for (op, call) in ops {
        for (mode, mode_name) in Mode::ALL {
            let name = format!("{call}::{mode_name}");
            for times in TIMES {
                for skip in 0.. {
                    let reached = std::cell::RefCell::new(Faults::default());
                    let arm = |faults: &Faults| {
                        no_map(faults);
                        let known = faults.arm_after(&name, skip, times);
                        assert_eq!(known, mode != Mode::Short || op.writes(), "{name}");
                        *reached.borrow_mut() = faults.clone();
                    };
                    // Half of a write that is told as such is no failure.
                    let exact = (op, mode) != (Op::DataWrite, Mode::Short);
                    let told = format!("{name} from call {skip}, {times} times, mapped: {mapped}");
                    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        run(&lower, &arm, exact, Some(&expected))
                    }));
                    assert!(result.is_ok(), "{told}");
                    if reached.borrow().hits_of(&name) == 0 {
                        break;
                    }
                    seen.insert(name.clone());
                }
            }
        }
    }
}

/// An upper as a killed process leaves it: changes that are not on disk, half of a frame behind
/// them, a data file nothing leads to.
fn leave_a_mess(stage: &Stage) -> Tree {
    let faults = Faults::default();
    let union = stage.create(&faults).unwrap();
    for step in &STEPS[..12] {
        step(&union).unwrap();
    }
    let before = tree(&union);
    for call in ["sync_data", "sync_dir", "sync_log", "session"] {
        assert!(faults.arm(&format!("journal::{call}::crash"), 1));
    }
    drop(union);
    let log = stage.upper().join("journal");
    let log = OpenOptions::new().write(true).open(log).unwrap();
    log.write_all_at(&[0x55; 100], log.metadata().unwrap().len() - 100)
        .unwrap();
    std::fs::write(stage.upper().join("data/00000000000fffff"), b"stray").unwrap();
    before
}

fn every_failure_of_an_opening(seen: &mut Seen) {
    let lower = lower();
    for (_, call) in Op::ALL {
        for (mode, mode_name) in Mode::ALL {
            let name = format!("{call}::{mode_name}");
            for skip in 0.. {
                let stage = Stage::new(&lower);
                let before = leave_a_mess(&stage);
                let faults = Faults::default();
                faults.arm_after(&name, skip, u32::MAX);
                let opened = stage.open(&faults);
                if let Ok(union) = &opened {
                    assert!(tree(union) == before, "{name}");
                }
                drop(opened);
                let hit = faults.hits_of(&name) > 0;
                let union = stage
                    .open(&Faults::default())
                    .unwrap_or_else(|e| panic!("{name} ({mode:?}), call {skip}: {e}"));
                assert!(tree(&union) == before, "{name}, call {skip}");
                write(&union, "d/new", 0, b"goes on").unwrap();
                union.sync_all().unwrap();
                if !hit {
                    break;
                }
                seen.insert(name.clone());
            }
        }
    }
}

fn every_failure_of_a_creation(seen: &mut Seen) {
    let lower = lower();
    for (_, call) in Op::ALL {
        for (_, mode) in Mode::ALL {
            let name = format!("{call}::{mode}");
            for skip in 0.. {
                let stage = Stage::new(&lower);
                let faults = Faults::default();
                faults.arm_after(&name, skip, u32::MAX);
                let made = stage.create(&faults).is_ok();
                let hit = faults.hits_of(&name) > 0;
                let union = if made {
                    stage.open(&Faults::default())
                } else {
                    stage.create(&Faults::default())
                };
                STEPS[0](&union.unwrap()).unwrap();
                if !hit {
                    break;
                }
                seen.insert(name.clone());
            }
        }
    }
}

#[test]
fn whatever_call_fails_nothing_is_half_done_and_it_goes_on_when_the_cause_is_gone() {
    let mut seen = Seen::new();
    every_failure_of_a_series(&mut seen, true);
    every_failure_of_a_series(&mut seen, false);
    every_failure_of_an_opening(&mut seen);
    every_failure_of_a_creation(&mut seen);
    let all = Op::ALL.into_iter().flat_map(|(op, call)| {
        let modes = Mode::ALL.into_iter();
        modes
            .filter(move |(mode, _)| *mode != Mode::Short || op.writes())
            .map(move |(_, mode)| format!("{call}::{mode}"))
    });
    let never: Vec<_> = all.filter(|name| !seen.contains(name)).collect();
    assert!(never.is_empty(), "never reached: {never:?}");
    println!("{} failpoints driven", seen.len());
}
