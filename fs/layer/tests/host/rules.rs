//! Overlayfs's rules, one by one. As root: whiteouts are devices and `trusted.` names are needed.

use std::{fs, os::unix::fs::symlink};

use pellicle_layer::{
    HostOptions, HostStack, Lower,
    host::{
        HostError,
        marks::{Marks, OverrideStat},
    },
};
use pellicle_store::{Device, FileKind};

use crate::support::{Layers, chmod, find, paths, text, whiteout, xattrs};

#[test]
fn the_topmost_layer_that_speaks_of_a_name_decides() {
    let l = Layers::new(3);
    l.file(0, "both", "top");
    l.file(2, "both", "bottom");
    l.file(1, "dir/one", "1");
    l.file(2, "dir/two", "2");
    l.file(2, "was-dir/x", "hidden");
    l.file(0, "was-dir", "a file now");
    l.file(0, "was-file/x", "a directory now");
    l.file(2, "was-file", "hidden");
    chmod(&l.dir(0, "dir"), 0o700);
    let stack = l.open();
    assert_eq!(
        paths(&stack),
        [
            "both",
            "dir/",
            "dir/one",
            "dir/two",
            "was-dir",
            "was-file/",
            "was-file/x"
        ]
    );
    assert_eq!(text(&stack, "both"), "top");
    assert_eq!(text(&stack, "dir/two"), "2");
    let dir = stack.attr(find(&stack, "dir").unwrap()).unwrap();
    assert_eq!((dir.perm, dir.nlink), (0o700, 2));
    assert_eq!(stack.layer_of(find(&stack, "both").unwrap()).unwrap(), 2);
    assert_eq!(stack.layer_of(find(&stack, "dir/two").unwrap()).unwrap(), 0);
}

#[test]
fn whiteouts_of_every_form_hide_lower_names_and_are_not_seen() {
    let l = Layers::new(2);
    for name in ["device", "trusted", "user", "wh", "kept"] {
        l.file(1, &format!("d/{name}"), "lower");
    }
    whiteout(&l.at(0, "d/device"));
    l.file(0, "d/trusted", "");
    l.mark(0, "d/trusted", "trusted.overlay.whiteout", "");
    l.file(0, "d/user", "");
    l.mark(0, "d/user", "user.overlay.whiteout", "");
    l.mark(0, "d", "user.overlay.opaque", "x");
    l.file(0, "d/.wh.wh", "");
    whiteout(&l.at(0, "d/of-nothing"));
    assert_eq!(paths(&l.open()), ["d/", "d/kept"]);

    let kernel = HostOptions {
        marks: Marks::Trusted,
        wh_files: false,
        ..HostOptions::default()
    };
    assert_eq!(
        paths(&l.open_with(&kernel)),
        ["d/", "d/.wh.wh", "d/kept", "d/user", "d/wh"],
        "as the kernel reads it without userxattr"
    );
}

#[test]
fn a_whiteout_beside_the_name_itself_hides_only_what_is_below() {
    let l = Layers::new(2);
    l.file(0, "x", "top");
    l.file(0, ".wh.x", "");
    l.file(1, "x", "lower");
    assert_eq!(text(&l.open(), "x"), "top");
}

#[test]
fn opaque_directories_of_every_form_hide_what_is_below_them() {
    let l = Layers::new(2);
    for (dir, mark) in [
        ("a", "trusted.overlay.opaque"),
        ("b", "user.overlay.opaque"),
        ("c", "user.fuseoverlayfs.opaque"),
    ] {
        l.file(0, &format!("{dir}/new"), "");
        l.mark(0, dir, mark, "y");
        l.file(1, &format!("{dir}/old"), "");
    }
    l.file(0, "d/.wh..wh..opq", "");
    l.file(1, "d/old", "");
    l.file(0, "open/new", "");
    l.mark(0, "open", "trusted.overlay.opaque", "n");
    l.file(1, "open/old", "");
    assert_eq!(
        paths(&l.open()),
        [
            "a/", "a/new", "b/", "b/new", "c/", "c/new", "d/", "open/", "open/new", "open/old"
        ]
    );
}

#[test]
fn an_opaque_top_hides_all_layers_below() {
    let l = Layers::new(2);
    l.file(0, "new", "");
    l.file(1, "old", "");
    l.mark(0, "", "trusted.overlay.opaque", "y");
    assert_eq!(paths(&l.open()), ["new"]);
}

#[test]
fn redirects_lead_to_where_lower_layers_have_a_directory() {
    let l = Layers::new(3);
    l.file(2, "was/here/x", "x");
    l.file(1, "was/here/y", "y");
    l.file(1, "moved/unrelated", "");
    l.file(2, "beside/z", "z");
    l.dir(0, "moved/to");
    l.mark(0, "moved/to", "trusted.overlay.redirect", "/was/here");
    whiteout(&l.at(0, "was"));
    l.dir(0, "renamed");
    l.mark(0, "renamed", "trusted.overlay.redirect", "beside");
    whiteout(&l.at(0, "beside"));
    let stack = l.open();
    assert_eq!(
        paths(&stack),
        [
            "moved/",
            "moved/to/",
            "moved/to/x",
            "moved/to/y",
            "moved/unrelated",
            "renamed/",
            "renamed/z"
        ]
    );
    assert_eq!(text(&stack, "moved/to/x"), "x");
    assert_eq!(text(&stack, "renamed/z"), "z");
}

#[test]
fn a_redirect_on_the_way_of_a_redirect_is_followed_too() {
    let l = Layers::new(3);
    l.file(2, "first/inner/x", "x");
    // The middle layer moved `first` to `second`; the top one moved `second/inner` to `third`.
    l.dir(1, "second");
    l.mark(1, "second", "trusted.overlay.redirect", "first");
    whiteout(&l.at(1, "first"));
    l.dir(0, "third");
    l.mark(0, "third", "trusted.overlay.redirect", "/second/inner");
    whiteout(&l.at(0, "second/inner"));
    assert_eq!(paths(&l.open()), ["second/", "third/", "third/x"]);
}

#[test]
fn a_file_of_only_metadata_has_the_content_of_the_layer_below() {
    let l = Layers::new(3);
    l.file(2, "far/data", "the content");
    l.file(2, "near", "near content");
    for (name, redirect) in [("data", Some("/far/data")), ("near", None)] {
        let at = l.file(0, name, "");
        chmod(&at, 0o600);
        l.mark(0, name, "trusted.overlay.metacopy", "");
        if let Some(redirect) = redirect {
            l.mark(0, name, "trusted.overlay.redirect", redirect);
        }
    }
    let stack = l.open();
    assert_eq!(text(&stack, "data"), "the content");
    assert_eq!(text(&stack, "near"), "near content");
    assert_eq!(
        stack.attr(find(&stack, "near").unwrap()).unwrap().perm,
        0o600
    );
}

#[test]
fn marks_are_not_seen_and_escaped_names_are_unescaped() {
    let l = Layers::new(1);
    l.file(0, "f", "");
    for (name, value) in [
        ("trusted.overlay.origin", "o"),
        ("user.overlay.impure", "y"),
        ("trusted.overlay.overlay.opaque", "inner"),
        ("user.overlay.overlay.overlay.x", "deeper"),
        ("user.plain", "p"),
    ] {
        l.mark(0, "f", name, value);
    }
    let own = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(
        xattrs(&l.open(), "f"),
        [
            own("trusted.overlay.opaque", "inner"),
            own("user.overlay.overlay.x", "deeper"),
            own("user.plain", "p")
        ]
    );
}

#[test]
fn names_of_one_inode_stay_one_and_are_counted() {
    let l = Layers::new(2);
    let a = l.file(1, "a", "text");
    fs::hard_link(&a, l.at(1, "b")).unwrap();
    fs::hard_link(&a, l.at(1, "c")).unwrap();
    whiteout(&l.at(0, "c"));
    let stack = l.open();
    let (a, b) = (find(&stack, "a").unwrap(), find(&stack, "b").unwrap());
    assert_eq!(a, b);
    assert_eq!(stack.attr(a).unwrap().nlink, 2, "the third is hidden");
}

#[test]
fn override_stat_says_owner_mode_and_kind() {
    let l = Layers::new(1);
    l.file(0, "f", "content");
    l.mark(0, "f", "user.containers.override_stat", "10:20:04755:file");
    l.file(0, "null", "");
    l.mark(
        0,
        "null",
        "user.containers.override_stat",
        "0:6:0660:char-1-3",
    );
    l.file(0, "link", "over/there");
    l.mark(
        0,
        "link",
        "user.containers.override_stat",
        "1:2:0777:symlink",
    );
    l.mark(
        0,
        "f",
        "user.containers.override_security.capability",
        "cap",
    );
    let plain = l.open();
    let attr = plain.attr(find(&plain, "f").unwrap()).unwrap();
    assert_eq!(attr.uid, 0, "only where the top directory has it");

    l.mark(0, "", "user.containers.override_stat", "5:6:0755:dir");
    for when in [OverrideStat::Auto, OverrideStat::Always] {
        let stack = l.open_with(&HostOptions {
            override_stat: when,
            ..HostOptions::default()
        });
        let attr = |path| stack.attr(find(&stack, path).unwrap()).unwrap();
        assert_eq!((attr("").uid, attr("").gid), (5, 6));
        assert_eq!(
            (attr("f").uid, attr("f").gid, attr("f").perm),
            (10, 20, 0o4755)
        );
        let null = Device { major: 1, minor: 3 };
        assert_eq!(
            (attr("null").kind, attr("null").rdev),
            (FileKind::CharDevice, null)
        );
        let link = find(&stack, "link").unwrap();
        assert_eq!(attr("link").kind, FileKind::Symlink);
        assert_eq!(&*stack.readlink(link).unwrap(), b"over/there");
        assert_eq!(
            xattrs(&stack, "f"),
            [("security.capability".into(), "cap".into())]
        );
    }
    let never = l.open_with(&HostOptions {
        override_stat: OverrideStat::Never,
        ..HostOptions::default()
    });
    assert_eq!(never.attr(find(&never, "f").unwrap()).unwrap().uid, 0);
}

#[test]
fn all_kinds_of_nodes_are_shown_as_they_are() {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    let l = Layers::new(1);
    symlink("a/target", l.at(0, "link")).unwrap();
    let mode = Mode::from_raw_mode(0o640);
    for (name, kind) in [("fifo", FileType::Fifo), ("socket", FileType::Socket)] {
        mknodat(CWD, l.at(0, name), kind, mode, 0).unwrap();
    }
    mknodat(
        CWD,
        l.at(0, "zero"),
        FileType::CharacterDevice,
        mode,
        makedev(1, 5),
    )
    .unwrap();
    mknodat(
        CWD,
        l.at(0, "loop"),
        FileType::BlockDevice,
        mode,
        makedev(7, 0),
    )
    .unwrap();
    let stack = l.open();
    let kind = |path| stack.attr(find(&stack, path).unwrap()).unwrap().kind;
    assert_eq!(kind("link"), FileKind::Symlink);
    assert_eq!(kind("fifo"), FileKind::Fifo);
    assert_eq!(kind("socket"), FileKind::Socket);
    assert_eq!(kind("loop"), FileKind::BlockDevice);
    let zero = stack.attr(find(&stack, "zero").unwrap()).unwrap();
    assert_eq!(
        (zero.kind, zero.rdev),
        (FileKind::CharDevice, Device { major: 1, minor: 5 })
    );
    assert_eq!(
        &*stack.readlink(find(&stack, "link").unwrap()).unwrap(),
        b"a/target"
    );
}

#[test]
fn what_is_no_directory_is_refused_by_name() {
    let l = Layers::new(1);
    let file = l.file(0, "f", "");
    let open = |path| {
        HostStack::open(&[path], &HostOptions::default())
            .err()
            .unwrap()
    };
    assert!(matches!(open(file.clone()), HostError::NotADirectory { path } if path == file));
    let missing = l.at(0, "missing");
    assert!(matches!(open(missing.clone()), HostError::Io { path, .. } if path == missing));
    let none = HostStack::open(&[], &HostOptions::default()).err().unwrap();
    assert!(matches!(none, HostError::Empty));
}
