//! Inodes without names.

use std::sync::Arc;

use pellicle_union::{Caller, Error, Ino, NewNode};

use crate::support::{content, lower::MemLower, open, upper::MemUpper};

#[test]
fn an_open_file_without_a_name_stays_whole_until_the_last_forget() {
    let mut lower = MemLower::new();
    let ino = lower.file(Ino::ROOT, "f", b"text");
    let lower = Arc::new(lower);
    let upper = MemUpper::new();
    let union = open(&lower, &upper);
    union.remember(ino);
    union.remember(ino);
    union.unlink(Ino::ROOT, b"f").unwrap();
    union.forget(ino, 1);
    assert_eq!(union.attr(ino).unwrap().nlink, 0);
    assert_eq!(union.unnamed(), 1);
    union.write(ino, 4, b"!", false).unwrap();
    union.set_xattr(ino, b"user.x", b"1", false, false).unwrap();
    assert_eq!(content(&union, ino), b"text!");
    assert_eq!(upper.data_files(), 1);
    union.forget(ino, 1);
    assert!(matches!(union.attr(ino), Err(Error::NotFound)));
    assert_eq!(upper.data_files(), 0);
    assert_eq!(union.unnamed(), 0);
    union.forget(ino, 5);
    assert!(matches!(
        open(&lower, &upper).attr(ino),
        Err(Error::NotFound)
    ));
}

#[test]
fn a_file_the_kernel_never_heard_of_goes_with_its_name() {
    let upper = MemUpper::new();
    let union = open(&Arc::new(MemLower::new()), &upper);
    let who = Caller::default();
    let ino = union
        .make(Ino::ROOT, b"f", NewNode::Regular, 0o644, who)
        .unwrap()
        .ino;
    union.write(ino, 0, b"x", false).unwrap();
    union.unlink(Ino::ROOT, b"f").unwrap();
    assert!(matches!(union.attr(ino), Err(Error::NotFound)));
    assert_eq!(upper.data_files(), 0);
    assert_eq!(union.unnamed(), 0);
}

#[test]
fn orphans_of_a_killed_mount_are_dropped_at_the_next() {
    let lower = Arc::new(MemLower::new());
    let upper = MemUpper::new();
    let union = open(&lower, &upper);
    let who = Caller::default();
    let ino = union
        .make(Ino::ROOT, b"f", NewNode::Regular, 0o644, who)
        .unwrap()
        .ino;
    union.remember(ino);
    union.write(ino, 0, b"x", false).unwrap();
    union.unlink(Ino::ROOT, b"f").unwrap();
    assert_eq!(upper.data_files(), 1);
    let union = open(&lower, &upper);
    assert!(matches!(union.attr(ino), Err(Error::NotFound)));
    assert_eq!(upper.data_files(), 0);
    assert_eq!(union.unnamed(), 0);
    let next = union
        .make(Ino::ROOT, b"g", NewNode::Regular, 0o644, who)
        .unwrap();
    assert!(next.ino > ino);
}

#[test]
fn an_unnamed_file_can_be_given_a_name() {
    let upper = MemUpper::new();
    let lower = Arc::new(MemLower::new());
    let union = open(&lower, &upper);
    let ino = union
        .make_unnamed(Ino::ROOT, 0o600, Caller::default())
        .unwrap()
        .ino;
    union.write(ino, 0, b"text", false).unwrap();
    assert_eq!(union.attr(ino).unwrap().nlink, 0);
    assert_eq!(union.unnamed(), 1);
    union.link(ino, Ino::ROOT, b"f").unwrap();
    assert_eq!(union.unnamed(), 0);
    union.forget(ino, 1);
    let union = open(&lower, &upper);
    assert_eq!(
        content(&union, union.lookup(Ino::ROOT, b"f").unwrap().ino),
        b"text"
    );
}

#[test]
fn a_lower_inode_with_two_names_keeps_the_other() {
    let mut lower = MemLower::new();
    let ino = lower.file(Ino::ROOT, "f", b"text");
    lower.link(Ino::ROOT, "g", ino);
    let lower = Arc::new(lower);
    let upper = MemUpper::new();
    open(&lower, &upper).unlink(Ino::ROOT, b"f").unwrap();
    let union = open(&lower, &upper);
    assert_eq!(union.lookup(Ino::ROOT, b"g").unwrap().nlink, 1);
    union.write(ino, 0, b"T", false).unwrap();
    union.link(ino, Ino::ROOT, b"f").unwrap();
    assert_eq!(content(&open(&lower, &upper), ino), b"Text");
}

#[test]
fn a_lower_inode_that_was_only_looked_into_costs_nothing_once_forgotten() {
    let mut lower = MemLower::new();
    let (a, b) = (
        lower.file(Ino::ROOT, "a", b"text"),
        lower.file(Ino::ROOT, "b", b"other"),
    );
    let union = open(&Arc::new(lower), &MemUpper::new());
    let touched = || format!("{union:?}");
    let none = touched();
    assert!(none.contains("touched: 0"), "{none}");
    union.remember(a);
    union.remember(b);
    // The one needs the inode as it is now, the other fails after having had it.
    assert_eq!(union.seek(a, 0, false).unwrap(), 4);
    assert!(union.remove_xattr(a, b"user.none").is_err());
    assert_ne!(touched(), none);
    union.write(b, 0, b"O", false).unwrap();
    union.forget(a, 1);
    union.forget(b, 1);
    assert!(touched().contains("touched: 1"), "{}", touched());
    assert_eq!(content(&union, a), b"text");
    assert_eq!(content(&union, b), b"Other");
    union.unlink(Ino::ROOT, b"a").unwrap();
    assert!(matches!(union.attr(a), Err(Error::NotFound)));
}
