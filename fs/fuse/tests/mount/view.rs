//! Mounts that show other ids, links and attributes than the union keeps.

use std::{
    fs,
    os::unix::fs::{MetadataExt, chown},
};

use pellicle_fuse::{IdMap, IdRange, ServeOptions, View};
use pellicle_store::{FileKind, Ino};
use rustix::{fs::XattrFlags, io::Errno};

use crate::{
    fixture::{Mounted, can_mount, real_root},
    lower::MemoryLower,
};

fn mounted(view: View) -> Mounted {
    let mut lower = MemoryLower::new();
    lower.attr_mut(Ino::ROOT).uid = 0;
    lower.attr_mut(Ino::ROOT).gid = 0;
    let f = lower.file(Ino::ROOT, "f", b"content");
    lower.attr_mut(f).uid = 7;
    lower.attr_mut(f).gid = 8;
    lower.xattr(f, "user.x", b"y");
    let d = lower.node(Ino::ROOT, "d", FileKind::Directory, 0o755);
    lower.node(d, "sub", FileKind::Directory, 0o755);
    Mounted::with(
        lower,
        false,
        ServeOptions {
            view,
            ..ServeOptions::default()
        },
    )
}

fn ids(range: (u32, u32, u32)) -> IdMap {
    IdMap {
        ranges: vec![IdRange {
            kept: range.0,
            shown: range.1,
            length: range.2,
        }],
        squash: None,
        overflow: 65_534,
    }
}

#[test]
fn ids_are_shown_and_kept_in_the_numbers_of_each_side() {
    if !can_mount() || !real_root() {
        return;
    }
    let mount = mounted(View {
        uids: ids((0, 100_000, 1000)),
        gids: ids((0, 200_000, 1000)),
        ..View::default()
    });
    let shown = |name: &str| {
        let meta = fs::symlink_metadata(mount.path(name)).unwrap();
        (meta.uid(), meta.gid())
    };
    let kept = |name: &str| {
        let attr = mount.union.lookup(Ino::ROOT, name.as_bytes()).unwrap();
        (attr.uid, attr.gid)
    };
    // By LOOKUP, and in a listing's attributes.
    assert_eq!(shown("f"), (100_007, 200_008));
    assert_eq!(mount.walk()[&mount.path("f")].uid(), 100_007);
    chown(mount.path("f"), Some(100_020), Some(200_030)).unwrap();
    assert_eq!(shown("f"), (100_020, 200_030));
    assert_eq!(kept("f"), (20, 30));
    // This process is root, who has no number on disk here.
    fs::write(mount.path("new"), "").unwrap();
    assert_eq!(shown("new"), (65_534, 65_534));
    assert_eq!(kept("new"), (65_534, 65_534));
}

#[test]
fn acls_name_users_in_the_numbers_of_each_side() {
    if !can_mount() || !real_root() {
        return;
    }
    let mount = mounted(View {
        uids: ids((0, 100_000, 1000)),
        gids: ids((0, 100_000, 1000)),
        ..View::default()
    });
    let acl = |user: u32| {
        let mut value = vec![2, 0, 0, 0];
        let none = u32::MAX;
        for (tag, perm, id) in [
            (1u16, 6u16, none),
            (2, 4, user),
            (4, 4, none),
            (16, 4, none),
            (32, 0, none),
        ] {
            value.extend(tag.to_le_bytes());
            value.extend(perm.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        value
    };
    let name = "system.posix_acl_access";
    let path = mount.path("f");
    rustix::fs::setxattr(&path, name, &acl(100_033), XattrFlags::empty()).unwrap();
    let ino = mount.union.lookup(Ino::ROOT, b"f").unwrap().ino;
    assert_eq!(mount.union.xattr(ino, name.as_bytes()).unwrap(), acl(33));
    let mut value = [0; 128];
    let length = rustix::fs::getxattr(&path, name, &mut value).unwrap();
    assert_eq!(value[..length], acl(100_033));
}

#[test]
fn squashed_mounts_show_one_owner_whatever_is_set() {
    if !can_mount() || !real_root() {
        return;
    }
    let squash = |id| IdMap {
        squash: Some(id),
        ..IdMap::default()
    };
    let mount = mounted(View {
        uids: squash(0),
        gids: squash(5),
        ..View::default()
    });
    let shown = || {
        let meta = fs::metadata(mount.path("f")).unwrap();
        (meta.uid(), meta.gid())
    };
    assert_eq!(shown(), (0, 5));
    chown(mount.path("f"), Some(3), Some(3)).unwrap();
    assert_eq!(shown(), (0, 5));
    assert_eq!(mount.union.lookup(Ino::ROOT, b"f").unwrap().uid, 3);
}

#[test]
fn directories_have_one_link_where_asked() {
    if !can_mount() {
        return;
    }
    let links = |view| {
        let mount = mounted(view);
        fs::metadata(mount.path("d")).unwrap().nlink()
    };
    assert_eq!(links(View::default()), 3);
    let view = View {
        static_nlink: true,
        ..View::default()
    };
    assert_eq!(links(view), 1);
}

#[test]
fn attributes_can_be_switched_off() {
    if !can_mount() {
        return;
    }
    let tried = |view| {
        let mount = mounted(view);
        let mut value = [0; 16];
        let path = mount.path("f");
        (
            rustix::fs::getxattr(&path, "user.x", &mut value),
            rustix::fs::listxattr(&path, &mut value),
            rustix::fs::getxattr(&path, "system.posix_acl_access", &mut value),
        )
    };
    let none = Err(Errno::OPNOTSUPP);
    assert_eq!(tried(View::default()), (Ok(1), Ok(7), Err(Errno::NODATA)));
    let view = View {
        no_xattrs: true,
        ..View::default()
    };
    assert_eq!(tried(view).0, none);
    let view = View {
        no_acl: true,
        ..View::default()
    };
    assert_eq!(tried(view), (Ok(1), Ok(7), none));
}
