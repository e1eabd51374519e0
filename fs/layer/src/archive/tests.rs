//! An archive gives back what tar put into it.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use pellicle_store::{FileKind, Ino, import::ImportOptions};

use super::Archive;
use crate::{Lower, LowerError};

const BIG: usize = 700_000;

fn big() -> Vec<u8> {
    (0..BIG).map(|i| (i * 7 + i / 251) as u8).collect()
}

/// A tar with a small file, a large one, a sparse one (PAX 0.1), a link and a whiteout.
fn tar() -> Vec<u8> {
    let mut b = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind: tar::EntryType, data: &[u8]| {
        let mut h = tar::Header::new_ustar();
        h.set_entry_type(kind);
        h.set_mode(0o640);
        h.set_size(data.len() as u64);
        b.append_data(&mut h, name, data).unwrap();
    };
    add("d/small", tar::EntryType::Regular, b"hello");
    add("d/big", tar::EntryType::Regular, &big());
    add("d/.wh.gone", tar::EntryType::Regular, b"");
    let record = |s: &str| format!("{} {s}\n", s.len() + 4);
    let pax = record("GNU.sparse.size=10000000") + &record("GNU.sparse.map=5000,3,9000,2");
    add("pax", tar::EntryType::XHeader, pax.as_bytes());
    add("holes", tar::EntryType::Regular, b"abcde");
    b.into_inner().unwrap()
}

fn write(dir: &Path, name: &str, data: &[u8]) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, data).unwrap();
    path
}

fn open(path: &Path) -> Archive {
    Archive::open(path, &ImportOptions::default(), &()).unwrap()
}

fn find(archive: &Archive, path: &str) -> Ino {
    path.split('/').fold(Ino::ROOT, |dir, name| {
        archive.lookup(dir, name.as_bytes()).unwrap().unwrap().0
    })
}

fn read(archive: &Archive, ino: Ino, offset: u64, len: usize) -> Vec<u8> {
    let mut buf = vec![0xee; len];
    let n = archive.read(ino, offset, &mut buf).unwrap();
    buf.truncate(n);
    buf
}

#[test]
fn every_compression_gives_the_same_files_and_contents() {
    let dir = tempfile::tempdir().unwrap();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&tar()).unwrap();
    for path in [
        write(dir.path(), "l.tar", &tar()),
        write(dir.path(), "l.tar.gz", &gz.finish().unwrap()),
        write(
            dir.path(),
            "l.tar.zst",
            &zstd::encode_all(&*tar(), 1).unwrap(),
        ),
    ] {
        let a = open(&path);
        let file = find(&a, "d/big");
        assert_eq!(a.attr(file).unwrap().size, BIG as u64);
        assert_eq!(a.attr(file).unwrap().perm, 0o640);
        assert!(read(&a, file, 0, BIG + 10) == big());
        assert_eq!(read(&a, file, 600_000, 9), &big()[600_000..600_009]);
        assert_eq!(read(&a, file, BIG as u64, 9), b"");
        assert_eq!(read(&a, find(&a, "d/small"), 1, 100), b"ello");
        let mark = find(&a, "d/.wh.gone");
        assert_eq!(a.attr(mark).unwrap().kind, FileKind::Regular);
        let names: Vec<_> = (0..3)
            .map(|i| a.entry(find(&a, "d"), i).unwrap().unwrap().name.to_vec())
            .collect();
        assert_eq!(names, [&b".wh.gone"[..], b"big", b"small"]);
    }
}

#[test]
fn holes_read_as_zeros_and_are_found_by_seek() {
    let dir = tempfile::tempdir().unwrap();
    let a = open(&write(dir.path(), "l.tar", &tar()));
    let f = find(&a, "holes");
    assert_eq!(read(&a, f, 4998, 7), b"\0\0abc\0\0");
    assert_eq!(
        read(&a, f, 5001, 4000),
        [&b"bc"[..], &[0; 3997], b"d"].concat()
    );
    assert_eq!(read(&a, f, 9_999_990, 100), [0; 10]);
    let seek = |at, data| a.seek(f, at, data).unwrap();
    assert_eq!(seek(0, true), Some(5000));
    assert_eq!(seek(5001, true), Some(5001));
    assert_eq!(seek(5003, true), Some(9000));
    assert_eq!(seek(9002, true), None);
    assert_eq!(seek(0, false), Some(0));
    assert_eq!(seek(5000, false), Some(5003));
    assert_eq!(seek(9_999_999, false), Some(9_999_999));
    assert_eq!(seek(10_000_000, false), None);
    let dense = find(&a, "d/big");
    assert_eq!(a.seek(dense, 7, false).unwrap(), Some(BIG as u64));
}

#[test]
fn an_archive_that_was_shortened_is_damage_not_other_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "l.tar", &tar());
    let a = open(&path);
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(4096)
        .unwrap();
    let mut buf = [0; 100];
    let got = a.read(find(&a, "d/big"), 500_000, &mut buf);
    assert!(matches!(got, Err(LowerError::Corrupt { .. })));
}

#[test]
fn what_cannot_be_opened_is_told_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let gone = Archive::open(&dir.path().join("gone"), &ImportOptions::default(), &());
    assert!(gone.err().unwrap().to_string().contains("gone"));
    let path = write(dir.path(), "no.tar", &[b'x'; 4096]);
    let bad = Archive::open(&path, &ImportOptions::default(), &());
    assert!(bad.err().unwrap().to_string().contains("no.tar"));
    let directory = Archive::open(dir.path(), &ImportOptions::default(), &());
    assert!(directory.is_err());
}
