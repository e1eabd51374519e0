//! Compressed streams, whole and broken, and stopping.

use std::io::{self, Read, Write};

use flate2::{Compression, write::GzEncoder};

use super::{Cancel, InTree, chain, refusal, run, shown, tarball::Tarball};
use crate::{
    Digest,
    import::{ImportError, Progress, decode::Format, pipeline::Pass},
};

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut e = GzEncoder::new(Vec::new(), Compression::fast());
    e.write_all(data).unwrap();
    e.finish().unwrap()
}

fn zstd(data: &[u8]) -> Vec<u8> {
    zstd::encode_all(data, 1).unwrap()
}

/// Some megabytes that do not compress to nothing.
fn large() -> Vec<u8> {
    let noise = |seed: u64| -> Vec<u8> {
        let mut x = seed;
        (0..700_000)
            .map(|_| {
                x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                b'a' + ((x >> 33) % 20) as u8
            })
            .collect()
    };
    let mut tar = Tarball::new();
    for i in 0..6 {
        tar = tar.entry(format!("f{i}").as_bytes(), b'0', &noise(i));
    }
    tar.end()
}

#[test]
fn every_format_gives_the_same_tree_and_diff_id() {
    let tar = large();
    let (a, b) = tar.split_at(tar.len() / 3);
    let padded = [gzip(&tar), vec![0; 1000]].concat();
    let skippable = [b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec(), zstd(&tar)].concat();
    for (source, format) in [
        (tar.clone(), Format::Plain),
        (gzip(&tar), Format::Gzip),
        ([gzip(a), gzip(b)].concat(), Format::Gzip),
        ([gzip(a), gzip(b""), gzip(b)].concat(), Format::Gzip),
        (padded, Format::Gzip),
        (zstd(&tar), Format::Zstd),
        ([zstd(a), zstd(b)].concat(), Format::Zstd),
        (skippable, Format::Zstd),
    ] {
        let passed = run(source.as_slice()).unwrap();
        assert_eq!(passed.format, format);
        let is_source = format == Format::Plain;
        assert_eq!(passed.diff_id, (!is_source).then(|| Digest::of(&tar)));
        assert_eq!(passed.entries, 6);
        assert_eq!(super::show(&passed.tree), shown(&tar));
    }
}

#[test]
fn damage_in_compressed_data_names_source_format_and_offset() {
    let tar = large();
    for (format, data) in [("gzip", gzip(&tar)), ("zstd", zstd(&tar))] {
        for cut in [5, 100, data.len() / 2, data.len() - 1] {
            let message = refusal(&data[..cut]);
            assert!(
                message.contains("t.tar") && message.contains(format),
                "{message}"
            );
            assert!(message.contains("at byte"), "{message}");
        }
    }
    // gzip has a sum of its own; a wrong bit is not let through whatever the tar says.
    let mut flipped = gzip(&tar);
    let at = flipped.len() - 6;
    flipped[at] ^= 1;
    assert!(refusal(&flipped).contains("gzip"));
    assert!(refusal(&[gzip(&tar), b"junk".to_vec()].concat()).contains("gzip"));
    assert!(refusal(&[gzip(&tar), vec![0; 9], b"junk".to_vec()].concat()).contains("padding"));
}

#[test]
fn what_follows_the_end_mark_is_hashed_and_not_read_as_entries() {
    let tar = Tarball::new().file("a", "1").end();
    let all = [tar.clone(), vec![7; 100_000]].concat();
    let passed = run(gzip(&all).as_slice()).unwrap();
    assert_eq!(passed.diff_id, Some(Digest::of(&all)));
    assert_eq!(super::show(&passed.tree), shown(&tar));
}

struct Failing(usize);

impl Read for Failing {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let n = self.0.min(into.len());
        into[..n].fill(0);
        self.0 -= n;
        Ok(n)
    }
}

#[test]
fn a_source_that_fails_is_told_with_its_offset() {
    let Err(error) = run(Failing(300_000)) else {
        panic!("accepted")
    };
    let message = chain(&error);
    assert!(
        message.contains("cannot read t.tar at byte 262144"),
        "{message}"
    );
    assert!(message.contains("Input/output error"), "{message}");
}

struct CancelAfter<'a>(&'a Cancel);

impl Progress for CancelAfter<'_> {
    fn bytes(&self, _: u64) {
        self.0.cancel();
    }
}

#[test]
fn a_cancelled_import_stops_at_its_next_buffer() {
    let cancel = Cancel::default();
    let tar = large();
    for source in [tar.clone(), gzip(&tar), zstd(&tar)] {
        let pass = Pass {
            name: "t.tar",
            cancel: &cancel,
            progress: &CancelAfter(&cancel),
            show_marks: false,
        };
        let got = pass.run(source.as_slice(), &mut |_| Ok(()), &mut InTree);
        assert!(matches!(got, Err(ImportError::Cancelled)));
    }
}
