//! What stays the same between mounts, and what happens to files that do not.

use std::{fs, os::unix::fs::symlink};

use pellicle_layer::{HostOptions, HostStack, Lower, LowerError};
use pellicle_store::Ino;

use crate::support::{Layers, chmod, find, paths, text};

fn numbers(stack: &dyn Lower) -> Vec<(String, Ino)> {
    let number = |path: String| {
        let ino = find(stack, &path).unwrap();
        (path, ino)
    };
    paths(stack).into_iter().map(number).collect()
}

fn many(layers: &Layers) {
    for n in 0..200 {
        layers.file(
            n % 2,
            &format!("d{}/e{}/f{n}", n % 7, n % 3),
            &n.to_string(),
        );
    }
}

#[test]
fn numbers_and_identity_are_the_same_at_every_opening() {
    let l = Layers::new(2);
    many(&l);
    let first = l.open();
    for _ in 0..5 {
        let again = l.open();
        assert_eq!(numbers(&first), numbers(&again));
        assert_eq!(first.identity(), again.identity());
    }
}

#[test]
fn identity_tells_every_change_but_reading() {
    let l = Layers::new(2);
    many(&l);
    let mut last = l.open().identity();
    let mut differs = |what: &str| {
        let now = l.open().identity();
        assert_ne!(last, now, "{what} is told");
        last = now;
    };
    chmod(&l.at(0, "d0/e0/f0"), 0o600);
    differs("a mode");
    fs::write(l.at(0, "d0/e0/f0"), "other content").unwrap();
    differs("content");
    fs::rename(l.at(0, "d0/e0/f0"), l.at(0, "d0/e0/g")).unwrap();
    differs("a name");
    l.mark(0, "d0/e0/g", "user.x", "y");
    differs("an attribute");
    symlink("a", l.at(1, "link")).unwrap();
    differs("a link");
    let before = l.open().identity();
    fs::read(l.at(0, "d0/e0/g")).unwrap();
    assert_eq!(before, l.open().identity());
}

#[test]
fn a_file_that_changed_under_us_is_an_error_that_names_it() {
    let l = Layers::new(1);
    for name in ["gone", "short", "replaced", "linked", "fine"] {
        l.file(0, name, "ten bytes!");
    }
    l.file(0, "dir/moved", "ten bytes!");
    let stack = l.open();
    let inos: Vec<Ino> = ["gone", "short", "replaced", "linked", "dir/moved"]
        .iter()
        .map(|path| find(&stack, path).unwrap())
        .collect();
    fs::remove_file(l.at(0, "gone")).unwrap();
    fs::write(l.at(0, "short"), "five!").unwrap();
    fs::write(l.at(0, "new"), "another").unwrap();
    fs::rename(l.at(0, "new"), l.at(0, "replaced")).unwrap();
    fs::remove_file(l.at(0, "linked")).unwrap();
    symlink("fine", l.at(0, "linked")).unwrap();
    fs::rename(l.at(0, "dir"), l.at(0, "real")).unwrap();
    symlink("real", l.at(0, "dir")).unwrap();
    for (ino, name) in inos
        .iter()
        .zip(["gone", "short", "replaced", "linked", "moved"])
    {
        match stack.read(*ino, 0, &mut [0; 10]) {
            Err(LowerError::Changed { what, .. }) => assert!(what.ends_with(name), "{what}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    assert!(
        stack.backing(inos[1]).unwrap().is_none(),
        "too short to stand for it"
    );
    assert_eq!(text(&stack, "fine"), "ten bytes!");
}

#[test]
fn holes_and_allocation_are_the_host_files() {
    use std::os::unix::fs::{FileExt, MetadataExt};
    let l = Layers::new(1);
    let at = l.file(0, "sparse", "");
    let file = fs::OpenOptions::new().write(true).open(&at).unwrap();
    file.write_all_at(b"data", 1 << 20).unwrap();
    // Until it is on the disk the file system only guesses what it takes there.
    file.sync_all().unwrap();
    let stack = l.open();
    let ino = find(&stack, "sparse").unwrap();
    assert_eq!(stack.seek(ino, 0, true).unwrap(), Some(1 << 20));
    assert_eq!(
        stack.seek(ino, 1 << 20, false).unwrap(),
        Some((1 << 20) + 4)
    );
    assert_eq!(stack.seek(ino, (1 << 20) + 4, true).unwrap(), None);
    assert_eq!(
        stack.attr(ino).unwrap().blocks,
        fs::metadata(&at).unwrap().blocks()
    );
    assert!(stack.backing(ino).unwrap().is_some());
}

#[test]
fn a_tree_deeper_than_a_path_may_be_long_is_read() {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
    let l = Layers::new(1);
    let name = "d".repeat(200);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut at = openat(CWD, &l.tops[0], flags, Mode::empty()).unwrap();
    for _ in 0..60 {
        mkdirat(&at, &name, Mode::from_raw_mode(0o755)).unwrap();
        at = openat(&at, &name, flags, Mode::empty()).unwrap();
    }
    let create = OFlags::WRONLY | OFlags::CREATE;
    let file = openat(&at, "deep", create, Mode::from_raw_mode(0o644)).unwrap();
    rustix::io::write(&file, b"found").unwrap();
    let path = format!("{}deep", format!("{name}/").repeat(60));
    assert_eq!(text(&l.open(), &path), "found");
}

#[test]
fn a_stack_is_not_opened_through_a_link_below_its_top() {
    let l = Layers::new(1);
    l.file(0, "real/f", "x");
    symlink("real", l.at(0, "link")).unwrap();
    let stack = l.open();
    assert_eq!(paths(&stack), ["link", "real/", "real/f"]);
    // The top itself was named by the person, so it may be a link.
    let top = HostStack::open(&[l.at(0, "link")], &HostOptions::default()).unwrap();
    assert_eq!(paths(&top), ["f"]);
}
