//! Streams that no layer may be: refused, with the entry and its offset.

use super::{
    refusal,
    tarball::{Header, Tarball},
};

fn t() -> Tarball {
    Tarball::new().file("first", "1")
}

/// The offset of what follows [`t`].
const HERE: &str = "byte 1024 of the tar stream";

#[test]
fn entries_that_lead_out_of_the_layer_or_to_nothing_are_refused() {
    for (tar, name, why) in [
        (
            t().file("../../etc/passwd", ""),
            "../../etc/passwd",
            "lead out",
        ),
        (t().file("a/../../b", ""), "a/../../b", "lead out"),
        (t().file("a/..", ""), "a/..", "lead out"),
        (t().link(b'1', "h", "../first"), "h", "lead out"),
        (t().link(b'1', "h", "nothing"), "h", "\"nothing\""),
        (t().link(b'1', "h", "h"), "h", "does not hold"),
        (t().link(b'1', "h", ""), "h", "is empty"),
        (t().link(b'1', "h", "/"), "h", "directory"),
        (t().link(b'1', "h", "first/x"), "h", "does not hold"),
        (t().file("first/x", ""), "first/x", "\"first\" is a file"),
        (t().file("/", ""), "/", "root"),
        (t().link(b'2', "./", "x"), "./", "root"),
        (t().file("", ""), "", "is empty"),
        (t().link(b'2', "s", ""), "s", "is empty"),
        (t().file(".wh.", ""), ".wh.", "whiteout of nothing"),
        (t().file("d/.wh...", ""), "d/.wh...", "whiteout of nothing"),
        (
            t().file("a/.wh.b/c", ""),
            "a/.wh.b/c",
            "whiteout for a directory",
        ),
        (t().entry(b"m", b'M', b""), "m", "type 'M'"),
        (t().entry(b"q", b'q', b""), "q", "type 'q'"),
    ] {
        let message = refusal(&tar.end());
        assert!(message.contains(&format!("entry \"{name}\"")), "{message}");
        assert!(message.contains(HERE) && message.contains(why), "{message}");
    }
}

#[test]
fn a_symbolic_link_on_the_way_is_not_followed() {
    for target in ["/etc", "../..", "first"] {
        let tar = Tarball::new().link(b'2', "s", target).file("s/passwd", "x");
        let message = refusal(&tar.end());
        assert!(message.contains("\"s/passwd\" at byte 512"), "{message}");
        assert!(message.contains("\"s\" is a symbolic link"), "{message}");
        let tar = Tarball::new()
            .link(b'2', "s", target)
            .link(b'1', "h", "s/passwd");
        assert!(refusal(&tar.end()).contains("does not hold"));
    }
}

#[test]
fn numbers_out_of_their_range_are_refused() {
    for (at, bytes, field) in [
        (
            124,
            &b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"[..],
            "size",
        ),
        (124, b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", "size"),
        (124, b"zzz", "size"),
        (108, b"\x80\0\0\0\xff\xff\xff\xff", "uid"),
        (116, b"\xff\xff\xff\xff\xff\xff\xff\xff", "gid"),
        (100, b"99", "mode"),
        (136, b"now", "mtime"),
    ] {
        let mut h = Header::gnu(b"x", b'0', 0);
        h.set(at, bytes);
        let message = refusal(&t().header(&h).end());
        assert!(
            message.contains(HERE) && message.contains(field),
            "{message}"
        );
    }
    for (key, value) in [
        ("uid", "4294967295"),
        ("gid", "-1"),
        ("size", "9223372036854775808"),
        ("size", "x"),
        ("mtime", "1.2.3"),
        ("GNU.sparse.realsize", "1e3"),
    ] {
        let message = refusal(&t().pax(&[(key, value.as_bytes())]).file("x", "").end());
        assert!(message.contains(HERE) && message.contains(key), "{message}");
    }
    let mut dev = Header::new(b"dev", b'3', 0);
    dev.set(329, b"0010000\0");
    assert!(refusal(&t().header(&dev).end()).contains("device major"));
}

#[test]
fn claimed_lengths_are_not_believed() {
    let huge = "77777777777\0";
    for kind in [b'x', b'g', b'L', b'K'] {
        let mut h = Header::new(b"x", kind, 0);
        h.set(124, huge.as_bytes());
        let message = refusal(&t().header(&h).end());
        assert!(message.contains("claims 8589934591 bytes"), "{message}");
    }
    for kind in [b'0', b'D', b'V'] {
        let mut h = Header::new(b"x", kind, 0);
        h.set(124, huge.as_bytes());
        let message = refusal(&t().header(&h).end());
        assert!(
            message.contains("cut off") && message.contains(HERE),
            "{message}"
        );
    }
}

#[test]
fn names_longer_than_linux_has_are_refused() {
    for name in ["n".repeat(256), "n/".repeat(3000)] {
        let message = refusal(&t().pax(&[("path", name.as_bytes())]).file("x", "").end());
        assert!(
            message.contains("bytes") && message.len() < 800,
            "{message}"
        );
    }
    let tar = t().pax(&[("path", b"a\0b")]).file("x", "");
    assert!(refusal(&tar.end()).contains("zero byte"));
    let tar = t().pax(&[("linkpath", &[b'l'; 4096])]).link(b'2', "x", "y");
    assert!(refusal(&tar.end()).contains("4095"));
}

#[test]
fn attributes_that_linux_has_not_are_refused() {
    let big = vec![0; 65537];
    let long = format!("SCHILY.xattr.user.{}", "n".repeat(255));
    for (key, value) in [
        ("SCHILY.xattr.", &b""[..]),
        (&long, b""),
        ("SCHILY.xattr.user.big", &big),
        ("LIBARCHIVE.xattr.user.x", b"***"),
    ] {
        let message = refusal(&t().pax(&[(key, value)]).file("x", "").end());
        assert!(message.contains("extended attribute"), "{message}");
    }
}

#[test]
fn every_cut_of_a_stream_but_between_entries_is_an_error() {
    let whole = t()
        .pax(&[("path", b"x")])
        .entry(b"y", b'0', &[7; 700])
        .entry(b"././@LongLink", b'L', b"long\0")
        .file("z", "1")
        .end();
    // After: the file, the PAX pair with its file, the long name with its file, the end mark.
    let fine = [
        1024,
        1024 + 1024 + 1536,
        1024 + 2560 + 2048,
        5632 + 512,
        whole.len(),
    ];
    for cut in 0..whole.len() {
        let head = &whole[..cut];
        match super::parse(head) {
            Ok(_) => assert!(fine.contains(&cut), "cut at {cut} was accepted"),
            Err(_) => assert!(!fine.contains(&cut), "cut at {cut}: {}", refusal(head)),
        }
    }
}

#[test]
fn what_is_no_tar_is_told_so() {
    assert!(refusal(b"").contains("is empty"));
    assert!(refusal(&[b'x'; 2048]).contains("no tar header"));
    assert!(refusal(b"\xfd7zXZ\0\0\0").contains("xz"));
    let mut damaged = t().file("x", "1").end();
    damaged[1030] ^= 1;
    assert!(refusal(&damaged).contains(HERE));
    let mut lone = t().0;
    lone.extend_from_slice(&[0; 512]);
    let lone = Tarball(lone).file("x", "1").end();
    assert!(refusal(&lone).contains("single block of zeros"));
}
