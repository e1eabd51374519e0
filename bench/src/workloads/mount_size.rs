//! Mounting images of very different sizes: neither time nor memory may grow with the image.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
    time::Instant,
};

use anyhow::Result;
use indicatif::ProgressBar;

use super::turned;
use crate::{
    drivers::{Mounted, server_memory},
    report::{Figure, Measured},
    setup::{Setup, succeed},
    stats::{Summary, sample},
};

const SIZES: [(&str, u32); 2] = [("1,000,000 entries", 1_000_000), ("1,000 entries", 1_000)];
const FILES_IN_A_DIRECTORY: u32 = 1_000;

pub(super) fn measure(
    titles: (&'static str, &'static str),
    setup: &mut Setup,
    rounds: u32,
    bar: &ProgressBar,
) -> Result<Measured> {
    let at = setup.directory("mnt", false)?;
    for (name, entries) in SIZES {
        let (image, tar) = (image(entries), setup.path("synthetic.tar"));
        bar.set_message(format!("{}: importing an image of {name}", titles.0));
        synthetic(&tar, entries)?;
        succeed(setup.pellicle("sizes").arg("import").arg(&tar).arg(&image))?;
        std::fs::remove_file(&tar)?;
        // The first mount makes the image's tree.
        Mounted::ours(setup, "sizes", &image, &at)?.unmount()?;
    }
    let mut samples: Vec<(String, Vec<f64>)> = SIZES
        .iter()
        .map(|(name, _)| ((*name).to_owned(), Vec::new()))
        .collect();
    let mut memory: Vec<Vec<f64>> = vec![Vec::new(); SIZES.len()];
    for round in 0..rounds {
        for n in turned(SIZES.len(), round) {
            let (Some((name, entries)), Some((_, taken)), Some(resident)) =
                (SIZES.get(n), samples.get_mut(n), memory.get_mut(n))
            else {
                continue;
            };
            bar.set_message(format!(
                "{}: round {} of {rounds}, {name}",
                titles.0,
                round + 1
            ));
            let start = Instant::now();
            let mounted = Mounted::ours(setup, "sizes", &image(*entries), &at)?;
            taken.push(sample(start.elapsed()));
            resident.push(server_memory(&at)?);
            mounted.unmount()?;
        }
    }
    let mut measured = Measured::new(titles, samples, "1,000 entries", 3.0);
    let medians: Vec<f64> = memory
        .into_iter()
        .filter_map(Summary::of)
        .map(|s| s.median)
        .collect();
    if let [large, small] = medians.as_slice() {
        measured.figures.push(Figure {
            what: "memory of the server, small image".to_owned(),
            value: *small,
            unit: "MiB",
            at_most: None,
        });
        measured.figures.push(Figure {
            what: "memory that the large image adds".to_owned(),
            value: large - small,
            unit: "MiB",
            at_most: Some(8.0),
        });
    }
    Ok(measured)
}

fn image(entries: u32) -> String {
    format!("entries-{entries}")
}

/// Writes a tar of `entries` empty files in directories of a thousand.
fn synthetic(path: &Path, entries: u32) -> Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    for n in 0..entries {
        let dir = n / FILES_IN_A_DIRECTORY;
        if n % FILES_IN_A_DIRECTORY == 0 {
            header(&mut out, &format!("d{dir}/"), b'5', 0)?;
        }
        header(&mut out, &format!("d{dir}/f{n}"), b'0', 0)?;
    }
    out.write_all(&[0; 1024])?;
    out.flush()?;
    Ok(())
}

/// Writes the header of an entry (ustar, POSIX.1-1988) with a name of at most 100 bytes.
pub(super) fn header(out: &mut impl Write, name: &str, kind: u8, size: u64) -> Result<()> {
    let mut bytes = Vec::with_capacity(512);
    let mut field = |width: usize, text: &[u8]| {
        bytes.extend(text.iter().copied().chain(std::iter::repeat(0)).take(width));
    };
    field(100, name.as_bytes());
    field(8, if kind == b'5' { b"0000755" } else { b"0000644" });
    field(8, b"0000000");
    field(8, b"0000000");
    field(12, format!("{size:011o}").as_bytes());
    field(12, b"14000000000");
    field(8, b"        ");
    field(1, &[kind]);
    field(100, b"");
    field(255, b"ustar\x0000");
    let sum: u32 = bytes.iter().map(|&b| u32::from(b)).sum();
    bytes.splice(148..156, format!("{sum:06o}\0 ").into_bytes());
    out.write_all(&bytes)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_synthetic_archive_is_one_that_tar_reads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        synthetic(&path, 2_001).unwrap();
        let listed = Command::new("tar").arg("-tf").arg(&path).output().unwrap();
        assert!(listed.status.success(), "{listed:?}");
        assert!(listed.stderr.is_empty(), "{listed:?}");
        let names = String::from_utf8(listed.stdout).unwrap();
        assert_eq!(names.lines().count(), 2_001 + 3);
        assert!(names.contains("d2/f2000\n"), "{names}");
    }
}
