//! What programs do all day, and after each step: does the kernel's cache say what the union says?

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::Path,
};

use pellicle_store::{FileKind, Ino};
use rustix::fs::{FallocateFlags, Mode, RenameFlags, XattrFlags};

use crate::{
    fixture::{Mounted, can_mount, real_root},
    lower::MemoryLower,
};

/// `/a`, `/dir/{b,c,sub/d}`, `/link`, `/twin1` = `/twin2`.
pub(crate) fn small_tree() -> MemoryLower {
    let mut lower = MemoryLower::new();
    lower.file(Ino::ROOT, "a", b"content of a");
    let dir = lower.dir(Ino::ROOT, "dir");
    lower.file(dir, "b", &[b'b'; 10_000]);
    lower.file(dir, "c", b"");
    let sub = lower.dir(dir, "sub");
    let d = lower.file(sub, "d", b"deep");
    lower.xattr(d, "user.color", b"blue");
    lower.symlink(Ino::ROOT, "link", "dir/b");
    let twin = lower.file(Ino::ROOT, "twin1", b"one of two names");
    lower.link(Ino::ROOT, "twin2", twin);
    lower
}

fn mode(path: &Path, bits: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(bits)).unwrap();
}

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

#[test]
fn what_the_lower_tree_has_is_seen_whole() {
    if !can_mount() {
        return;
    }
    let m = Mounted::writable(small_tree());
    assert_eq!(fs::read(m.path("a")).unwrap(), b"content of a");
    assert_eq!(fs::read(m.path("dir/b")).unwrap(), [b'b'; 10_000]);
    assert_eq!(fs::read(m.path("link")).unwrap().len(), 10_000);
    assert_eq!(fs::read_link(m.path("link")).unwrap(), Path::new("dir/b"));
    let mut names: Vec<_> = fs::read_dir(m.path("dir"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["b", "c", "sub"]);
    m.assert_kernel_agrees("nothing");
}

#[test]
fn stat_is_right_right_after_every_change() {
    if !can_mount() {
        return;
    }
    let m = Mounted::writable(small_tree());
    let p = |name: &str| m.path(name);
    let step = |what: &str, done: &dyn Fn()| {
        // Everything is in the kernel's cache when the change comes.
        m.assert_kernel_agrees("filling the caches");
        done();
        m.assert_kernel_agrees(what);
    };
    step("creating a file", &|| {
        fs::write(p("new"), b"12345").unwrap()
    });
    step("appending", &|| {
        OpenOptions::new()
            .append(true)
            .open(p("new"))
            .unwrap()
            .write_all(b"678")
            .unwrap();
    });
    step("truncating by open", &|| {
        drop(File::create(p("a")).unwrap())
    });
    step("growing", &|| {
        OpenOptions::new()
            .write(true)
            .open(p("a"))
            .unwrap()
            .set_len(100_000)
            .unwrap();
    });
    step("shrinking", &|| {
        OpenOptions::new()
            .write(true)
            .open(p("dir/b"))
            .unwrap()
            .set_len(5)
            .unwrap();
    });
    step("writing in the middle", &|| {
        let f = OpenOptions::new().write(true).open(p("a")).unwrap();
        f.write_all_at(b"middle", 50_000).unwrap();
    });
    step("chmod", &|| mode(&p("dir/c"), 0o4711));
    step("chmod of a directory", &|| mode(&p("dir/sub"), 0o1700));
    step("touch", &|| {
        File::open(p("a"))
            .unwrap()
            .set_modified(std::time::UNIX_EPOCH)
            .unwrap()
    });
    step("mkdir", &|| fs::create_dir(p("dir/made")).unwrap());
    step("rmdir", &|| fs::remove_dir(p("dir/made")).unwrap());
    step("symlink", &|| {
        std::os::unix::fs::symlink("x", p("dir/s")).unwrap()
    });
    step("link", &|| {
        fs::hard_link(p("twin1"), p("dir/twin3")).unwrap()
    });
    step("unlink of one of three names", &|| {
        fs::remove_file(p("twin2")).unwrap()
    });
    step("rename", &|| fs::rename(p("dir/s"), p("s2")).unwrap());
    step("rename over a name of a file with two", &|| {
        fs::rename(p("new"), p("dir/twin3")).unwrap();
    });
    step("rename of a directory", &|| {
        fs::rename(p("dir/sub"), p("moved")).unwrap()
    });
    step("rename of a directory over an empty one", &|| {
        fs::create_dir(p("empty")).unwrap();
        fs::rename(p("moved"), p("empty")).unwrap();
    });
    step("exchange of file and directory", &|| {
        rustix::fs::renameat_with(
            rustix::fs::CWD,
            p("empty"),
            rustix::fs::CWD,
            p("dir/b"),
            RenameFlags::EXCHANGE,
        )
        .unwrap();
    });
    step("fifo", &|| {
        rustix::fs::mknodat(
            rustix::fs::CWD,
            p("fifo"),
            rustix::fs::FileType::Fifo,
            Mode::from_bits_retain(0o640),
            0,
        )
        .unwrap();
    });
    step("setxattr", &|| {
        rustix::fs::setxattr(p("a"), "user.x", b"y", XattrFlags::empty()).unwrap();
    });
    step("removexattr", &|| {
        rustix::fs::removexattr(p("a"), "user.x").unwrap()
    });
    step("fallocate beyond the end", &|| {
        let f = OpenOptions::new().write(true).open(p("dir/c")).unwrap();
        rustix::fs::fallocate(&f, FallocateFlags::empty(), 0, 70_000).unwrap();
    });
    step("punching a hole", &|| {
        let f = OpenOptions::new().write(true).open(p("dir/c")).unwrap();
        f.write_all_at(&[1; 70_000], 0).unwrap();
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&f, how, 4096, 8192).unwrap();
    });
    step("copy_file_range", &|| {
        let (from, to) = (
            File::open(p("dir/c")).unwrap(),
            File::create(p("copy")).unwrap(),
        );
        let n = rustix::fs::copy_file_range(&from, None, &to, None, 70_000).unwrap();
        assert_eq!(n, 70_000);
    });
    assert_eq!(fs::read(p("copy")).unwrap(), fs::read(p("dir/c")).unwrap());
    if real_root() {
        step("chown", &|| {
            std::os::unix::fs::chown(p("dir/c"), Some(1234), Some(99)).unwrap()
        });
        step("a device", &|| {
            rustix::fs::mknodat(
                rustix::fs::CWD,
                p("dev"),
                rustix::fs::FileType::CharacterDevice,
                Mode::from_bits_retain(0o600),
                libc::makedev(259, 65_537),
            )
            .unwrap();
        });
    }
    step("removing everything", &|| {
        for entry in fs::read_dir(m.root()).unwrap() {
            let path = entry.unwrap().path();
            if path.symlink_metadata().unwrap().is_dir() {
                fs::remove_dir_all(path).unwrap();
            } else {
                fs::remove_file(path).unwrap();
            }
        }
    });
    assert_eq!(m.walk().len(), 1);
}

#[test]
fn a_name_known_to_be_missing_appears_when_it_is_made() {
    if !can_mount() {
        return;
    }
    let m = Mounted::writable(small_tree());
    for name in ["dir/x", "y"] {
        for _ in 0..2 {
            assert_eq!(errno(fs::metadata(m.path(name))), libc::ENOENT);
        }
        fs::write(m.path(name), name).unwrap();
        assert_eq!(fs::read(m.path(name)).unwrap(), name.as_bytes());
        fs::remove_file(m.path(name)).unwrap();
        assert_eq!(errno(fs::metadata(m.path(name))), libc::ENOENT);
    }
    fs::rename(m.path("a"), m.path("y")).unwrap();
    assert_eq!(errno(fs::metadata(m.path("a"))), libc::ENOENT);
    fs::hard_link(m.path("y"), m.path("a")).unwrap();
    assert_eq!(fs::metadata(m.path("a")).unwrap().nlink(), 2);
}

#[test]
fn a_listing_in_progress_lists_what_stays_exactly_once() {
    if !can_mount() {
        return;
    }
    let mut lower = MemoryLower::new();
    let dir = lower.dir(Ino::ROOT, "dir");
    for i in 0..500 {
        lower.file(dir, &format!("lower{i:04}"), b"");
    }
    let m = Mounted::writable(lower);
    for i in 0..500 {
        File::create(m.path(&format!("dir/stays{i:04}"))).unwrap();
    }
    let mut names = Vec::new();
    for (i, entry) in fs::read_dir(m.path("dir")).unwrap().enumerate() {
        names.push(entry.unwrap().file_name().into_string().unwrap());
        File::create(m.path(&format!("dir/added{i:04}"))).unwrap();
        if i < 100 {
            fs::remove_file(m.path(&format!("dir/lower{:04}", 499 - i))).unwrap();
        }
    }
    let stays: Vec<_> = names.iter().filter(|n| n.starts_with("stays")).collect();
    assert_eq!(stays.len(), 500);
    names.sort();
    let before = names.len();
    names.dedup();
    assert_eq!(names.len(), before, "no name twice");
    m.assert_kernel_agrees("changes while listing");
}

#[test]
fn a_file_without_names_is_read_and_written_until_closed() {
    if !can_mount() {
        return;
    }
    let m = Mounted::writable(small_tree());
    for name in ["a", "fresh"] {
        let mut f = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(m.path(name))
            .unwrap();
        fs::remove_file(m.path(name)).unwrap();
        f.seek(SeekFrom::End(0)).unwrap();
        f.write_all(b" and more").unwrap();
        f.rewind().unwrap();
        let mut text = String::new();
        f.read_to_string(&mut text).unwrap();
        assert!(text.ends_with(" and more"));
        assert_eq!(f.metadata().unwrap().nlink(), 0);
        assert_eq!(f.metadata().unwrap().len(), text.len() as u64);
        f.set_len(3).unwrap();
        assert_eq!(f.metadata().unwrap().len(), 3);
    }
}

#[test]
fn appenders_do_not_overwrite_each_other() {
    if !can_mount() {
        return;
    }
    let m = Mounted::writable(small_tree());
    std::thread::scope(|s| {
        for i in 0..4u8 {
            let path = m.path("log");
            s.spawn(move || {
                let mut f = OpenOptions::new()
                    .append(true)
                    .create(true)
                    .open(path)
                    .unwrap();
                for _ in 0..100 {
                    f.write_all(&[b'0' + i; 10]).unwrap();
                }
            });
        }
    });
    let log = fs::read(m.path("log")).unwrap();
    assert_eq!(log.len(), 4000);
    assert!(log.chunks(10).all(|c| c.iter().all(|b| *b == c[0])));
}

#[test]
fn truncation_by_open_is_seen_by_who_has_it_open() {
    if !can_mount() {
        return;
    }
    let m = Mounted::writable(small_tree());
    let reader = File::open(m.path("dir/b")).unwrap();
    let mut buf = [0; 100];
    assert_eq!(reader.read_at(&mut buf, 0).unwrap(), 100);
    let writer = OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(m.path("dir/b"))
        .unwrap();
    assert_eq!(reader.read_at(&mut buf, 0).unwrap(), 0);
    writer.write_all_at(b"new", 0).unwrap();
    assert_eq!(reader.read_at(&mut buf, 0).unwrap(), 3);
    assert_eq!(&buf[..3], b"new");
}

#[test]
fn a_reader_from_before_copy_up_sees_the_write() {
    if !can_mount() {
        return;
    }
    let m = Mounted::writable(small_tree());
    let reader = File::open(m.path("dir/b")).unwrap();
    let mut buf = [0; 4];
    reader.read_at(&mut buf, 8192).unwrap();
    let writer = OpenOptions::new()
        .write(true)
        .open(m.path("dir/b"))
        .unwrap();
    writer.write_all_at(b"WXYZ", 8192).unwrap();
    reader.read_at(&mut buf, 8192).unwrap();
    assert_eq!(&buf, b"WXYZ");
    assert_eq!(fs::read(m.path("dir/b")).unwrap().len(), 10_000);
}

#[test]
fn rename_flags_mean_what_they_say() {
    if !can_mount() {
        return;
    }
    let m = Mounted::writable(small_tree());
    let rename = |from: &str, to: &str, flags| {
        rustix::fs::renameat_with(
            rustix::fs::CWD,
            m.path(from),
            rustix::fs::CWD,
            m.path(to),
            flags,
        )
    };
    assert_eq!(
        rename("a", "dir/b", RenameFlags::NOREPLACE),
        Err(rustix::io::Errno::EXIST)
    );
    rename("a", "dir/free", RenameFlags::NOREPLACE).unwrap();
    rename("dir/free", "dir/b", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::read(m.path("dir/b")).unwrap(), b"content of a");
    assert_eq!(fs::read(m.path("dir/free")).unwrap().len(), 10_000);
    assert_eq!(
        rename("dir/b", "nowhere", RenameFlags::EXCHANGE),
        Err(rustix::io::Errno::NOENT)
    );
    assert!(rename("dir/b", "w", RenameFlags::WHITEOUT).is_err());
    assert_eq!(
        errno(fs::rename(m.path("dir"), m.path("dir/sub/x"))),
        libc::EINVAL
    );
    assert_eq!(
        errno(fs::rename(m.path("link"), m.path("dir"))),
        libc::EISDIR
    );
    m.assert_kernel_agrees("renames");
}

#[test]
fn extended_attributes_tell_size_and_errors_as_documented() {
    if !can_mount() {
        return;
    }
    let m = Mounted::writable(small_tree());
    let d = m.path("dir/sub/d");
    let mut buf = [0u8; 100];
    assert_eq!(rustix::fs::getxattr(&d, "user.color", &mut buf), Ok(4));
    assert_eq!(&buf[..4], b"blue");
    assert_eq!(
        rustix::fs::getxattr(&d, "user.color", &mut buf[..3]),
        Err(rustix::io::Errno::RANGE)
    );
    assert_eq!(
        rustix::fs::getxattr(&d, "user.other", &mut buf),
        Err(rustix::io::Errno::NODATA)
    );
    let set = |name: &str, value: &[u8], how| rustix::fs::setxattr(&d, name, value, how);
    assert_eq!(
        set("user.color", b"x", XattrFlags::CREATE),
        Err(rustix::io::Errno::EXIST)
    );
    assert_eq!(
        set("user.other", b"x", XattrFlags::REPLACE),
        Err(rustix::io::Errno::NODATA)
    );
    set("user.empty", b"", XattrFlags::empty()).unwrap();
    assert_eq!(rustix::fs::getxattr(&d, "user.empty", &mut buf), Ok(0));
    let big = vec![7; 60_000];
    set("user.big", &big, XattrFlags::CREATE).unwrap();
    let mut back = vec![0; 65_536];
    assert_eq!(rustix::fs::getxattr(&d, "user.big", &mut back), Ok(60_000));
    assert!(back[..60_000] == big);
    let n = rustix::fs::listxattr(&d, &mut buf).unwrap();
    let mut names: Vec<_> = buf[..n]
        .split(|&b| b == 0)
        .filter(|n| !n.is_empty())
        .collect();
    names.sort();
    assert_eq!(names, [&b"user.big"[..], b"user.color", b"user.empty"]);
    rustix::fs::removexattr(&d, "user.color").unwrap();
    assert_eq!(
        rustix::fs::removexattr(&d, "user.color"),
        Err(rustix::io::Errno::NODATA)
    );
}

#[test]
fn set_id_bits_go_with_a_write_by_someone_else() {
    if !can_mount() {
        return;
    }
    if !real_root() {
        println!("skipped: needs two users");
        return;
    }
    let m = Mounted::writable(small_tree());
    // Asked for the mode alone, the kernel answers from its cache: what it would also go by when
    // the file is executed.
    let bits = |name: &str| {
        let flags = rustix::fs::AtFlags::empty();
        let only = rustix::fs::StatxFlags::MODE;
        let stat = rustix::fs::statx(rustix::fs::CWD, m.path(name), flags, only).unwrap();
        u32::from(stat.stx_mode) & 0o7777
    };
    // Root's own writes leave them, as everywhere.
    mode(&m.path("a"), 0o6777);
    OpenOptions::new()
        .append(true)
        .open(m.path("a"))
        .unwrap()
        .write_all(b"x")
        .unwrap();
    assert_eq!(bits("a"), 0o6777);
    for script in ["echo x >> $1", ": > $1", "fallocate -l 99 $1"] {
        mode(&m.path("a"), 0o6777);
        let done = std::process::Command::new("setpriv")
            .args([
                "--reuid=12345",
                "--regid=12345",
                "--clear-groups",
                "sh",
                "-c",
                script,
                "sh",
            ])
            .arg(m.path("a"))
            .status()
            .unwrap();
        // The directory above the mount is the test's own.
        if !done.success() {
            println!("skipped: another user cannot reach the mount");
            return;
        }
        assert_eq!(bits("a"), 0o777, "{script}");
    }
    // Without group execution the bit stays for members of the group and goes for others.
    for (group, left) in [("--clear-groups", 0o767), ("--groups=0", 0o2767)] {
        mode(&m.path("a"), 0o6767);
        let ids = ["--reuid=12345", "--regid=12345", group];
        let mut writer = std::process::Command::new("setpriv");
        writer.args(ids).args(["sh", "-c", "echo x >> $1", "sh"]);
        assert!(writer.arg(m.path("a")).status().unwrap().success());
        assert_eq!(bits("a"), left, "{group}");
    }
    mode(&m.path("a"), 0o6777);
    std::os::unix::fs::chown(m.path("a"), Some(7), None).unwrap();
    assert_eq!(bits("a"), 0o777);
}

#[test]
fn the_umask_is_applied_once() {
    if !can_mount() {
        return;
    }
    let m = Mounted::writable(small_tree());
    let done = std::process::Command::new("sh")
        .args(["-c", "umask 027; touch f; mkdir d; mkfifo p; ln -s x s"])
        .current_dir(m.root())
        .status()
        .unwrap();
    assert!(done.success());
    let bits = |name: &str| fs::symlink_metadata(m.path(name)).unwrap().mode() & 0o7777;
    assert_eq!(
        (bits("f"), bits("d"), bits("p"), bits("s")),
        (0o640, 0o750, 0o640, 0o777)
    );
}

#[test]
fn mapped_files_are_read_and_written() {
    if !can_mount() {
        return;
    }
    let m = Mounted::writable(small_tree());
    // SQLite's write-ahead log and python are the everyday users of mmap; python is at hand.
    let script = r#"
import mmap, sys
f = open(sys.argv[1], "r+b")
m = mmap.mmap(f.fileno(), 0)
assert m[:3] == b"bbb", m[:3]
m[5000:5005] = b"HELLO"
m.flush()
m.close()
assert open(sys.argv[1], "rb").read()[5000:5005] == b"HELLO"
"#;
    let done = std::process::Command::new("python3")
        .args(["-c", script])
        .arg(m.path("dir/b"))
        .status();
    match done {
        Ok(status) => assert!(status.success()),
        Err(e) => {
            println!("skipped: python3: {e}");
            return;
        }
    }
    let ino = m.resolve(Path::new("dir/b")).ino;
    let mut buf = [0; 5];
    m.union.read(ino, 5000, &mut buf).unwrap();
    assert_eq!(&buf, b"HELLO");
    m.assert_kernel_agrees("a mapped write");
}

#[test]
fn holes_are_found() {
    if !can_mount() {
        return;
    }
    let m = Mounted::writable(small_tree());
    let f = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(m.path("sparse"))
        .unwrap();
    f.write_all_at(&[1; 4096], 1 << 20).unwrap();
    f.set_len(4 << 20).unwrap();
    assert_eq!(
        rustix::fs::seek(&f, rustix::fs::SeekFrom::Data(0)),
        Ok(1 << 20)
    );
    assert_eq!(
        rustix::fs::seek(&f, rustix::fs::SeekFrom::Hole(1 << 20)),
        Ok((1 << 20) + 4096)
    );
    assert_eq!(
        rustix::fs::seek(&f, rustix::fs::SeekFrom::Data(2 << 20)),
        Err(rustix::io::Errno::NXIO)
    );
    assert!(f.metadata().unwrap().blocks() < 100);
    let mut buf = [9; 10];
    f.read_at(&mut buf, 3 << 20).unwrap();
    assert_eq!(buf, [0; 10]);
}

#[test]
fn large_files_come_back_as_written() {
    if !can_mount() {
        return;
    }
    let m = Mounted::writable(small_tree());
    let data: Vec<u8> = (0..9_000_001u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    fs::write(m.path("large"), &data).unwrap();
    assert!(fs::read(m.path("large")).unwrap() == data);
    let direct = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(m.path("large"));
    let mut back = vec![0; 8 << 20];
    let n = direct.unwrap().read_at(&mut back, 4096).unwrap();
    assert!(n > 0 && back[..n] == data[4096..4096 + n]);
    File::open(m.path("large")).unwrap().sync_all().unwrap();
    File::open(m.root()).unwrap().sync_all().unwrap();
}

#[test]
fn names_are_bytes_of_up_to_255() {
    if !can_mount() {
        return;
    }
    let m = Mounted::writable(small_tree());
    let name = std::ffi::OsStr::from_bytes(b"\xff\xfe not utf-8 \x01");
    fs::write(m.root().join(name), b"").unwrap();
    assert!(
        fs::read_dir(m.root())
            .unwrap()
            .any(|e| e.unwrap().file_name() == name)
    );
    fs::write(m.root().join("n".repeat(255)), b"").unwrap();
    assert_eq!(
        errno(fs::write(m.root().join("n".repeat(256)), b"")),
        libc::ENAMETOOLONG
    );
    m.assert_kernel_agrees("odd names");
}

#[test]
fn times_keep_their_nanoseconds_before_and_after_the_epoch() {
    if !can_mount() {
        return;
    }
    let m = Mounted::writable(small_tree());
    for (sec, nsec) in [
        (-5, 300_000_000),
        (-1, 0),
        (0, 1),
        (1 << 33, 999_999_999),
        (i64::MIN, 0),
        (i64::MAX, 0),
    ] {
        let t = rustix::fs::Timespec {
            tv_sec: sec,
            tv_nsec: nsec,
        };
        let times = rustix::fs::Timestamps {
            last_access: t,
            last_modification: t,
        };
        rustix::fs::utimensat(
            rustix::fs::CWD,
            m.path("a"),
            &times,
            rustix::fs::AtFlags::empty(),
        )
        .unwrap();
        let meta = fs::metadata(m.path("a")).unwrap();
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (sec, nsec));
        assert_eq!((meta.atime(), meta.atime_nsec()), (sec, nsec));
        m.assert_kernel_agrees("utimensat");
    }
}

#[test]
fn locks_and_unknown_ioctls_stay_with_the_kernel() {
    if !can_mount() {
        return;
    }
    let m = Mounted::writable(small_tree());
    let (one, two) = (
        File::open(m.path("a")).unwrap(),
        File::open(m.path("a")).unwrap(),
    );
    one.try_lock().unwrap();
    assert!(two.try_lock().is_err());
    one.unlock().unwrap();
    two.try_lock().unwrap();
    assert_eq!(
        rustix::fs::ioctl_getflags(&one),
        Err(rustix::io::Errno::NOTTY)
    );
}

#[test]
fn access_control_lists_rule_and_show_in_the_mode() {
    if !can_mount() {
        return;
    }
    let m = Mounted::writable(small_tree());
    let run = |program: &str, args: &[&str]| {
        std::process::Command::new(program)
            .args(args)
            .current_dir(m.root())
            .output()
    };
    match run("setfacl", &["-m", "u:0:r--,m::rwx", "a"]) {
        Ok(done) if done.status.success() => {}
        Ok(done) => panic!("{}", String::from_utf8_lossy(&done.stderr)),
        Err(e) => {
            println!("skipped: setfacl: {e}");
            return;
        }
    }
    m.assert_kernel_agrees("setfacl");
    assert_eq!(
        fs::metadata(m.path("a")).unwrap().mode() & 0o777,
        0o674,
        "the mask is the group's bits"
    );
    let listed = String::from_utf8(run("getfacl", &["-cnp", "a"]).unwrap().stdout).unwrap();
    assert!(listed.contains("user:0:r--"), "{listed}");
    mode(&m.path("a"), 0o640);
    let listed = String::from_utf8(run("getfacl", &["-cnp", "a"]).unwrap().stdout).unwrap();
    assert!(
        listed.contains("mask::r--"),
        "chmod changes the mask: {listed}"
    );
    assert!(
        run("setfacl", &["-d", "-m", "u:0:rwx,g::r-x,o::-", "dir"])
            .unwrap()
            .status
            .success()
    );
    fs::write(m.path("dir/inherits"), b"").unwrap();
    fs::create_dir(m.path("dir/also")).unwrap();
    let listed =
        String::from_utf8(run("getfacl", &["-cnp", "dir/inherits"]).unwrap().stdout).unwrap();
    assert!(listed.contains("user:0:rwx"), "{listed}");
    let listed = String::from_utf8(run("getfacl", &["-cnp", "dir/also"]).unwrap().stdout).unwrap();
    assert!(listed.contains("default:user:0:rwx"), "{listed}");
    m.assert_kernel_agrees("default lists");
}

#[test]
fn a_database_works() {
    if !can_mount() {
        return;
    }
    let m = Mounted::writable(small_tree());
    for journal in ["delete", "wal"] {
        let sql = format!(
            "pragma journal_mode={journal}; create table t(a,b); \
             with recursive c(i) as (select 1 union all select i+1 from c where i<5000) \
             insert into t select i, hex(randomblob(50)) from c; \
             delete from t where a%3=0; vacuum; select count(*) from t; pragma integrity_check;"
        );
        let db = m.path(&format!("{journal}.db"));
        let Ok(done) = std::process::Command::new("sqlite3")
            .arg(db)
            .arg(sql)
            .output()
        else {
            println!("skipped: sqlite3 is not installed");
            return;
        };
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(
            said.contains("3334\nok"),
            "{said}{}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
    m.assert_kernel_agrees("a database");
}

#[test]
fn sizes_and_kinds_of_special_files_are_right() {
    if !can_mount() {
        return;
    }
    let mut lower = small_tree();
    let dev = lower.node(Ino::ROOT, "null", FileKind::CharDevice, 0o666);
    lower.attr_mut(dev).rdev = pellicle_store::Device { major: 1, minor: 3 };
    let m = Mounted::writable(lower);
    assert_eq!(
        fs::metadata(m.path("null")).unwrap().rdev(),
        libc::makedev(1, 3)
    );
    assert_eq!(
        errno(File::open(m.path("null"))),
        libc::EACCES,
        "devices never work in the mount"
    );
}
