//! `diff`.

use std::sync::Arc;

use pellicle_union::{Caller, DifferenceKind, Ino, LayerEntry, NewNode, SetAttr, Union};

use crate::support::{at, lower::MemLower, open, upper::MemUpper};

fn sample(tells_names: bool) -> Arc<MemLower> {
    let mut lower = MemLower::new();
    lower.tells_names = tells_names;
    let etc = lower.dir(Ino::ROOT, "etc");
    lower.file(etc, "passwd", b"root");
    lower.file(etc, "hosts", b"localhost");
    let usr = lower.dir(Ino::ROOT, "usr");
    let lib = lower.dir(usr, "lib");
    lower.file(lib, "libc", b"code");
    lower.dir(lib, "empty");
    Arc::new(lower)
}

fn told(union: &Union) -> Vec<String> {
    let told = union.differences().unwrap().into_iter().map(|d| {
        let letter = match d.kind {
            DifferenceKind::Added => 'A',
            DifferenceKind::Changed => 'C',
            DifferenceKind::Deleted => 'D',
        };
        format!("{letter} {}", String::from_utf8(d.path).unwrap())
    });
    told.collect()
}

fn expect(change: impl Fn(&Union), want: &[&str]) {
    for tells_names in [true, false] {
        expect_over(sample(tells_names), &change, want);
    }
}

fn expect_over(lower: Arc<MemLower>, change: impl Fn(&Union), want: &[&str]) {
    let upper = MemUpper::new();
    let union = open(&lower, &upper);
    change(&union);
    assert_eq!(told(&union), want);
    assert_eq!(told(&open(&lower, &upper)), want, "after a remount");
    upper.state.lock().compact_next = true;
    drop(open(&lower, &upper));
    assert_eq!(told(&open(&lower, &upper)), want, "after compaction");
}

fn make(union: &Union, dir: &str, name: &str, what: NewNode<'_>) {
    let who = Caller::default();
    union
        .make(at(union, dir), name.as_bytes(), what, 0o755, who)
        .unwrap();
}

#[test]
fn nothing_differs_at_first_nor_after_reading() {
    expect(|u| assert!(u.lookup(Ino::ROOT, b"etc").is_ok()), &[]);
}

#[test]
fn a_new_name_changes_all_directories_above() {
    expect(
        |u| make(u, "usr/lib", "new", NewNode::Regular),
        &["C /usr", "C /usr/lib", "A /usr/lib/new"],
    );
}

#[test]
fn a_changed_file_is_found_without_a_changed_name() {
    expect(
        |u| {
            u.write(at(u, "etc/passwd"), 0, b"toor", false).unwrap();
        },
        &["C /etc", "C /etc/passwd"],
    );
}

#[test]
fn a_deleted_directory_is_told_once() {
    expect(
        |u| {
            let lib = at(u, "usr/lib");
            u.unlink(lib, b"libc").unwrap();
            u.rmdir(lib, b"empty").unwrap();
            u.rmdir(at(u, "usr"), b"lib").unwrap();
        },
        &["C /usr", "D /usr/lib"],
    );
}

#[test]
fn a_moved_directory_is_deleted_and_added_with_all_it_has() {
    expect(
        |u| {
            let flags = Default::default();
            u.rename(at(u, "usr"), b"lib", Ino::ROOT, b"lib", flags)
                .unwrap();
        },
        &[
            "A /lib",
            "A /lib/empty",
            "A /lib/libc",
            "C /usr",
            "D /usr/lib",
        ],
    );
}

#[test]
fn a_path_that_leads_elsewhere_is_changed() {
    expect(
        |u| {
            make(u, "etc", "temp", NewNode::Regular);
            let etc = at(u, "etc");
            u.rename(etc, b"temp", etc, b"hosts", Default::default())
                .unwrap();
        },
        &["C /etc", "C /etc/hosts"],
    );
}

#[test]
fn directories_that_changed_places_are_compared_by_path() {
    expect(
        |u| {
            let flags = pellicle_union::RenameFlags {
                exchange: true,
                no_replace: false,
            };
            u.rename(Ino::ROOT, b"etc", Ino::ROOT, b"usr", flags)
                .unwrap();
        },
        &[
            "C /etc",
            "D /etc/hosts",
            "A /etc/lib",
            "A /etc/lib/empty",
            "A /etc/lib/libc",
            "D /etc/passwd",
            "C /usr",
            "A /usr/hosts",
            "D /usr/lib",
            "A /usr/passwd",
        ],
    );
}

#[test]
fn a_change_of_mode_is_told_and_one_to_the_same_mode_is_not() {
    let chmod = |perm| {
        move |u: &Union| {
            let set = SetAttr {
                perm: Some(perm),
                ..SetAttr::default()
            };
            u.set_attr(at(u, "usr/lib"), set).unwrap();
        }
    };
    expect(chmod(0o700), &["C /usr", "C /usr/lib"]);
    expect(chmod(0o755), &[]);
}

#[test]
fn what_came_and_went_leaves_only_its_directory() {
    expect(
        |u| {
            make(u, "etc", "temp", NewNode::Directory);
            make(u, "etc/temp", "x", NewNode::Symlink(b"y"));
            u.unlink(at(u, "etc/temp"), b"x").unwrap();
            u.rmdir(at(u, "etc"), b"temp").unwrap();
        },
        &["C /etc"],
    );
}

/// What a layer would say: `W` a whiteout, `N` a node, `O` an opaque directory.
fn layer(union: &Union) -> Vec<String> {
    let told = union.layer_changes().unwrap().into_iter().map(|c| {
        let letter = match c.entry {
            LayerEntry::Whiteout => 'W',
            LayerEntry::Node { opaque: false, .. } => 'N',
            LayerEntry::Node { opaque: true, .. } => 'O',
        };
        format!("{letter} {}", String::from_utf8(c.path).unwrap())
    });
    told.collect()
}

fn expect_layer(change: impl Fn(&Union), want: &[&str]) {
    for tells_names in [true, false] {
        let (lower, upper) = (sample(tells_names), MemUpper::new());
        let union = open(&lower, &upper);
        change(&union);
        assert_eq!(layer(&union), want);
        assert_eq!(layer(&open(&lower, &upper)), want, "after a remount");
    }
}

#[test]
fn a_layer_has_every_name_of_a_file_that_gained_one() {
    expect_layer(
        |u| {
            u.link(at(u, "usr/lib/libc"), at(u, "etc"), b"libc")
                .unwrap();
        },
        &[
            "N /etc",
            "N /etc/libc",
            "N /usr",
            "N /usr/lib",
            "N /usr/lib/libc",
        ],
    );
    expect_layer(
        |u| {
            let etc = at(u, "etc");
            u.link(at(u, "usr/lib/libc"), etc, b"libc").unwrap();
            u.unlink(etc, b"libc").unwrap();
        },
        &["N /etc"],
    );
}

#[test]
fn a_layer_hides_the_directory_that_another_took_the_place_of() {
    expect_layer(
        |u| {
            let flags = pellicle_union::RenameFlags {
                exchange: true,
                no_replace: false,
            };
            u.rename(Ino::ROOT, b"etc", at(u, "usr"), b"lib", flags)
                .unwrap();
        },
        &[
            "N ",
            "O /etc",
            "N /etc/empty",
            "N /etc/libc",
            "N /usr",
            "O /usr/lib",
            "N /usr/lib/hosts",
            "N /usr/lib/passwd",
        ],
    );
    expect_layer(
        |u| {
            let lib = at(u, "usr/lib");
            u.rmdir(lib, b"empty").unwrap();
            make(u, "usr/lib", "empty", NewNode::Regular);
            u.unlink(lib, b"libc").unwrap();
            make(u, "usr/lib", "libc", NewNode::Directory);
            make(u, "usr/lib/libc", "x", NewNode::Fifo);
        },
        &[
            "N /usr",
            "N /usr/lib",
            "N /usr/lib/empty",
            "N /usr/lib/libc",
            "N /usr/lib/libc/x",
        ],
    );
}

#[test]
fn a_layer_on_nothing_has_everything_and_no_whiteout() {
    let union = open(&sample(true), &MemUpper::new());
    union.unlink(at(&union, "etc"), b"hosts").unwrap();
    let told = union.layer_of_everything().unwrap().into_iter();
    let paths: Vec<_> = told.map(|c| String::from_utf8(c.path).unwrap()).collect();
    let want = [
        "",
        "/etc",
        "/etc/passwd",
        "/usr",
        "/usr/lib",
        "/usr/lib/empty",
        "/usr/lib/libc",
    ];
    assert_eq!(paths, want);
}

/// Changes of every kind over a tree with `many` more files and as many more directories beside
/// and above what changes; how many questions the lower tree was asked to tell them.
fn questions(many: u32) -> u64 {
    let mut lower = MemLower::new();
    let crowd = lower.dir(Ino::ROOT, "crowd");
    let deep = lower.dir(crowd, "deep");
    let file = lower.file(deep, "zz-file", b"text");
    lower.link(crowd, "zz-link", file);
    lower.file(deep, "zz-other", b"text");
    for n in 0..many {
        lower.dir(crowd, &format!("dir-{n:06}"));
        lower.file(deep, &format!("file-{n:06}"), b"");
    }
    let lower = Arc::new(lower);
    let union = open(&lower, &MemUpper::new());
    union
        .write(at(&union, "crowd/deep/zz-file"), 0, b"T", false)
        .unwrap();
    union
        .link(at(&union, "crowd/deep/zz-other"), Ino::ROOT, b"link")
        .unwrap();
    union.unlink(deep, b"file-000001").unwrap();
    make(&union, "crowd/deep", "new", NewNode::Directory);
    let before = lower.asked.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(
        told(&union),
        [
            "C /crowd",
            "C /crowd/deep",
            "D /crowd/deep/file-000001",
            "A /crowd/deep/new",
            "C /crowd/deep/zz-file",
            "C /crowd/zz-link",
            "A /link",
        ]
    );
    assert_eq!(
        layer(&union).len(),
        9,
        "and the root and the other name of the link"
    );
    lower.asked.load(std::sync::atomic::Ordering::Relaxed) - before
}

#[test]
fn changes_are_told_without_a_look_at_what_did_not_change() {
    let few = questions(10);
    assert_eq!(questions(10_000), few);
    assert!(few < 200, "{few} questions");
}
