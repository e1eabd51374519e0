//! Unpacking a layer into a directory with kernel overlayfs's marks in place of the tar's: a 0/0
//! character device for a whiteout, `trusted.overlay.opaque` for an opaque directory, or
//! `user.overlay.opaque` in a user namespace (Documentation/filesystems/overlayfs.rst). Only for
//! images of our own making.

use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use nix::sys::stat::{Mode, SFlag, mknod};
use rustix::fs::XattrFlags;

use super::{Who, quiet, succeed};

/// Unpacks `file` into `to` unless that is already there.
pub(super) fn layer(file: &Path, to: &Path, who: Who) -> Result<PathBuf> {
    if !to.is_dir() {
        let part = to.with_extension("part");
        let _ = fs::remove_dir_all(&part);
        fs::create_dir_all(&part)?;
        succeed(
            quiet("tar")
                .args([
                    "--extract",
                    "--numeric-owner",
                    "--xattrs",
                    "--xattrs-include=*",
                    "--same-permissions",
                    "--same-owner",
                    "--file",
                ])
                .arg(file)
                .arg("--directory")
                .arg(&part),
        )?;
        let opaque = match who {
            Who::Root => "trusted.overlay.opaque",
            Who::InNamespace | Who::User => "user.overlay.opaque",
        };
        translate(&part, opaque)?;
        fs::rename(&part, to)?;
    }
    Ok(to.to_path_buf())
}

fn translate(dir: &Path, opaque: &str) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type()?.is_dir() {
            translate(&path, opaque)?;
        } else if name.as_bytes() == b".wh..wh..opq" {
            fs::remove_file(&path)?;
            rustix::fs::setxattr(dir, opaque, b"y", XattrFlags::empty())
                .with_context(|| format!("cannot mark {} as opaque", dir.display()))?;
        } else if let Some(hidden) = name.as_bytes().strip_prefix(b".wh.") {
            fs::remove_file(&path)?;
            let whiteout = dir.join(OsStr::from_bytes(hidden));
            // Every user may make this one device (Linux 5.8).
            mknod(&whiteout, SFlag::S_IFCHR, Mode::empty(), 0)
                .with_context(|| format!("no whiteout {}", whiteout.display()))?;
        }
    }
    Ok(())
}
