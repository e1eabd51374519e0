//! Importing a large gzip layer, beside the least that has to be done to it: decompressing and
//! hashing.

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use indicatif::ProgressBar;

use super::{mount_size::header, turned};
use crate::{
    report::Measured,
    setup::{Setup, succeed},
    stats::sample,
};

const LAYER_BYTES: u64 = 500_000_000;

pub(super) fn measure(
    titles: (&'static str, &'static str),
    setup: &mut Setup,
    rounds: u32,
    bar: &ProgressBar,
) -> Result<Measured> {
    bar.set_message(format!("{}: making a layer of 500 MB", titles.0));
    let layer = layer(setup)?;
    // Into the page cache: the disk is not what is compared.
    std::io::copy(&mut File::open(&layer)?, &mut std::io::sink())?;
    let names = ["pellicle", "gzip | sha256sum"];
    let mut samples: Vec<(String, Vec<f64>)> = names
        .iter()
        .map(|n| ((*n).to_owned(), Vec::new()))
        .collect();
    for round in 0..rounds {
        for n in turned(names.len(), round) {
            let (Some(name), Some((_, taken))) = (names.get(n), samples.get_mut(n)) else {
                continue;
            };
            bar.set_message(format!(
                "{}: round {} of {rounds}, {name}",
                titles.0,
                round + 1
            ));
            // What earlier rounds wrote is not to be written back during this one.
            nix::unistd::sync();
            let start = Instant::now();
            if n == 0 {
                succeed(
                    setup
                        .pellicle("import-store")
                        .arg("import")
                        .arg(&layer)
                        .arg("large"),
                )?;
            } else {
                decompress_and_hash(&layer)?;
            }
            taken.push(sample(start.elapsed()));
            let _ = fs::remove_dir_all(setup.path("import-store"));
        }
    }
    Ok(Measured::new(titles, samples, "gzip | sha256sum", 1.5))
}

fn decompress_and_hash(layer: &Path) -> Result<()> {
    let mut gzip = Command::new("gzip")
        .arg("-dc")
        .arg(layer)
        .stdout(Stdio::piped())
        .spawn()
        .context("gzip")?;
    let out = gzip.stdout.take().context("gzip's output")?;
    succeed(Command::new("sha256sum").stdin(out))?;
    if !gzip.wait()?.success() {
        bail!("gzip failed");
    }
    Ok(())
}

/// A gzip layer of [`LAYER_BYTES`]: the image's own files, then files that do not compress (as
/// archives and pictures do not) up to the size. Kept in the cache.
fn layer(setup: &mut Setup) -> Result<PathBuf> {
    let files = setup.layer_files()?;
    let path = setup.cached("import")?.join("layer-500mb.tar.gz");
    if path.is_file() {
        return Ok(path);
    }
    let part = path.with_extension("part");
    let mut out = BufWriter::with_capacity(1 << 20, File::create(&part)?);
    // Members one after another are one gzip stream; so are tars without an end mark one tar.
    for file in &files {
        append_member(&mut out, file)?;
    }
    out.flush()?;
    let filler = setup.path("filler.tar");
    let have = fs::metadata(&part)?.len();
    write_filler(&filler, LAYER_BYTES.saturating_sub(have))?;
    append_member(&mut out, &filler)?;
    let mut gzip = Command::new("gzip")
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(out.into_inner()?.try_clone()?)
        .spawn()
        .context("gzip")?;
    gzip.stdin
        .take()
        .context("gzip's input")?
        .write_all(&[0; 1024])?;
    gzip.wait()?;
    fs::remove_file(&filler)?;
    fs::rename(&part, &path)?;
    Ok(path)
}

/// Compresses the entries of the tar `file` as one more gzip member.
fn append_member(out: &mut BufWriter<File>, file: &Path) -> Result<()> {
    out.flush()?;
    // The end mark of each tar is cut off by copying its entries only.
    let script = "case $1 in *.gz) gzip -dc \"$1\";; *) cat \"$1\";; esac | python3 -c '
import sys
data = sys.stdin.buffer; out = sys.stdout.buffer
zero = bytes(512)
while True:
    head = data.read(512)
    if len(head) < 512 or head == zero: break
    size = int(head[124:136].split(b\"\\0\")[0].strip() or b\"0\", 8) if head[124] < 128 else int.from_bytes(head[125:136], \"big\")
    out.write(head)
    left = (size + 511) // 512 * 512
    while left:
        piece = data.read(min(left, 1 << 20))
        if not piece: sys.exit(1)
        out.write(piece); left -= len(piece)
while data.read(1 << 20): pass
' | gzip -6";
    let status = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(file)
        .stdout(out.get_ref().try_clone()?)
        .status()
        .context("sh")?;
    if !status.success() {
        bail!("cannot compress {}", file.display());
    }
    Ok(())
}

/// Writes a tar, without an end mark, of about `bytes` bytes in files of 1 KiB to 4 MiB that no
/// compressor shrinks. The same bytes every time.
fn write_filler(path: &Path, bytes: u64) -> Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        // xorshift64 (Marsaglia 2003)
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let (mut written, mut number) = (0, 0);
    while written < bytes {
        let size = 1024_u64 << (next() % 13);
        header(&mut out, &format!("filler/{number}"), b'0', size)?;
        for _ in 0..size / 8 {
            out.write_all(&next().to_le_bytes())?;
        }
        written += size + 512;
        number += 1;
    }
    out.flush()?;
    Ok(())
}
