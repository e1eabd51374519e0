//! Reading the host: every open is relative to a directory that is open already and follows no
//! symbolic link, so that a tree that is moved about meanwhile leads nowhere else.

use std::{
    ffi::OsStr,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{self, AtFlags, Mode, OFlags, SeekFrom, Stat},
    io::Errno,
};

use crate::{
    import::{DirectoryProblem, ImportError},
    tree::Extent,
};

/// Device and inode: what a file is, whatever its name.
pub(super) type Identity = (u64, u64);

/// The identity that `stat` tells.
pub(super) fn identity_of(stat: &Stat) -> Identity {
    (stat.st_dev, stat.st_ino)
}

/// The identity of the file at `path`.
pub(super) fn identity(path: &Path) -> io::Result<Identity> {
    Ok(identity_of(&fs::stat(path)?))
}

/// An error about the file at `path`.
pub(super) fn problem(path: &Path, problem: DirectoryProblem) -> ImportError {
    ImportError::Directory {
        path: path.to_owned(),
        problem,
    }
}

/// An error of a system call on the file at `path`.
pub(super) fn failed(path: &Path, action: &'static str, error: Errno) -> ImportError {
    match error {
        Errno::NOENT => problem(path, DirectoryProblem::Vanished),
        // What was a file is a link now, or the like.
        Errno::LOOP => problem(path, DirectoryProblem::Changed),
        error => problem(
            path,
            DirectoryProblem::Io {
                action,
                source: error.into(),
            },
        ),
    }
}

/// Opens the directory that is to be imported; the person named it, so links in it are followed.
pub(super) fn open_top(dir: &Path) -> Result<OwnedFd, ImportError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fs::open(dir, flags, Mode::empty()).map_err(|e| {
        problem(
            dir,
            DirectoryProblem::Io {
                action: "open the directory",
                source: e.into(),
            },
        )
    })
}

/// Opens `name` in `dir` for reading, as what it was when `stat` was taken.
pub(super) fn open(
    dir: BorrowedFd<'_>,
    name: &[u8],
    path: &Path,
    stat: &Stat,
    more: OFlags,
) -> Result<OwnedFd, ImportError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = fs::openat(
        dir,
        OsStr::from_bytes(name),
        flags | OFlags::CLOEXEC | more,
        Mode::empty(),
    )
    .map_err(|e| failed(path, "open it", e))?;
    let now = self::stat(&fd, path)?;
    if identity_of(&now) != identity_of(stat) || now.st_mode != stat.st_mode {
        return Err(problem(path, DirectoryProblem::Changed));
    }
    Ok(fd)
}

/// What is known of an open file.
pub(super) fn stat(fd: impl AsFd, path: &Path) -> Result<Stat, ImportError> {
    fs::fstat(fd).map_err(|e| failed(path, "look at it", e))
}

/// What is known of `name` in `dir`.
pub(super) fn stat_at(dir: BorrowedFd<'_>, name: &[u8], path: &Path) -> Result<Stat, ImportError> {
    fs::statat(dir, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|e| failed(path, "look at it", e))
}

/// Fails if the file that `before` tells of was changed since.
pub(super) fn unchanged(fd: impl AsFd, before: &Stat, path: &Path) -> Result<(), ImportError> {
    let now = stat(fd, path)?;
    let key = |s: &Stat| {
        (
            s.st_size,
            s.st_mtime,
            s.st_mtime_nsec,
            s.st_ctime,
            s.st_ctime_nsec,
        )
    };
    if key(&now) != key(before) {
        return Err(problem(path, DirectoryProblem::Changed));
    }
    Ok(())
}

/// The names in `dir`, sorted.
pub(super) fn names(dir: BorrowedFd<'_>, path: &Path) -> Result<Vec<Vec<u8>>, ImportError> {
    let bad = |e| failed(path, "list the directory", e);
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(dir).map_err(bad)? {
        let entry = entry.map_err(bad)?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The target of the symbolic link `name` in `dir`.
pub(super) fn link_target(
    dir: BorrowedFd<'_>,
    name: &[u8],
    path: &Path,
) -> Result<Vec<u8>, ImportError> {
    fs::readlinkat(dir, OsStr::from_bytes(name), Vec::new())
        .map(|target| target.into_bytes())
        .map_err(|e| failed(path, "read the link", e))
}

/// Where the data of a file with holes is; `None` if there are none, or the host cannot tell.
pub(super) fn extents(fd: BorrowedFd<'_>, stat: &Stat) -> Option<Vec<Extent>> {
    let size = u64::try_from(stat.st_size).ok()?;
    if u64::try_from(stat.st_blocks).ok()? * 512 >= size {
        return None;
    }
    let mut extents = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match fs::seek(fd, SeekFrom::Data(at)) {
            Ok(start) => start.min(size),
            Err(Errno::NXIO) => break,
            Err(_) => return None,
        };
        let end = fs::seek(fd, SeekFrom::Hole(start)).ok()?.min(size);
        if end <= start {
            break;
        }
        extents.push(Extent {
            offset: start,
            len: end - start,
        });
        at = end;
    }
    (extents
        != [Extent {
            offset: 0,
            len: size,
        }])
    .then_some(extents)
}

/// Names and values.
pub(super) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// The attributes of an open file that belong to an image.
pub(super) fn xattrs(fd: BorrowedFd<'_>, path: &Path) -> Result<Xattrs, ImportError> {
    collect(
        path,
        &mut |list| fs::flistxattr(fd, list),
        &mut |name, value| fs::fgetxattr(fd, name, value),
    )
}

/// The same of a file that cannot be opened: a link, a device.
pub(super) fn xattrs_at(
    dir: BorrowedFd<'_>,
    name: &[u8],
    path: &Path,
) -> Result<Xattrs, ImportError> {
    let mut at = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    at.push(OsStr::from_bytes(name));
    collect(
        path,
        &mut |list| fs::llistxattr(&at, list),
        &mut |name, value| fs::lgetxattr(&at, name, value),
    )
}

type List<'a> = &'a mut dyn FnMut(&mut [u8]) -> Result<usize, Errno>;
type Get<'a> = &'a mut dyn FnMut(&[u8], &mut [u8]) -> Result<usize, Errno>;

fn collect(path: &Path, list: List<'_>, get: Get<'_>) -> Result<Xattrs, ImportError> {
    const MOST: usize = 65536; // Linux XATTR_LIST_MAX and XATTR_SIZE_MAX
    // Most files have no attributes: a small buffer is enough to learn that.
    let mut names = vec![0; 512];
    let listed = match list(&mut names) {
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(Errno::RANGE) => {
            names = vec![0; MOST];
            list(&mut names)
        }
        listed => listed,
    };
    let listed = listed.map_err(|e| failed(path, "list its attributes", e))?;
    names.truncate(listed);
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let mut all = Vec::new();
    let mut value = vec![0; MOST];
    for name in names.split(|b| *b == 0).filter(|name| wanted(name)) {
        let n = match get(name, &mut value) {
            Ok(n) => n,
            Err(Errno::NODATA) => return Err(problem(path, DirectoryProblem::Changed)),
            Err(e) => return Err(failed(path, "read its attributes", e)),
        };
        all.push((name.to_vec(), value.get(..n).unwrap_or_default().to_vec()));
    }
    all.sort_unstable();
    Ok(all)
}

/// Labels of the host's security modules and marks of its overlays are about the host.
fn wanted(name: &[u8]) -> bool {
    let overlay = name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
    let kinds: [&[u8]; 5] = [
        b"user.",
        b"trusted.",
        b"security.capability",
        b"system.posix_acl_access",
        b"system.posix_acl_default",
    ];
    !overlay && kinds.iter().any(|kind| name.starts_with(kind))
}
