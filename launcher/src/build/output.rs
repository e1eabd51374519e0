//! Files of a tree as files of the host: `--output type=local`, and what RUN binds.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read, Write},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{PermissionsExt as _, symlink},
    },
    path::Path,
};

use pellicle_store::{FileKind, Time, import::Cancel};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::{
    BuildError,
    source::{Entry, Source},
};

/// Bytes copied at a time.
const BUFFER: usize = 256 << 10;

/// Writes what is at `from` in `source` to `to`: the files are the caller's own, with the modes and
/// times they have there. What is in the place of a file is replaced; links that are there already
/// are not followed. Devices and sockets are left out.
///
/// # Errors
/// The host's, and what the source says.
pub(super) fn write(
    source: &dyn Source,
    from: &Path,
    to: &Path,
    cancel: &Cancel,
) -> Result<(), BuildError> {
    let mut dirs: Vec<(std::path::PathBuf, Entry)> = Vec::new();
    let mut todo = vec![(from.to_owned(), to.to_owned())];
    while let Some((from, to)) = todo.pop() {
        if cancel.is_cancelled() {
            return Err(BuildError::Cancelled);
        }
        let Some(entry) = source.entry(&from)? else {
            continue;
        };
        let fail = || BuildError::io("write", &to);
        match entry.kind {
            FileKind::Directory => {
                directory(&to, dirs.is_empty()).map_err(fail())?;
                for name in source.names(&from)? {
                    todo.push((from.join(&name), to.join(&name)));
                }
                dirs.push((to, entry));
                continue;
            }
            FileKind::Regular => {
                make_room(&to).map_err(fail())?;
                let mut file = File::create_new(&to).map_err(fail())?;
                copy(&mut source.open(&from)?, &mut file, cancel).map_err(fail())?;
                let mode = Permissions::from_mode(u32::from(entry.perm));
                file.set_permissions(mode).map_err(fail())?;
            }
            FileKind::Symlink => {
                make_room(&to).map_err(fail())?;
                let target = source.link(&from)?;
                symlink(std::ffi::OsStr::from_bytes(&target), &to).map_err(fail())?;
            }
            FileKind::Fifo | FileKind::CharDevice | FileKind::BlockDevice | FileKind::Socket => {
                continue;
            }
        }
        set_time(&to, entry.mtime).map_err(fail())?;
    }
    // From the end: a directory that may not be written to is closed after what is in it.
    for (path, entry) in dirs.iter().rev() {
        let fail = || BuildError::io("write", path);
        let mode = Permissions::from_mode(u32::from(entry.perm));
        fs::set_permissions(path, mode).map_err(fail())?;
        set_time(path, entry.mtime).map_err(fail())?;
    }
    Ok(())
}

/// A directory that can be written to for now; the first one may be a link to one.
fn directory(path: &Path, is_first: bool) -> io::Result<()> {
    let there = match (fs::symlink_metadata(path), is_first) {
        (Ok(_), true) => fs::metadata(path).is_ok_and(|m| m.is_dir()),
        (Ok(meta), false) => meta.is_dir(),
        (Err(e), _) if e.kind() == io::ErrorKind::NotFound => false,
        (Err(e), _) => return Err(e),
    };
    if there {
        return Ok(());
    }
    make_room(path)?;
    fs::create_dir(path)
}

fn make_room(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn copy(from: &mut dyn Read, to: &mut File, cancel: &Cancel) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        if cancel.is_cancelled() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => to.write_all(buffer.get(..n).unwrap_or_default())?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn set_time(path: &Path, time: Time) -> io::Result<()> {
    let time = Timespec {
        tv_sec: time.sec,
        tv_nsec: i64::from(time.nsec),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
