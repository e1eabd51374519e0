//! How few messages everyday work takes: what is known is never asked again.

use std::{
    fs,
    io::Read,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::Path,
};

use pellicle_fuse::{Message, Opens, ServeOptions};
use pellicle_store::Ino;

use crate::{
    everyday::small_tree,
    fixture::{Mounted, can_mount, real_root},
    lower::MemoryLower,
};

/// 40 directories of 25 files each.
fn wide_tree() -> MemoryLower {
    let mut lower = MemoryLower::new();
    for d in 0..40 {
        let dir = lower.dir(Ino::ROOT, &format!("dir{d}"));
        for f in 0..25 {
            lower.file(
                dir,
                &format!("file{f}"),
                format!("{d}/{f}").repeat(500).as_bytes(),
            );
        }
        lower.symlink(dir, "link", "file0");
    }
    lower
}

fn walk_and_read(m: &Mounted) -> u64 {
    let mut bytes = 0;
    for (path, meta) in m.walk() {
        if meta.is_file() {
            bytes += fs::read(&path).unwrap().len() as u64;
        } else if meta.is_symlink() {
            bytes += fs::read_link(&path).unwrap().as_os_str().len() as u64;
        }
    }
    bytes
}

fn count(m: &Mounted, kinds: &[Message]) -> u64 {
    kinds.iter().map(|&k| m.stats().get(k)).sum()
}

#[test]
fn a_first_walk_asks_for_no_name_alone() {
    if !can_mount() {
        return;
    }
    let m = Mounted::writable(wide_tree());
    assert_eq!(m.walk().len(), 1 + 40 + 40 * 26);
    assert_eq!(
        count(&m, &[Message::Lookup, Message::ReadDir]),
        0,
        "{:?}",
        m.stats().snapshot()
    );
    // One message for the names and attributes, one that says there are no more.
    assert!(
        count(&m, &[Message::ReadDirPlus]) <= 41 * 2,
        "{:?}",
        m.stats().snapshot()
    );
}

#[test]
fn a_second_walk_and_read_sends_nothing() {
    if !can_mount() {
        return;
    }
    let m = Mounted::writable(wide_tree());
    let first = walk_and_read(&m);
    // Reading and listing made the kernel doubt the access times: it asks once more, then never.
    walk_and_read(&m);
    let before = m.stats().total();
    assert_eq!(walk_and_read(&m), first);
    for missing in ["nothing", "dir3/nothing"] {
        assert!(fs::metadata(m.path(missing)).is_err());
    }
    let asked = count(&m, &[Message::Lookup]);
    assert!(fs::metadata(m.path("nothing")).is_err());
    assert!(fs::metadata(m.path("dir3/nothing")).is_err());
    assert_eq!(
        count(&m, &[Message::Lookup]),
        asked,
        "a missing name is asked for once"
    );
    assert_eq!(m.stats().total() - before, 2, "{:?}", m.stats().snapshot());
}

#[test]
fn reading_a_warm_tree_right_after_the_first_time_sends_attributes_at_most() {
    if !can_mount() {
        return;
    }
    let m = Mounted::writable(wide_tree());
    walk_and_read(&m);
    let kinds: Vec<_> = Message::ALL
        .iter()
        .copied()
        .filter(|&k| k != Message::GetAttr)
        .collect();
    let before = count(&m, &kinds);
    walk_and_read(&m);
    assert_eq!(count(&m, &kinds), before, "{:?}", m.stats().snapshot());
}

#[test]
fn a_read_only_mount_doubts_no_access_time() {
    if !can_mount() {
        return;
    }
    let m = Mounted::with(wide_tree(), true, ServeOptions::default());
    walk_and_read(&m);
    let before = m.stats().total();
    walk_and_read(&m);
    assert_eq!(m.stats().total(), before, "{:?}", m.stats().snapshot());
}

#[test]
fn opening_and_closing_takes_at_most_one_message_for_a_whole_mount() {
    if !can_mount() {
        return;
    }
    let m = Mounted::writable(wide_tree());
    for i in 0..20 {
        let mut text = String::new();
        fs::File::open(m.path(&format!("dir{i}/file1")))
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        fs::write(m.path(&format!("dir{i}/new")), b"x").unwrap();
        assert_eq!(
            fs::read_dir(m.path(&format!("dir{i}"))).unwrap().count(),
            27
        );
    }
    for kind in [
        Message::Open,
        Message::OpenDir,
        Message::Flush,
        Message::Access,
        Message::Poll,
    ] {
        assert!(
            m.stats().get(kind) <= 1,
            "{}: {:?}",
            kind.name(),
            m.stats().snapshot()
        );
    }
    assert_eq!(m.stats().get(Message::ReleaseDir), 0);
}

#[test]
fn a_small_new_file_takes_few_messages() {
    if !can_mount() {
        return;
    }
    let m = Mounted::writable(small_tree());
    fs::write(m.path("first"), b"x").unwrap();
    let before: Vec<_> = Message::ALL.iter().map(|&k| m.stats().get(k)).collect();
    for i in 0..100 {
        fs::write(m.path(&format!("dir/f{i}")), b"some content").unwrap();
    }
    let used: Vec<_> = Message::ALL
        .iter()
        .zip(before)
        .map(|(&k, b)| (k, m.stats().get(k) - b))
        .filter(|&(_, n)| n > 0)
        .collect();
    println!("messages for 100 small files: {used:?}");
    let total: u64 = used.iter().map(|&(_, n)| n).sum();
    // LOOKUP (is it there?), CREATE, GETXATTR (security.capability, before the first write), WRITE,
    // and GETATTR of the directory, which each new name changes.
    assert!(total <= 510, "{used:?}");
}

#[test]
fn passthrough_reads_without_the_server() {
    if !can_mount() {
        return;
    }
    if !real_root() {
        println!("skipped: passthrough needs real root");
        return;
    }
    let mut lower = MemoryLower::new();
    let big = lower.file(Ino::ROOT, "big", &[b'p'; 300_000]);
    lower.back(big);
    lower.file(Ino::ROOT, "inline", b"has no host file");
    let options = ServeOptions {
        opens: Opens::Passthrough,
        ..ServeOptions::default()
    };
    let m = Mounted::with(lower, true, options);
    for _ in 0..3 {
        let (one, two) = (
            fs::File::open(m.path("big")).unwrap(),
            fs::File::open(m.path("big")).unwrap(),
        );
        for mut f in [one, two] {
            let mut bytes = Vec::new();
            f.read_to_end(&mut bytes).unwrap();
            assert!(bytes == [b'p'; 300_000]);
        }
        assert_eq!(fs::read(m.path("inline")).unwrap(), b"has no host file");
    }
    if m.stats().get(Message::Open) == 1 {
        println!(
            "skipped: this kernel does not take host files: {:?}",
            m.stats().snapshot()
        );
        return;
    }
    assert_eq!(
        m.stats().get(Message::Read),
        1,
        "the inline file, once: {:?}",
        m.stats().snapshot()
    );
    assert_eq!(fs::metadata(m.path("big")).unwrap().size(), 300_000);
    m.assert_kernel_agrees("passthrough");
}

#[test]
fn passthrough_writes_without_the_server_and_nothing_is_lost_on_the_way() {
    if !can_mount() {
        return;
    }
    if !real_root() {
        println!("skipped: passthrough needs real root");
        return;
    }
    let mut lower = MemoryLower::new();
    let big = lower.file(Ino::ROOT, "big", &[b'p'; 300_000]);
    lower.file(Ino::ROOT, "other", b"read first");
    let options = ServeOptions {
        opens: Opens::Passthrough,
        ..ServeOptions::default()
    };
    let m = Mounted::with(lower, false, options);
    let open = |name: &str| {
        let mut open = fs::OpenOptions::new();
        open.read(true).write(true).open(m.path(name)).unwrap()
    };
    let file = open("big");
    for n in 0..10 {
        file.write_all_at(&[b'w'; 10_000], n * 50_000).unwrap();
    }
    file.sync_all().unwrap();
    if m.stats().get(Message::Open) == 1 && m.stats().get(Message::Write) > 0 {
        println!("skipped: this kernel does not take host files");
        return;
    }
    assert_eq!(
        m.stats().get(Message::Write),
        0,
        "{:?}",
        m.stats().snapshot()
    );
    assert_eq!(m.union.attr(big).unwrap().size, 460_000);
    m.assert_kernel_agrees("writes to a host file");

    // Who opens it now reads the same file; a truncation is seen by both.
    let second = open("big");
    let mut end = [0; 4];
    second.read_exact_at(&mut end, 459_996).unwrap();
    assert_eq!(&end, b"wwww");
    second.set_len(100).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 100);
    second.set_len(5_000).unwrap();
    let mut all = Vec::new();
    (&file).read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), 5_000);
    assert_eq!(&all[99..101], b"w\0");
    drop((file, second));
    m.assert_kernel_agrees("the last close");
    assert_eq!(fs::read(m.path("big")).unwrap(), all);

    // A reader from before the copy-up goes on through the cache, and so do writers beside it.
    let reader = fs::File::open(m.path("other")).unwrap();
    open("other").write_all_at(b"READ", 0).unwrap();
    assert_eq!(m.stats().get(Message::Write), 1);
    let mut all = String::new();
    (&reader).read_to_string(&mut all).unwrap();
    assert_eq!(all, "READ first");
    // Set-id bits are for a server that sees who writes.
    drop(reader);
    fs::set_permissions(m.path("other"), fs::Permissions::from_mode(0o4755)).unwrap();
    open("other").write_all_at(b"x", 0).unwrap();
    assert_eq!(m.stats().get(Message::Write), 2);
}

#[test]
fn every_way_to_serve_gives_the_same_tree() {
    if !can_mount() {
        return;
    }
    let default = ServeOptions::default;
    for options in [
        ServeOptions {
            threads: Some(1),
            ..default()
        },
        ServeOptions {
            threads: Some(4),
            clone_fd: true,
            ..default()
        },
        ServeOptions {
            adaptive_listing: true,
            ..default()
        },
        ServeOptions {
            write_back: true,
            ..default()
        },
        ServeOptions {
            opens: Opens::Answered,
            ..default()
        },
    ] {
        let told = format!("{options:?}");
        let m = Mounted::with(wide_tree(), false, options);
        assert!(walk_and_read(&m) > 1_000_000, "{told}");
        fs::write(m.path("dir0/new"), vec![1; 100_000]).unwrap();
        assert_eq!(
            fs::read(m.path("dir0/new")).unwrap().len(),
            100_000,
            "{told}"
        );
        assert_eq!(
            m.resolve(Path::new("dir1/file1")).size,
            "1/1".len() as u64 * 500
        );
    }
}
