//! Unpacking a layer into a directory with kernel overlayfs's marks in place of the tar's: a 0/0
//! character device for a whiteout, `trusted.overlay.opaque` for an opaque directory
//! (Documentation/filesystems/overlayfs.rst). Only for images of our own making.

use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use nix::sys::stat::{Mode, SFlag, mknod};

use super::succeed;

/// Unpacks `file` into `to` unless that is already there.
pub(super) fn layer(file: &Path, to: &Path) -> Result<PathBuf> {
    if !to.is_dir() {
        let part = to.with_extension("part");
        let _ = fs::remove_dir_all(&part);
        fs::create_dir_all(&part)?;
        succeed(
            Command::new("tar")
                .args([
                    "--extract",
                    "--numeric-owner",
                    "--xattrs",
                    "--xattrs-include=*",
                    "--same-permissions",
                    "--file",
                ])
                .arg(file)
                .arg("--directory")
                .arg(&part),
        )?;
        translate(&part)?;
        fs::rename(&part, to)?;
    }
    Ok(to.to_path_buf())
}

fn translate(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type()?.is_dir() {
            translate(&path)?;
        } else if name.as_bytes() == b".wh..wh..opq" {
            fs::remove_file(&path)?;
            succeed(
                Command::new("setfattr")
                    .args(["-n", "trusted.overlay.opaque", "-v", "y"])
                    .arg(dir),
            )?;
        } else if let Some(hidden) = name.as_bytes().strip_prefix(b".wh.") {
            fs::remove_file(&path)?;
            let whiteout = dir.join(OsStr::from_bytes(hidden));
            mknod(&whiteout, SFlag::S_IFCHR, Mode::empty(), 0)
                .with_context(|| format!("no whiteout {}", whiteout.display()))?;
        }
    }
    Ok(())
}
