//! Archives that are indexed where they lie.

use std::{
    fs::File,
    io::{Read, Seek, Write},
    os::unix::fs::FileExt,
};

use super::{chain, show, tarball::Tarball};
use crate::{
    import::{ImportError, ImportOptions, IndexedArchive, index_archive},
    tree::{Body, Child, Content},
};

fn index(archive: &[u8]) -> Result<IndexedArchive, ImportError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(archive).unwrap();
    file.rewind().unwrap();
    index_archive(
        file,
        &mut tempfile::tempfile,
        &ImportOptions::default(),
        &(),
    )
}

/// The content of file `name` of the root, wherever it is.
fn content(of: &IndexedArchive, name: &str) -> Vec<u8> {
    let Some(Child::Node(n)) = of.tree.child(of.tree.root(), name.as_bytes()) else {
        panic!("no {name}");
    };
    match of.tree.body(n) {
        Body::Regular {
            size,
            content: Content::Span { offset },
        } => {
            let mut data = vec![0; usize::try_from(*size).unwrap()];
            of.contents.read_exact_at(&mut data, *offset).unwrap();
            data
        }
        Body::Regular {
            content: Content::Inline(data),
            ..
        } => data.clone(),
        other => panic!("{other:?}"),
    }
}

fn sample() -> (Vec<u8>, Vec<u8>) {
    let big: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let tar = Tarball::new()
        .file("small", "hello")
        .entry(b"big", b'0', &big)
        .file("after", "x")
        .file("d/.wh.gone", "")
        .end();
    (tar, big)
}

#[test]
fn contents_are_found_in_plain_and_in_unpacked_archives() {
    let (tar, big) = sample();
    let packed = zstd::encode_all(tar.as_slice(), 1).unwrap();
    for archive in [tar.clone(), packed] {
        let indexed = index(&archive).unwrap();
        assert_eq!(content(&indexed, "small"), b"hello");
        assert!(content(&indexed, "big") == big);
        assert_eq!(content(&indexed, "after"), b"x");
        assert_eq!(indexed.entries, 4);
        assert!(show(&indexed.tree).contains_key("/d/.wh.gone"));
    }
}

#[test]
fn archives_that_are_cut_off_are_refused_without_reading_their_contents() {
    let (tar, _) = sample();
    for cut in [600, 5_000_000] {
        let Err(error) = index(&tar[..cut]) else {
            panic!("accepted")
        };
        assert!(chain(&error).contains("cut off"), "{}", chain(&error));
    }
}

#[test]
fn a_full_temporary_directory_is_told_with_the_next_step() {
    let (tar, _) = sample();
    let packed = zstd::encode_all(tar.as_slice(), 1).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&packed).unwrap();
    file.rewind().unwrap();
    let mut full = || File::options().write(true).open("/dev/full");
    let Err(error) = index_archive(file, &mut full, &ImportOptions::default(), &()) else {
        panic!("accepted")
    };
    let message = chain(&error);
    assert!(
        message.contains("TMPDIR") && message.contains("No space"),
        "{message}"
    );
}

#[test]
fn an_archive_that_comes_through_a_pipe_is_unpacked() {
    let (tar, big) = sample();
    let (read, write) = rustix::pipe::pipe().unwrap();
    let writer = std::thread::spawn(move || File::from(write).write_all(&tar));
    let options = ImportOptions::default();
    let indexed = index_archive(File::from(read), &mut tempfile::tempfile, &options, &()).unwrap();
    writer.join().unwrap().unwrap();
    assert!(content(&indexed, "big") == big);
    let mut rest = Vec::new();
    let mut contents = indexed.contents;
    contents.rewind().unwrap();
    contents.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.len(), big.len(), "small contents belong into the tree");
}
