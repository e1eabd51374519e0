//! Sparse files in all their forms: a 10 GB file in a kilobyte becomes extents, not work.

use super::{
    refusal, shown,
    tarball::{Header, Tarball},
};

const TEN_GB: &str = "10000000000";

fn old(regions: &[(u64, u64)], more: u8, data: &[u8]) -> Tarball {
    let mut h = Header::gnu(b"f", b'S', data.len());
    for (i, (offset, len)) in regions.iter().enumerate() {
        h.set(386 + 24 * i, format!("{offset:012o}{len:012o}").as_bytes());
    }
    h.set(482, &[more]).set(483, b"112402762000"); // 10,000,000,000
    Tarball::new().header(&h)
}

fn v1(map: &str, data: &[u8]) -> Vec<u8> {
    let stored = [
        map.as_bytes(),
        &vec![0; map.len().next_multiple_of(512) - map.len()],
        data,
    ]
    .concat();
    Tarball::new()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"f"),
            ("GNU.sparse.realsize", TEN_GB.as_bytes()),
        ])
        .entry(b"GNUSparseFile.0/f", b'0', &stored)
        .file("z", "after")
        .end()
}

fn v0(records: &[(&str, &[u8])], data: &[u8]) -> Vec<u8> {
    Tarball::new()
        .pax(records)
        .entry(b"f", b'0', data)
        .file("z", "after")
        .end()
}

#[test]
fn every_form_of_sparse_file_becomes_the_same_extents() {
    let want = format!("644 0:0 sparse {TEN_GB} 512+3 9999999998+2 abcde");
    let pairs: &[(&str, &[u8])] = &[
        ("GNU.sparse.size", TEN_GB.as_bytes()),
        ("GNU.sparse.numblocks", b"2"),
        ("GNU.sparse.offset", b"512"),
        ("GNU.sparse.numbytes", b"3"),
        ("GNU.sparse.offset", b"9999999998"),
        ("GNU.sparse.numbytes", b"2"),
    ];
    let list: &[(&str, &[u8])] = &[
        ("GNU.sparse.size", TEN_GB.as_bytes()),
        ("GNU.sparse.numblocks", b"2"),
        ("GNU.sparse.map", b"512,3,9999999998,2"),
    ];
    let regions = [(512, 3), (9_999_999_998, 2), (10_000_000_000, 0)];
    for stream in [
        old(&regions, 0, b"abcde")
            .data(b"abcde")
            .file("z", "after")
            .end(),
        v0(pairs, b"abcde"),
        v0(list, b"abcde"),
        v1("2\n512\n3\n9999999998\n2\n", b"abcde"),
    ] {
        let lines = shown(&stream);
        assert_eq!(lines["/f"], want);
        assert_eq!(lines["/z"], "644 0:0 file after");
    }
}

#[test]
fn an_old_map_goes_on_in_further_blocks() {
    let mut more = vec![0; 512];
    more[..24].copy_from_slice(format!("{:011o}\0{:011o}\0", 4096, 1).as_bytes());
    let tar = old(&[(0, 1), (10, 1), (20, 1), (30, 1)], 1, b"abcde");
    let lines = shown(&tar.data(&more).data(b"abcde").end());
    assert_eq!(
        lines["/f"],
        format!("644 0:0 sparse {TEN_GB} 0+1 10+1 20+1 30+1 4096+1 abcde")
    );
}

#[test]
fn a_map_of_thousands_of_regions_spans_blocks() {
    let n = 3000;
    let map: String = (0..n).map(|i| format!("{}\n1\n", i * 1000)).collect();
    let lines = shown(&v1(&format!("{n}\n{map}"), &vec![b'x'; n]));
    assert_eq!(lines["/f"].matches('+').count(), n);
}

#[test]
fn all_hole_and_all_data_are_told_as_such() {
    assert_eq!(
        shown(&v1("0\n", b""))["/f"],
        format!("644 0:0 sparse {TEN_GB} ")
    );
    let all: &[(&str, &[u8])] = &[("GNU.sparse.size", b"3"), ("GNU.sparse.map", b"0,3")];
    assert_eq!(shown(&v0(all, b"abc"))["/f"], "644 0:0 file abc");
}

#[test]
fn maps_that_contradict_themselves_are_refused() {
    let list = |map: &str| -> Vec<u8> {
        v0(
            &[
                ("GNU.sparse.size", b"100"),
                ("GNU.sparse.map", map.as_bytes()),
            ],
            b"abcde",
        )
    };
    for (stream, why) in [
        (list("0,3,2,2"), "overlap"),
        (list("50,3,2,2"), "order"),
        (list("0,4"), "differ in length"),
        (list("0,6"), "differ in length"),
        (list("98,5"), "past the end"),
        (list("0,5,7"), "pairs"),
        (list("0,x"), "pairs"),
        (list("9223372036854775807,5"), "largest file"),
        (list("18446744073709551615,5"), "largest file"),
        (
            v0(&[("GNU.sparse.offset", b"1")], b""),
            "without its length",
        ),
        (
            v0(&[("GNU.sparse.numbytes", b"1")], b""),
            "without its offset",
        ),
        (v0(&[("GNU.sparse.major", b"2")], b""), "version"),
        (v1("9999999999999\n0\n", b""), "map before the data"),
        (v1("x\n", b""), "map before the data"),
        (v1("1\n0\n5\n", b"abc"), "differ in length"),
        (v1("111111111111111111111\n", b""), "map before the data"),
    ] {
        let message = refusal(&stream);
        assert!(message.contains(why), "{message}");
        assert!(
            message.contains("sparse map") && message.contains("byte 0"),
            "{message}"
        );
    }
}
