//! Walking and reading a tree, the same way for every driver.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// What a walk saw. Compared between drivers: those that see another tree measure another thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) entries: u64,
    /// Sum of the sizes of regular files.
    pub(crate) bytes: u64,
}

/// Asked before each directory: an error ends the walk.
pub(crate) type GoOn<'a> = &'a dyn Fn() -> Result<()>;

/// Lists every directory and asks for the attributes of every entry.
pub(crate) fn walk(root: &Path, go_on: GoOn<'_>) -> Result<Seen> {
    let mut seen = Seen::default();
    visit(root, go_on, |_, meta| {
        seen.entries += 1;
        if meta.is_file() {
            seen.bytes += meta.size();
        }
        Ok(())
    })?;
    Ok(seen)
}

/// Reads every regular file to its end.
pub(crate) fn read_all(root: &Path, go_on: GoOn<'_>) -> Result<Seen> {
    let mut seen = Seen::default();
    let mut buffer = vec![0; 128 * 1024];
    visit(root, go_on, |path, meta| {
        seen.entries += 1;
        if meta.is_file() {
            let mut file =
                File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
            loop {
                let read = file
                    .read(&mut buffer)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                if read == 0 {
                    break;
                }
                seen.bytes += read as u64;
            }
        }
        Ok(())
    })?;
    Ok(seen)
}

/// Bytes that everything under `root` takes on the disk; a file with several names counts once.
pub(crate) fn disk_bytes(root: &Path) -> Result<u64> {
    let mut counted = HashSet::new();
    let mut bytes = 0;
    visit(root, &|| Ok(()), |_, meta| {
        if meta.nlink() == 1 || meta.is_dir() || counted.insert((meta.dev(), meta.ino())) {
            bytes += meta.blocks() * 512;
        }
        Ok(())
    })?;
    Ok(bytes)
}

fn visit(
    root: &Path,
    go_on: GoOn<'_>,
    mut each: impl FnMut(&Path, &fs::Metadata) -> Result<()>,
) -> Result<()> {
    let mut dirs: Vec<PathBuf> = vec![root.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        go_on()?;
        let listing =
            fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))?;
        for entry in listing {
            let entry = entry.with_context(|| format!("cannot list {}", dir.display()))?;
            let meta = entry
                .metadata()
                .with_context(|| format!("no attributes of {}", entry.path().display()))?;
            let path = entry.path();
            each(&path, &meta)?;
            if meta.is_dir() {
                dirs.push(path);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn a_walk_and_a_reading_count_the_same_tree() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/file"), vec![1; 300_000]).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("a/link")).unwrap();
        let seen = Seen {
            entries: 4,
            bytes: 300_000,
        };
        assert_eq!(walk(dir.path(), &|| Ok(())).unwrap(), seen);
        assert_eq!(read_all(dir.path(), &|| Ok(())).unwrap(), seen);
        assert!(walk(dir.path(), &|| bail!("stop")).is_err());
    }

    #[test]
    fn a_file_with_two_names_takes_its_space_once() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&a, vec![1; 300_000]).unwrap();
        let one = disk_bytes(dir.path()).unwrap();
        assert!(one >= 300_000, "{one}");
        fs::hard_link(&a, &b).unwrap();
        assert_eq!(disk_bytes(dir.path()).unwrap(), one);
    }
}
