//! Imports into a real store: what is there afterwards, and what is not when they fail.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::symlink,
    path::Path,
};

use super::{chain, tarball::Tarball};
use crate::{
    Digest, FileKind, Ino, Store, Tree,
    import::{
        Cancel, Compression, DirectoryProblem, ImportError, ImportOptions, Owners, Progress,
        import_directory, import_layer,
    },
    tree::{ContentRef, PackedRef},
};

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    (dir, store)
}

fn options() -> ImportOptions {
    ImportOptions {
        name: "t.tar".into(),
        ..ImportOptions::default()
    }
}

/// All files under `dir`, at any depth.
fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path().display().to_string());
        }
    }
    found
}

/// Nothing of a layer can be seen, and no file in the making is left.
fn assert_clean(store: &Store) {
    for part in ["trees", "blobs"] {
        assert_eq!(files(&store.root().join(part)), [""; 0], "in {part}");
    }
    let left: Vec<_> = files(&store.root().join("tmp"));
    assert!(left.iter().all(|f| f.ends_with("/lock")), "{left:?}");
}

/// Imports `stream` into a new store and looks at what is there afterwards.
pub(super) fn assert_whole_or_clean(stream: &[u8]) {
    let (_dir, store) = store();
    match import_layer(&store, stream, &options(), &()) {
        Ok(layer) => {
            store.tree(&layer.diff_id).unwrap().check().unwrap();
            assert_eq!(
                store.blobs().size(&layer.blob).unwrap(),
                Some(stream.len() as u64)
            );
        }
        Err(_) => assert_clean(&store),
    }
}

fn noise(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * i / 7 + i / 251) as u8).collect()
}

fn sample() -> Vec<u8> {
    Tarball::new()
        .dir("d/")
        .file("d/small", "hello")
        .entry(b"d/big", b'0', &noise(1_000_000))
        .entry(b"d/same", b'0', &noise(1_000_000))
        .pax(&[
            ("GNU.sparse.size", b"10000000000"),
            ("GNU.sparse.map", b"0,5000,8000,5000"),
        ])
        .entry(b"holes", b'0', &noise(10_000))
        .link(b'1', "h", "d/big")
        .end()
}

fn find(tree: &Tree, path: &str) -> Ino {
    path.split('/').fold(Ino::ROOT, |dir, name| {
        tree.lookup(dir, name.as_bytes()).unwrap().unwrap().0
    })
}

fn object(store: &Store, id: &Digest) -> Vec<u8> {
    let mut data = Vec::new();
    store
        .objects()
        .open(id)
        .unwrap()
        .read_to_end(&mut data)
        .unwrap();
    data
}

#[test]
fn a_layer_becomes_a_tree_objects_and_a_blob() {
    let (_dir, store) = store();
    let tar = sample();
    let packed = zstd::encode_all(tar.as_slice(), 1).unwrap();
    let layer = import_layer(&store, packed.as_slice(), &options(), &()).unwrap();
    assert_eq!(layer.diff_id, Digest::of(&tar));
    assert_eq!(layer.blob, Digest::of(&packed));
    assert_eq!(layer.blob_size, packed.len() as u64);
    assert_eq!(
        layer.media_type,
        "application/vnd.oci.image.layer.v1.tar+zstd"
    );
    assert_eq!((layer.entries, layer.already_there), (6, false));
    assert_eq!(layer.content_bytes, 2_010_005);

    let mut blob = Vec::new();
    store
        .blobs()
        .open(&layer.blob)
        .unwrap()
        .read_to_end(&mut blob)
        .unwrap();
    assert!(blob == packed);
    let tree = store.tree(&layer.diff_id).unwrap();
    tree.check().unwrap();
    let small = tree.content(find(&tree, "d/small")).unwrap();
    assert!(matches!(small, ContentRef::Inline(b"hello")));
    let ContentRef::Object(big) = tree.content(find(&tree, "d/big")).unwrap() else {
        panic!("no object")
    };
    assert!(object(&store, &big) == noise(1_000_000));
    assert_eq!(find(&tree, "h"), find(&tree, "d/big"));
    assert_eq!(tree.attr(find(&tree, "h")).unwrap().nlink, 2);
    let holes = find(&tree, "holes");
    assert_eq!(tree.attr(holes).unwrap().size, 10_000_000_000);
    let ContentRef::Sparse {
        data: PackedRef::Object(id),
        extents,
    } = tree.content(holes).unwrap()
    else {
        panic!("not sparse")
    };
    assert!(object(&store, &id) == noise(10_000));
    assert_eq!(extents.len(), 2);
    assert_eq!(
        files(&store.root().join("objects")).len(),
        2,
        "equal contents are one"
    );
}

#[test]
fn a_layer_that_is_there_is_reported_so_whatever_it_is_packed_in() {
    let (_dir, store) = store();
    let tar = sample();
    let plain = import_layer(&store, tar.as_slice(), &options(), &()).unwrap();
    assert_eq!((plain.blob, plain.already_there), (plain.diff_id, false));
    let packed = zstd::encode_all(tar.as_slice(), 1).unwrap();
    let again = import_layer(&store, packed.as_slice(), &options(), &()).unwrap();
    assert_eq!((again.diff_id, again.already_there), (plain.diff_id, true));
    assert!(store.blobs().contains(&plain.blob) && store.blobs().contains(&again.blob));
}

/// Gives `data`, then an error.
struct Breaks<'a>(&'a [u8]);

impl Read for Breaks<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.0.read(into)? {
            0 => Err(io::Error::from_raw_os_error(libc::EIO)),
            n => Ok(n),
        }
    }
}

#[test]
fn an_import_that_fails_leaves_nothing_to_be_seen() {
    let (_dir, store) = store();
    let tar = sample();
    let packed = zstd::encode_all(tar.as_slice(), 1).unwrap();
    let cancelled = Cancel::default();
    cancelled.cancel();
    let other = Some(Digest::of(b"other"));
    let bad_end = Tarball(tar[..tar.len() - 1024].to_vec())
        .file("../x", "")
        .end();
    let mut cases: Vec<(Vec<u8>, ImportOptions)> = vec![
        (tar[..tar.len() / 2].to_vec(), options()),
        (packed[..packed.len() - 3].to_vec(), options()),
        (bad_end, options()),
        (Vec::new(), options()),
    ];
    let wrong = [
        ImportOptions {
            expect_blob: other,
            ..options()
        },
        ImportOptions {
            expect_diff_id: other,
            ..options()
        },
        ImportOptions {
            cancel: cancelled,
            ..options()
        },
    ];
    for options in wrong {
        cases.push((tar.clone(), options.clone()));
        cases.push((packed.clone(), options));
    }
    for (source, options) in cases {
        assert!(import_layer(&store, source.as_slice(), &options, &()).is_err());
        assert_clean(&store);
    }
    for source in [&tar, &packed] {
        let error = import_layer(&store, Breaks(source), &options(), &()).unwrap_err();
        assert!(
            chain(&error).contains("Input/output error"),
            "{}",
            chain(&error)
        );
        assert_clean(&store);
    }
}

#[test]
fn promised_digests_that_are_kept_are_fine() {
    let (_dir, store) = store();
    let tar = sample();
    let packed = zstd::encode_all(tar.as_slice(), 1).unwrap();
    let options = ImportOptions {
        expect_blob: Some(Digest::of(&packed)),
        expect_diff_id: Some(Digest::of(&tar)),
        ..options()
    };
    import_layer(&store, packed.as_slice(), &options, &()).unwrap();
    let error = import_layer(&store, tar.as_slice(), &options, &()).unwrap_err();
    assert!(matches!(
        error,
        ImportError::WrongDigest { what: "blob", .. }
    ));
}

fn directory(under: &Path) -> std::path::PathBuf {
    let dir = under.join("from");
    fs::create_dir_all(dir.join("sub")).unwrap();
    fs::write(dir.join("sub/big"), noise(300_000)).unwrap();
    fs::write(dir.join("small"), "x").unwrap();
    symlink("../../etc", dir.join("link")).unwrap();
    dir
}

#[test]
fn a_directory_becomes_a_layer_and_its_blob_imports_to_the_same() {
    let (dir, store) = store();
    let from = directory(dir.path());
    let mut seen = Vec::new();
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let options = ImportOptions {
            owners: Owners::All { uid: 0, gid: 7 },
            compression,
            ..ImportOptions::default()
        };
        let layer = import_directory(&store, &from, &options, &()).unwrap();
        assert_eq!(layer.already_there, !seen.is_empty());
        let blob = store.blobs().open(&layer.blob).unwrap();
        let again = import_layer(&store, blob, &options, &()).unwrap();
        assert_eq!((again.blob, again.diff_id), (layer.blob, layer.diff_id));
        seen.push(layer.diff_id);
    }
    let tree = store.tree(&seen[0]).unwrap();
    assert!(
        seen.iter().all(|id| *id == seen[0]),
        "compression changed the layer"
    );
    let big = tree.attr(find(&tree, "sub/big")).unwrap();
    assert_eq!((big.size, big.uid, big.gid), (300_000, 0, 7));
    assert_eq!(
        tree.attr(find(&tree, "link")).unwrap().kind,
        FileKind::Symlink
    );
}

#[test]
fn a_store_inside_the_directory_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let from = directory(dir.path());
    let store = Store::open(&from.join("store")).unwrap();
    let layer = import_directory(&store, &from, &ImportOptions::default(), &()).unwrap();
    let tree = store.tree(&layer.diff_id).unwrap();
    assert_eq!(tree.lookup(Ino::ROOT, b"store").unwrap(), None);
}

/// Changes the directory while the import is at work.
struct Disturb<'a>(&'a Path);

impl Progress for Disturb<'_> {
    fn bytes(&self, _: u64) {
        fs::write(self.0, "changed").unwrap();
    }
}

#[test]
fn a_directory_that_changes_is_refused_by_name_and_nothing_is_kept() {
    let (dir, store) = store();
    let from = directory(dir.path());
    // Large enough that the walk is not at its end when the import sees the first bytes.
    fs::write(from.join("a"), noise(40_000_000)).unwrap();
    let options = ImportOptions {
        compression: Compression::None,
        ..ImportOptions::default()
    };
    let error = import_directory(&store, &from, &options, &Disturb(&from.join("a"))).unwrap_err();
    let ImportError::Directory { path, problem } = &error else {
        panic!("{}", chain(&error))
    };
    assert_eq!(path, &from.join("a"));
    assert!(matches!(problem, DirectoryProblem::Changed));
    assert_clean(&store);
}
