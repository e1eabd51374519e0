//! The images that registries are measured with: one of five layers, and one that shares four of them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{
    setup::{Described, Layout, Setup, Tar},
    stats::Random,
};

pub(super) const FIRST: &str = "one";
pub(super) const SECOND: &str = "two";
/// Layers of each image.
const LAYERS: u64 = 5;
/// Files are 1 KiB shifted by less than this.
const SHIFTS: usize = 12;

/// Both, in an OCI layout.
pub(super) struct Images {
    pub(super) layout: PathBuf,
    pub(super) first: Described,
    pub(super) second: Described,
    /// Bytes of the files of the first.
    pub(super) content_bytes: u64,
}

impl Images {
    /// Images of about `bytes` bytes of files each. Kept in the cache.
    pub(super) fn make(setup: &Setup, bytes: u64) -> Result<Self> {
        let base = setup.cached("exchange")?;
        let layout = base.join(bytes.to_string());
        if !Layout::is_at(&layout) {
            setup.say(format!("making images of {} MB", bytes / 1_000_000))?;
            make(setup, &layout, bytes)?;
        }
        let noted = layout.join(NOTE);
        let note = fs::read_to_string(&noted)
            .ok()
            .and_then(|text| text.trim().parse().ok());
        Ok(Self {
            first: Layout::describe(&layout, FIRST)?,
            second: Layout::describe(&layout, SECOND)?,
            content_bytes: note.with_context(|| {
                format!(
                    "{} is damaged: remove {} and measure again",
                    noted.display(),
                    layout.display()
                )
            })?,
            layout,
        })
    }
}

/// Has the bytes of the files of the first image.
const NOTE: &str = "content-bytes";

fn make(setup: &Setup, dir: &Path, bytes: u64) -> Result<()> {
    let _ = fs::remove_dir_all(dir);
    let mut layout = Layout::create(dir)?;
    let mut layers = Vec::new();
    let mut contents = Vec::new();
    // The last is the one that only the second image has.
    for layer in 0..=LAYERS {
        setup.go_on()?;
        let tar = setup.path("exchange.tar");
        contents.push(write_layer(&tar, layer, bytes / LAYERS)?);
        layers.push(layout.pack(&fs::read(&tar)?)?);
        fs::remove_file(&tar)?;
    }
    let five: Vec<_> = layers.iter().take(5).collect();
    layout.tag(FIRST, &five)?;
    let shared = layers.iter().take(4).chain(layers.last());
    layout.tag(SECOND, &shared.collect::<Vec<_>>())?;
    let content: u64 = contents.iter().take(5).sum();
    fs::write(dir.join(NOTE), content.to_string())?;
    layout.finish()
}

/// Writes a tar of about `bytes` bytes in files of 1 KiB to 2 MiB, by bytes one half text and one half
/// what does not compress; gives the bytes of its files.
fn write_layer(path: &Path, layer: u64, bytes: u64) -> Result<u64> {
    let mut tar = Tar::create(path)?;
    let mut random = Random::new(100 + layer);
    tar.directory(&format!("layer{layer}/"))?;
    let (mut written, mut number, mut text) = (0, 0_u64, 0);
    while written < bytes {
        if number.is_multiple_of(100) {
            tar.directory(&format!("layer{layer}/d{}/", number / 100))?;
        }
        let size = (1024_u64 << random.below(SHIFTS)).min(bytes - written);
        let name = format!("layer{layer}/d{}/f{number}", number / 100);
        if text * 2 <= written {
            tar.text(&name, size, &mut random)?;
            text += size;
        } else {
            tar.file(&name, size, &mut random)?;
        }
        written += size;
        number += 1;
    }
    tar.finish(true)?;
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_has_its_size_in_many_files_that_differ_from_those_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = |n: u64| dir.path().join(n.to_string());
        for n in [0, 1] {
            assert_eq!(write_layer(&path(n), n, 3_000_000).unwrap(), 3_000_000);
        }
        let listed = std::process::Command::new("tar")
            .arg("-tf")
            .arg(path(0))
            .output()
            .unwrap();
        assert!(listed.status.success() && listed.stderr.is_empty());
        assert!(String::from_utf8(listed.stdout).unwrap().lines().count() > 5);
        assert_ne!(fs::read(path(0)).unwrap(), fs::read(path(1)).unwrap());
    }
}
