//! The walk over a host directory, in an order that depends on names only.

use std::{
    collections::HashMap,
    ffi::OsStr,
    io::Write,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::fs::{FileType, OFlags, Stat};

use super::{
    host::{self, Identity, Xattrs},
    refused,
};
use crate::{
    Device, Time,
    archive::{ArchiveWriter, Kind},
    import::{DirectoryProblem, ImportError, ImportOptions, Owners, chunks::CHUNK},
    tree::{Extent, Meta},
};

type Out<'a, 'b> = &'a mut ArchiveWriter<&'b mut dyn Write>;

/// One walk.
pub(super) struct Walk<'a> {
    top: &'a Path,
    options: &'a ImportOptions,
    /// A directory to leave out: the store itself.
    except: Option<Identity>,
    /// First name of each inode that has several.
    links: HashMap<Identity, Vec<u8>>,
    buffer: Vec<u8>,
}

/// A name in an open directory.
struct Place<'a> {
    dir: BorrowedFd<'a>,
    name: &'a [u8],
    /// In the archive, without a final slash.
    path: Vec<u8>,
    /// On the host, for messages.
    shown: PathBuf,
}

impl<'a> Walk<'a> {
    pub(super) fn new(top: &'a Path, options: &'a ImportOptions, except: Option<Identity>) -> Self {
        Self {
            top,
            options,
            except,
            links: HashMap::new(),
            buffer: vec![0; CHUNK],
        }
    }

    /// Writes the directory that `top` is open at.
    pub(super) fn run(&mut self, top: impl AsFd, out: Out<'_, '_>) -> Result<(), ImportError> {
        let stat = host::stat(&top, self.top)?;
        self.directory(top.as_fd(), b"", &stat, out)
    }

    fn shown(&self, path: &[u8]) -> PathBuf {
        self.top.join(OsStr::from_bytes(path))
    }

    fn directory(
        &mut self,
        fd: BorrowedFd<'_>,
        path: &[u8],
        stat: &Stat,
        out: Out<'_, '_>,
    ) -> Result<(), ImportError> {
        let shown = self.shown(path);
        let meta = self.meta(stat, host::xattrs(fd, &shown)?);
        let name = match path {
            b"" => b"./".to_vec(),
            path => [path, b"/"].concat(),
        };
        out.entry(&name, &Kind::Directory, &meta).map_err(refused)?;
        for name in host::names(fd, &shown)? {
            self.options.cancel.check()?;
            let path = match path {
                b"" => name.clone(),
                path => [path, b"/", &name].concat(),
            };
            let place = Place {
                dir: fd,
                name: &name,
                shown: self.shown(&path),
                path,
            };
            self.entry(&place, out)?;
        }
        host::unchanged(fd, stat, &shown)
    }

    fn entry(&mut self, at: &Place<'_>, out: Out<'_, '_>) -> Result<(), ImportError> {
        let stat = host::stat_at(at.dir, at.name, &at.shown)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            if self.except == Some(host::identity_of(&stat)) {
                return Ok(());
            }
            let fd = host::open(at.dir, at.name, &at.shown, &stat, OFlags::DIRECTORY)?;
            return self.directory(fd.as_fd(), &at.path, &stat, out);
        }
        if kind == FileType::Socket {
            tracing::warn!(path = %at.shown.display(), "a socket has no form in an archive");
            return Ok(());
        }
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&host::identity_of(&stat)) {
                let meta = self.meta(&stat, Vec::new());
                let link = Kind::HardLink(first);
                return out.entry(&at.path, &link, &meta).map_err(refused);
            }
            self.links.insert(host::identity_of(&stat), at.path.clone());
        }
        if kind == FileType::RegularFile {
            return self.regular(at, &stat, out);
        }
        let meta = self.meta(&stat, host::xattrs_at(at.dir, at.name, &at.shown)?);
        let device = Device {
            major: rustix::fs::major(stat.st_rdev),
            minor: rustix::fs::minor(stat.st_rdev),
        };
        let target;
        let kind = match kind {
            FileType::Symlink => {
                target = host::link_target(at.dir, at.name, &at.shown)?;
                Kind::Symlink(&target)
            }
            FileType::CharacterDevice => Kind::CharDevice(device),
            FileType::BlockDevice => Kind::BlockDevice(device),
            _ => Kind::Fifo,
        };
        out.entry(&at.path, &kind, &meta).map_err(refused)
    }

    fn regular(
        &mut self,
        at: &Place<'_>,
        stat: &Stat,
        out: Out<'_, '_>,
    ) -> Result<(), ImportError> {
        let fd = host::open(at.dir, at.name, &at.shown, stat, OFlags::empty())?;
        let meta = self.meta(stat, host::xattrs(fd.as_fd(), &at.shown)?);
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let extents = host::extents(fd.as_fd(), stat);
        let kind = Kind::Regular {
            size,
            extents: extents.as_deref(),
        };
        out.entry(&at.path, &kind, &meta).map_err(refused)?;
        let whole = [Extent {
            offset: 0,
            len: size,
        }];
        for extent in extents.as_deref().unwrap_or(&whole) {
            self.copy(fd.as_fd(), *extent, &at.shown, out)?;
        }
        host::unchanged(fd, stat, &at.shown)
    }

    fn copy(
        &mut self,
        fd: BorrowedFd<'_>,
        extent: Extent,
        shown: &Path,
        out: Out<'_, '_>,
    ) -> Result<(), ImportError> {
        let (mut at, mut left) = (extent.offset, extent.len);
        while left > 0 {
            self.options.cancel.check()?;
            let most = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(self.buffer.len());
            let into = self.buffer.get_mut(..most).unwrap_or_default();
            let n = rustix::io::retry_on_intr(|| rustix::io::pread(fd, &mut *into, at))
                .map_err(|e| host::failed(shown, "read it", e))?;
            if n == 0 {
                return Err(host::problem(shown, DirectoryProblem::Changed));
            }
            out.content(into.get(..n).unwrap_or_default())
                .map_err(refused)?;
            at += n as u64;
            left -= n as u64;
        }
        Ok(())
    }

    fn meta(&self, stat: &Stat, xattrs: Xattrs) -> Meta {
        let (uid, gid) = match self.options.owners {
            Owners::Keep => (stat.st_uid, stat.st_gid),
            Owners::All { uid, gid } => (uid, gid),
        };
        Meta {
            perm: (stat.st_mode & 0o7777) as u16,
            uid,
            gid,
            mtime: Time {
                sec: stat.st_mtime,
                nsec: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            },
            xattrs,
            ..Meta::default()
        }
    }
}
