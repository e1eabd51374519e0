//! What the suites of others do not ask: layers, numbers, and what lasts over a remount.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    process::Command,
};

use pellicle_tests::{
    Overlay, Way,
    tree::{assert_same, tree},
};
use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, Timestamps, UTIME_OMIT},
    io::Errno,
};

use crate::{can_run, some_files, write};

fn ino(path: &Path) -> u64 {
    fs::symlink_metadata(path)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        .ino()
}

fn exchange(a: &Path, b: &Path) {
    rustix::fs::renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).expect("exchange");
}

#[test]
fn numbers_and_links_outlast_copy_up_rename_and_remount() {
    if !can_run("numbers_and_links_outlast_copy_up_rename_and_remount") {
        return;
    }
    for way in Way::all() {
        let mut overlay = Overlay::new(way, some_files);
        let at = overlay.at();
        let (large, twin) = (at.join("large"), at.join("work/twin"));
        let number = ino(&large);
        assert_eq!(ino(&twin), number, "two names of one file below");

        // Copied up through one name, changed under both.
        let mut file = OpenOptions::new().append(true).open(&twin).expect("open");
        file.write_all(b"more").expect("write");
        drop(file);
        assert_eq!(fs::metadata(&large).expect("stat").len(), 3_000_004);
        fs::hard_link(&large, at.join("both/third")).expect("link");
        fs::rename(&large, at.join("both/deep/large")).expect("rename");
        for name in ["both/deep/large", "work/twin", "both/third"] {
            let meta = fs::metadata(at.join(name)).expect("stat");
            assert_eq!((meta.ino(), meta.nlink()), (number, 3), "{way}: {name}");
        }

        // A directory of both layers moves as it is, and changes places with a new file.
        let (both, moved) = (ino(&at.join("both")), at.join("work/moved"));
        fs::rename(at.join("both"), &moved).expect("a merged directory can be renamed");
        write(at.join("file"), "new");
        exchange(&moved, &at.join("file"));
        assert_eq!(ino(&at.join("file")), both);
        assert_eq!(fs::read(&moved).expect("read"), b"new");
        assert_eq!(ino(&at.join("file/deep/..")), both);
        let same = at.join("work/same");
        exchange(&same, &at.join("work/low0"));
        assert_eq!(fs::read(&same).expect("read"), b"low 0");

        let before = tree(&at);
        overlay.remount();
        assert_same(
            &way.lasting(before),
            &way.lasting(tree(&at)),
            &format!("{way}, remounted"),
        );
        assert_eq!(ino(&at.join("work/twin")), number);
    }
}

#[test]
fn a_file_without_a_name_is_a_file_until_it_is_closed() {
    if !can_run("a_file_without_a_name_is_a_file_until_it_is_closed") {
        return;
    }
    for way in Way::all() {
        let overlay = Overlay::new(way, some_files);
        for name in ["work/low1", "work/high1", "large"] {
            let path = overlay.at().join(name);
            let size = fs::metadata(&path).expect("stat").len();
            let mut names = fs::metadata(&path).expect("stat").nlink();
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .open(&path)
                .expect("open");
            fs::remove_file(&path).expect("unlink");
            names -= 1;
            let stat = |file: &File| file.metadata().expect("fstat");
            assert_eq!((stat(&file).len(), stat(&file).nlink()), (size, names));
            file.write_all_at(b"longer", size).expect("write");
            file.set_len(size + 3).expect("truncate");
            file.set_permissions(fs::Permissions::from_mode(0o600))
                .expect("chmod");
            rustix::fs::fsetxattr(&file, "user.a", b"b", rustix::fs::XattrFlags::empty())
                .expect("setxattr");
            file.seek(SeekFrom::Start(size)).expect("seek");
            let mut end = String::new();
            file.read_to_string(&mut end).expect("read");
            assert_eq!(end, "lon", "{way}: {name}");
            assert_eq!(stat(&file).mode() & 0o7777, 0o600);
            // Linked again through /proc: Linux says ENOENT to a file that lost its last name.
            let link = rustix::fs::linkat(
                CWD,
                format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file)),
                CWD,
                &path,
                AtFlags::SYMLINK_FOLLOW,
            );
            match names {
                0 => assert_eq!(link, Err(Errno::NOENT)),
                _ => link.expect("link"),
            }
        }
        // Over the ring; fuser, which reads /dev/fuse, does not know it: SEMANTICS.md.
        let unnamed = rustix::fs::open(
            overlay.at(),
            OFlags::TMPFILE | OFlags::RDWR,
            Mode::from_raw_mode(0o600),
        );
        assert!(
            matches!(unnamed, Ok(_) | Err(Errno::OPNOTSUPP)),
            "{way}: {unnamed:?}"
        );
    }
}

/// Names of a directory from an open listing until it ends or `n` were read.
fn some_names(dir: &mut Dir, n: usize) -> Vec<(Vec<u8>, i64)> {
    let mut names = Vec::new();
    while names.len() < n {
        let Some(entry) = dir.read() else { break };
        let entry = entry.expect("list");
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push((name.to_vec(), entry.offset()));
        }
    }
    names
}

#[test]
fn a_directory_of_100_000_names_is_listed_right_while_it_changes() {
    if !can_run("a_directory_of_100_000_names_is_listed_right_while_it_changes") {
        return;
    }
    const NAMES: usize = 100_000;
    for way in Way::all() {
        // Half of the names lie below.
        let overlay = Overlay::new(way, |low, _| {
            fs::create_dir(low.join("d")).expect("mkdir");
            for n in 0..NAMES / 2 {
                File::create(low.join(format!("d/n{n}"))).expect("create");
            }
        });
        let at = overlay.at().join("d");
        for n in NAMES / 2..NAMES {
            File::create(at.join(format!("n{n}"))).expect("create");
        }
        let mut dir = Dir::read_from(File::open(&at).expect("open")).expect("open");
        let mut seen = Vec::new();
        let mut round = 0;
        loop {
            let some = some_names(&mut dir, 7_000);
            if some.is_empty() {
                break;
            }
            seen.extend(some);
            // Every tenth name goes, new ones come, and one is replaced.
            for n in (round * 7_000..(round + 1) * 7_000).step_by(10) {
                let _ = fs::remove_file(at.join(format!("n{n}")));
                File::create(at.join(format!("new{n}"))).expect("create");
            }
            fs::rename(at.join(format!("new{}", round * 7_000)), at.join("n5")).expect("rename");
            round += 1;
        }
        let mut times: BTreeMap<&[u8], u32> = BTreeMap::new();
        for (name, _) in &seen {
            *times.entry(name).or_default() += 1;
        }
        for n in (0..NAMES).filter(|n| n % 10 != 0) {
            let name = format!("n{n}");
            assert_eq!(times.get(name.as_bytes()), Some(&1), "{way}: {name}");
        }
        assert!(
            times.values().all(|n| *n == 1),
            "{way}: a name was listed twice"
        );

        // Going back to a place gives what followed it.
        let mut dir = Dir::read_from(File::open(&at).expect("open")).expect("open");
        let all = some_names(&mut dir, usize::MAX);
        for back in [0, 1, 64, 4_999, 60_001] {
            dir.seek(all[back].1).expect("seekdir");
            let again = some_names(&mut dir, 100);
            assert_eq!(again, all[back + 1..back + 101], "{way}: from place {back}");
        }
        let listed: BTreeSet<Vec<u8>> = all.into_iter().map(|(name, _)| name).collect();
        let there: BTreeSet<Vec<u8>> = fs::read_dir(&at)
            .expect("list")
            .map(|e| e.expect("list").file_name().as_bytes().to_vec())
            .collect();
        assert_eq!(listed, there);
    }
}

#[test]
fn names_paths_sizes_and_times_reach_their_limits() {
    if !can_run("names_paths_sizes_and_times_reach_their_limits") {
        return;
    }
    for way in Way::all() {
        let mut overlay = Overlay::new(way, some_files);
        let at = overlay.at();
        write(at.join("n".repeat(255)), "");
        let errno = |e: std::io::Error| e.raw_os_error();
        let long = File::create(at.join("n".repeat(256))).map_err(errno);
        assert_eq!(long.map(drop), Err(Some(Errno::NAMETOOLONG.raw_os_error())));

        // A path of 4,095 bytes and the NUL, relative to the mount.
        std::env::set_current_dir("/").expect("chdir");
        let mut path = at.clone();
        while path.as_os_str().len() + 102 < 4_000 {
            path.push("p".repeat(100));
        }
        fs::create_dir_all(&path).expect("mkdir");
        path.push("q".repeat(4_095 - path.as_os_str().len() - 1));
        write(path.clone(), "deep");
        assert_eq!(fs::read(&path).expect("read"), b"deep");
        let longer = PathBuf::from(format!("{}q", path.display()));
        let longer = File::open(longer).map_err(errno);
        assert_eq!(
            longer.map(drop),
            Err(Some(Errno::NAMETOOLONG.raw_os_error()))
        );

        // Past 4 GiB, with holes that cost nothing.
        let big = at.join("work/low2");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&big)
            .expect("open");
        file.write_all_at(b"far", (5 << 30) + 1).expect("write");
        let mut far = [1; 8];
        file.read_exact_at(&mut far, (5 << 30) - 4).expect("read");
        assert_eq!(&far, b"\0\0\0\0\0far");
        assert!(
            file.metadata().expect("stat").blocks() < 4_096,
            "{way}: no hole"
        );
        assert_eq!(
            rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(1 << 20)),
            Ok(5 << 30)
        );
        drop(file);

        let spec = |tv_sec, tv_nsec| rustix::fs::Timespec { tv_sec, tv_nsec };
        let odd = Timestamps {
            last_access: spec(-1, 999_999_999),
            last_modification: spec(4_294_967_296, 1),
        };
        let clock = at.join("work/low3");
        rustix::fs::utimensat(CWD, &clock, &odd, AtFlags::empty()).expect("utimensat");
        let half = Timestamps {
            last_access: spec(0, UTIME_OMIT),
            last_modification: spec(7, 7),
        };
        rustix::fs::utimensat(CWD, &clock, &half, AtFlags::empty()).expect("utimensat");
        let check = |what: &str| {
            let meta = fs::metadata(&clock).expect("stat");
            assert_eq!(
                (meta.atime(), meta.atime_nsec()),
                (-1, 999_999_999),
                "{way}, {what}"
            );
            assert_eq!((meta.mtime(), meta.mtime_nsec()), (7, 7), "{way}, {what}");
        };
        check("set");
        let space = rustix::fs::statvfs(&at).expect("statfs");
        assert_eq!(space.f_namemax, 255);
        assert!(space.f_bfree > 0 && space.f_bfree <= space.f_blocks);
        assert!(space.f_bavail <= space.f_bfree);

        fs::remove_file(&big).expect("unlink");
        let before = tree(&at);
        overlay.remount();
        assert_same(
            &way.lasting(before),
            &way.lasting(tree(&at)),
            &format!("{way}, remounted"),
        );
        check("remounted");
    }
}

#[test]
fn a_device_numbered_0_is_a_device() {
    if !can_run("a_device_numbered_0_is_a_device") {
        return;
    }
    for way in Way::all() {
        let mut overlay = Overlay::new(way, some_files);
        let path = overlay.at().join("work/low4");
        fs::remove_file(&path).expect("unlink");
        let mode = Mode::from_raw_mode(0o644);
        rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, mode, 0).expect("mknod");
        for _ in 0..2 {
            let meta = fs::symlink_metadata(&path).expect("stat");
            assert!(meta.file_type().is_char_device(), "{way}");
            assert_eq!(meta.rdev(), 0);
            overlay.remount();
        }
        fs::remove_file(&path).expect("unlink");
        assert!(!path.exists());
    }
}

#[test]
fn every_kind_of_node_has_an_owner_and_a_mode_that_last() {
    if !can_run("every_kind_of_node_has_an_owner_and_a_mode_that_last") {
        return;
    }
    for way in Way::all() {
        let mut overlay = Overlay::new(way, some_files);
        let at = overlay.at().join("work");
        for (name, kind, dev) in [
            ("fifo", FileType::Fifo, 0),
            ("socket", FileType::Socket, 0),
            ("char", FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
            ("block", FileType::BlockDevice, rustix::fs::makedev(7, 200)),
            ("file", FileType::RegularFile, 0),
        ] {
            let path = at.join(name);
            let mode = Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(CWD, &path, kind, mode, dev).expect("mknod");
            std::os::unix::fs::chown(&path, Some(5), Some(6)).expect("chown");
            set_mode(&path, 0o4640);
            let stat = rustix::fs::lstat(&path).expect("stat");
            assert_eq!(FileType::from_raw_mode(stat.st_mode), kind, "{way}");
            assert_eq!((stat.st_rdev, stat.st_mode & 0o7777), (dev, 0o4640));
            assert_eq!((stat.st_uid, stat.st_gid), (5, 6), "{way}: {name}");
        }
        let before = tree(&overlay.at());
        overlay.remount();
        assert_same(
            &way.lasting(before),
            &way.lasting(tree(&overlay.at())),
            &format!("{way}, remounted"),
        );
    }
}

#[test]
fn set_id_bits_and_capabilities_go_as_on_other_file_systems() {
    if !can_run("set_id_bits_and_capabilities_go_as_on_other_file_systems") {
        return;
    }
    for way in Way::all() {
        let overlay = Overlay::new(way, some_files);
        let path = overlay.at().join("work/low5");
        // As the kernel answers from its cache, which is what counts when it is executed.
        let bits = || {
            let only = rustix::fs::StatxFlags::MODE;
            let stat = rustix::fs::statx(CWD, &path, AtFlags::empty(), only).expect("statx");
            stat.stx_mode & 0o7777
        };
        let has_capability =
            || rustix::fs::getxattr(&path, "security.capability", &mut [0u8; 64][..]).is_ok();
        for (script, groups, mode, left) in [
            ("echo x >> $1", "--clear-groups", 0o6777, 0o777),
            (": > $1", "--clear-groups", 0o6777, 0o777),
            ("fallocate -l 9 $1", "--clear-groups", 0o6777, 0o777),
            ("fallocate -p -o 0 -l 1 $1", "--clear-groups", 0o6777, 0o777),
            ("truncate -s 7 $1", "--clear-groups", 0o4666, 0o666),
            // A set-group-ID bit without group execution stays for members of the group only.
            ("echo x >> $1", "--clear-groups", 0o2767, 0o767),
            ("echo x >> $1", "--groups=0", 0o2767, 0o2767),
            ("fallocate -l 9 $1", "--groups=0", 0o6767, 0o2767),
        ] {
            set_mode(&path, mode);
            let done = Command::new("setpriv")
                .args([
                    "--reuid=12345",
                    "--regid=12345",
                    groups,
                    "sh",
                    "-c",
                    script,
                    "sh",
                ])
                .arg(&path)
                .status()
                .expect("setpriv");
            assert!(done.success(), "{script}");
            assert_eq!(bits(), left, "{way}: {script} {groups} on {mode:o}");
        }
        // A change of owner by root leaves the bit that is no set-id bit.
        set_mode(&path, 0o6764);
        std::os::unix::fs::chown(&path, Some(1), None).expect("chown");
        assert_eq!(bits(), 0o2764, "{way}: chown");
        // So does one that names nobody, and it is a change.
        set_mode(&path, 0o6764);
        let before = fs::metadata(&path).expect("stat");
        rustix::fs::chownat(CWD, &path, None, None, AtFlags::empty()).expect("chown");
        let after = fs::metadata(&path).expect("stat");
        assert_eq!(bits(), 0o2764, "{way}: chown of nobody");
        let changed = |of: &fs::Metadata| (of.ctime(), of.ctime_nsec());
        assert!(changed(&after) > changed(&before), "{way}");
        // Root keeps the bits, but nobody the capabilities.
        for script in ["echo x >> $1", ": > $1", "fallocate -l 9 $1", "chown 1 $1"] {
            set_mode(&path, 0o4755);
            let done = Command::new("setcap")
                .arg("cap_net_raw+ep")
                .arg(&path)
                .status();
            assert!(done.expect("setcap").success());
            assert!(has_capability());
            let done = Command::new("sh")
                .args(["-c", script, "sh"])
                .arg(&path)
                .status();
            assert!(done.expect("sh").success());
            assert!(!has_capability(), "{way}: {script}");
        }
    }
}

#[test]
fn a_file_that_grows_is_as_long_as_was_written_whoever_asks_meanwhile() {
    if !can_run("a_file_that_grows_is_as_long_as_was_written_whoever_asks_meanwhile") {
        return;
    }
    for way in Way::all() {
        let overlay = Overlay::new(way, some_files);
        let path = overlay.at().join("work/low6");
        let file = OpenOptions::new().write(true).open(&path).expect("open");
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _end = Stop(&done);
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        // A new name each time, so that the server is asked.
                        let _ = fs::hard_link(&path, path.with_extension("link"));
                        let _ = fs::metadata(&path).expect("stat");
                        let _ = fs::remove_file(path.with_extension("link"));
                    }
                });
            }
            for n in 0..3_000 {
                file.write_all_at(&[b'g'; 100], n * 100).expect("write");
                let size = file.metadata().expect("stat").len();
                assert_eq!(size, (n + 1) * 100, "{way}");
            }
        });
        drop(file);
        assert!(fs::read(&path).expect("read") == [b'g'; 300_000], "{way}");
    }
}

/// Tells the other threads to end, also when a check fails.
struct Stop<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}
