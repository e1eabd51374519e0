//! Host directories: what is written is read back as what is there, and GNU tar reads it alike.

use std::{
    fs,
    io::{Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    process::{Command, Stdio},
};

use super::{chain, parse, show};
use crate::{
    Time,
    import::{Cancel, ImportOptions, Owners, directory::archive_of},
    tree::{Child, TreeBuilder},
};

fn meta<'a>(tree: &'a TreeBuilder, name: &str) -> &'a crate::tree::Meta {
    match tree.child(tree.root(), name.as_bytes()) {
        Some(Child::Node(n)) => tree.meta(n),
        other => panic!("{name}: {other:?}"),
    }
}

fn all_to_root() -> ImportOptions {
    ImportOptions {
        owners: Owners::All { uid: 0, gid: 0 },
        ..ImportOptions::default()
    }
}

#[test]
fn names_modes_times_links_holes_and_attributes_survive() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("d")).unwrap();
    fs::write(at("d/small"), "hello").unwrap();
    fs::set_permissions(at("d/small"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::hard_link(at("d/small"), at("hard")).unwrap();
    symlink("d/small", at("soft")).unwrap();
    let long = "n".repeat(200);
    fs::write(at(&long), "x").unwrap();
    let mut holes = fs::File::create(at("holes")).unwrap();
    holes.seek(SeekFrom::Start(1 << 30)).unwrap();
    holes.write_all(b"end").unwrap();
    drop(holes);
    let mtime = rustix::fs::Timespec {
        tv_sec: -2,
        tv_nsec: 250_000_000,
    };
    let times = rustix::fs::Timestamps {
        last_access: mtime,
        last_modification: mtime,
    };
    let flags = rustix::fs::AtFlags::empty();
    rustix::fs::utimensat(rustix::fs::CWD, at(&long), &times, flags).unwrap();
    let attributes = rustix::fs::setxattr(
        at("d/small"),
        "user.a=b",
        b"v\n\0",
        rustix::fs::XattrFlags::empty(),
    )
    .is_ok();
    if !attributes {
        eprintln!("skipped: this file system has no user attributes");
    }

    let archive = archive_of(dir.path(), &all_to_root()).unwrap();
    assert!(archive.len() < 1 << 20, "holes were written out");
    let tree = parse(&archive).unwrap();
    let lines = show(&tree);
    assert_eq!(lines["/d/small"], "4751 0:0 file hello");
    assert_eq!(lines["/hard"], "4751 0:0 file hello");
    assert_eq!(lines["/soft"], "777 0:0 -> d/small");
    let block = 1 << 30;
    let holes = &lines["/holes"];
    assert!(
        holes.starts_with(&format!("644 0:0 sparse {} {block}+3", block + 3)),
        "{holes}"
    );
    assert_eq!(
        meta(&tree, &long).mtime,
        Time {
            sec: -2,
            nsec: 250_000_000
        }
    );
    let Some(Child::Node(d)) = tree.child(tree.root(), b"d") else {
        panic!("no d")
    };
    let hard = tree.child(tree.root(), b"hard");
    assert_eq!(tree.child(d, b"small"), hard);
    if attributes {
        let Some(Child::Node(n)) = hard else { panic!() };
        let want = (b"user.a=b".to_vec(), b"v\n\0".to_vec());
        assert_eq!(tree.meta(n).xattrs, [want]);
    }
}

#[test]
fn equal_directories_give_equal_archives() {
    let make = |order: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        for name in order {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let times = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
        for name in order.iter().chain(&["."]) {
            let file = fs::File::open(dir.path().join(name)).unwrap();
            file.set_times(times).unwrap();
        }
        archive_of(dir.path(), &all_to_root()).unwrap()
    };
    assert!(make(&["a", "b", "c"]) == make(&["c", "a", "b"]));
}

#[test]
fn a_directory_that_is_not_there_and_a_cancelled_walk_are_told() {
    let gone = archive_of(Path::new("/nonexistent/x"), &all_to_root()).unwrap_err();
    let message = chain(&gone);
    assert!(
        message.contains("/nonexistent/x") && message.contains("open"),
        "{message}"
    );
    let cancel = Cancel::default();
    cancel.cancel();
    let options = ImportOptions {
        cancel,
        ..ImportOptions::default()
    };
    let error = archive_of(Path::new("/etc"), &options).unwrap_err();
    assert!(chain(&error).contains("cancelled"));
}

/// A name as `describe` of the tree and `stat` of what tar unpacked both put it.
fn on_disk(dir: &Path, under: &str, lines: &mut Vec<String>) {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap()).collect();
    names.sort_by_key(fs::DirEntry::file_name);
    for entry in names {
        let stat = entry.metadata().unwrap();
        let path = format!("{under}/{}", entry.file_name().to_str().unwrap());
        let perm = stat.mode() & 0o7777;
        let head = format!("{perm:o} {}:{}", stat.uid(), stat.gid());
        if stat.is_dir() {
            lines.push(format!("{path}/ {head}"));
            on_disk(&entry.path(), &path, lines);
        } else if stat.is_symlink() {
            let target = fs::read_link(entry.path()).unwrap();
            lines.push(format!("{path} {head} -> {}", target.display()));
        } else {
            let data = fs::read(entry.path()).unwrap();
            lines.push(format!("{path} {head} file {}", data.escape_ascii()));
        }
    }
}

#[test]
fn gnu_tar_unpacks_our_archive_and_we_read_its_archives_to_the_same_tree() {
    let from = Path::new("/usr/share/perl5");
    let root = rustix::process::geteuid().is_root();
    if !from.is_dir() || !root || Command::new("tar").arg("--version").output().is_err() {
        eprintln!("skipped: needs root, tar and {}", from.display());
        return;
    }
    let ours = archive_of(from, &ImportOptions::default()).unwrap();
    let mut want: Vec<String> = show(&parse(&ours).unwrap())
        .into_iter()
        .filter(|(path, _)| path != "/")
        .map(|(path, line)| format!("{path} {line}"))
        .collect();
    want.sort_unstable();
    assert!(want.len() > 50);

    let to = tempfile::tempdir().unwrap();
    let mut tar = Command::new("tar")
        .args(["-x", "-p", "-f", "-", "-C"])
        .arg(to.path())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    tar.stdin.take().unwrap().write_all(&ours).unwrap();
    assert!(tar.wait().unwrap().success());
    let mut unpacked = Vec::new();
    on_disk(to.path(), "", &mut unpacked);
    unpacked.sort_unstable();
    assert!(unpacked == want, "tar unpacks our archive to another tree");

    for format in ["gnu", "pax", "ustar"] {
        let theirs = Command::new("tar")
            .args(["-c", "--numeric-owner", &format!("--format={format}"), "-C"])
            .args([from.to_str().unwrap(), "."])
            .output()
            .unwrap();
        assert!(theirs.status.success());
        let mut got: Vec<String> = show(&parse(&theirs.stdout).unwrap())
            .into_iter()
            .filter(|(path, _)| path != "/")
            .map(|(path, line)| format!("{path} {line}"))
            .collect();
        got.sort_unstable();
        assert!(got == want, "{format}: another tree");
    }
}
