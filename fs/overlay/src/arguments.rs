//! The command line, as fuse-overlayfs and libfuse read it.
//!
//! `[-f] [-d] [-o OPTIONS]... [SOURCE] MOUNTPOINT`, in any order. mount(8) puts a source before the
//! mountpoint. What is not known is passed over and told of, never refused: programs that drive
//! overlays hand over whatever the kernel's overlayfs would take.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::PathBuf,
};

use crate::{
    error::UsageError,
    options::Options,
    request::{Invocation, Runner},
};

/// Reads the arguments behind the program's name.
///
/// # Errors
/// [`UsageError`]. Nothing of the file system is looked at.
pub(crate) fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    runner: Runner,
) -> Result<Invocation, UsageError> {
    let mut arguments = arguments.into_iter();
    let mut options = Options::new(runner);
    let mut plain: Vec<OsString> = Vec::new();
    while let Some(argument) = arguments.next() {
        match argument.as_bytes() {
            b"-h" | b"--help" => return Ok(Invocation::Help),
            b"-V" | b"--version" => return Ok(Invocation::Version),
            b"-f" => options.foreground(),
            b"-d" | b"--debug" => options.debug(),
            b"-s" => options.single_threaded(),
            b"-o" => {
                let text = arguments.next().ok_or(UsageError::NoOptions)?;
                options.read(text.as_bytes())?;
            }
            b"--" => plain.extend(arguments.by_ref()),
            [b'-', b'o', text @ ..] => options.read(text)?,
            [b'-', _, ..] => options.ignore(argument.as_bytes()),
            _ => plain.push(argument),
        }
    }
    let (source, mountpoint) = positions(plain)?;
    options.finish(source.as_deref(), mountpoint)
}

/// Source and mountpoint; mount.fuse gives an empty source where there is none.
fn positions(mut plain: Vec<OsString>) -> Result<(Option<OsString>, PathBuf), UsageError> {
    if plain.len() > 2 {
        return Err(UsageError::TooMany {
            arguments: plain.iter().map(|a| lossy(a)).collect(),
        });
    }
    let mountpoint = plain.pop().filter(|m| !m.is_empty());
    let mountpoint = mountpoint.ok_or(UsageError::NoMountpoint)?;
    if mountpoint.as_bytes().starts_with(b"/dev/fd/") {
        // Mounted by mount.fuse3 already, and without `default_permissions`: nobody would check.
        return Err(UsageError::NotOurs {
            option: "drop_privileges",
            why: "this program mounts by itself; run it as the user who is to serve",
        });
    }
    let source = plain.pop().filter(|source| !source.is_empty());
    Ok((source, PathBuf::from(mountpoint)))
}

fn lossy(argument: &OsStr) -> String {
    argument.to_string_lossy().into_owned()
}

/// A path out of unescaped bytes.
pub(crate) fn path(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

// The path is said because this file is a module of the fuzz targets too.
#[cfg(test)]
#[path = "arguments/tests.rs"]
mod tests;
