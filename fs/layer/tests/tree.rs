//! A tree of the store as a lower layer.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::{fs, os::unix::fs::FileExt as _, thread};

use pellicle_layer::{Lower, LowerError, TreeLower};
use pellicle_store::{Body, Child, Content, Digest, Extent, Ino, Meta, Packed, Store, TreeBuilder};
use proptest::prelude::*;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

fn file(t: &mut TreeBuilder, name: &str, size: u64, content: Content) {
    let node = t.add_node(Meta::default(), Body::Regular { size, content });
    let root = t.root();
    t.set_child(root, name.as_bytes(), Child::Node(node));
}

fn publish(store: &Store, t: TreeBuilder) -> TreeLower {
    let id = Digest::of(b"layer");
    TreeLower::with_open_limit(store.publish_tree(&id, t).unwrap(), store, 32)
}

fn ino(lower: &TreeLower, name: &str) -> Ino {
    lower.lookup(Ino::ROOT, name.as_bytes()).unwrap().unwrap().0
}

fn read(lower: &TreeLower, ino: Ino, offset: u64, len: usize) -> Result<Vec<u8>, LowerError> {
    let mut buf = vec![0xAA; len];
    let n = lower.read(ino, offset, &mut buf)?;
    buf.truncate(n);
    Ok(buf)
}

#[test]
fn contents_of_every_kind_are_read_and_only_objects_have_a_file() {
    let (_dir, store) = store();
    let mut t = TreeBuilder::new();
    let object = store.objects().put(b"in an object").unwrap();
    file(&mut t, "object", 12, Content::Object(object));
    file(&mut t, "inline", 6, Content::Inline(b"inline".to_vec()));
    file(&mut t, "hole", 10_000, Content::Empty);
    file(&mut t, "span", 5, Content::Span { offset: 0 });
    let lower = publish(&store, t);
    for (name, text) in [("object", &b"in an object"[..]), ("inline", b"inline")] {
        let ino = ino(&lower, name);
        assert_eq!(read(&lower, ino, 0, 100).unwrap(), text);
        assert_eq!(read(&lower, ino, 3, 2).unwrap(), text[3..5]);
        assert_eq!(read(&lower, ino, text.len() as u64, 1).unwrap(), b"");
        assert_eq!(read(&lower, ino, u64::MAX, 1).unwrap(), b"");
    }
    let hole = ino(&lower, "hole");
    assert_eq!(read(&lower, hole, 9_990, 100).unwrap(), [0; 10]);
    let backing = lower.backing(ino(&lower, "object")).unwrap().unwrap();
    let mut all = [0; 12];
    backing.read_exact_at(&mut all, 0).unwrap();
    assert_eq!(&all, b"in an object");
    assert!(lower.backing(hole).unwrap().is_none());
    assert!(lower.backing(ino(&lower, "inline")).unwrap().is_none());
    let span = ino(&lower, "span");
    assert!(matches!(
        read(&lower, span, 0, 5),
        Err(LowerError::Corrupt { .. })
    ));
    let root = lower.read(Ino::ROOT, 0, &mut [0; 4]);
    assert!(matches!(root, Err(LowerError::NoSuchNode { .. })));
    assert_eq!(lower.identity(), Digest::of(b"layer").0);
    assert_eq!(lower.seek(hole, 0, true).unwrap(), None);
    assert_eq!(lower.seek(hole, 7, false).unwrap(), Some(7));
    let object = ino(&lower, "object");
    assert_eq!(lower.seek(object, 7, true).unwrap(), Some(7));
    assert_eq!(lower.seek(object, 7, false).unwrap(), Some(12));
    assert_eq!(lower.seek(object, 12, false).unwrap(), None);
}

#[test]
fn a_missing_or_short_object_is_an_error_that_names_it() {
    let (_dir, store) = store();
    let mut t = TreeBuilder::new();
    let (gone, short) = (b"gone gone", b"too short");
    for (name, text) in [("gone", gone), ("short", short)] {
        let id = store.objects().put(text).unwrap();
        file(&mut t, name, 9, Content::Object(id));
    }
    let lower = publish(&store, t);
    fs::remove_file(store.objects().path(&Digest::of(gone))).unwrap();
    let path = store.objects().path(&Digest::of(short));
    fs::remove_file(&path).unwrap();
    fs::write(&path, b"too").unwrap();
    for (name, text) in [("gone", gone), ("short", short)] {
        match read(&lower, ino(&lower, name), 0, 9) {
            Err(LowerError::Corrupt { what, .. }) => {
                assert_eq!(what, format!("object {}", Digest::of(text)));
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn many_threads_read_more_files_than_may_be_open() {
    let (_dir, store) = store();
    let mut t = TreeBuilder::new();
    for i in 0..300_u32 {
        let text = format!("content of file {i:06}");
        let id = store.objects().put(text.as_bytes()).unwrap();
        file(
            &mut t,
            &format!("f{i}"),
            text.len() as u64,
            Content::Object(id),
        );
    }
    let lower = publish(&store, t);
    let count_open = || {
        let objects = store.root().join("objects");
        fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter(|e| {
                fs::read_link(e.as_ref().unwrap().path()).is_ok_and(|p| p.starts_with(&objects))
            })
            .count()
    };
    thread::scope(|s| {
        for seed in 0..4_u32 {
            let lower = &lower;
            s.spawn(move || {
                for n in 0..1500_u32 {
                    let i = (n * 31 + seed * 77) % 300;
                    let text = read(lower, ino(lower, &format!("f{i}")), 0, 100).unwrap();
                    assert_eq!(text, format!("content of file {i:06}").as_bytes());
                }
            });
        }
    });
    assert!(count_open() <= 32, "{} open", count_open());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn sparse_files_read_and_seek_as_their_flat_content_does(
        runs in prop::collection::vec((0..50u64, 1..50u64), 0..8),
        tail in 0..50u64,
        in_object in any::<bool>(),
        questions in prop::collection::vec((0..900u64, 0..300usize), 20),
    ) {
        let (_dir, store) = store();
        let (mut flat, mut is_data, mut packed, mut extents) = (vec![], vec![], vec![], vec![]);
        for (gap, len) in runs {
            flat.resize(flat.len() + gap as usize, 0);
            is_data.resize(flat.len(), false);
            extents.push(Extent { offset: flat.len() as u64, len });
            for i in 0..len {
                flat.push(1 + (i % 250) as u8);
                packed.push(1 + (i % 250) as u8);
                is_data.push(true);
            }
        }
        flat.resize(flat.len() + tail as usize, 0);
        is_data.resize(flat.len(), false);
        let data = match in_object {
            true => Packed::Object(store.objects().put(&packed).unwrap()),
            false => Packed::Inline(packed),
        };
        let mut t = TreeBuilder::new();
        let size = flat.len() as u64;
        file(&mut t, "sparse", size, Content::Sparse { extents, data });
        let lower = publish(&store, t);
        let ino = ino(&lower, "sparse");
        for (offset, len) in questions {
            let from = (offset as usize).min(flat.len());
            let to = (from + len).min(flat.len());
            prop_assert_eq!(&read(&lower, ino, offset, len).unwrap()[..], &flat[from..to]);
            let find = |wanted| (from..flat.len()).find(|i| is_data[*i] == wanted).map(|i| i as u64);
            let inside = offset < size;
            let data = if inside { find(true) } else { None };
            prop_assert_eq!(lower.seek(ino, offset, true).unwrap(), data);
            let hole = inside.then(|| find(false).unwrap_or(size));
            prop_assert_eq!(lower.seek(ino, offset, false).unwrap(), hole);
        }
    }
}
