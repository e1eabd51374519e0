//! A store as its users and other processes see it.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    thread,
};

use pellicle_store::{
    Body, Child, Collected, Content, Digest, Ino, Roots, Store, StoreError, TreeBuilder, TreeError,
};

use crate::common::{inline, meta, put, set, walk};

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    (dir, store)
}

/// A layer `name` with a file `name` whose content is an object of that text.
fn layer(store: &Store, name: &str, text: &str) -> Digest {
    let id = Digest::of(name.as_bytes());
    let object = store.objects().put(text.as_bytes()).unwrap();
    let body = Body::Regular {
        size: text.len() as u64,
        content: Content::Object(object),
    };
    let mut t = TreeBuilder::new();
    put(&mut t, name, meta(0o644), body);
    put(&mut t, "shared", meta(0o644), inline(name.as_bytes()));
    store.publish_tree(&id, t).unwrap();
    id
}

fn files(dir: &Path) -> usize {
    let mut n = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        n += if entry.file_type().unwrap().is_dir() {
            files(&entry.path())
        } else {
            1
        };
    }
    n
}

fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn what_is_written_is_found_under_its_digest_once_and_read_only() {
    let (_dir, store) = store();
    for size in [0, 1, 4096, 128 << 10, (128 << 10) + 1, 3 << 20] {
        let bytes: Vec<u8> = (0..size).map(|i| (i * 7 % 251) as u8).collect();
        for _ in 0..2 {
            let mut w = store.objects().writer().unwrap();
            for chunk in bytes.chunks(10_000) {
                w.write_all(chunk).unwrap();
            }
            assert_eq!((w.len(), w.digest()), (size as u64, Digest::of(&bytes)));
            assert_eq!(w.finish().unwrap(), Digest::of(&bytes));
        }
        let id = store.objects().put(&bytes).unwrap();
        let mut back = Vec::new();
        store
            .objects()
            .open(&id)
            .unwrap()
            .read_to_end(&mut back)
            .unwrap();
        assert!(back == bytes);
        assert_eq!(store.objects().size(&id).unwrap(), Some(size as u64));
        let mode = fs::metadata(store.objects().path(&id))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o222, 0);
    }
    assert_eq!(files(&store.root().join("objects")), 6);
}

#[test]
fn a_dropped_or_refused_writer_leaves_nothing() {
    let (_dir, store) = store();
    let mut w = store.blobs().writer().unwrap();
    w.write_all(&vec![1; 1 << 20]).unwrap();
    drop(w);
    let mut w = store.blobs().writer().unwrap();
    w.write_all(&vec![1; 1 << 20]).unwrap();
    let refused = w.finish_as(&Digest::of(b"something else"));
    assert!(matches!(refused, Err(StoreError::Mismatch { .. })));
    assert_eq!(files(&store.root().join("blobs")), 0);
    assert_eq!(
        files(&store.root().join("tmp")),
        1,
        "only the lock of this writer"
    );
    let root = store.root().to_owned();
    drop(store);
    assert_eq!(fs::read_dir(root.join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_content_that_a_crash_cut_short_is_replaced_when_it_comes_again() {
    let (_dir, store) = store();
    let id = store.objects().put(b"whole content").unwrap();
    let path = store.objects().path(&id);
    fs::remove_file(&path).unwrap();
    fs::write(&path, b"").unwrap();
    store.objects().put(b"whole content").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"whole content");
}

#[test]
fn many_threads_may_write_the_same_contents_at_once() {
    let (_dir, store) = store();
    thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for i in 0..200_u32 {
                    store.objects().put(&i.to_le_bytes()).unwrap();
                }
            });
        }
    });
    assert_eq!(files(&store.root().join("objects")), 200);
    let report = store.verify(&mut |_, _| {}).unwrap();
    assert_eq!((report.objects, report.damaged.len()), (200, 0));
}

#[test]
fn what_is_missing_is_named() {
    let (_dir, store) = store();
    let id = Digest::of(b"nothing");
    assert!(matches!(
        store.objects().open(&id),
        Err(StoreError::Missing { what: "object", .. })
    ));
    assert!(matches!(
        store.blobs().open(&id),
        Err(StoreError::Missing { what: "blob", .. })
    ));
    assert!(matches!(
        store.tree(&id),
        Err(StoreError::Missing { what: "tree", .. })
    ));
    assert!(matches!(
        store.image_tree(&[id, id]),
        Err(StoreError::Missing { .. })
    ));
    assert_eq!(store.blobs().size(&id).unwrap(), None);
    assert!(!store.blobs().remove(&id).unwrap());
}

#[test]
fn an_image_tree_is_made_once_and_made_again_when_it_is_damaged() {
    let (_dir, store) = store();
    let ids = [layer(&store, "a", "text a"), layer(&store, "b", "text b")];
    let tree = store.image_tree(&ids).unwrap();
    assert_eq!(
        (tree.layers(), tree.identity()),
        (&ids[..], Digest::chain(&ids).unwrap())
    );
    assert!(tree.lookup(Ino::ROOT, b"a").unwrap().is_some());
    assert!(tree.lookup(Ino::ROOT, b"b").unwrap().is_some());
    let path = store.tree_path(&tree.identity());
    let (ino, bytes) = (fs::metadata(&path).unwrap().ino(), fs::read(&path).unwrap());
    store.image_tree(&ids).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().ino(), ino);
    damage(&path);
    store.image_tree(&ids).unwrap();
    assert!(fs::read(&path).unwrap() == bytes);
}

#[test]
fn flattening_at_once_gives_everyone_the_same_tree() {
    let (_dir, store) = store();
    let ids = ["a", "b", "c"].map(|n| layer(&store, n, n));
    let root = store.root();
    let trees: Vec<_> = thread::scope(|s| {
        let work: Vec<_> = (0..6)
            .map(|_| s.spawn(|| Store::open(root).unwrap().image_tree(&ids).unwrap()))
            .collect();
        work.into_iter().map(|w| w.join().unwrap()).collect()
    });
    let first = walk(&trees[0]).unwrap();
    assert!(trees.iter().all(|t| walk(t).unwrap() == first));
}

#[test]
fn images_of_one_and_of_no_layer_work() {
    let (_dir, store) = store();
    let id = layer(&store, "a", "a");
    assert_eq!(store.image_tree(&[id]).unwrap().identity(), id);
    assert_eq!(store.image_tree(&[]).unwrap().inode_count(), 1);
}

#[test]
fn a_tree_under_a_wrong_name_is_refused() {
    let (_dir, store) = store();
    let id = layer(&store, "a", "a");
    let other = Digest::of(b"other");
    fs::copy(store.tree_path(&id), store.tree_path(&other)).unwrap();
    assert!(matches!(
        store.tree(&other),
        Err(StoreError::Tree(TreeError::Damaged { .. }))
    ));
}

#[test]
fn a_tree_that_cannot_be_stored_leaves_nothing() {
    let (_dir, store) = store();
    let mut t = TreeBuilder::new();
    set(&mut t, "dir/..", Child::Whiteout);
    let id = Digest::of(b"bad");
    assert!(matches!(
        store.publish_tree(&id, t),
        Err(StoreError::Tree(TreeError::Unstorable { .. }))
    ));
    assert!(!store.has_tree(&id));
    assert_eq!(files(&store.root().join("tmp")), 1);
}

#[test]
fn verify_finds_each_damaged_thing_and_who_needs_it() {
    let (_dir, store) = store();
    let ids = ["a", "b", "c"].map(|n| layer(&store, n, n));
    let image = store.image_tree(&ids).unwrap().identity();
    let blob = store.blobs().put(b"blob").unwrap();
    let clean = store.verify(&mut |_, _| {}).unwrap();
    assert_eq!((clean.objects, clean.blobs, clean.trees), (3, 1, 4));
    assert_eq!(clean.damaged, []);
    let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
    damage(&store.objects().path(&a));
    fs::remove_file(store.objects().path(&b)).unwrap();
    damage(&store.blobs().path(&blob));
    damage(&store.tree_path(&ids[2]));
    let report = store.verify(&mut |_, _| {}).unwrap();
    let mut found: Vec<_> = report
        .damaged
        .iter()
        .map(|d| {
            let mut users = d.used_by.clone();
            users.sort();
            (d.what, d.id, users)
        })
        .collect();
    found.sort();
    let users = |id| {
        let mut both = vec![id, image];
        both.sort();
        both
    };
    let mut expected = vec![
        ("object", a, users(ids[0])),
        ("object", b, users(ids[1])),
        ("blob", blob, vec![]),
        ("tree", ids[2], users(ids[2])),
    ];
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn collection_removes_what_no_root_leads_to_and_nothing_else() {
    let (_dir, store) = store();
    let [a, b, c] = ["a", "b", "c"].map(|n| layer(&store, n, n));
    store.image_tree(&[a, b]).unwrap();
    store.image_tree(&[a, c]).unwrap();
    let (keep, lose) = (
        store.blobs().put(b"keep").unwrap(),
        store.blobs().put(b"lose").unwrap(),
    );
    let live = Roots {
        blobs: [keep].into(),
        stacks: vec![vec![a, b]],
    };
    let before = files(store.root());
    let dry = store.collect(&live, true).unwrap();
    assert_eq!(files(store.root()), before);
    let done = store.collect(&live, false).unwrap();
    assert_eq!(dry, done);
    assert_eq!((done.objects, done.blobs, done.trees), (1, 1, 2));
    assert!(done.bytes > 0);
    assert!(store.blobs().contains(&keep) && !store.blobs().contains(&lose));
    assert!(!store.has_tree(&c) && !store.objects().contains(&Digest::of(b"c")));
    assert_eq!(store.verify(&mut |_, _| {}).unwrap().damaged, []);
    assert_eq!(store.image_tree(&[a, b]).unwrap().layers(), [a, b]);
    assert_eq!(store.collect(&live, false).unwrap(), Collected::default());
}

#[test]
fn collection_refuses_while_a_tree_it_must_keep_is_damaged() {
    let (_dir, store) = store();
    let id = layer(&store, "a", "a");
    damage(&store.tree_path(&id));
    let live = Roots {
        stacks: vec![vec![id]],
        ..Roots::default()
    };
    assert!(matches!(
        store.collect(&live, false),
        Err(StoreError::Tree(_))
    ));
    assert!(store.objects().contains(&Digest::of(b"a")));
}

#[test]
fn collection_and_use_exclude_each_other_and_the_holder_is_named() {
    let (_dir, store) = store();
    let other = Store::open(store.root()).unwrap();
    let used = other.lock_shared().unwrap();
    let _also = store.lock_shared().unwrap();
    match store.collect(&Roots::default(), false) {
        Err(StoreError::Busy { by, .. }) => {
            assert!(
                by.iter().any(|(pid, _)| *pid == std::process::id()),
                "{by:?}"
            );
        }
        other => panic!("{other:?}"),
    }
    drop((used, _also));
    let own = store.lock_exclusive().unwrap();
    store.collect(&Roots::default(), false).unwrap();
    assert!(matches!(
        other.lock_exclusive(),
        Err(StoreError::Busy { .. })
    ));
    drop(own);
    drop(other.lock_exclusive().unwrap());
}

#[test]
fn leftovers_of_killed_writers_go_and_those_of_living_ones_stay() {
    let (_dir, store) = store();
    store
        .objects()
        .put(b"makes the writer's directory")
        .unwrap();
    let mut living = store.objects().writer().unwrap();
    living.write_all(&vec![3; 1 << 20]).unwrap();
    let dead = store.root().join("tmp/1-1");
    fs::create_dir(&dead).unwrap();
    fs::write(dead.join("lock"), b"").unwrap();
    fs::write(dead.join("0"), b"half of something").unwrap();
    let _other = Store::open(store.root()).unwrap();
    assert!(!dead.exists());
    let id = living.finish().unwrap();
    assert_eq!(store.objects().size(&id).unwrap(), Some(1 << 20));
}

#[test]
fn a_directory_of_a_newer_version_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("version"), "pellicle store 9\n").unwrap();
    match Store::open(dir.path()) {
        Err(e @ StoreError::Layout { .. }) => assert!(e.to_string().contains("store 9"), "{e}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_root_that_is_a_file_is_an_error_that_names_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Store::open(file.path()).unwrap_err();
    assert!(
        error.to_string().contains(file.path().to_str().unwrap()),
        "{error}"
    );
}

#[test]
#[ignore = "needs a small file system: the test of full and read-only ones runs it on one"]
fn on_a_full_disk_a_write_is_an_error_and_leaves_nothing() {
    let dir = std::env::var_os("PELLICLE_TEST_FULL").unwrap();
    let store = Store::open(&Path::new(&dir).join("store")).unwrap();
    let bytes = vec![5; 4 << 20];
    let mut w = store.objects().writer().unwrap();
    let error = w.write_all(&bytes).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    drop(w);
    assert_eq!(files(&store.root().join("objects")), 0);
    assert_eq!(files(&store.root().join("tmp")), 1);
    let mut t = TreeBuilder::new();
    for i in 0..2000 {
        put(
            &mut t,
            &format!("f{i}"),
            meta(0o644),
            inline(&bytes[..4000]),
        );
    }
    let id = Digest::of(b"large");
    assert!(matches!(
        store.publish_tree(&id, t),
        Err(StoreError::Tree(TreeError::Io { ref source, .. }))
            if source.raw_os_error() == Some(libc::ENOSPC)
    ));
    assert!(!store.has_tree(&id));
    store.objects().put(b"there is room again").unwrap();
}

#[test]
fn a_full_or_read_only_file_system_is_a_clear_error() {
    let run = |mount: &str, test: &str| {
        let dir = tempfile::tempdir().unwrap();
        let exe = std::env::current_exe().unwrap();
        let script = format!("{mount} && exec \"$1\" --ignored --exact {test}");
        std::process::Command::new("unshare")
            .args(["-Urm", "sh", "-c", &script, "sh"])
            .arg(exe)
            .env("PELLICLE_TEST_FULL", dir.path())
            .output()
            .map(|out| {
                (
                    out.status.success(),
                    String::from_utf8_lossy(&out.stdout).into_owned(),
                )
            })
    };
    match run("true", "no_such_test") {
        Ok((true, _)) => {}
        other => {
            eprintln!("skipped: no user and mount namespaces here: {other:?}");
            return;
        }
    }
    let tmpfs = "mount -t tmpfs -o size=2m none \"$PELLICLE_TEST_FULL\"";
    let test = "on_a_full_disk_a_write_is_an_error_and_leaves_nothing";
    let (good, out) = run(tmpfs, &format!("stores::{test}")).unwrap();
    assert!(good && out.contains("1 passed"), "{out}");
    let test = "a_store_on_a_read_only_file_system_reads_and_flattens_but_does_not_write";
    let (good, out) = run(tmpfs, &format!("stores::{test}")).unwrap();
    assert!(good && out.contains("1 passed"), "{out}");
}

#[test]
#[ignore = "needs a small file system: the test of full and read-only ones runs it on one"]
fn a_store_on_a_read_only_file_system_reads_and_flattens_but_does_not_write() {
    let dir = std::env::var_os("PELLICLE_TEST_FULL").unwrap();
    let root = Path::new(&dir).join("store");
    let ids = {
        let store = Store::open(&root).unwrap();
        ["a", "b"].map(|n| layer(&store, n, n))
    };
    let status = std::process::Command::new("mount")
        .args(["-o", "remount,ro"])
        .arg(&dir)
        .status()
        .unwrap();
    assert!(status.success());
    let store = Store::open(&root).unwrap();
    drop(store.lock_shared().unwrap());
    let tree = store.image_tree(&ids).unwrap();
    assert!(tree.lookup(Ino::ROOT, b"b").unwrap().is_some());
    assert!(!store.has_tree(&tree.identity()));
    match store.objects().put(b"new") {
        Err(e @ StoreError::Io { .. }) => {
            assert!(e.to_string().starts_with("cannot create"), "{e}")
        }
        other => panic!("{other:?}"),
    }
    let elsewhere = Store::open(&Path::new(&dir).join("new"));
    assert!(matches!(elsewhere, Err(StoreError::Io { .. })));
}
