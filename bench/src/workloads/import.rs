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

use super::{Host, Plan};
use crate::{
    measure::{Entrant, Rounds, Sample, interleave},
    model::Measured,
    setup::{Setup, Tar, succeed},
    stats::Random,
};

const LAYER_BYTES: u64 = 500_000_000;
const STORE: &str = "import-store";
const LEAST: &str = "gzip | sha256sum";

pub(super) struct Import;

impl Host for Import {
    fn name(&self) -> String {
        "import".to_owned()
    }

    fn about(&self) -> String {
        "importing a gzip layer of 500 MB, against `gzip -dc | sha256sum`".to_owned()
    }

    fn measure(&self, setup: &mut Setup, plan: &Plan) -> Result<Measured> {
        setup.say(format!("{}: making a layer of 500 MB", self.name()))?;
        let layer = layer(setup)?;
        // Into the page cache: the disk is not what is compared.
        std::io::copy(&mut File::open(&layer)?, &mut std::io::sink())?;
        let entrants = [Entrant::new("pellicle", true), Entrant::new(LEAST, false)];
        let rounds = Rounds {
            count: plan.rounds,
            warm_up: false,
        };
        let (rows, left_out) =
            interleave(setup, &self.name(), &entrants, rounds, LEAST, |setup, n| {
                // What earlier rounds wrote is not to be written back during this one.
                nix::unistd::sync();
                let start = Instant::now();
                if n == 0 {
                    succeed(setup.pellicle(STORE).arg("import").arg(&layer).arg("large"))?;
                } else {
                    decompress_and_hash(&layer)?;
                }
                let seconds = start.elapsed().as_secs_f64();
                let _ = fs::remove_dir_all(setup.path(STORE));
                Ok(Sample {
                    seconds,
                    ..Sample::default()
                })
            })?;
        Ok(Measured {
            workload: self.name(),
            about: self.about(),
            reference: LEAST.to_owned(),
            floor: Some(1.5),
            point: None,
            rows,
            left_out,
        })
    }
}

fn decompress_and_hash(layer: &Path) -> Result<()> {
    let mut gzip = Command::new("gzip")
        .arg("-dc")
        .arg(layer)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run gzip")?;
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
        .context("cannot run gzip")?;
    gzip.stdin
        .take()
        .context("gzip's input")?
        .write_all(&[0; 1024])?;
    if !gzip.wait()?.success() {
        bail!("gzip failed");
    }
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
        .context("cannot run sh")?;
    if !status.success() {
        bail!("cannot compress {}", file.display());
    }
    Ok(())
}

/// Writes a tar, without an end mark, of about `bytes` bytes in files of 1 KiB to 4 MiB that no
/// compressor shrinks.
fn write_filler(path: &Path, bytes: u64) -> Result<()> {
    let mut tar = Tar::create(path)?;
    let mut random = Random::new(0x9E37_79B9_7F4A_7C15);
    let (mut written, mut number) = (0, 0);
    while written < bytes {
        let size = 1024_u64 << random.below(13);
        tar.file(&format!("filler/{number}"), size, &mut random)?;
        written += size + 512;
        number += 1;
    }
    tar.finish(false)
}
