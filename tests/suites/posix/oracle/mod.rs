//! Kernel overlayfs as the oracle: the same random calls on our mount and on one of the kernel's over
//! the same lower directories, each answer compared, and now and then the whole trees.
//!
//! Compared are results and errnos, content, kinds, modes, owners, link counts, which names are of one
//! file, devices, extended attributes, and times so: those set or found below are equal; those of
//! the clock are recent on both; and a call that changes a modification time there changes it
//! here. What is not compared, or may differ, is in [`DIFFER`] and [`excused`], each with its cause.
//!
//! `PROPTEST_CASES` for more or fewer; a failure is shrunk, printed, and kept in `oracle.seeds`, from
//! which it is run first the next time.

mod operation;
mod side;
mod stand;

use std::{cell::RefCell, collections::BTreeMap, path::PathBuf};

use pellicle_tests::{
    Layers, OpenPolicy, Way, skip,
    tree::{Node, walk, walk_by_stat},
};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, FileFailurePersistence, RngAlgorithm, TestError, TestRng, TestRunner},
};
use rustix::{fs::FileType, io::Errno};

use crate::{can_run, full};
use operation::{Op, any_op};
use side::{Mapper, Object, Said, objects};
use stand::Stand;

/// Where the kernel's overlayfs itself differs from a file system of one disk, or we promise
/// something else, and how that is taken here. It is mounted with `redirect_dir=on` (else renaming
/// a lower directory is EXDEV), `index=on` (else hard links are broken by copy-up), `xino=on` and
/// `metacopy=off`.
const DIFFER: &[(&str, &str)] = &[
    (
        "link counts of directories are not compared",
        "it says 1 for a merged directory",
    ),
    (
        "numbers in listings are compared with those of stat here only",
        "it lists another one for a copied-up file with several names",
    ),
    (
        "a change time may change there and not here",
        "it copies up at an open for writing, each name for itself: a change, also of the directory",
    ),
    (
        "times after setting an extended attribute are not compared",
        "ext4, below it, takes setting the value that is there for no change",
    ),
    (
        "O_TMPFILE may be EOPNOTSUPP here",
        "over /dev/fuse the message is not known to fuser: SEMANTICS.md",
    ),
    (
        "removing an ACL that is not there may be ENODATA there",
        "it asks for the attribute first; ext4, which we follow, does not mind",
    ),
    (
        "a character device 0:0 is not made",
        "there it would be a whiteout (EPERM), here it is a device",
    ),
    (
        "times after writing to a mapping are not compared",
        "FUSE sets none for pages of a shared mapping",
    ),
    (
        "access times are not compared where they are recent, or of directories and symbolic links",
        "reading changes them on the host below it, and never here",
    ),
    (
        "access times are not compared with passthrough",
        "the kernel reads host files by itself, and a dir upper shows their times after a remount",
    ),
];

/// Whether two answers that differ may do so.
fn excused(op: &Op, ours: &Said, theirs: &Said) -> bool {
    match op {
        Op::Tmpfile { .. } => ours == &Err(Errno::OPNOTSUPP) && theirs.is_ok(),
        Op::RemoveXattr(_, name, _) => {
            name.starts_with("system.") && ours.is_ok() && theirs == &Err(Errno::NODATA)
        }
        _ => false,
    }
}

/// What is compared of a name.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    mode: u32,
    links: u64,
    /// The first name of the same inode.
    same_as: PathBuf,
    owner: (u32, u32),
    rdev: u64,
    size: u64,
    content: u64,
    /// `None`: from the clock.
    modified: Option<(i64, i64)>,
    /// `None` also where it is not compared.
    accessed: Option<(i64, i64)>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What is compared of `tree`; times from second `start` on are recent.
fn shown(tree: BTreeMap<PathBuf, Node>, start: i64, with_access: bool) -> BTreeMap<PathBuf, Shown> {
    let mut first: BTreeMap<u64, PathBuf> = BTreeMap::new();
    for (path, node) in &tree {
        first.entry(node.ino).or_insert_with(|| path.clone());
    }
    let old = |time: (i64, i64)| (time.0 < start).then_some(time);
    tree.into_iter()
        .map(|(path, node)| {
            let Node {
                ino,
                mode,
                nlink,
                owner,
                rdev,
                size,
                times: [modified, _],
                accessed,
                xattrs,
                content,
            } = node;
            let kind = FileType::from_raw_mode(mode);
            let is_dir = kind == FileType::Directory;
            let shown = Shown {
                mode,
                links: if is_dir { 0 } else { nlink },
                same_as: first[&ino].clone(),
                owner,
                rdev,
                size: if is_dir { 0 } else { size },
                content,
                modified: old(modified),
                accessed: old(accessed)
                    .filter(|_| with_access && !is_dir && kind != FileType::Symlink),
                xattrs,
            };
            (path, shown)
        })
        .collect()
}

/// Performs `ops` on both sides of a fresh stand.
fn compare(way: Way, ops: &[Op], mapper: &mut Option<Mapper>) -> Result<(), TestCaseError> {
    let mut stand = Stand::new(way);
    for (n, op) in ops.iter().enumerate() {
        let step = |what: &str| format!("{way}: step {n}, {op:?}: {what}");
        if matches!(op, Op::Remount) {
            stand.remount();
            trees(&stand, &step("remounted"))?;
            continue;
        }
        let before: Vec<_> = objects(op)
            .into_iter()
            .map(|o| (stand.times(&o), o))
            .collect();
        let ours = stand.ours.perform(op, mapper.as_mut());
        let theirs = stand.theirs.perform(op, mapper.as_mut());
        if excused(op, &ours, &theirs) {
            if let Op::Tmpfile { slot, .. } = op {
                stand
                    .theirs
                    .perform(&Op::Close(*slot), None)
                    .expect("close");
            }
            continue;
        }
        prop_assert_eq!(&ours, &theirs, "{}", step("ours, then the kernel's"));
        for ((ours_was, theirs_was), object) in before {
            let now = stand.times(&object);
            let (Some(a), Some(b), (Some(ours), Some(theirs))) = (ours_was, theirs_was, now) else {
                continue;
            };
            if (ours.ino, theirs.ino) != (a.ino, b.ino) {
                continue;
            }
            let what = step(&format!(
                "times of {object:?}, before and after: ours {a:?} {ours:?}, the kernel's {b:?} {theirs:?}"
            ));
            let (here, there) = (ours.modified != a.modified, theirs.modified != b.modified);
            prop_assert_eq!(here, there, "modified here and there: {}", what);
            let (here, there) = (ours.changed != a.changed, theirs.changed != b.changed);
            // Copied up before: then what changed its change time was no copy-up.
            let is_above = matches!(object, Object::Above(_));
            let settled = b.changed > stand.made && !b.has_other_names && !is_above;
            prop_assert!(
                here == there || there && !settled,
                "changed on one side: {}",
                what
            );
        }
        if n % 16 == 15 {
            trees(&stand, &step("trees"))?;
        }
    }
    trees(&stand, &format!("{way}: at the end"))?;
    stand.remount();
    trees(&stand, &format!("{way}: at the end, remounted"))
}

fn trees(stand: &Stand, what: &str) -> Result<(), TestCaseError> {
    let with_access = stand.way.opens != OpenPolicy::Passthrough;
    let ours = shown(walk(&stand.ours_at()), stand.start, with_access);
    let theirs = shown(walk_by_stat(&stand.theirs_at()), stand.start, with_access);
    for path in ours.keys().chain(theirs.keys()) {
        let (ours, theirs) = (ours.get(path), theirs.get(path));
        prop_assert_eq!(
            ours,
            theirs,
            "{}: {:?}, ours, then the kernel's",
            what,
            path
        );
    }
    Ok(())
}

fn ways() -> Vec<Way> {
    let mut ways = Way::all();
    // Trees hold no whiteouts of their own, which the lower directories here do.
    ways.retain(|way| way.layers != Layers::Journal);
    for opens in [OpenPolicy::Answered, OpenPolicy::Passthrough] {
        let layers = Layers::JournalOverDirectories;
        ways.push(Way { layers, opens });
    }
    ways
}

#[test]
fn every_call_does_what_it_does_on_kernel_overlayfs() {
    let test = "every_call_does_what_it_does_on_kernel_overlayfs";
    if !can_run(test) {
        return;
    }
    if let Err(why) = stand::kernel_can() {
        return skip(
            test,
            &format!("kernel overlayfs cannot be mounted here: {why}"),
        );
    }
    let mapper = RefCell::new(Mapper::start());
    if mapper.borrow().is_none() {
        skip(test, "there is no python3, so no file is mapped");
    }
    for (what, why) in DIFFER {
        eprintln!("oracle: {what}: {why}");
    }
    let cases = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|n| n.parse().ok());
    let cases = cases.unwrap_or(if full() { 400 } else { 6 });
    for way in ways() {
        let seeds = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/suites/posix/oracle/oracle.seeds"
        );
        let config = Config {
            cases,
            failure_persistence: Some(Box::new(FileFailurePersistence::Direct(seeds))),
            max_shrink_iters: 300,
            ..Config::default()
        };
        // Without time to look on, what was looked at before; new sequences where there is some.
        let mut runner = if full() {
            TestRunner::new(config)
        } else {
            let same = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
            TestRunner::new_with_rng(config, same)
        };
        let result = runner.run(&vec(any_op(), 1..=150), |ops| {
            compare(way, &ops, &mut mapper.borrow_mut())
        });
        match result {
            Ok(()) => {}
            Err(TestError::Fail(why, ops)) => {
                panic!("{way}: {why}\nafter shrinking: {ops:#?}");
            }
            Err(other) => panic!("{way}: {other}"),
        }
    }
}
