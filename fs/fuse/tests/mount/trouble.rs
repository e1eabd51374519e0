//! When things go wrong: clear errors, nothing left behind.

use std::{fs, path::Path};

use pellicle_fuse::{FuseError, MountOptions, mount_here, mount_with_helper, unmount};

use crate::{
    everyday::small_tree,
    fixture::{Mounted, by_helper, can_mount},
    lower::Trouble,
};

fn mount(dir: &Path) -> Result<std::os::fd::OwnedFd, FuseError> {
    let options = MountOptions::default();
    if by_helper() {
        mount_with_helper(dir, &options)
    } else {
        mount_here(dir, &options)
    }
}

#[test]
fn what_cannot_be_mounted_on_is_named() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    let e = mount(&file).unwrap_err();
    assert!(
        matches!(&e, FuseError::NotDirectory { path } if *path == file),
        "{e:?}"
    );
    let e = mount(&dir.path().join("missing")).unwrap_err();
    assert!(matches!(&e, FuseError::NoMountpoint { .. }), "{e:?}");
    assert!(e.to_string().contains("mkdir"), "{e}");
}

#[test]
fn what_is_not_mounted_cannot_be_unmounted() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let e = unmount(dir.path(), false).unwrap_err();
    assert!(matches!(&e, FuseError::NotMounted { .. }), "{e:?}");
}

#[test]
fn a_busy_mount_is_refused_and_a_lazy_one_goes() {
    if !can_mount() {
        return;
    }
    let mut m = Mounted::writable(small_tree());
    let open = fs::File::open(m.path("a")).unwrap();
    let e = unmount(m.root(), false).unwrap_err();
    assert!(matches!(&e, FuseError::Busy { .. }), "{e:?}");
    unmount(m.root(), true).unwrap();
    assert_eq!(std::io::read_to_string(&open).unwrap(), "content of a");
    let server = m.server.take().unwrap();
    assert!(!server.is_finished());
    drop(open);
    server.join().unwrap();
}

#[test]
fn serving_ends_when_unmounted() {
    if !can_mount() {
        return;
    }
    let mut m = Mounted::writable(small_tree());
    unmount(m.root(), false).unwrap();
    m.server.take().unwrap().join().unwrap();
    assert_eq!(fs::read_dir(m.root()).unwrap().count(), 0);
}

#[test]
fn a_mount_whose_server_died_says_so_and_can_be_removed() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // A descriptor that is closed is what a killed server leaves.
    drop(mount(dir.path()).unwrap());
    let e = fs::read_dir(dir.path()).unwrap_err();
    assert_eq!(e.raw_os_error(), Some(libc::ENOTCONN));
    let e = mount(dir.path()).unwrap_err();
    assert!(matches!(&e, FuseError::Stale { .. }), "{e:?}");
    unmount(dir.path(), false).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_mount_that_went_before_it_was_served_is_an_error() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let fd = mount(dir.path()).unwrap();
    unmount(dir.path(), true).unwrap();
    let (union, _) = pellicle_union::Union::open(
        std::sync::Arc::new(small_tree()),
        None,
        pellicle_union::Options { read_only: true },
    )
    .unwrap();
    let e = pellicle_fuse::serve(fd, std::sync::Arc::new(union), Default::default()).unwrap_err();
    assert!(matches!(e, FuseError::Handshake { .. }), "{e:?}");
}

#[test]
fn a_read_only_mount_refuses_every_change() {
    if !can_mount() {
        return;
    }
    let m = Mounted::with(small_tree(), true, Default::default());
    let code = |r: std::io::Result<()>| r.unwrap_err().raw_os_error();
    assert_eq!(code(fs::write(m.path("a"), b"")), Some(libc::EROFS));
    assert_eq!(code(fs::write(m.path("new"), b"")), Some(libc::EROFS));
    assert_eq!(code(fs::remove_file(m.path("a"))), Some(libc::EROFS));
    assert_eq!(code(fs::create_dir(m.path("d"))), Some(libc::EROFS));
    assert_eq!(fs::read(m.path("a")).unwrap(), b"content of a");
    m.assert_kernel_agrees("refused changes");
}

#[test]
fn a_bug_fails_its_request_and_nothing_else() {
    if !can_mount() {
        return;
    }
    let mut lower = small_tree();
    let bug = lower.file(pellicle_store::Ino::ROOT, "bug", b"1");
    lower.trouble(bug, Trouble::Bug);
    let damaged = lower.file(pellicle_store::Ino::ROOT, "damaged", b"2");
    lower.trouble(damaged, Trouble::Damage);
    let m = Mounted::writable(lower);
    // More often than there are threads.
    for _ in 0..10 {
        for name in ["bug", "damaged"] {
            let e = fs::read(m.path(name)).unwrap_err();
            assert_eq!(e.raw_os_error(), Some(libc::EIO), "{name}");
        }
    }
    assert_eq!(fs::read(m.path("a")).unwrap(), b"content of a");
    fs::write(m.path("new"), b"x").unwrap();
    m.assert_kernel_agrees("bugs");
}

#[test]
fn who_may_not_mount_is_told_what_to_switch_on() {
    if !can_mount() {
        return;
    }
    if !by_helper() {
        println!("skipped: for the run as an ordinary user only");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let e = mount_here(dir.path(), &MountOptions::default()).unwrap_err();
    assert!(matches!(&e, FuseError::MountDenied { .. }), "{e:?}");
    assert!(e.to_string().contains("sysctl"), "{e}");
    let allowed = fs::read_to_string("/etc/fuse.conf")
        .is_ok_and(|text| text.lines().any(|l| l.trim() == "user_allow_other"));
    if !allowed {
        let others = MountOptions {
            allow_other: true,
            ..MountOptions::default()
        };
        let e = mount_with_helper(dir.path(), &others).unwrap_err();
        assert!(matches!(&e, FuseError::OthersDenied), "{e:?}");
    }
}
