//! Set-id bits, capabilities, extended attributes and ACLs.

use std::sync::Arc;

use pellicle_union::{Caller, Error, Ino, KillSetId, NewNode, SetAttr, Union};

use crate::support::{lower::MemLower, open, upper::MemUpper};

const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";
const CAPABILITY: &[u8] = b"security.capability";

fn with_file(perm: u16) -> (Union, Ino) {
    let mut lower = MemLower::new();
    let ino = lower.file(Ino::ROOT, "f", b"text");
    lower.node(ino).attr.perm = perm;
    lower
        .node(ino)
        .xattrs
        .insert(CAPABILITY.to_vec(), b"cap".to_vec());
    (open(&Arc::new(lower), &MemUpper::new()), ino)
}

fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, perm, id) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(perm.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

const NONE: u32 = u32::MAX;

#[test]
fn a_change_of_owner_clears_set_id_bits_and_capabilities() {
    let (union, ino) = with_file(0o6755);
    let set = SetAttr {
        uid: Some(0),
        ..SetAttr::default()
    };
    assert_eq!(union.set_attr(ino, set).unwrap().perm, 0o755);
    assert!(matches!(
        union.xattr(ino, CAPABILITY),
        Err(Error::NoAttribute)
    ));
}

#[test]
fn a_set_group_id_bit_without_group_execution_is_kept() {
    let (union, ino) = with_file(0o6745);
    let set = SetAttr {
        kill_suid_sgid: true.into(),
        ..SetAttr::default()
    };
    assert_eq!(union.set_attr(ino, set).unwrap().perm, 0o2745);
    union.write(ino, 0, b"x", KillSetId::Member).unwrap();
    assert_eq!(union.attr(ino).unwrap().perm, 0o2745);
    union.fallocate(ino, 0, 0, 1, KillSetId::Stranger).unwrap();
    assert_eq!(
        union.attr(ino).unwrap().perm,
        0o745,
        "for a stranger it goes"
    );
}

#[test]
fn a_write_clears_set_id_bits_only_where_the_kernel_says_so() {
    let (union, ino) = with_file(0o6755);
    union.write(ino, 0, b"x", false).unwrap();
    assert_eq!(union.attr(ino).unwrap().perm, 0o6755);
    union.write(ino, 0, b"x", true).unwrap();
    assert_eq!(union.attr(ino).unwrap().perm, 0o755);
}

#[test]
fn every_change_of_content_takes_file_capabilities_away() {
    type Change = fn(&Union, Ino) -> Result<(), Error>;
    let changes: [Change; 4] = [
        |u, ino| u.write(ino, 0, b"x", false).map(drop),
        |u, ino| {
            let size = SetAttr {
                size: Some(1),
                ..SetAttr::default()
            };
            u.set_attr(ino, size).map(drop)
        },
        |u, ino| u.fallocate(ino, 0, 0, 9, false),
        |u, ino| u.copy_range(ino, 0, ino, 2, 1, false).map(drop),
    ];
    for change in changes {
        let (union, ino) = with_file(0o6755);
        assert_eq!(union.xattr(ino, CAPABILITY).unwrap(), b"cap");
        change(&union, ino).unwrap();
        assert!(matches!(
            union.xattr(ino, CAPABILITY),
            Err(Error::NoAttribute)
        ));
        assert_eq!(union.attr(ino).unwrap().perm, 0o6755);
    }
}

#[test]
fn attributes_are_set_in_the_namespaces_of_linux_only() {
    let (union, ino) = with_file(0o644);
    for name in ["user.x", "trusted.x", "security.x"] {
        union
            .set_xattr(ino, name.as_bytes(), b"1", false, false)
            .unwrap();
    }
    for (name, errno) in [
        ("x", libc::EOPNOTSUPP),
        ("other.x", libc::EOPNOTSUPP),
        ("system.x", libc::EOPNOTSUPP),
        ("user.", libc::EINVAL),
        ("", libc::ERANGE),
    ] {
        let refused = union.set_xattr(ino, name.as_bytes(), b"1", false, false);
        assert_eq!(refused.unwrap_err().errno(), errno, "{name}");
    }
}

#[test]
fn nothing_asked_changes_nothing() {
    let (union, ino) = with_file(0o644);
    let before = union.attr(ino).unwrap();
    assert_eq!(union.set_attr(ino, SetAttr::default()).unwrap(), before);
}

#[test]
fn flags_and_sizes_of_extended_attributes() {
    let (union, ino) = with_file(0o644);
    let set = |name: &[u8], len, create, replace| {
        union.set_xattr(ino, name, &vec![b'v'; len], create, replace)
    };
    assert!(matches!(
        set(b"user.a", 1, false, true),
        Err(Error::NoAttribute)
    ));
    set(b"user.a", 65_536, true, false).unwrap();
    assert!(matches!(set(b"user.a", 1, true, false), Err(Error::Exists)));
    assert!(matches!(
        set(b"user.a", 65_537, false, false),
        Err(Error::TooBig)
    ));
    set(b"user.a", 0, false, true).unwrap();
    assert!(union.xattr(ino, b"user.a").unwrap().is_empty());
    assert!(matches!(
        set(&[b'n'; 256], 1, false, false),
        Err(Error::Range)
    ));
    assert!(matches!(set(b"", 1, false, false), Err(Error::Range)));
    assert_eq!(
        union.xattr_names(ino).unwrap(),
        b"security.capability\0user.a\0"
    );
    union.remove_xattr(ino, CAPABILITY).unwrap();
    assert!(matches!(
        union.remove_xattr(ino, CAPABILITY),
        Err(Error::NoAttribute)
    ));
    assert_eq!(union.xattr_names(ino).unwrap(), b"user.a\0");
    // As ext4 has it: to have no ACL is what is asked for.
    union.remove_xattr(ino, b"system.posix_acl_access").unwrap();
}

#[test]
fn no_more_names_than_can_be_listed() {
    let (union, ino) = with_file(0o644);
    let refused = (0..1000).find(|n| {
        let name = format!("user.{n:0>200}");
        union
            .set_xattr(ino, name.as_bytes(), b"", false, false)
            .is_err()
    });
    assert!(refused.is_some());
    assert!(union.xattr_names(ino).unwrap().len() <= 65_536);
}

/// Mode asked for, umask, default ACL of the directory; mode and access ACL that come of it.
type Inherited = (u16, u32, Option<Vec<u8>>, u16, Option<Vec<u8>>);

#[test]
fn a_default_acl_decides_instead_of_the_umask() {
    let minimal = acl(&[(1, 7, NONE), (4, 5, NONE), (0x20, 0, NONE)]);
    let named = |owner, user, group, mask, other| {
        acl(&[
            (1, owner, NONE),
            (2, user, 1000),
            (4, group, NONE),
            (0x10, mask, NONE),
            (0x20, other, NONE),
        ])
    };
    let table: [Inherited; 6] = [
        (0o666, 0o027, None, 0o640, None),
        (0o666, 0o077, Some(minimal.clone()), 0o640, None),
        (0o777, 0o077, Some(minimal), 0o750, None),
        (
            0o666,
            0o077,
            Some(named(7, 7, 5, 7, 5)),
            0o664,
            Some(named(6, 7, 5, 6, 4)),
        ),
        (
            0o600,
            0,
            Some(named(7, 7, 5, 7, 5)),
            0o600,
            Some(named(6, 7, 5, 0, 0)),
        ),
        (
            0o4777,
            0,
            Some(named(7, 7, 7, 5, 1)),
            0o4751,
            Some(named(7, 7, 7, 5, 1)),
        ),
    ];
    for (mode, umask, default, want, access) in table {
        let union = open(&Arc::new(MemLower::new()), &MemUpper::new());
        if let Some(default) = &default {
            union
                .set_xattr(Ino::ROOT, DEFAULT, default, false, false)
                .unwrap();
        }
        let who = Caller {
            umask,
            ..Caller::default()
        };
        let make = |name: &[u8], what| union.make(Ino::ROOT, name, what, mode, who).unwrap();
        let file = make(b"f", NewNode::Regular);
        assert_eq!(file.perm, want, "{mode:o} {umask:o} {default:?}");
        assert_eq!(union.xattr(file.ino, ACCESS).ok(), access);
        assert!(union.xattr(file.ino, DEFAULT).is_err());
        let dir = make(b"d", NewNode::Directory);
        assert_eq!(union.xattr(dir.ino, ACCESS).ok(), access);
        assert_eq!(union.xattr(dir.ino, DEFAULT).ok(), default);
        let link = make(b"l", NewNode::Symlink(b"t"));
        assert_eq!(link.perm, 0o777);
        assert!(union.xattr_names(link.ino).unwrap().is_empty());
    }
}

#[test]
fn mode_and_access_acl_follow_each_other() {
    let (union, ino) = with_file(0o644);
    let list = |owner, group, mask, other| {
        acl(&[
            (1, owner, NONE),
            (4, group, NONE),
            (8, 7, 50),
            (0x10, mask, NONE),
            (0x20, other, NONE),
        ])
    };
    union
        .set_xattr(ino, ACCESS, &list(7, 1, 5, 0), false, false)
        .unwrap();
    assert_eq!(union.attr(ino).unwrap().perm, 0o750);
    let set = SetAttr {
        perm: Some(0o624),
        ..SetAttr::default()
    };
    union.set_attr(ino, set).unwrap();
    assert_eq!(union.xattr(ino, ACCESS).unwrap(), list(6, 1, 2, 4));
    let minimal = acl(&[(1, 6, NONE), (4, 4, NONE), (0x20, 0, NONE)]);
    union
        .set_xattr(ino, ACCESS, &minimal, false, false)
        .unwrap();
    assert_eq!(union.attr(ino).unwrap().perm, 0o640);
    assert!(matches!(union.xattr(ino, ACCESS), Err(Error::NoAttribute)));
}

#[test]
fn a_malformed_acl_is_refused() {
    let (union, ino) = with_file(0o644);
    let good = [(1, 7, NONE), (4, 5, NONE), (0x20, 0, NONE)];
    let mut bad = vec![
        b"".to_vec(),
        b"\x02\0\0\0".to_vec(),
        acl(&good[..2]),
        acl(&[good[1], good[0], good[2]]),
        acl(&[good[0], (2, 7, 5), good[1], good[2]]),
        acl(&[good[0], good[1], (0x20, 8, NONE)]),
        acl(&[good[0], good[1], good[2], (0x40, 0, NONE)]),
    ];
    let mut other_version = acl(&good);
    other_version[0] = 1;
    bad.push(other_version);
    let mut torn = acl(&good);
    torn.pop();
    bad.push(torn);
    for value in bad {
        let set = union.set_xattr(ino, ACCESS, &value, false, false);
        assert!(matches!(set, Err(Error::Invalid)), "{value:?}");
    }
    let on_file = union.set_xattr(ino, DEFAULT, &acl(&good), false, false);
    assert!(matches!(on_file, Err(Error::NotPermitted)));
}
