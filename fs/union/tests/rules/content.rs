//! Content: when it is copied, what a shrunk or torn file shows, limits.

use std::{os::unix::fs::FileExt, sync::Arc};

use pellicle_union::{Caller, Error, Ino, NewNode, SetAttr, Time, Union};
use pellicle_upper::Upper;

use crate::support::{content, lower::MemLower, open, upper::MemUpper};

fn lower_file(bytes: &[u8]) -> (Arc<MemLower>, Ino) {
    let mut lower = MemLower::new();
    let ino = lower.file(Ino::ROOT, "f", bytes);
    (Arc::new(lower), ino)
}

fn resize(union: &Union, ino: Ino, size: u64) -> Result<(), Error> {
    let set = SetAttr {
        size: Some(size),
        ..SetAttr::default()
    };
    union.set_attr(ino, set).map(drop)
}

#[test]
fn only_a_change_of_content_copies() {
    let (lower, ino) = lower_file(b"content");
    let upper = MemUpper::new();
    let union = open(&lower, &upper);
    let set = SetAttr {
        perm: Some(0o600),
        uid: Some(7),
        mtime: Some(pellicle_union::Time { sec: 1, nsec: 2 }),
        ..SetAttr::default()
    };
    union.set_attr(ino, set).unwrap();
    union.set_xattr(ino, b"user.x", b"1", false, false).unwrap();
    union.link(ino, Ino::ROOT, b"g").unwrap();
    let flags = pellicle_union::RenameFlags::default();
    union
        .rename(Ino::ROOT, b"f", Ino::ROOT, b"h", flags)
        .unwrap();
    resize(&union, ino, 3).unwrap();
    assert_eq!(upper.data_files(), 0);
    assert_eq!(content(&union, ino), b"con");
    union.write(ino, 1, b"X", false).unwrap();
    assert_eq!(content(&union, ino), b"cXn");
    assert_eq!(upper.data_files(), 1);
    assert_eq!(upper.state.lock().copied, [ino]);
}

#[test]
fn truncation_to_nothing_copies_nothing() {
    let (lower, ino) = lower_file(&[1; 100_000]);
    let upper = MemUpper::new();
    let union = open(&lower, &upper);
    resize(&union, ino, 0).unwrap();
    union.write(ino, 0, b"new", false).unwrap();
    assert_eq!(content(&union, ino), b"new");
    assert!(upper.state.lock().copied.is_empty());
}

#[test]
fn bytes_that_were_cut_off_come_back_as_zeros() {
    let (lower, ino) = lower_file(b"0123456789");
    let union = open(&lower, &MemUpper::new());
    // First over the lower file, then over the data file.
    for _ in 0..2 {
        resize(&union, ino, 4).unwrap();
        resize(&union, ino, 8).unwrap();
        assert_eq!(content(&union, ino), b"0123\0\0\0\0");
        union.write(ino, 4, b"4567", false).unwrap();
    }
    resize(&union, ino, 2).unwrap();
    union.write(ino, 5, b"5", false).unwrap();
    assert_eq!(content(&union, ino), b"01\0\0\x005");
}

#[test]
fn what_a_killed_write_left_past_the_end_is_never_seen() {
    let (lower, ino) = lower_file(b"abc");
    let upper = MemUpper::new();
    open(&lower, &upper).write(ino, 0, b"ABC", false).unwrap();
    // Killed between the bytes and the record.
    let file = upper.data(ino).unwrap();
    file.write_all_at(b"torn bytes", 3).unwrap();
    let union = open(&lower, &upper);
    assert_eq!(content(&union, ino), b"ABC");
    resize(&union, ino, 6).unwrap();
    assert_eq!(content(&union, ino), b"ABC\0\0\0");
    file.write_all_at(b"torn bytes", 6).unwrap();
    let union = open(&lower, &upper);
    union.write(ino, 8, b"!", false).unwrap();
    assert_eq!(content(&union, ino), b"ABC\0\0\0\0\0!");
}

#[test]
fn a_full_disk_leaves_a_lower_file_as_it_was() {
    let (lower, ino) = lower_file(b"abc");
    let upper = MemUpper::new();
    let union = open(&lower, &upper);
    for room in 0..2 {
        upper.state.lock().fail_after = Some(room);
        let error = union.write(ino, 0, b"XYZ", false).unwrap_err();
        assert_eq!(error.errno(), libc::ENOSPC);
        assert_eq!(content(&union, ino), b"abc");
        assert_eq!(upper.data_files(), 0);
    }
    upper.state.lock().fail_after = None;
    union.write(ino, 0, b"XYZ", false).unwrap();
    assert_eq!(content(&union, ino), b"XYZ");
}

#[test]
fn sizes_end_at_the_largest_offset() {
    let (lower, ino) = lower_file(b"");
    let union = open(&lower, &MemUpper::new());
    let top = i64::MAX as u64;
    assert!(matches!(resize(&union, ino, top + 1), Err(Error::TooLarge)));
    assert!(matches!(
        union.write(ino, top, b"x", false),
        Err(Error::TooLarge)
    ));
    assert!(matches!(
        union.write(ino, u64::MAX, b"x", false),
        Err(Error::TooLarge)
    ));
    assert!(matches!(
        union.fallocate(ino, 0, top, 1, false),
        Err(Error::TooLarge)
    ));
    assert_eq!(union.read(ino, u64::MAX, &mut [0; 8]).unwrap(), 0);
    // A size that the host's files cannot have is refused when it is asked for, not at a later
    // write.
    match resize(&union, ino, top) {
        Ok(_) => {
            assert_eq!(union.attr(ino).unwrap().size, top);
            assert_eq!(union.read(ino, top - 3, &mut [1; 8]).unwrap(), 3);
            union.write(ino, top - 1, b"x", false).unwrap();
        }
        Err(error) => {
            assert_eq!(error.errno(), libc::EFBIG);
            assert_eq!(union.attr(ino).unwrap().size, 0);
            assert_eq!(union.read(ino, 0, &mut [1; 8]).unwrap(), 0);
        }
    }
    resize(&union, ino, 5 << 30).unwrap();
    assert_eq!(union.attr(ino).unwrap().size, 5 << 30);
    union.write(ino, (5 << 30) - 1, b"x", false).unwrap();
}

#[test]
fn holes_of_a_lower_file_stay_holes() {
    let mut bytes = vec![0; 64 * 4096];
    bytes[30 * 4096] = 1;
    for backed in [false, true] {
        let mut lower = MemLower::new();
        lower.backed = backed;
        let ino = lower.file(Ino::ROOT, "f", &bytes);
        let union = open(&Arc::new(lower), &MemUpper::new());
        union.write(ino, 0, b"x", false).unwrap();
        let mut want = bytes.clone();
        want[0] = b'x';
        assert!(content(&union, ino) == want);
        assert!(union.attr(ino).unwrap().blocks <= 4 * 8);
    }
}

#[test]
fn copy_range_within_one_file_must_not_overlap() {
    let (lower, ino) = lower_file(b"0123456789");
    let union = open(&lower, &MemUpper::new());
    let copy = |from, to, n| union.copy_range(ino, from, ino, to, n, false);
    assert!(matches!(copy(0, 4, 5), Err(Error::Invalid)));
    assert!(matches!(copy(4, 0, 5), Err(Error::Invalid)));
    assert_eq!(copy(0, 5, 5).unwrap(), 5);
    assert_eq!(content(&union, ino), b"0123401234");
    assert_eq!(copy(8, 20, 10).unwrap(), 2);
    assert_eq!(union.attr(ino).unwrap().size, 22);
}

#[test]
fn a_backing_file_is_the_content_and_no_more() {
    let mut lower = MemLower::new();
    lower.backed = true;
    let ino = lower.file(Ino::ROOT, "f", b"content");
    let union = open(&Arc::new(lower), &MemUpper::new());
    let length = || {
        let file = union.backing(ino).unwrap();
        file.map(|f| f.metadata().unwrap().len())
    };
    assert_eq!(length(), Some(7));
    resize(&union, ino, 3).unwrap();
    assert_eq!(length(), None, "the lower file is longer now");
}

#[test]
fn what_is_done_to_a_lent_file_counts_when_it_is_looked_at() {
    let mut lower = MemLower::new();
    lower.backed = true;
    let ino = lower.file(Ino::ROOT, "f", b"content");
    let union = open(&Arc::new(lower), &MemUpper::new());
    assert!(union.lend(ino, false).unwrap().is_none(), "nothing to lend");
    let file = union.lend(ino, true).unwrap().unwrap();
    let length = || file.metadata().unwrap().len();
    assert_eq!(length(), 7);
    assert!(!union.look_at_lent(ino).unwrap());
    let copied_up = union.attr(ino).unwrap();
    assert_eq!((copied_up.size, copied_up.perm), (7, 0o644));

    // The kernel writes, the union is asked.
    file.write_all_at(b"!", 9).unwrap();
    assert_eq!(union.attr(ino).unwrap().size, 10);
    assert!(union.attr(ino).unwrap().mtime > copied_up.mtime);
    assert_eq!(content(&union, ino), b"content\0\0!");

    // The kernel writes, the union changes the rest, and the host file follows.
    file.write_all_at(b"more", 10).unwrap();
    union.write(ino, 0, b"C", false).unwrap();
    assert_eq!(content(&union, ino), b"Content\0\0!more");
    file.write_all_at(b"lost", 20).unwrap();
    resize(&union, ino, 5).unwrap();
    assert_eq!(length(), 5);
    resize(&union, ino, 9).unwrap();
    assert_eq!(length(), 9, "the kernel reads up to the end");
    union.fallocate(ino, 0, 0, 12, false).unwrap();
    assert_eq!(length(), 12);
    assert_eq!(content(&union, ino), b"Conte\0\0\0\0\0\0\0");

    // Times that were set stay; a write after that sets them again.
    file.write_all_at(b"c", 0).unwrap();
    let long_ago = Time { sec: 7, nsec: 7 };
    let set = SetAttr {
        mtime: Some(long_ago),
        ..SetAttr::default()
    };
    union.set_attr(ino, set).unwrap();
    assert_eq!(union.attr(ino).unwrap().mtime, long_ago);
    assert!(!union.take_back(ino).unwrap());
    assert_eq!(union.attr(ino).unwrap().mtime, long_ago);
    let file = union.lend(ino, false).unwrap().unwrap();
    file.write_all_at(b"last words", 4).unwrap();
    assert!(union.take_back(ino).unwrap());
    assert_eq!(union.attr(ino).unwrap().size, 14);
    file.write_all_at(b"too late", 14).unwrap();
    assert_eq!(content(&union, ino), b"contlast words");
    union.write(ino, 15, b"x", false).unwrap();
    assert_eq!(content(&union, ino), b"contlast words\0x");
}

#[test]
fn a_read_only_union_refuses_every_change() {
    let (lower, ino) = lower_file(b"x");
    let (union, _) = Union::open(lower, None, Default::default()).unwrap();
    let who = Caller::default();
    let results = [
        union.write(ino, 0, b"y", false).map(drop),
        resize(&union, ino, 0),
        union.unlink(Ino::ROOT, b"f"),
        union.link(ino, Ino::ROOT, b"g").map(drop),
        union
            .make(Ino::ROOT, b"g", NewNode::Fifo, 0o644, who)
            .map(drop),
        union.rename(Ino::ROOT, b"f", Ino::ROOT, b"g", Default::default()),
        union.set_xattr(ino, b"user.x", b"", false, false),
        union.remove_xattr(ino, b"user.x"),
        union.fallocate(ino, 0, 0, 1, false),
        union.copy_range(ino, 0, ino, 5, 1, false).map(drop),
        union.lend(ino, true).map(drop),
    ];
    for result in results {
        assert!(matches!(result, Err(Error::ReadOnly)), "{result:?}");
    }
    assert_eq!(content(&union, ino), b"x");
    union.sync_all().unwrap();
    union.sync_file(ino).unwrap();
}
