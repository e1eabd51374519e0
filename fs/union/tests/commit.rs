//! Changes become a layer: an image with it on top is the tree that was committed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use pellicle_layer::{Lower, TreeLower};
use pellicle_store::{
    Digest, Store, Time,
    import::{Cancel, ImportOptions, Progress, import_layer},
};
use pellicle_union::{
    Caller, CommitError, CommittedLayer, Device, FileKind, Ino, KillSetId, NewNode, Options,
    RenameFlags, SetAttr, Union, Watch, write_layer,
};
use pellicle_upper::{Faults, Journal, JournalLower, JournalOptions, Upper};
use proptest::prelude::*;
use support::{at, content, names};

/// A store with an image, and a writable layer over it.
struct Stand {
    dir: tempfile::TempDir,
    store: Store,
    image: Vec<Digest>,
}

/// Everything about a path but what no archive tells.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    kind: FileKind,
    perm: u16,
    owner: (u32, u32),
    mtime: Time,
    nlink: u32,
    rdev: Device,
    content: Vec<u8>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The first path of the same inode.
    first: String,
}

impl Stand {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let mut stand = Self {
            dir,
            store,
            image: Vec::new(),
        };
        let union = stand.open();
        for path in ["a", "a/b", "a/b/c", "d"] {
            make(&union, path, NewNode::Directory);
        }
        for path in ["a/f", "a/b/g", "a/b/c/h", "d/i"] {
            put(&union, path, path.as_bytes());
        }
        put(&union, "d/large", &[7; 10_000]);
        let ino = at(&union, "a/f");
        union.link(ino, at(&union, "d"), b"l").unwrap();
        union.set_xattr(ino, b"user.x", b"y", false, false).unwrap();
        let base = stand.commit(union);
        stand.image = vec![base.diff_id];
        fs::remove_dir_all(stand.upper()).unwrap();
        stand
    }

    fn upper(&self) -> PathBuf {
        self.dir.path().join("upper")
    }

    fn lower(&self) -> Arc<TreeLower> {
        let tree = self.store.image_tree(&self.image).unwrap();
        Arc::new(TreeLower::new(tree, &self.store))
    }

    fn of(lower: &dyn Lower) -> JournalLower {
        JournalLower {
            identity: lower.identity(),
            inode_count: lower.inode_count(),
        }
    }

    /// The writable layer, to change.
    fn open(&self) -> Union {
        let (lower, dir) = (self.lower(), self.upper());
        let of = Self::of(&*lower);
        let options = || JournalOptions {
            sync_interval: None,
            ..JournalOptions::default()
        };
        let journal = match dir.exists() {
            true => Journal::open(&dir, of, options()).unwrap(),
            false => Journal::create(&dir, of, options()).unwrap(),
        };
        open(lower, Some(Box::new(journal)))
    }

    /// The writable layer, to commit.
    fn hold(&self) -> Union {
        let lower = self.lower();
        let journal = Journal::open_held(&self.upper(), Self::of(&*lower)).unwrap();
        open(lower, Some(Box::new(journal)))
    }

    fn commit(&self, union: Union) -> CommittedLayer {
        drop(union);
        let held = self.hold();
        let changes = held.layer_changes().unwrap();
        held.commit(&changes, &self.store, &Watch::nobody())
            .unwrap()
    }

    /// The image with `layer` on top, untouched.
    fn image_with(&self, layer: &CommittedLayer) -> Union {
        let stack = [self.image.clone(), vec![layer.diff_id]].concat();
        let tree = self.store.image_tree(&stack).unwrap();
        open(Arc::new(TreeLower::new(tree, &self.store)), None)
    }

    /// Checks that the image with what `union` changed is what `union` shows.
    fn check(&self, union: Union) -> CommittedLayer {
        let before = seen(&union);
        let layer = self.commit(union);
        assert_eq!(seen(&self.image_with(&layer)), before);
        self.check_archive(&layer);
        layer
    }

    /// Importing the archive of a layer gives the layer, byte for byte.
    fn check_archive(&self, layer: &CommittedLayer) {
        let tree = self.store.tree(&layer.diff_id).unwrap();
        tree.check().unwrap();
        let mut archive = Vec::new();
        write_layer(&tree, &self.store, &mut archive, &Watch::nobody()).unwrap();
        assert_eq!(archive.len() as u64, layer.archive_bytes);
        assert_eq!(Digest::of(&archive), layer.diff_id);
        let other = Store::open(&self.dir.path().join("other")).unwrap();
        let imported = import_layer(&other, &*archive, &ImportOptions::default(), &()).unwrap();
        assert_eq!(imported.diff_id, layer.diff_id);
        let bytes = |store: &Store| fs::read(store.tree_path(&layer.diff_id)).unwrap();
        assert!(bytes(&other) == bytes(&self.store), "not the same tree");
    }
}

fn open(lower: Arc<TreeLower>, upper: Option<Box<dyn Upper>>) -> Union {
    Union::open(lower, upper, Options::default()).unwrap().0
}

fn parts(path: &str) -> (&str, &[u8]) {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    (dir, name.as_bytes())
}

fn make(union: &Union, path: &str, what: NewNode<'_>) -> Ino {
    let (dir, name) = parts(path);
    let who = Caller {
        uid: 1000,
        gid: 70_000,
        umask: 0o022,
    };
    union
        .make(at(union, dir), name, what, 0o777, who)
        .unwrap()
        .ino
}

fn put(union: &Union, path: &str, bytes: &[u8]) -> Ino {
    let ino = make(union, path, NewNode::Regular);
    union.write(ino, 0, bytes, KillSetId::No).unwrap();
    ino
}

/// Every path of the tree. Sockets, which no layer has, are left out.
fn seen(union: &Union) -> BTreeMap<String, Seen> {
    let mut all = BTreeMap::new();
    let mut firsts = HashMap::new();
    let mut stack = vec![(String::new(), Ino::ROOT)];
    let mut paths = BTreeMap::new();
    while let Some((path, ino)) = stack.pop() {
        if union.attr(ino).unwrap().kind == FileKind::Directory {
            for (name, ino, _) in names(union, ino) {
                stack.push((format!("{path}/{}", String::from_utf8(name).unwrap()), ino));
            }
        }
        paths.insert(path, ino);
    }
    for (path, ino) in paths {
        let attr = union.attr(ino).unwrap();
        if attr.kind == FileKind::Socket {
            continue;
        }
        let list = union.xattr_names(ino).unwrap();
        let list = list.split(|b| *b == 0).filter(|name| !name.is_empty());
        let first = firsts.entry(ino).or_insert_with(|| path.clone()).clone();
        let seen = Seen {
            kind: attr.kind,
            perm: attr.perm,
            owner: (attr.uid, attr.gid),
            mtime: attr.mtime,
            nlink: attr.nlink,
            rdev: attr.rdev,
            content: match attr.kind {
                FileKind::Regular => content(union, ino),
                FileKind::Symlink => union.readlink(ino).unwrap(),
                _ => Vec::new(),
            },
            xattrs: list
                .map(|name| (name.to_vec(), union.xattr(ino, name).unwrap()))
                .collect(),
            first,
        };
        all.insert(path, seen);
    }
    all
}

fn object(store: &Store, bytes: &[u8]) -> PathBuf {
    store.objects().path(&Digest::of(bytes))
}

fn inode(path: &Path) -> u64 {
    path.metadata().unwrap().ino()
}

fn only_data_file(stand: &Stand) -> PathBuf {
    let all: Vec<_> = fs::read_dir(stand.upper().join("data")).unwrap().collect();
    assert_eq!(all.len(), 1, "{all:?}");
    all.into_iter().next().unwrap().unwrap().path()
}

#[test]
fn changes_of_every_kind_are_in_the_image() {
    let stand = Stand::new();
    let union = stand.open();
    let u = &union;
    put(u, "a/new", b"small");
    put(u, "a/long", &[3; 100_000]);
    let sparse = make(u, "sparse", NewNode::Regular);
    u.write(sparse, 1 << 30, b"end", KillSetId::No).unwrap();
    let hole = make(u, "hole", NewNode::Regular);
    let set = SetAttr {
        size: Some(5 << 30),
        ..SetAttr::default()
    };
    u.set_attr(hole, set).unwrap();
    // The whole content of these is looked at by the test, so not so much of it.
    for ino in [sparse, hole] {
        let set = SetAttr {
            size: Some(1 << 20),
            ..SetAttr::default()
        };
        u.set_attr(ino, set).unwrap();
    }
    u.write(sparse, 600_000, b"in the middle", KillSetId::No)
        .unwrap();
    make(
        u,
        "null",
        NewNode::CharDevice(Device { major: 1, minor: 3 }),
    );
    make(u, "zero-zero", NewNode::CharDevice(Device::default()));
    make(
        u,
        "disk",
        NewNode::BlockDevice(Device {
            major: 8,
            minor: 1 << 19,
        }),
    );
    make(u, "fifo", NewNode::Fifo);
    make(u, "link", NewNode::Symlink(b"../x \xff"));
    make(u, "socket", NewNode::Socket);
    u.write(at(u, "d/large"), 5, b"changed", KillSetId::No)
        .unwrap();
    u.unlink(at(u, "d"), b"i").unwrap();
    u.rename(
        at(u, "a"),
        b"b",
        Ino::ROOT,
        b"moved",
        RenameFlags::default(),
    )
    .unwrap();
    u.link(at(u, "moved/c/h"), Ino::ROOT, b"h2").unwrap();
    u.set_xattr(at(u, "a"), b"user.\xff=%", b"\0\n", false, false)
        .unwrap();
    u.remove_xattr(at(u, "a/f"), b"user.x").unwrap();
    let times = SetAttr {
        mtime: Some(Time { sec: -7, nsec: 1 }),
        perm: Some(0o7000),
        uid: Some(4_000_000_000),
        ..SetAttr::default()
    };
    u.set_attr(at(u, "moved/c/h"), times).unwrap();
    u.set_attr(
        Ino::ROOT,
        SetAttr {
            perm: Some(0o1777),
            ..SetAttr::default()
        },
    )
    .unwrap();
    let layer = stand.check(union);
    assert_eq!(layer.archived.sockets, 1);
    assert!(!layer.already_there);
    let again = stand.commit(stand.open());
    assert_eq!((again.diff_id, again.already_there), (layer.diff_id, true));
}

#[test]
fn nothing_changed_is_an_empty_layer() {
    let stand = Stand::new();
    let union = stand.open();
    assert_eq!(union.layer_changes().unwrap(), []);
    let layer = stand.check(union);
    assert_eq!((layer.archived.entries, layer.archive_bytes), (0, 1024));
}

#[test]
fn a_data_file_becomes_the_object_and_is_parted_from_it_when_it_is_written_to() {
    let stand = Stand::new();
    let union = stand.open();
    let bytes = vec![9; 1 << 20];
    let ino = put(&union, "big", &bytes);
    let layer = stand.check(union);
    assert_eq!(layer.moved, 1);
    let (file, object) = (only_data_file(&stand), object(&stand.store, &bytes));
    assert_eq!(inode(&file), inode(&object), "no byte was copied");

    let union = stand.open();
    assert_eq!(content(&union, ino), bytes, "it is read where it is");
    assert_eq!(inode(&file), inode(&object));
    union.write(ino, 3, b"x", KillSetId::No).unwrap();
    assert_ne!(inode(&file), inode(&object));
    assert_eq!(fs::read(&object).unwrap(), bytes, "the object is as it was");
    drop(union);
    let union = stand.open();
    let mut want = bytes.clone();
    want[3] = b'x';
    assert_eq!(content(&union, ino), want);
    stand.check(union);
}

#[test]
fn a_committed_file_may_be_emptied_replaced_and_removed_without_harm_to_the_object() {
    let stand = Stand::new();
    let union = stand.open();
    let bytes = vec![9; 1 << 20];
    let ino = put(&union, "big", &bytes);
    stand.commit(union);
    let object = object(&stand.store, &bytes);

    let union = stand.open();
    let empty = SetAttr {
        size: Some(0),
        ..SetAttr::default()
    };
    union.set_attr(ino, empty).unwrap();
    union.write(ino, 0, b"again", KillSetId::No).unwrap();
    stand.check(union);
    assert_eq!(fs::read(&object).unwrap(), bytes);

    // The number of a lower file whose data file is given up and made anew.
    let union = stand.open();
    let large = at(&union, "d/large");
    union.write(large, 0, &[1; 10_000], KillSetId::No).unwrap();
    stand.commit(union);
    let union = stand.open();
    union.unlink(Ino::ROOT, b"big").unwrap();
    union.set_attr(large, empty).unwrap();
    union.write(large, 0, &[2; 9_000], KillSetId::No).unwrap();
    stand.check(union);
    let kept = self::object(&stand.store, &[1; 10_000]);
    assert_eq!(fs::read(kept).unwrap(), [1; 10_000]);
    assert!(
        stand
            .store
            .verify(&mut |_, _| ())
            .unwrap()
            .damaged
            .is_empty()
    );
}

#[test]
fn an_object_that_was_collected_leaves_a_file_that_can_be_written_to() {
    let stand = Stand::new();
    let union = stand.open();
    let bytes = vec![9; 1 << 20];
    let ino = put(&union, "big", &bytes);
    stand.commit(union);
    fs::remove_file(object(&stand.store, &bytes)).unwrap();
    let before = inode(&only_data_file(&stand));
    let union = stand.open();
    union.write(ino, 0, b"x", KillSetId::No).unwrap();
    assert_eq!(
        inode(&only_data_file(&stand)),
        before,
        "there is nothing to part from"
    );
}

#[test]
fn a_held_upper_cannot_be_opened_and_one_in_use_cannot_be_held() {
    let stand = Stand::new();
    let union = stand.open();
    let lower = stand.lower();
    let hold = || Journal::open_held(&stand.upper(), Stand::of(&*lower));
    assert!(matches!(
        hold(),
        Err(pellicle_upper::UpperError::InUse { .. })
    ));
    drop(union);
    let held = hold().unwrap();
    assert!(held.is_held());
    let opened = Journal::open(
        &stand.upper(),
        Stand::of(&*lower),
        JournalOptions::default(),
    );
    assert!(matches!(
        opened,
        Err(pellicle_upper::UpperError::InUse { .. })
    ));
    drop((held, opened));
    drop(stand.open());
}

#[test]
fn an_upper_in_use_is_copied_and_goes_on() {
    let stand = Stand::new();
    let union = stand.open();
    let bytes = vec![9; 1 << 20];
    let ino = put(&union, "big", &bytes);
    let before = seen(&union);
    let changes = union.layer_changes().unwrap();
    let layer = union
        .commit(&changes, &stand.store, &Watch::nobody())
        .unwrap();
    assert_eq!(layer.moved, 0);
    union.write(ino, 0, b"later", KillSetId::No).unwrap();
    assert_eq!(seen(&stand.image_with(&layer)), before);
    let object = object(&stand.store, &bytes);
    assert_ne!(inode(&only_data_file(&stand)), inode(&object));
}

#[test]
fn everything_in_one_layer_is_the_same_tree() {
    let stand = Stand::new();
    let union = stand.open();
    union.unlink(at(&union, "d"), b"i").unwrap();
    put(&union, "new", b"x");
    let before = seen(&union);
    drop(union);
    let held = stand.hold();
    let all = held.layer_of_everything().unwrap();
    let layer = held.commit(&all, &stand.store, &Watch::nobody()).unwrap();
    let tree = stand.store.image_tree(&[layer.diff_id]).unwrap();
    assert_eq!(
        seen(&open(Arc::new(TreeLower::new(tree, &stand.store)), None)),
        before
    );
    stand.check_archive(&layer);
}

#[test]
fn whichever_call_to_the_host_fails_a_file_is_parted_whole_or_not_at_all() {
    let bytes = vec![9; 1 << 20];
    let mut changed = bytes.clone();
    changed[3] = b'x';
    for call in [
        "journal::create",
        "data::copy",
        "data::write",
        "data::truncate",
        "journal::sync_data",
        "journal::rename",
    ] {
        for mode in ["enospc", "eio", "crash"] {
            let name = format!("{call}::{mode}");
            let stand = Stand::new();
            let union = stand.open();
            let ino = put(&union, "big", &bytes);
            stand.commit(union);
            let faults = Faults::default();
            let lower = stand.lower();
            let options = JournalOptions {
                sync_interval: None,
                faults: faults.clone(),
                ..JournalOptions::default()
            };
            let of = Stand::of(&*lower);
            let journal = Journal::open(&stand.upper(), of, options).unwrap();
            let union = open(lower, Some(Box::new(journal)));
            assert!(faults.arm(&name, 1), "{name}");
            let written = union.write(ino, 3, b"x", KillSetId::No);
            drop(union);
            let union = stand.open();
            let now = content(&union, ino);
            match written {
                // A call that is not needed everywhere, or that another does the work of.
                Ok(_) => assert!(now == changed, "{name}"),
                Err(_) => assert!(now == bytes || now == changed, "{name}"),
            }
            let object = object(&stand.store, &bytes);
            assert!(fs::read(object).unwrap() == bytes, "{name}");
            union.write(ino, 3, b"x", KillSetId::No).unwrap();
            assert!(content(&union, ino) == changed, "{name}");
            only_data_file(&stand);
        }
    }
}

/// Cancels at the first byte.
struct AtOnce(Arc<AtomicBool>);

impl Progress for AtOnce {
    fn bytes(&self, _: u64) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_cancelled_commit_makes_no_layer() {
    let stand = Stand::new();
    let union = stand.open();
    put(&union, "big", &vec![9; 1 << 20]);
    drop(union);
    let trees = || {
        fs::read_dir(stand.store.root().join("trees"))
            .unwrap()
            .count()
    };
    let before = trees();
    let flag = Arc::new(AtomicBool::new(false));
    let watch = Watch {
        cancel: Cancel::from_flag(flag.clone()),
        progress: &AtOnce(flag),
    };
    let held = stand.hold();
    let changes = held.layer_changes().unwrap();
    let ended = held.commit(&changes, &stand.store, &watch);
    assert!(matches!(ended, Err(CommitError::Cancelled)), "{ended:?}");
    assert_eq!(trees(), before);
    drop(held);
    stand.check(stand.open());
}

#[derive(Clone, Debug)]
enum Step {
    Mkdir(usize),
    Put(usize, usize),
    Symlink(usize),
    Link(usize, usize),
    Remove(usize),
    Rename(usize, usize, bool),
    Write(usize, u64, usize),
    Chmod(usize, u16),
    Xattr(usize, bool),
}

const PATHS: [&str; 16] = [
    "a", "d", "e", "a/b", "a/f", "a/x", "a/b/c", "a/b/g", "a/b/c/h", "a/b/c/x", "d/i", "d/l",
    "d/large", "d/b", "e/x", "e/b",
];

fn step() -> impl Strategy<Value = Step> {
    let path = || 0..PATHS.len();
    let size = prop_oneof![Just(0_usize), 1..50_usize, Just(5_000), Just(20_000)];
    prop_oneof![
        path().prop_map(Step::Mkdir),
        (path(), size.clone()).prop_map(|(p, n)| Step::Put(p, n)),
        path().prop_map(Step::Symlink),
        (path(), path()).prop_map(|(a, b)| Step::Link(a, b)),
        path().prop_map(Step::Remove),
        (path(), path(), any::<bool>()).prop_map(|(a, b, x)| Step::Rename(a, b, x)),
        (
            path(),
            prop_oneof![Just(0_u64), Just(4_100), Just(40_000)],
            size
        )
            .prop_map(|(p, at, n)| Step::Write(p, at, n)),
        (
            path(),
            prop_oneof![Just(0o644_u16), Just(0o755), Just(0o4711)]
        )
            .prop_map(|(p, perm)| Step::Chmod(p, perm)),
        (path(), any::<bool>()).prop_map(|(p, set)| Step::Xattr(p, set)),
    ]
}

fn find(u: &Union, path: &str) -> Option<Ino> {
    let mut names = path.split('/').filter(|name| !name.is_empty());
    names.try_fold(Ino::ROOT, |dir, name| {
        u.lookup(dir, name.as_bytes()).ok().map(|attr| attr.ino)
    })
}

/// Does it, or not, as the tree stands: what comes of it is what counts.
fn take(u: &Union, step: &Step) {
    let place = |p: usize| {
        let (dir, name) = parts(PATHS[p]);
        find(u, dir).map(|dir| (dir, name))
    };
    let make = |p: usize, what| {
        let (dir, name) = place(p)?;
        u.make(dir, name, what, 0o755, Caller::default()).ok()
    };
    let target = |p: usize| find(u, PATHS[p]);
    let _ = match *step {
        Step::Mkdir(p) => make(p, NewNode::Directory).map(drop),
        Step::Symlink(p) => make(p, NewNode::Symlink(b"somewhere")).map(drop),
        Step::Put(p, n) => make(p, NewNode::Regular)
            .map(|attr| drop(u.write(attr.ino, 0, &vec![p as u8 + 1; n], KillSetId::No))),
        Step::Link(a, b) => target(a)
            .zip(place(b))
            .map(|(ino, (dir, name))| drop(u.link(ino, dir, name))),
        Step::Remove(p) => place(p).map(|(dir, name)| {
            let _ = u.unlink(dir, name).or_else(|_| u.rmdir(dir, name));
        }),
        Step::Rename(a, b, exchange) => place(a).zip(place(b)).map(|((from, old), (to, new))| {
            let flags = RenameFlags {
                exchange,
                no_replace: false,
            };
            drop(u.rename(from, old, to, new, flags));
        }),
        Step::Write(p, at, n) => {
            target(p).map(|ino| drop(u.write(ino, at, &vec![0x55; n], KillSetId::No)))
        }
        Step::Chmod(p, perm) => target(p).map(|ino| {
            let set = SetAttr {
                perm: Some(perm),
                ..SetAttr::default()
            };
            drop(u.set_attr(ino, set));
        }),
        Step::Xattr(p, set) => target(p).map(|ino| match set {
            true => drop(u.set_xattr(ino, b"user.x", b"z", false, false)),
            false => drop(u.remove_xattr(ino, b"user.x")),
        }),
    };
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_was_done_the_image_shows_it(
        first in prop::collection::vec(step(), 1..30),
        second in prop::collection::vec(step(), 0..15),
    ) {
        let stand = Stand::new();
        let union = stand.open();
        first.iter().for_each(|step| take(&union, step));
        stand.check(union);
        // And again, with files that are objects by now.
        let union = stand.open();
        second.iter().for_each(|step| take(&union, step));
        stand.check(union);
        prop_assert!(stand.store.verify(&mut |_, _| ()).unwrap().damaged.is_empty());
    }
}

#[test]
fn what_is_written_to_meanwhile_is_archived_whatever_its_writer_cuts_and_removes() {
    let stand = Stand::new();
    let writer = stand.open();
    let file = put(&writer, "a/cut", &[1; 10_000]);
    let cut = SetAttr {
        size: Some(0),
        ..SetAttr::default()
    };
    let look = || {
        let lower = stand.lower();
        let journal = Journal::open_read_only(&stand.upper(), Stand::of(&*lower)).unwrap();
        (lower, journal)
    };
    // Cut and written to all the time: between any two questions.
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                writer.set_attr(file, cut).unwrap();
                writer.write(file, 0, &[2; 10_000], KillSetId::No).unwrap();
            }
        });
        for _ in 0..1000 {
            let (lower, journal) = look();
            let union = open(lower, Some(Box::new(journal.beside_its_writer())));
            let archived = union.write_archive(None, std::io::sink(), &Watch::nobody());
            let archived = archived.unwrap_or_else(|e| {
                done.store(true, Ordering::Relaxed);
                panic!("{e}");
            });
            assert_eq!(archived.entries, 12);
        }
        done.store(true, Ordering::Relaxed);
    });
    // Removed after the snapshot was taken. Of one that nobody writes to that is damage.
    let ((lower, other), (_, beside)) = (look(), look());
    let snapshots = [other, beside.beside_its_writer()].map(|journal| {
        let lower = Arc::clone(&lower);
        open(lower, Some(Box::new(journal)))
    });
    writer.unlink(at(&writer, "a"), b"cut").unwrap();
    writer.forget(file, u64::MAX);
    writer.sync_all().unwrap();
    let [other, beside] =
        snapshots.map(|union| union.write_archive(None, std::io::sink(), &Watch::nobody()));
    let error = other.unwrap_err().to_string();
    assert!(error.contains("the data file is missing"), "{error}");
    assert_eq!(beside.unwrap().entries, 12);
}
