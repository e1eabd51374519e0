//! What goes into a tree file comes out of it.

use std::path::Path;

use pellicle_store::{
    Body, Child, Content, Device, Extent, FileKind, Ino, Packed, Time, Tree, TreeBuilder,
    TreeError, tree::ContentRef,
};
use proptest::prelude::*;

use crate::common::{everything, header, inline, meta, mkdir, put, set, walk};

fn everything_file() -> Vec<u8> {
    everything().finish(&header("golden")).unwrap()
}

#[test]
fn a_tree_with_every_feature_is_byte_for_byte_the_golden_file() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/everything.tree");
    let made = everything_file();
    if std::env::var_os("PELLICLE_BLESS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let golden = std::fs::read(&path).unwrap();
    assert!(
        made == golden,
        "the format has changed: raise its version, or, before the first release, run with \
         PELLICLE_BLESS=1 and read the difference"
    );
}

#[test]
fn a_tree_from_before_names_were_found_is_still_read() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/everything-before-names.tree");
    let old = Tree::open(&path).unwrap();
    old.check().unwrap();
    let new = Tree::from_bytes(everything_file()).unwrap();
    assert_eq!(walk(&old).unwrap(), walk(&new).unwrap());
    let none = &mut |_: Ino, _: &[u8]| panic!("it has no names to tell");
    assert!(!old.names_of(Ino(2), none).unwrap());
}

/// Every name of every directory, by what it leads to, in order.
fn names_by_listing(tree: &Tree) -> Vec<(Ino, Ino, Vec<u8>)> {
    let mut names = Vec::new();
    for dir in (1..=tree.inode_count()).map(Ino) {
        if tree.attr(dir).unwrap().kind == FileKind::Directory {
            let mut at = 0;
            while let Some(entry) = tree.entry(dir, at).unwrap() {
                names.push((entry.ino, dir, entry.name.to_vec()));
                at += 1;
            }
        }
    }
    names.sort();
    names
}

fn names_by_inode(tree: &Tree) -> Vec<(Ino, Ino, Vec<u8>)> {
    let mut names = Vec::new();
    for ino in (1..=tree.inode_count()).map(Ino) {
        let told = tree.names_of(ino, &mut |dir, name| names.push((ino, dir, name.to_vec())));
        assert!(told.unwrap());
    }
    names.sort();
    names
}

#[test]
fn an_inode_leads_to_all_its_names() {
    let tree = Tree::from_bytes(everything_file()).unwrap();
    assert_eq!(names_by_inode(&tree), names_by_listing(&tree));
    assert!(matches!(
        tree.names_of(Ino(tree.inode_count() + 1), &mut |_, _| ()),
        Err(TreeError::NoSuchNode { .. })
    ));
}

#[test]
fn everything_is_read_back_as_it_was_put_in() {
    let tree = Tree::from_bytes(everything_file()).unwrap();
    tree.check().unwrap();
    let seen = walk(&tree).unwrap();
    let at = |path: &str| &seen[format!("/{path}/").as_bytes()];
    let hello = at("bin/hello");
    assert_eq!(
        (hello.attr.perm, hello.attr.uid, hello.attr.gid),
        (0o6755, 4_000_000_000, 7)
    );
    assert_eq!(
        hello.attr.atime,
        Time {
            sec: -1,
            nsec: 999_999_999
        }
    );
    assert_eq!(
        hello.attr.mtime,
        Time {
            sec: 1 << 40,
            nsec: 1
        }
    );
    assert_eq!(
        (hello.attr.nlink, hello.attr.size, hello.attr.blocks),
        (3, 13, 1)
    );
    assert_eq!(at("bin/hallo").attr.ino, hello.attr.ino);
    assert_eq!(at("other").attr.ino, hello.attr.ino);
    assert_eq!(hello.xattrs[0].0, b"security.capability");
    assert_eq!(hello.xattrs[1], (b"user.b".to_vec(), b"\0\xff".to_vec()));
    assert_eq!(at("bin/same-xattrs").xattrs, hello.xattrs);
    assert_eq!(at("big").what, at("big2").what);
    assert_eq!(tree.object_count(), 2);
    assert_eq!(
        (at("hole").attr.size, at("hole").attr.blocks),
        (10 << 30, 0)
    );
    assert_eq!(
        (at("sparse").attr.size, at("sparse").attr.blocks),
        (1 << 34, 1)
    );
    assert_eq!(
        tree.readlink(at("link").attr.ino).unwrap(),
        b"../../etc/passwd"
    );
    assert_eq!(
        at("dev/sda").attr.rdev,
        Device {
            major: 8,
            minor: 1 << 19
        }
    );
    assert_eq!(at("dev/fifo").attr.kind, FileKind::Fifo);
    assert_eq!(at("dev/socket").attr.kind, FileKind::Socket);
    assert_eq!(tree.whiteout(Ino::ROOT, 0).unwrap(), Some(&b"gone"[..]));
    assert_eq!(tree.whiteout(Ino::ROOT, 1).unwrap(), Some(&b"zone"[..]));
    assert_eq!(tree.whiteout(Ino::ROOT, 2).unwrap(), None);
    assert_eq!(tree.lookup(Ino::ROOT, b"gone").unwrap(), None);
    assert!(
        tree.lookup(Ino::ROOT, b"not \xff utf-8 \n")
            .unwrap()
            .is_some()
    );
    let sub = at("opaque/sub").attr.ino;
    assert!(tree.is_opaque(sub).unwrap() && !tree.is_implied(sub).unwrap());
    assert!(tree.is_implied(at("opaque").attr.ino).unwrap());
    assert_eq!(tree.parent(sub).unwrap(), at("opaque").attr.ino);
    assert_eq!(tree.parent(Ino::ROOT).unwrap(), Ino::ROOT);
    assert_eq!(tree.attr(Ino::ROOT).unwrap().nlink, 2 + 3);
    assert_eq!(tree.inode_count(), seen.len() as u64 - 2);
}

#[test]
fn questions_about_what_is_not_there_are_errors_or_none() {
    let tree = Tree::from_bytes(everything_file()).unwrap();
    for ino in [Ino(0), Ino(tree.inode_count() + 1), Ino(u64::MAX)] {
        assert!(matches!(tree.attr(ino), Err(TreeError::NoSuchNode { .. })));
    }
    let (file, _) = tree.lookup(Ino::ROOT, b"big").unwrap().unwrap();
    assert!(matches!(
        tree.lookup(file, b"x"),
        Err(TreeError::NoSuchNode { .. })
    ));
    assert!(matches!(
        tree.readlink(file),
        Err(TreeError::NoSuchNode { .. })
    ));
    assert!(matches!(
        tree.content(Ino::ROOT),
        Err(TreeError::NoSuchNode { .. })
    ));
    assert_eq!(tree.entry(Ino::ROOT, u64::MAX).unwrap(), None);
    for name in [&b""[..], b"a", b"zzz", b"bi", b"bin\0", b".", b".."] {
        assert_eq!(tree.lookup(Ino::ROOT, name).unwrap(), None);
    }
}

#[test]
fn what_no_tree_can_hold_is_refused_with_its_name() {
    let regular = |size, content| Body::Regular { size, content };
    let extents = |list: &[(u64, u64)]| Content::Sparse {
        extents: list
            .iter()
            .map(|&(offset, len)| Extent { offset, len })
            .collect(),
        data: Packed::Inline(vec![0; 2]),
    };
    let bad_bodies = [
        Body::Symlink(vec![]),
        Body::Symlink(b"a\0b".to_vec()),
        Body::Symlink(vec![b'a'; 4096]),
        regular(4, Content::Inline(vec![0; 3])),
        regular(u64::MAX, Content::Empty),
        regular(9, Content::Span { offset: u64::MAX }),
        regular(9, extents(&[(0, 0), (1, 2)])),
        regular(9, extents(&[(4, 1), (3, 1)])),
        regular(9, extents(&[(8, 2)])),
        regular(9, extents(&[(1, u64::MAX), (2, 2)])),
        regular(9, extents(&[(1, 1)])),
    ];
    for body in bad_bodies {
        let mut t = TreeBuilder::new();
        put(&mut t, "d/victim", meta(0o644), body.clone());
        match t.finish(&header("x")) {
            Err(TreeError::Unstorable { name, .. }) => assert_eq!(name, b"victim"),
            other => panic!("{body:?}: {:?}", other.map(|b| b.len())),
        }
    }
    let long = [b'n'; 256];
    for name in [&b""[..], b".", b"..", b"a/b", b"a\0b", &long] {
        let mut t = TreeBuilder::new();
        let root = t.root();
        t.set_child(root, name, Child::Whiteout);
        assert!(matches!(
            t.finish(&header("x")),
            Err(TreeError::Unstorable { .. })
        ));
    }
    for bad in [
        pellicle_store::Meta {
            perm: 0o10000,
            ..meta(0)
        },
        pellicle_store::Meta {
            mtime: Time {
                sec: 0,
                nsec: 1_000_000_000,
            },
            ..meta(0)
        },
        pellicle_store::Meta {
            xattrs: vec![(vec![], vec![])],
            ..meta(0)
        },
        pellicle_store::Meta {
            xattrs: vec![(b"a".to_vec(), vec![]), (b"a".to_vec(), vec![1])],
            ..meta(0)
        },
    ] {
        let mut t = TreeBuilder::new();
        put(&mut t, "victim", bad, Body::Fifo);
        assert!(matches!(
            t.finish(&header("x")),
            Err(TreeError::Unstorable { .. })
        ));
    }
}

#[test]
fn a_directory_with_two_names_or_inside_itself_is_refused() {
    let mut t = TreeBuilder::new();
    let dir = mkdir(&mut t, "a/b");
    set(&mut t, "c", Child::Node(dir));
    assert!(matches!(
        t.finish(&header("x")),
        Err(TreeError::Unstorable { .. })
    ));
    let mut t = TreeBuilder::new();
    let root = t.root();
    set(&mut t, "a/b", Child::Node(root));
    assert!(matches!(
        t.finish(&header("x")),
        Err(TreeError::Unstorable { .. })
    ));
}

#[test]
fn ids_of_another_builder_lead_nowhere() {
    let mut big = TreeBuilder::new();
    let foreign = mkdir(&mut big, "a/b/c/d");
    let mut t = TreeBuilder::new();
    t.set_child(foreign, b"x", Child::Whiteout);
    t.meta_mut(foreign).perm = 0o777;
    set(&mut t, "a", Child::Node(foreign));
    assert!(matches!(
        t.finish(&header("x")),
        Err(TreeError::Unstorable { .. })
    ));
}

#[test]
fn the_order_of_building_does_not_show() {
    let names: Vec<String> = (0..500).map(|i| format!("d{}/f{i}", i % 7)).collect();
    let build = |names: &mut dyn Iterator<Item = &String>| {
        let mut t = TreeBuilder::new();
        for name in names {
            put(&mut t, name, meta(0o644), inline(name.as_bytes()));
        }
        t.finish(&header("x")).unwrap()
    };
    assert!(build(&mut names.iter()) == build(&mut names.iter().rev()));
}

#[test]
fn a_large_directory_is_searched_and_listed_over_many_blocks() {
    let mut t = TreeBuilder::new();
    let root = t.root();
    for i in 0..20_000_u32 {
        let body = inline(&i.to_le_bytes());
        let node = t.add_node(meta(0o644), body);
        t.set_child(root, format!("file-{i}").as_bytes(), Child::Node(node));
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    t.write(&header("x"), &mut file.as_file(), file.path())
        .unwrap();
    let tree = Tree::open(file.path()).unwrap();
    for i in (0..20_000_u32).step_by(97) {
        let (ino, kind) = tree
            .lookup(Ino::ROOT, format!("file-{i}").as_bytes())
            .unwrap()
            .unwrap();
        assert_eq!(kind, FileKind::Regular);
        match tree.content(ino).unwrap() {
            ContentRef::Inline(bytes) => assert_eq!(bytes, i.to_le_bytes()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(tree.lookup(Ino::ROOT, b"file-20000").unwrap(), None);
    tree.check().unwrap();
}

/// Bytes of the mapping of `path` that are resident; of no other memory, since other tests run
/// beside this one.
fn resident(path: &Path) -> usize {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = maps
        .lines()
        .skip_while(|l| !l.ends_with(path.to_str().unwrap()));
    let rss = lines
        .find(|l| l.starts_with("Rss:"))
        .expect("the tree is mapped");
    rss.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<usize>()
        .unwrap()
        << 10
}

#[test]
fn opening_a_large_tree_reads_next_to_nothing_of_it() {
    let entries = std::env::var("PELLICLE_ENTRIES").map_or(100_000, |n| n.parse().unwrap());
    let mut t = TreeBuilder::new();
    let start = std::time::Instant::now();
    for d in 0..entries / 100 {
        let dir = mkdir(&mut t, &format!("d{}/e{}", d % 100, d / 100));
        for i in 0..100_u32 {
            let node = t.add_node(meta(0o644), inline(b"some"));
            t.set_child(
                dir,
                format!("entry-number-{i}").as_bytes(),
                Child::Node(node),
            );
        }
    }
    eprintln!("{entries} entries put in within {:?}", start.elapsed());
    let file = tempfile::NamedTempFile::new().unwrap();
    let start = std::time::Instant::now();
    t.write(&header("x"), &mut file.as_file(), file.path())
        .unwrap();
    eprintln!("written in {:?}", start.elapsed());
    let start = std::time::Instant::now();
    let tree = Tree::open(file.path()).unwrap();
    eprintln!("opened in {:?}", start.elapsed());
    let (dir, _) = tree.lookup(Ino::ROOT, b"d7").unwrap().unwrap();
    let (dir, _) = tree.lookup(dir, b"e3").unwrap().unwrap();
    let (ino, _) = tree.lookup(dir, b"entry-number-42").unwrap().unwrap();
    let start = std::time::Instant::now();
    for _ in 0..10_000 {
        std::hint::black_box(
            tree.lookup(dir, std::hint::black_box(b"entry-number-42"))
                .unwrap(),
        );
    }
    eprintln!("lookup in {:?}", start.elapsed() / 10_000);
    let start = std::time::Instant::now();
    for _ in 0..10_000 {
        std::hint::black_box(tree.attr(std::hint::black_box(ino)).unwrap());
    }
    eprintln!("attr in {:?}", start.elapsed() / 10_000);
    let grown = resident(file.path());
    assert!(
        grown < 4 << 20,
        "{grown} bytes for {} in the file",
        file.path().metadata().unwrap().len()
    );
    if std::env::var_os("PELLICLE_ENTRIES").is_some() {
        let start = std::time::Instant::now();
        tree.check().unwrap();
        eprintln!("checked in {:?}", start.elapsed());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn names_are_found_from_inodes_whatever_is_linked_where(
        entries in prop::collection::vec(("[a-d]{1,2}(/[a-d]{1,2}){0,2}", 0..6usize), 1..60),
    ) {
        let mut t = TreeBuilder::new();
        let files: Vec<_> = (0..5).map(|_| t.add_node(meta(0o644), inline(b"x"))).collect();
        for (path, what) in &entries {
            match files.get(*what) {
                // Over a directory it would take away what is in it; that is another test's.
                Some(file) => set(&mut t, &format!("{path}+"), Child::Node(*file)),
                None => { mkdir(&mut t, path); }
            }
        }
        let tree = Tree::from_bytes(t.finish(&header("x")).unwrap()).unwrap();
        tree.check().unwrap();
        prop_assert_eq!(names_by_inode(&tree), names_by_listing(&tree));
    }

    #[test]
    fn any_set_of_paths_is_found_again_and_no_other(
        paths in prop::collection::btree_set("[a-c]{1,2}(/[a-c]{1,2}){0,3}", 1..40),
        absent in "[a-c]{1,3}",
    ) {
        let mut t = TreeBuilder::new();
        for path in &paths {
            mkdir(&mut t, path);
        }
        let tree = Tree::from_bytes(t.finish(&header("x")).unwrap()).unwrap();
        tree.check().unwrap();
        let mut expected: std::collections::BTreeSet<Vec<u8>> = [b"/".to_vec()].into();
        for path in &paths {
            let parts: Vec<_> = path.split('/').collect();
            for n in 1..=parts.len() {
                expected.insert(format!("/{}/", parts[..n].join("/")).into_bytes());
            }
        }
        let seen: std::collections::BTreeSet<_> = walk(&tree).unwrap().into_keys().collect();
        prop_assert_eq!(&seen, &expected);
        let there = expected.contains(format!("/{absent}/").as_bytes());
        prop_assert_eq!(tree.lookup(Ino::ROOT, absent.as_bytes()).unwrap().is_some(), there);
    }
}
