//! Trees and archives made for a workload, the same bytes in every run.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{quiet, succeed};
use crate::stats::Random;

/// Files of [`small_files`].
pub(crate) const SMALL_FILES: u32 = 1_000;
/// Files of [`depth`].
const DEPTH_FILES: u32 = 2_000;
/// Files of [`repository`].
const REPOSITORY_FILES: u32 = 4_000;

/// Files of 1 to 16 KiB, `f0` and so on.
pub(super) fn small_files(dir: &Path) -> Result<()> {
    let mut random = Random::new(1);
    for n in 0..SMALL_FILES {
        let size = 1024 + random.below(15 * 1024);
        fs::write(dir.join(format!("f{n}")), bytes(&mut random, size))?;
    }
    Ok(())
}

/// A file of `size` bytes that is neither sparse nor the same page over and over.
pub(crate) fn large_file(path: &Path, size: u64) -> Result<()> {
    const BLOCK: usize = 1 << 20;
    let fail = || format!("cannot write {}", path.display());
    let mut random = Random::new(2);
    let block = bytes(&mut random, BLOCK);
    let mut out = File::create(path).with_context(fail)?;
    let mut left = size;
    while left > 0 {
        let part = block.len().min(usize::try_from(left).unwrap_or(BLOCK));
        // Blocks differ in their first bytes, so that none is a copy of another.
        let mark = left.to_le_bytes();
        let head = mark.len().min(part);
        out.write_all(mark.get(..head).unwrap_or_default())
            .with_context(fail)?;
        out.write_all(block.get(head..part).unwrap_or_default())
            .with_context(fail)?;
        left -= part as u64;
    }
    Ok(())
}

/// Empty files in one directory `d`.
pub(super) fn large_directory(dir: &Path, entries: u32) -> Result<()> {
    let dir = dir.join("d");
    fs::create_dir(&dir)?;
    for n in 0..entries {
        File::create(dir.join(format!("entry-{n}")))?;
    }
    Ok(())
}

/// [`DEPTH_FILES`] files in 20 directories that all layers have a part of, lowest layer first. The
/// names of the layers are short: overlayfs's options have to fit a page.
pub(super) fn depth(base: &Path, layers: u32) -> Result<Vec<PathBuf>> {
    let dirs: Vec<PathBuf> = (0..layers).map(|n| base.join(n.to_string())).collect();
    let mut random = Random::new(3);
    for n in 0..DEPTH_FILES {
        let layer = dirs
            .get((n % layers.max(1)) as usize)
            .context("a stack of no layers")?;
        let dir = layer.join(format!("d{}", n % 20));
        fs::create_dir_all(&dir)?;
        fs::write(dir.join(format!("f{n}")), bytes(&mut random, 512))?;
    }
    for dir in &dirs {
        fs::create_dir_all(dir)?;
    }
    Ok(dirs)
}

/// A git repository `repository` with a commit and its work tree.
pub(crate) fn repository(dir: &Path) -> Result<()> {
    let repository = dir.join("repository");
    fs::create_dir_all(&repository)?;
    let mut random = Random::new(4);
    for n in 0..REPOSITORY_FILES {
        let dir = repository.join(format!("src/part{}/unit{}", n % 20, n % 200));
        fs::create_dir_all(&dir)?;
        let size = 512 + random.below(12 * 1024);
        fs::write(dir.join(format!("file{n}.c")), text(&mut random, size))?;
    }
    for arguments in [
        &["init", "--quiet", "."][..],
        &["add", "."],
        &[
            "-c",
            "user.name=bench",
            "-c",
            "user.email=bench@localhost",
            "commit",
            "--quiet",
            "-m",
            "everything",
        ],
    ] {
        succeed(git().args(arguments).current_dir(&repository))?;
    }
    Ok(())
}

/// git, without what the user has configured.
pub(crate) fn git() -> std::process::Command {
    let mut command = quiet("git");
    command
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .env("GIT_OPTIONAL_LOCKS", "1")
        .args(["-c", "safe.directory=*", "-c", "gc.auto=0"]);
    command
}

fn bytes(random: &mut Random, size: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// Lines that compress as source code does.
fn text(random: &mut Random, size: usize) -> Vec<u8> {
    const WORDS: [&str; 8] = [
        "return", "struct", "index", "buffer", "length", "(value)", "+= 1;", "static",
    ];
    let mut text = String::with_capacity(size + 32);
    while text.len() < size {
        for _ in 0..6 {
            text.push_str(WORDS.get(random.below(WORDS.len())).unwrap_or(&""));
            text.push(' ');
        }
        text.push_str(&format!("/* {} */\n", random.next() % 10_000));
    }
    text.truncate(size);
    text.into_bytes()
}

/// A tar archive that is written entry by entry.
pub(crate) struct Tar<W: Write> {
    out: W,
}

impl Tar<BufWriter<File>> {
    /// A new one at `path`.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self {
            out: BufWriter::with_capacity(1 << 20, file),
        })
    }

    pub(crate) fn directory(&mut self, name: &str) -> Result<()> {
        header(&mut self.out, name, b'5', 0)
    }

    /// A file of `size` bytes from `random`, which no compressor shrinks.
    pub(crate) fn file(&mut self, name: &str, size: u64, random: &mut Random) -> Result<()> {
        let content = bytes(random, usize::try_from(size)?);
        self.content(name, &content)
    }

    /// A file of `size` bytes from `random`, which compresses as source code does.
    pub(crate) fn text(&mut self, name: &str, size: u64, random: &mut Random) -> Result<()> {
        let content = text(random, usize::try_from(size)?);
        self.content(name, &content)
    }

    fn content(&mut self, name: &str, content: &[u8]) -> Result<()> {
        header(&mut self.out, name, b'0', content.len() as u64)?;
        self.out.write_all(content)?;
        let whole = content.len().next_multiple_of(512);
        self.out.write_all(&vec![0; whole - content.len()])?;
        Ok(())
    }

    /// Ends the file, with the archive's end mark if that is wanted.
    pub(crate) fn finish(mut self, end_mark: bool) -> Result<()> {
        if end_mark {
            self.out.write_all(&[0; 1024])?;
        }
        self.out.flush()?;
        Ok(())
    }
}

/// Writes the header of an entry (ustar, POSIX.1-1988) with a name of at most 100 bytes.
pub(crate) fn header(out: &mut impl Write, name: &str, kind: u8, size: u64) -> Result<()> {
    if name.len() > 100 {
        bail!("the name {name} is too long for a ustar header");
    }
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
    use std::{os::unix::fs::MetadataExt as _, process::Command};

    use super::*;

    #[test]
    fn an_archive_is_one_that_tar_reads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        let mut tar = Tar::create(&path).unwrap();
        tar.directory("d/").unwrap();
        let mut random = Random::new(9);
        for (n, size) in [0, 1, 512, 513].into_iter().enumerate() {
            tar.file(&format!("d/f{n}"), size, &mut random).unwrap();
        }
        tar.finish(true).unwrap();
        let out = Command::new("tar").arg("-tvf").arg(&path).output().unwrap();
        assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
        let listed = String::from_utf8(out.stdout).unwrap();
        assert_eq!(listed.lines().count(), 5, "{listed}");
        assert!(listed.contains("513"), "{listed}");
    }

    #[test]
    fn a_large_file_has_its_size_and_no_holes() {
        let dir = tempfile::tempdir().unwrap();
        for size in [0, 5, 4096, (1 << 20) + 3] {
            let path = dir.path().join(size.to_string());
            large_file(&path, size).unwrap();
            let meta = fs::metadata(&path).unwrap();
            assert_eq!(meta.size(), size);
            assert!(meta.blocks() * 512 >= size, "{size}");
        }
    }

    #[test]
    fn a_deep_stack_has_the_same_files_at_every_depth() {
        let count = |layers| {
            let dir = tempfile::tempdir().unwrap();
            let dirs = depth(dir.path(), layers).unwrap();
            assert_eq!(dirs.len(), layers as usize);
            crate::tree::walk(dir.path(), &|| Ok(())).unwrap().bytes
        };
        assert_eq!(count(1), count(16));
    }
}
