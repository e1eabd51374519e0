//! Names: places of a listing, big directories, renames, limits.

use std::{ops::ControlFlow, sync::Arc, time::Instant};

use pellicle_union::{Caller, Error, FileKind, Ino, LINK_MAX, NewNode, RenameFlags, Union};

use crate::support::{at, lower::MemLower, names, open, upper::MemUpper};

const WHO: Caller = Caller {
    uid: 0,
    gid: 0,
    umask: 0,
};

fn file(union: &Union, dir: Ino, name: &str) -> Ino {
    let made = union.make(dir, name.as_bytes(), NewNode::Regular, 0o644, WHO);
    made.unwrap().ino
}

fn big(count: u32) -> (Arc<MemLower>, Ino) {
    let mut lower = MemLower::new();
    let dir = lower.dir(Ino::ROOT, "big");
    lower.numbered_files(dir, count);
    (Arc::new(lower), dir)
}

#[test]
fn a_replaced_name_keeps_its_place_in_a_listing_under_way() {
    let mut lower = MemLower::new();
    for name in ["a", "b", "c"] {
        lower.file(Ino::ROOT, name, b"");
    }
    let union = open(&Arc::new(lower), &MemUpper::new());
    file(&union, Ino::ROOT, "x");
    file(&union, Ino::ROOT, "y");
    let mut seen = Vec::new();
    let mut next = 0;
    for round in 0.. {
        let (mut got, from) = (false, next);
        let each = &mut |e: pellicle_union::Listed<'_>| {
            if got {
                return ControlFlow::Break(());
            }
            got = true;
            seen.push(String::from_utf8(e.name.to_vec()).unwrap());
            next = e.next;
            ControlFlow::Continue(())
        };
        union.list(Ino::ROOT, from, each).unwrap();
        if !got {
            break;
        }
        // Every name is replaced by a new file again and again.
        for name in ["a", "b", "c", "x", "y"] {
            let temp = format!("temp{round}{name}");
            file(&union, Ino::ROOT, &temp);
            let flags = RenameFlags::default();
            let (from, to) = (temp.as_bytes(), name.as_bytes());
            union.rename(Ino::ROOT, from, Ino::ROOT, to, flags).unwrap();
        }
    }
    // Added names come newest first.
    assert_eq!(seen, ["a", "b", "c", "y", "x"]);
}

#[test]
fn a_reader_that_adds_a_name_for_each_it_sees_comes_to_an_end() {
    let mut lower = MemLower::new();
    lower.numbered_files(Ino::ROOT, 100);
    let union = open(&Arc::new(lower), &MemUpper::new());
    file(&union, Ino::ROOT, "first");
    let mut count = 0;
    union
        .list(Ino::ROOT, 0, &mut |_| {
            count += 1;
            file(&union, Ino::ROOT, &format!("copy{count}"));
            ControlFlow::Continue(())
        })
        .unwrap();
    // At most the lower names, the added one, and copies of the lower ones.
    assert!(count <= 201, "{count}");
}

#[test]
fn a_hundred_thousand_lower_names_are_removed_and_the_directory_after_them() {
    let (lower, dir) = big(100_000);
    let union = open(&lower, &MemUpper::new());
    let began = Instant::now();
    for n in 0..100_000 {
        assert!(matches!(
            union.rmdir(Ino::ROOT, b"big"),
            Err(Error::NotEmpty)
        ));
        union.unlink(dir, format!("{n:06}").as_bytes()).unwrap();
    }
    assert!(names(&union, dir).is_empty());
    union.rmdir(Ino::ROOT, b"big").unwrap();
    // A scan of the whiteouts for each rmdir would take hours.
    assert!(began.elapsed().as_secs() < 1200);
}

#[test]
fn a_hundred_thousand_new_names_are_listed_from_any_cookie() {
    let union = open(&Arc::new(MemLower::new()), &MemUpper::new());
    for n in 0..100_000 {
        file(&union, Ino::ROOT, &n.to_string());
    }
    let (mut next, mut count) = (0, 0);
    loop {
        let mut left = 10;
        let before = next;
        union
            .list(Ino::ROOT, next, &mut |e| {
                if left == 0 {
                    return ControlFlow::Break(());
                }
                left -= 1;
                count += 1;
                next = e.next;
                ControlFlow::Continue(())
            })
            .unwrap();
        if next == before {
            break;
        }
    }
    assert_eq!(count, 100_000);
}

#[test]
fn a_moved_lower_directory_brings_all_it_has_and_nothing_is_copied() {
    let mut lower = MemLower::new();
    let a = lower.dir(Ino::ROOT, "a");
    let b = lower.dir(a, "b");
    let f = lower.file(b, "f", b"text");
    let upper = MemUpper::new();
    let lower = Arc::new(lower);
    let union = open(&lower, &upper);
    let flags = RenameFlags::default();
    union.rename(a, b"b", Ino::ROOT, b"moved", flags).unwrap();
    let check = |union: &Union| {
        assert_eq!(at(union, "moved/f"), f);
        assert_eq!(union.parent(b).unwrap(), Ino::ROOT);
        assert_eq!(union.lookup(b, b"..").unwrap().ino, Ino::ROOT);
        assert_eq!(union.attr(Ino::ROOT).unwrap().nlink, 4);
        assert_eq!(union.attr(a).unwrap().nlink, 2);
        assert_eq!(union.path_of(f).unwrap(), b"/moved/f");
    };
    check(&union);
    assert_eq!(upper.data_files(), 0);
    // Two names, three inodes: the directory, and where it was and is.
    assert_eq!(upper.state.lock().log.len(), 5);
    check(&open(&lower, &upper));
}

#[test]
fn a_directory_does_not_go_into_itself() {
    let mut lower = MemLower::new();
    let a = lower.dir(Ino::ROOT, "a");
    let b = lower.dir(a, "b");
    let union = open(&Arc::new(lower), &MemUpper::new());
    for flags in [false, true] {
        let flags = RenameFlags {
            exchange: flags,
            no_replace: false,
        };
        let into = union.rename(Ino::ROOT, b"a", b, b"x", flags);
        assert!(matches!(into, Err(Error::Invalid)));
        let below = union.rename(Ino::ROOT, b"a", a, b"b", flags);
        assert!(matches!(below, Err(Error::Invalid)));
    }
    let exchange = RenameFlags {
        exchange: true,
        no_replace: false,
    };
    let up = union.rename(a, b"b", Ino::ROOT, b"a", exchange);
    assert!(matches!(up, Err(Error::Invalid)));
    let replace = union.rename(a, b"b", Ino::ROOT, b"a", RenameFlags::default());
    assert!(matches!(replace, Err(Error::NotEmpty)));
}

#[test]
fn names_that_no_file_can_have_are_refused() {
    let union = open(&Arc::new(MemLower::new()), &MemUpper::new());
    let make = |name: &[u8]| union.make(Ino::ROOT, name, NewNode::Regular, 0o644, WHO);
    for name in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0"] {
        assert!(matches!(make(name), Err(Error::Invalid)), "{name:?}");
    }
    assert!(matches!(make(&[b'n'; 256]), Err(Error::NameTooLong)));
    make(&[b'n'; 255]).unwrap();
    make(b"\xff\xfe").unwrap();
}

#[test]
fn targets_have_one_to_4095_bytes() {
    let union = open(&Arc::new(MemLower::new()), &MemUpper::new());
    let make = |target: &[u8]| union.make(Ino::ROOT, b"link", NewNode::Symlink(target), 0o777, WHO);
    assert!(matches!(make(b""), Err(Error::NotFound)));
    assert!(matches!(make(&[b't'; 4096]), Err(Error::NameTooLong)));
    let ino = make(&[b't'; 4095]).unwrap().ino;
    assert_eq!(union.readlink(ino).unwrap(), [b't'; 4095]);
    assert!(matches!(union.readlink(Ino::ROOT), Err(Error::Invalid)));
}

#[test]
fn an_inode_has_no_more_names_than_the_maximum() {
    let union = open(&Arc::new(MemLower::new()), &MemUpper::new());
    let ino = file(&union, Ino::ROOT, "0");
    for n in 1..LINK_MAX {
        union
            .link(ino, Ino::ROOT, n.to_string().as_bytes())
            .unwrap();
    }
    let more = union.link(ino, Ino::ROOT, b"more");
    assert!(matches!(more, Err(Error::TooManyLinks)));
    assert_eq!(union.attr(ino).unwrap().nlink, LINK_MAX);
}

#[test]
fn a_set_group_id_directory_hands_down_its_group() {
    let union = open(&Arc::new(MemLower::new()), &MemUpper::new());
    let set = pellicle_union::SetAttr {
        perm: Some(0o2775),
        gid: Some(42),
        ..Default::default()
    };
    union.set_attr(Ino::ROOT, set).unwrap();
    let make = |name: &[u8], what| union.make(Ino::ROOT, name, what, 0o755, WHO).unwrap();
    let (f, d) = (make(b"f", NewNode::Regular), make(b"d", NewNode::Directory));
    assert_eq!((f.gid, f.perm), (42, 0o755));
    assert_eq!((d.gid, d.perm), (42, 0o2755));
}

#[test]
fn a_removed_directory_takes_no_names() {
    let mut lower = MemLower::new();
    let dir = lower.dir(Ino::ROOT, "d");
    let union = open(&Arc::new(lower), &MemUpper::new());
    union.remember(dir);
    union.rmdir(Ino::ROOT, b"d").unwrap();
    let made = union.make(dir, b"f", NewNode::Regular, 0o644, WHO);
    assert!(matches!(made, Err(Error::NotFound)));
    assert_eq!(union.attr(dir).unwrap().nlink, 0);
    union.forget(dir, 1);
    assert!(matches!(union.attr(dir), Err(Error::NotFound)));
}

#[test]
fn what_is_not_a_directory_has_no_names() {
    let mut lower = MemLower::new();
    let f = lower.file(Ino::ROOT, "f", b"");
    let union = open(&Arc::new(lower), &MemUpper::new());
    for _ in 0..2 {
        assert!(matches!(union.lookup(f, b"x"), Err(Error::NotDirectory)));
        let listed = union.list(f, 0, &mut |_| ControlFlow::Continue(()));
        assert!(matches!(listed, Err(Error::NotDirectory)));
        assert!(matches!(union.parent(f), Err(Error::NotDirectory)));
        let made = union.make(f, b"x", NewNode::Regular, 0o644, WHO);
        assert!(matches!(made, Err(Error::NotDirectory)));
        // The second time the inode is touched.
    }
    assert_eq!(union.attr(f).unwrap().kind, FileKind::Regular);
}
