//! `.wh.` files in the upper directory.
//!
//! fuse-overlayfs writes them where it may not make devices, and podman unpacks image layers with them,
//! which it then mounts as upper directories (`podman diff IMAGE`). They are understood at the mount,
//! and left as they are until names change in their directory: then the kernel's marks take their
//! place, so that of one name there is never a file and a `.wh.` file.

use pellicle_store::Ino;
use rustix::fs::{OFlags, RenameFlags};

use super::{
    DirUpper,
    host::{self, At},
    state::State,
};
use crate::UpperError;

const PREFIX: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

impl DirUpper {
    /// Puts whiteouts and an opaque mark in the place of the `.wh.` files of `dir`, if it has any.
    /// May end in between: each name has one of both at any time, or both.
    pub(super) fn replace_wh_files(&self, state: &mut State, dir: Ino) -> Result<(), UpperError> {
        if !state.inodes.get(&dir).is_some_and(|dir| dir.wh_files) {
            return Ok(());
        }
        let place = self.place(state, dir)?;
        for name in wh_files(&place)? {
            let inode = state.inodes.get(&dir);
            let says = |name: &[u8]| inode.and_then(|dir| dir.names.get(name)).copied();
            if says(&name).flatten().is_some() {
                // A name that the dir upper made for its user.
                continue;
            }
            let hidden = name.get(PREFIX.len()..).unwrap_or_default();
            if *name == *OPAQUE {
                place.put_xattr(&self.rights.mark(b"opaque"), b"y")?;
            } else if says(hidden) == Some(None) {
                let to = self.at(state, dir, hidden)?;
                self.put_whiteout(state, &to)?;
            }
            remove_file(&self.at(state, dir, &name)?)?;
        }
        if let Some(inode) = state.inodes.get_mut(&dir) {
            inode.wh_files = false;
        }
        self.restore_times(state, dir)
    }

    fn put_whiteout(&self, state: &mut State, to: &At) -> Result<(), UpperError> {
        let whiteout = self.staged_whiteout(state)?;
        match whiteout.rename_to(to, RenameFlags::NOREPLACE) {
            // An earlier mount was killed between the two.
            Err(UpperError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::AlreadyExists =>
            {
                whiteout.unlink()
            }
            other => other,
        }
    }
}

/// The names of `dir` that begin with `.wh.`.
fn wh_files(dir: &At) -> Result<Vec<Box<[u8]>>, UpperError> {
    let fail = |e| host::error("list", dir.shown(), e);
    let fd = dir.open(OFlags::RDONLY | OFlags::DIRECTORY).map_err(fail)?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(&fd).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_bytes();
        if name.starts_with(PREFIX) {
            names.push(name.into());
        }
    }
    Ok(names)
}

/// A directory of such a name hides what is below as well, but is nobody's to remove.
fn remove_file(at: &At) -> Result<(), UpperError> {
    match at.unlink() {
        Err(UpperError::Io { source, .. }) if source.kind() == std::io::ErrorKind::IsADirectory => {
            Ok(())
        }
        other => other,
    }
}
