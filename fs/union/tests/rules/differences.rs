//! `diff`.

use std::sync::Arc;

use pellicle_union::{Caller, DifferenceKind, Ino, NewNode, SetAttr, Union};

use crate::support::{at, lower::MemLower, open, upper::MemUpper};

fn sample() -> Arc<MemLower> {
    let mut lower = MemLower::new();
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
    let (lower, upper) = (sample(), MemUpper::new());
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
