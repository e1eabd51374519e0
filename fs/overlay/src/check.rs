//! Whether the directories that were named can be the layers of one mount, before anything is
//! opened for writing: what is refused here leaves no trace.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{Access, AtFlags, CWD, StatxFlags};

use crate::{
    error::LayerError,
    request::{Request, UpperKind, UpperRequest},
};

pub(crate) const LOWER: &str = "lower";
pub(crate) const UPPER: &str = "upper";
pub(crate) const WORK: &str = "work";

/// What a journal is called in its upper directory, and how it begins (`fs/docs/JOURNAL.md`).
const JOURNAL: &str = "journal";
const JOURNAL_MAGIC: &[u8; 8] = b"PELJRNL\0";

/// The layers of a request, as paths that hold whatever the current directory becomes.
#[derive(Debug)]
pub(crate) struct Checked {
    /// Topmost first.
    pub(crate) lower: Vec<PathBuf>,
    pub(crate) upper: Option<CheckedUpper>,
}

/// The writable layer, likewise.
#[derive(Debug)]
pub(crate) struct CheckedUpper {
    pub(crate) kind: UpperKind,
    pub(crate) dir: PathBuf,
    pub(crate) work: Option<PathBuf>,
    /// The directory holds a journal already.
    pub(crate) has_journal: bool,
}

/// Checks the layers of `request`.
///
/// # Errors
/// [`LayerError`]; nothing was changed.
pub(crate) fn check(request: &Request) -> Result<Checked, LayerError> {
    let lower = request
        .lower
        .iter()
        .map(|dir| directory(LOWER, dir))
        .collect::<Result<Vec<_>, _>>()?;
    let upper = match &request.upper {
        Some(upper) => Some(check_upper(upper, &lower, request)?),
        None => None,
    };
    Ok(Checked { lower, upper })
}

fn check_upper(
    upper: &UpperRequest,
    lower: &[PathBuf],
    request: &Request,
) -> Result<CheckedUpper, LayerError> {
    let dir = directory(UPPER, &upper.dir)?;
    let work = upper
        .work
        .as_ref()
        .map(|work| directory(WORK, work))
        .transpose()?;
    for below in lower {
        apart((LOWER, below), (UPPER, &dir))?;
        if let Some(work) = &work {
            apart((LOWER, below), (WORK, work))?;
        }
    }
    if let Some(work) = &work {
        apart((WORK, work), (UPPER, &dir))?;
        apart((UPPER, &dir), (WORK, work))?;
    }
    let has_journal = check_kind(upper.kind, &dir)?;
    if !request.mount.read_only {
        writable(UPPER, &dir)?;
        if let Some(work) = work.as_ref().filter(|_| upper.kind == UpperKind::Directory) {
            writable(WORK, work)?;
            if place(work)? != place(&dir)? {
                return Err(LayerError::OtherFileSystem {
                    work: work.clone(),
                    upper: dir,
                });
            }
        }
    }
    // A journal finds its files by their names.
    if upper.kind == UpperKind::Journal
        && let Ok(mountpoint) = request.mountpoint.canonicalize()
        && dir.starts_with(&mountpoint)
    {
        return Err(LayerError::Covered {
            mountpoint,
            upper: dir,
        });
    }
    Ok(CheckedUpper {
        kind: upper.kind,
        dir,
        work,
        has_journal,
    })
}

fn directory(role: &'static str, path: &Path) -> Result<PathBuf, LayerError> {
    let fail = |source: io::Error| match source.raw_os_error() {
        Some(libc_errno::ENOENT) => LayerError::Missing {
            role,
            path: path.to_owned(),
        },
        Some(libc_errno::ENOTDIR) => LayerError::NotDirectory {
            role,
            path: path.to_owned(),
        },
        _ => LayerError::Open {
            role,
            path: path.to_owned(),
            source,
        },
    };
    let whole = path.canonicalize().map_err(fail)?;
    if !whole.metadata().map_err(fail)?.is_dir() {
        return Err(LayerError::NotDirectory {
            role,
            path: path.to_owned(),
        });
    }
    Ok(whole)
}

/// The errors that are told apart, by number: their kinds are not all stable names.
mod libc_errno {
    use rustix::io::Errno;

    pub(super) const ENOENT: i32 = Errno::NOENT.raw_os_error();
    pub(super) const ENOTDIR: i32 = Errno::NOTDIR.raw_os_error();
}

/// `one` is neither `other` nor inside it.
fn apart(
    (role, one): (&'static str, &Path),
    (other_role, other): (&'static str, &Path),
) -> Result<(), LayerError> {
    if one == other {
        return Err(LayerError::Same {
            role,
            other_role,
            path: one.to_owned(),
        });
    }
    if one.starts_with(other) {
        return Err(LayerError::Inside {
            role,
            path: one.to_owned(),
            other_role,
            other: other.to_owned(),
        });
    }
    Ok(())
}

fn writable(role: &'static str, dir: &Path) -> Result<(), LayerError> {
    let wanted = Access::WRITE_OK | Access::EXEC_OK;
    match rustix::fs::accessat(CWD, dir, wanted, AtFlags::EACCESS) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::ROFS) => Err(LayerError::ReadOnly {
            role,
            path: dir.to_owned(),
        }),
        Err(e) => Err(LayerError::Denied {
            role,
            path: dir.to_owned(),
            source: e.into(),
        }),
    }
}

/// Names can be moved between two directories of the same device and mount only.
fn place(dir: &Path) -> Result<(u64, Option<u64>), LayerError> {
    let fail = |source: io::Error| LayerError::Open {
        role: UPPER,
        path: dir.to_owned(),
        source,
    };
    let device = dir.metadata().map_err(fail)?.dev();
    // Linux 5.8; without it a rename will tell.
    let mount = rustix::fs::statx(CWD, dir, AtFlags::empty(), StatxFlags::MNT_ID)
        .ok()
        .filter(|found| found.stx_mask & StatxFlags::MNT_ID.bits() != 0)
        .map(|found| found.stx_mnt_id);
    Ok((device, mount))
}

/// Whether there is a journal, which must be so for the one kind unless the directory is empty, and
/// must not be so for the other.
fn check_kind(kind: UpperKind, dir: &Path) -> Result<bool, LayerError> {
    let has_journal = is_journal(&dir.join(JOURNAL));
    match (kind, has_journal) {
        (UpperKind::Directory, true) => Err(LayerError::OtherKind {
            path: dir.to_owned(),
            found: "journal",
        }),
        (UpperKind::Journal, false) if holds_anything(dir)? => Err(LayerError::OtherKind {
            path: dir.to_owned(),
            found: "dir",
        }),
        _ => Ok(has_journal),
    }
}

fn is_journal(path: &Path) -> bool {
    let mut start = [0; JOURNAL_MAGIC.len()];
    path.symlink_metadata().is_ok_and(|m| m.is_file())
        && File::open(path)
            .and_then(|mut file| file.read_exact(&mut start))
            .is_ok()
        && &start == JOURNAL_MAGIC
}

/// What an interrupted start of a journal leaves counts for nothing.
fn holds_anything(dir: &Path) -> Result<bool, LayerError> {
    let fail = |source: io::Error| LayerError::Open {
        role: UPPER,
        path: dir.to_owned(),
        source,
    };
    for entry in dir.read_dir().map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        if !["lock", "data", "lost+found"].iter().any(|n| name == *n) {
            return Ok(true);
        }
    }
    Ok(false)
}
