//! Streams changed at random: an answer or an error, never a panic, never work without bound.

use proptest::prelude::*;

use super::{
    parse, stored,
    tarball::{Header, Tarball},
};

/// One of everything that the parser has a branch for.
fn valid() -> Vec<u8> {
    let mut sparse = Header::gnu(b"sparse", b'S', 5);
    sparse
        .set(386, b"00000001000\x0000000000005\0")
        .set(482, &[1]);
    sparse.set(483, b"112402762000");
    Tarball::new()
        .extension(b'g', &[("comment", b"x"), ("uid", b"3")])
        .dir("d/")
        .file("d/f", "hello")
        .link(b'1', "h", "d/f")
        .link(b'2', "s", "d/f")
        .pax(&[
            ("path", b"long"),
            ("mtime", b"-1.5"),
            ("SCHILY.xattr.user.a", b"b\n\0"),
            ("LIBARCHIVE.xattr.user.b", b"AAAA"),
        ])
        .file("short", "x")
        .entry(b"././@LongLink", b'L', b"longlong\0")
        .file("cut", "x")
        .header(&sparse)
        .data(&[0; 512])
        .data(b"abcde")
        .pax(&[("GNU.sparse.size", b"100"), ("GNU.sparse.map", b"5,3")])
        .file("s01", "abc")
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.realsize", b"100"),
        ])
        .file("s10", &format!("1\n5\n3\n{}abc", "\0".repeat(506)))
        .file("d/.wh.x", "")
        .file("d/.wh..wh..opq", "")
        .end()
}

/// Writes the right checksum over each block that could be a header, so that changes get past it.
fn reseal(stream: &mut [u8]) {
    for block in stream.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

#[test]
fn the_unchanged_stream_is_accepted() {
    let mut stream = valid();
    reseal(&mut stream);
    let lines = super::shown(&stream);
    assert_eq!(lines["/s10"], "644 3:0 sparse 100 5+3 abc");
    assert_eq!(lines.len(), 11);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_change_of_a_stream_makes_the_parser_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in prop::option::of(any::<prop::sample::Index>()),
        sealed in any::<bool>(),
    ) {
        let mut stream = valid();
        for (at, byte) in &changes {
            let at = at.index(stream.len());
            stream[at] = *byte;
        }
        if sealed {
            reseal(&mut stream);
        }
        if let Some(cut) = cut {
            stream.truncate(cut.index(stream.len()));
        }
        if let Err(e) = parse(&stream) {
            prop_assert!(super::chain(&e).contains("t.tar"));
        }
    }

    #[test]
    fn records_of_any_bytes_do_not_make_the_parser_panic(
        data in prop::collection::vec(any::<u8>(), 0..600),
        digits in "[0-9]{1,3} [a-zA-Z.]{1,12}=[0-9,.]{0,12}\n",
    ) {
        for body in [data.as_slice(), digits.as_bytes()] {
            let stream = Tarball::new().entry(b"x", b'x', body).file("f", "1").end();
            let _ = parse(&stream);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_changed_stream_is_imported_whole_or_leaves_the_store_clean(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
        packed in any::<bool>(),
    ) {
        let mut stream = valid();
        for (at, byte) in &changes {
            let at = at.index(stream.len());
            stream[at] = *byte;
        }
        reseal(&mut stream);
        if packed {
            stream = zstd::encode_all(stream.as_slice(), 1).unwrap();
        }
        if let Some(cut) = cut {
            stream.truncate(cut.index(stream.len()));
        }
        stored::assert_whole_or_clean(&stream);
    }
}
