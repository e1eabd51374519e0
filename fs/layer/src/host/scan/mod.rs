//! One walk over a host directory: all that there is to know of it but contents.
//!
//! Directories are read by a few threads of this scan's own, each directory once: one `getdents64`
//! per buffer, one `statx` per name, one `llistxattr` where attributes can be. Nothing is followed:
//! neither symbolic links nor mounts, and every open is relative to a directory that is open already.
//! Each thread has a working directory of its own, so that `llistxattr` needs no path but a name;
//! where the host forbids that, names go through `/proc/self/fd`.

mod look;
mod walk;

use std::{
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use pellicle_store::{Device, FileKind, Meta};
use rustix::{
    fs::{CWD, Mode, OFlags},
    io::Errno,
};

use self::walk::walk;
use super::{
    HostError, HostOptions,
    marks::{OVERRIDE_STAT, OverrideStat},
};

/// A scanned directory tree. Directories are numbered, the top being 0, in no particular order.
#[derive(Debug)]
pub struct Scan {
    /// The top directory.
    pub root: OwnedFd,
    /// Its path, for messages.
    pub path: PathBuf,
    /// All directories.
    pub dirs: Vec<Dir>,
}

/// A directory of a [`Scan`].
#[derive(Debug, Default)]
pub struct Dir {
    /// The directory it is in; the top is in itself.
    pub parent: u32,
    /// Its name there; none for the top.
    pub name: Box<[u8]>,
    /// Attributes.
    pub meta: Meta,
    /// What the host calls it.
    pub key: Key,
    /// Its names, sorted by their bytes, each once.
    pub entries: Vec<(Box<[u8]>, Entry)>,
    /// Hides what lower layers have there.
    pub opaque: bool,
    /// Where lower layers have it, if not under its own name.
    pub redirect: Option<Box<[u8]>>,
    /// It could not be read: the host said EACCES.
    pub closed: bool,
    /// What the dir upper noted of its inode number.
    pub number: Option<Box<[u8]>>,
    /// It holds `.wh.` files that count as marks.
    pub wh_files: bool,
}

/// What a name leads to.
#[derive(Debug)]
pub enum Entry {
    /// Nothing, and hides what lower layers have.
    Whiteout,
    /// That directory.
    Dir(u32),
    /// Something else.
    Other(Box<Other>),
}

/// What is no directory.
#[derive(Debug)]
pub struct Other {
    /// Attributes.
    pub meta: Meta,
    /// What it is.
    pub kind: FileKind,
    /// What the host calls it: its names share it.
    pub key: Key,
    /// Names it has on the host, in this tree or not.
    pub nlink: u32,
    /// Bytes of content.
    pub size: u64,
    /// Allocated units of 512 bytes.
    pub blocks: u64,
    /// Of a device.
    pub rdev: Device,
    /// Of a symbolic link.
    pub target: Box<[u8]>,
    /// Only attributes: the content is a lower layer's.
    pub metacopy: bool,
    /// Where lower layers have its content, if not under its own name.
    pub redirect: Option<Box<[u8]>>,
    /// What the dir upper noted of its inode number.
    pub number: Option<Box<[u8]>>,
}

/// Device and inode number on the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Key {
    /// Of the file system.
    pub dev: u64,
    /// In it.
    pub ino: u64,
}

impl Scan {
    /// Directory `at`.
    #[must_use]
    pub fn dir(&self, at: u32) -> Option<&Dir> {
        self.dirs.get(at as usize)
    }

    /// What `name` in directory `at` leads to.
    #[must_use]
    pub fn child(&self, at: u32, name: &[u8]) -> Option<&Entry> {
        let entries = &self.dir(at)?.entries;
        let found = entries.binary_search_by(|(n, _)| (**n).cmp(name)).ok()?;
        entries.get(found).map(|(_, entry)| entry)
    }
}

/// Reads the tree at `path`.
///
/// # Errors
/// [`HostError`] for what cannot be read; a directory below the top that this process may not read
/// is no error but [`Dir::closed`].
pub fn scan(path: &Path, options: &HostOptions) -> Result<Scan, HostError> {
    let root = open_dir(CWD, path, OFlags::empty()).map_err(|e| match e {
        Errno::NOTDIR => HostError::NotADirectory { path: path.into() },
        e => failed(path, "open", e),
    })?;
    let overrides = match options.override_stat {
        OverrideStat::Always => true,
        OverrideStat::Never => false,
        OverrideStat::Auto => {
            let mut value = [0_u8; 256];
            rustix::fs::fgetxattr(&root, OVERRIDE_STAT, &mut value).is_ok()
        }
    };
    let root = Arc::new(root);
    let dirs = walk(&root, path, options, overrides)?;
    let root = Arc::try_unwrap(root).or_else(|held| {
        held.try_clone().map_err(|source| HostError::Io {
            doing: "keep open",
            path: path.into(),
            source,
        })
    })?;
    Ok(Scan {
        root,
        path: path.into(),
        dirs,
    })
}

/// Opens a directory to be listed.
fn open_dir(
    from: impl AsFd,
    path: impl rustix::path::Arg + Copy,
    more: OFlags,
) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | more;
    open_quietly(from, path, flags)
}

/// Opens without a change of the access time later, where that is allowed.
fn open_quietly(
    from: impl AsFd,
    path: impl rustix::path::Arg + Copy,
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    match rustix::fs::openat(&from, path, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(&from, path, flags, Mode::empty()),
        other => other,
    }
}

fn failed(path: &Path, doing: &'static str, error: Errno) -> HostError {
    HostError::Io {
        doing,
        path: path.to_owned(),
        source: error.into(),
    }
}
