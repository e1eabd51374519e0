//! What each kind of entry becomes.

use super::{
    parse, show, shown,
    tarball::{Header, Tarball},
};
use crate::{
    Time,
    tree::{Child, Meta, TreeBuilder},
};

fn t() -> Tarball {
    Tarball::new()
}

/// The lines of a stream but the root's.
fn lines(tar: Tarball) -> Vec<String> {
    let lines = shown(&tar.end());
    let of = |(path, line): (&String, &String)| format!("{path} {line}");
    lines
        .iter()
        .filter(|(path, _)| *path != "/")
        .map(of)
        .collect()
}

fn meta_of(tar: Tarball) -> Meta {
    let tree = parse(&tar.end()).unwrap();
    meta_at(&tree, b"f")
}

fn meta_at(tree: &TreeBuilder, name: &[u8]) -> Meta {
    match tree.child(tree.root(), name) {
        Some(Child::Node(n)) => tree.meta(n).clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_kind_of_entry_becomes_what_it_is() {
    let mut dev = Header::new(b"dev", b'3', 0);
    dev.set(329, b"0000005\0").set(337, b"0000001\0");
    let mut block = Header::new(b"blk", b'4', 0);
    block.set(329, b"0000010\0").set(337, b"0000020\0");
    let tar = t()
        .dir("d/")
        .file("d/f", "hello")
        .link(b'1', "d/h", "d/f")
        .link(b'2', "s", "../../etc/passwd")
        .header(&dev)
        .header(&block)
        .entry(b"fifo", b'6', b"")
        .entry(b"old", 0, b"v7")
        .entry(b"olddir/", 0, b"")
        .entry(b"cont", b'7', b"x");
    assert_eq!(
        lines(tar),
        [
            "/blk 644 0:0 block 8,16",
            "/cont 644 0:0 file x",
            "/d/ 755 0:0",
            "/d/f 644 0:0 file hello",
            "/d/h 644 0:0 file hello",
            "/dev 644 0:0 char 5,1",
            "/fifo 644 0:0 Fifo",
            "/old 644 0:0 file v7",
            "/olddir/ 644 0:0",
            "/s 644 0:0 -> ../../etc/passwd",
        ]
    );
}

#[test]
fn names_are_relative_to_the_root_and_may_be_any_bytes() {
    let tar = t()
        .file("./a", "1")
        .file("/b", "2")
        .file("c//./d", "3")
        .entry(b"\xff\xfe", b'0', b"4");
    assert_eq!(
        lines(tar),
        [
            "/\\xff\\xfe 644 0:0 file 4",
            "/a 644 0:0 file 1",
            "/b 644 0:0 file 2",
            "/c/ implied",
            "/c/d 644 0:0 file 3",
        ]
    );
}

#[test]
fn the_root_entry_describes_the_root() {
    for name in ["./", "/", "."] {
        let mut h = Header::new(name.as_bytes(), b'5', 0);
        h.set(100, b"0000700\0").set(108, b"0000007\0");
        assert_eq!(shown(&t().header(&h).end())["/"], "700 7:0");
    }
    assert_eq!(shown(&t().end())["/"], "implied");
}

#[test]
fn the_last_entry_of_a_name_wins_and_a_directory_keeps_its_children_under_another() {
    let again = Header::new(b"d", b'5', 0);
    for (tar, want) in [
        (t().file("f", "1").file("f", "2"), vec!["/f 644 0:0 file 2"]),
        (
            t().dir("d").file("d/x", "1").header(&again),
            vec!["/d/ 644 0:0", "/d/x 644 0:0 file 1"],
        ),
        (
            t().file("d/x", "1").header(&again),
            vec!["/d/ 644 0:0", "/d/x 644 0:0 file 1"],
        ),
        (
            t().dir("d").file("d/x", "1").file("d", "2"),
            vec!["/d 644 0:0 file 2"],
        ),
        // The file hid what lower layers have there; so does the directory that replaced it.
        (
            t().file("d", "1").dir("d").file("d/x", "2"),
            vec!["/d/ 755 0:0 opaque", "/d/x 644 0:0 file 2"],
        ),
        (
            t().link(b'2', "d", "e").dir("d"),
            vec!["/d/ 755 0:0 opaque"],
        ),
    ] {
        assert_eq!(lines(tar), want);
    }
}

#[test]
fn a_hard_link_is_the_same_inode_and_outlives_the_name_it_was_made_from() {
    let tar = t().file("a", "1").link(b'1', "b", "./a").file("a", "2");
    let tree = parse(&tar.end()).unwrap();
    assert_eq!(show(&tree)["/b"], "644 0:0 file 1");
    assert_eq!(show(&tree)["/a"], "644 0:0 file 2");

    let tar = t()
        .file("a", "1")
        .link(b'1', "b", "/a")
        .link(b'1', "a", "a");
    let tree = parse(&tar.end()).unwrap();
    let root = tree.root();
    assert_eq!(tree.child(root, b"a"), tree.child(root, b"b"));
}

#[test]
fn a_size_in_the_header_of_what_is_no_file_is_not_followed_by_data() {
    let mut link = Header::new(b"h", b'1', 5);
    link.set(157, b"f");
    let tar = t().file("f", "hello").header(&link).file("z", "1");
    assert_eq!(lines(tar).len(), 3);
}

#[test]
fn whiteouts_and_opaque_marks_hide_lower_layers_only() {
    for (tar, want) in [
        (
            t().file("a/.wh.b", ""),
            vec!["/a/ implied", "/a/b whiteout"],
        ),
        (
            t().file(".wh.f", "").file("f", "1"),
            vec!["/f 644 0:0 file 1"],
        ),
        (
            t().file("f", "1").file(".wh.f", ""),
            vec!["/f 644 0:0 file 1"],
        ),
        (
            t().file(".wh.d", "").file("d/x", "1"),
            vec!["/d/ implied opaque", "/d/x 644 0:0 file 1"],
        ),
        (
            t().dir("d").file("d/x", "1").file(".wh.d", ""),
            vec!["/d/ 755 0:0 opaque", "/d/x 644 0:0 file 1"],
        ),
        (
            t().file("d/x", "1").file("d/.wh..wh..opq", ""),
            vec!["/d/ implied opaque", "/d/x 644 0:0 file 1"],
        ),
        (
            t().dir(".wh..wh.plnk/")
                .file(".wh..wh.plnk/1", "1")
                .file(".wh..wh.aufs", ""),
            vec![],
        ),
    ] {
        assert_eq!(lines(tar), want);
    }
    assert_eq!(
        shown(&t().file(".wh..wh..opq", "").end())["/"],
        "implied opaque"
    );
}

#[test]
fn pax_records_override_the_header() {
    let long = "n/".repeat(100) + "end";
    let tar = t()
        .pax(&[("path", long.as_bytes())])
        .file("short", "1")
        .pax(&[("linkpath", long.as_bytes()), ("path", b"l\xff")])
        .link(b'2', "x", "y")
        .pax(&[("size", b"3")])
        .header(&Header::new(b"big", b'0', 0))
        .data(b"abc");
    let lines = shown(&tar.end());
    assert_eq!(lines[&format!("/{long}")], "644 0:0 file 1");
    assert_eq!(lines["/l\\xff"], format!("644 0:0 -> {long}"));
    assert_eq!(lines["/big"], "644 0:0 file abc");
}

#[test]
fn times_are_exact_and_access_and_change_time_default_to_modification() {
    let time = |sec, nsec| Time { sec, nsec };
    let m = meta_of(
        t().pax(&[("mtime", b"-1.25"), ("atime", b"7.000000001")])
            .file("f", ""),
    );
    assert_eq!(m.mtime, time(-2, 750_000_000));
    assert_eq!(m.atime, time(7, 1));
    assert_eq!(m.ctime, m.mtime);
    assert_eq!(meta_of(t().file("f", "")).atime, time(100, 0));

    let mut gnu = Header::gnu(b"f", b'0', 0);
    gnu.set(136, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe");
    gnu.set(345, b"00000000012\0");
    let m = meta_of(t().header(&gnu));
    assert_eq!((m.mtime, m.atime), (time(-2, 0), time(10, 0)));
}

#[test]
fn huge_ids_come_in_base_256_and_pax() {
    let mut gnu = Header::gnu(b"f", b'0', 0);
    gnu.set(108, b"\x80\0\0\0\xff\xff\xff\xfe");
    let m = meta_of(t().pax(&[("gid", b"4294967294")]).header(&gnu));
    assert_eq!((m.uid, m.gid), (u32::MAX - 1, u32::MAX - 1));
}

#[test]
fn attributes_are_binary_and_kept_under_their_names() {
    let cap = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let m = meta_of(
        t().pax(&[
            ("SCHILY.xattr.security.capability", cap),
            ("SCHILY.xattr.user.nl", b"a\nb=c\0\n"),
            ("SCHILY.xattr.user.a%3Db", b""),
            ("SCHILY.xattr.system.posix_acl_access", b"\x02\0\0\0"),
            ("LIBARCHIVE.xattr.user.lib%20a", b"/+8A"),
            ("LIBARCHIVE.xattr.user.nl", b"AAAA"),
            ("SCHILY.acl.access", b"user::rw-"),
            ("comment", b"hello"),
        ])
        .file("f", ""),
    );
    let want: [(&[u8], &[u8]); 5] = [
        (b"security.capability", cap),
        (b"user.nl", b"a\nb=c\0\n"),
        (b"user.a=b", b""),
        (b"system.posix_acl_access", b"\x02\0\0\0"),
        (b"user.lib a", b"\xff\xef\0"),
    ];
    assert_eq!(m.xattrs, want.map(|(n, v)| (n.to_vec(), v.to_vec())));
}

#[test]
fn global_headers_give_owners_and_times_and_nothing_else() {
    let tar = t()
        .extension(b'g', &[("uid", b"9"), ("path", b"evil"), ("comment", b"x")])
        .file("a", "1")
        .pax(&[("uid", b"")])
        .file("b", "2")
        .pax(&[("uid", b"5")])
        .file("c", "3");
    assert_eq!(
        lines(tar),
        [
            "/a 644 9:0 file 1",
            "/b 644 0:0 file 2",
            "/c 644 5:0 file 3"
        ]
    );
}

#[test]
fn gnu_long_names_links_and_ustar_prefixes_are_whole() {
    let long = "l".repeat(120);
    let mut prefixed = Header::new(b"name", b'0', 0);
    prefixed.set(345, b"some/prefix");
    let tar = t()
        .entry(b"././@LongLink", b'L', format!("{long}\0").as_bytes())
        .entry(b"././@LongLink", b'K', format!("t{long}\0").as_bytes())
        .link(b'2', "cut", "cut")
        .header(&prefixed);
    let lines = shown(&tar.end());
    assert_eq!(lines[&format!("/{long}")], format!("644 0:0 -> t{long}"));
    assert_eq!(lines["/some/prefix/name"], "644 0:0 file ");
}

#[test]
fn volume_labels_and_dump_directories_are_understood() {
    let tar = t()
        .entry(b"label", b'V', b"")
        .entry(b"d/", b'D', b"Yx\0\0")
        .file("d/x", "1");
    assert_eq!(lines(tar), ["/d/ 644 0:0", "/d/x 644 0:0 file 1"]);
}
