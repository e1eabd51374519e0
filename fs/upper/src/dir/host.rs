//! The upper's and the work directory on the host: every call goes to a name in a directory that is
//! open already, and follows no link.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use pellicle_layer::host::marks::{
    Marks, NUMBER, OVERRIDE_STAT, Stat, TRUSTED_PREFIX, USER_PREFIX,
};
use pellicle_store::{Device, FileKind, Ino, Time};
use rustix::{
    fs::{
        AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, Uid, XattrFlags,
    },
    io::Errno,
};

use crate::{Node, UpperError};

/// Opened directories.
pub(super) const DIRECTORY: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// A name in an open directory.
#[derive(Clone, Debug)]
pub(super) struct At {
    pub(super) dir: Arc<OwnedFd>,
    pub(super) name: Box<[u8]>,
}

/// What the host lets this process keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rights {
    /// Marks are `trusted.overlay.`, else `user.overlay.`.
    pub(super) trusted: bool,
    /// Owners, modes and devices are the host's own, else in `user.containers.override_stat`.
    pub(super) owners: bool,
}

impl Rights {
    pub(super) fn mark(self, name: &[u8]) -> Vec<u8> {
        let prefix = if self.trusted {
            TRUSTED_PREFIX
        } else {
            USER_PREFIX
        };
        [prefix, name].concat()
    }

    fn marks(self) -> Marks {
        if self.trusted {
            Marks::Trusted
        } else {
            Marks::User
        }
    }

    /// The name that an attribute of the merged tree is stored under.
    pub(super) fn stored(self, name: &[u8]) -> Vec<u8> {
        self.marks().escaped(name)
    }
}

pub(super) fn error(doing: &'static str, path: PathBuf, error: Errno) -> UpperError {
    UpperError::Io {
        doing,
        path,
        source: io::Error::from(error),
    }
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

impl At {
    pub(super) fn new(dir: &Arc<OwnedFd>, name: &[u8]) -> Self {
        Self {
            dir: Arc::clone(dir),
            name: name.into(),
        }
    }

    /// For messages.
    pub(super) fn shown(&self) -> PathBuf {
        let link = format!("/proc/self/fd/{}", self.dir.as_raw_fd());
        let dir = std::fs::read_link(link).unwrap_or_default();
        dir.join(OsStr::from_bytes(&self.name))
    }

    fn fail(&self, doing: &'static str) -> impl FnOnce(Errno) -> UpperError + '_ {
        move |e| error(doing, self.shown(), e)
    }

    /// Extended attributes have no call that takes a directory and a name.
    fn through_proc(&self) -> Vec<u8> {
        let start = format!("/proc/self/fd/{}/", self.dir.as_raw_fd());
        [start.as_bytes(), &self.name].concat()
    }

    pub(super) fn open(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = |flags| {
            retry(|| rustix::fs::openat(&self.dir, &*self.name, flags, Mode::RUSR | Mode::WUSR))
        };
        // Reading through the mount changes no access time; what is not ours may not be spared.
        match open(flags | OFlags::NOATIME) {
            Err(Errno::PERM) if !flags.contains(OFlags::PATH) => open(flags),
            other => other,
        }
    }

    /// Opens a regular file for reading and writing.
    pub(super) fn open_file(&self) -> Result<File, Errno> {
        self.open(OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY)
            .map(File::from)
    }

    pub(super) fn create(&self) -> Result<File, UpperError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let file = self.open(flags).map_err(self.fail("create"))?;
        Ok(file.into())
    }

    pub(super) fn mkdir(&self) -> Result<(), UpperError> {
        rustix::fs::mkdirat(&self.dir, &*self.name, Mode::RWXU).map_err(self.fail("create"))
    }

    pub(super) fn symlink(&self, target: &[u8]) -> Result<(), UpperError> {
        rustix::fs::symlinkat(target, &self.dir, &*self.name).map_err(self.fail("create"))
    }

    pub(super) fn node(&self, kind: FileKind, rdev: Device) -> Result<(), UpperError> {
        let kind = match kind {
            FileKind::CharDevice => FileType::CharacterDevice,
            FileKind::BlockDevice => FileType::BlockDevice,
            FileKind::Fifo => FileType::Fifo,
            _ => FileType::Socket,
        };
        let mode = Mode::RUSR | Mode::WUSR;
        let rdev = rustix::fs::makedev(rdev.major, rdev.minor);
        rustix::fs::mknodat(&self.dir, &*self.name, kind, mode, rdev).map_err(self.fail("create"))
    }

    pub(super) fn whiteout(&self) -> Result<(), UpperError> {
        let kind = FileType::CharacterDevice;
        rustix::fs::mknodat(&self.dir, &*self.name, kind, Mode::empty(), 0)
            .map_err(self.fail("create the whiteout"))
    }

    pub(super) fn link_to(&self, to: &At) -> Result<(), UpperError> {
        let flags = AtFlags::empty();
        rustix::fs::linkat(&self.dir, &*self.name, &to.dir, &*to.name, flags)
            .map_err(to.fail("create"))
    }

    pub(super) fn rename_to(&self, to: &At, flags: RenameFlags) -> Result<(), UpperError> {
        rustix::fs::renameat_with(&self.dir, &*self.name, &to.dir, &*to.name, flags)
            .map_err(to.fail("rename to"))
    }

    pub(super) fn unlink(&self) -> Result<(), UpperError> {
        match rustix::fs::unlinkat(&self.dir, &*self.name, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            other => other.map_err(self.fail("remove")),
        }
    }

    /// Removes whatever is there, with all that is in it.
    pub(super) fn remove_all(&self) -> Result<(), UpperError> {
        match rustix::fs::unlinkat(&self.dir, &*self.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(e) => return Err(error("remove", self.shown(), e)),
        }
        self.empty()?;
        rustix::fs::unlinkat(&self.dir, &*self.name, AtFlags::REMOVEDIR)
            .map_err(self.fail("remove"))
    }

    /// Removes all that is in this directory.
    pub(super) fn empty(&self) -> Result<(), UpperError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let dir = Arc::new(self.open(flags).map_err(self.fail("open"))?);
        let names = rustix::fs::Dir::read_from(&*dir).map_err(self.fail("list"))?;
        for entry in names {
            let entry = entry.map_err(self.fail("list"))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                At::new(&dir, name).remove_all()?;
            }
        }
        Ok(())
    }

    pub(super) fn set_xattr(&self, name: &[u8], value: &[u8]) -> Result<(), Errno> {
        rustix::fs::lsetxattr(self.through_proc(), name, value, XattrFlags::empty())
    }

    /// The value of a short attribute.
    pub(super) fn get_xattr(&self, name: &[u8]) -> Option<Vec<u8>> {
        let mut value = vec![0; 256];
        let n = rustix::fs::lgetxattr(self.through_proc(), name, value.as_mut_slice()).ok()?;
        value.truncate(n);
        Some(value)
    }

    /// Says for a top directory, and so for all below, that attributes are in
    /// `user.containers.override_stat`.
    pub(super) fn put_top_override(&self) -> Result<(), UpperError> {
        let stat = rustix::fs::statat(&self.dir, &*self.name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(self.fail("stat"))?;
        let said = Stat {
            uid: stat.st_uid,
            gid: stat.st_gid,
            perm: (stat.st_mode & 0o7777) as u16,
            kind: Some(FileKind::Directory),
            rdev: Device::default(),
        };
        self.put_xattr(OVERRIDE_STAT, said.to_text().as_bytes())
    }

    pub(super) fn put_xattr(&self, name: &[u8], value: &[u8]) -> Result<(), UpperError> {
        self.set_xattr(name, value)
            .map_err(self.fail("set an attribute of"))
    }

    pub(super) fn remove_xattr(&self, name: &[u8]) -> Result<(), UpperError> {
        match rustix::fs::lremovexattr(self.through_proc(), name) {
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM) => Ok(()),
            other => other.map_err(self.fail("remove an attribute of")),
        }
    }

    /// Gives `to` every extended attribute that is here.
    pub(super) fn copy_xattrs(&self, rights: Rights, to: &At) -> Result<(), UpperError> {
        const MOST: usize = 65536; // Linux XATTR_LIST_MAX and XATTR_SIZE_MAX
        let mut names = vec![0; MOST];
        let n = rustix::fs::llistxattr(self.through_proc(), names.as_mut_slice())
            .map_err(self.fail("list the attributes of"))?;
        names.truncate(n);
        let mut value = vec![0; MOST];
        // The copy has content of its own.
        let not = [rights.mark(b"metacopy"), rights.mark(b"redirect")];
        let all = names.split(|b| *b == 0).filter(|name| !name.is_empty());
        for name in all.filter(|name| !not.iter().any(|not| **not == **name)) {
            let n = rustix::fs::lgetxattr(self.through_proc(), name, value.as_mut_slice())
                .map_err(self.fail("read an attribute of"))?;
            to.put_xattr(name, value.get(..n).unwrap_or_default())?;
        }
        Ok(())
    }

    /// Notes the inode's number. Links and devices cannot hold a `user.` attribute: their number is
    /// of this mount only.
    pub(super) fn set_number(&self, rights: Rights, number: &[u8]) -> Result<(), UpperError> {
        match self.set_xattr(&rights.mark(NUMBER), number) {
            Err(Errno::PERM | Errno::OPNOTSUPP) if !rights.trusted => Ok(()),
            other => other.map_err(self.fail("set an attribute of")),
        }
    }

    /// Gives the host file the attributes of `node`; `was` is what it has now, if that is known.
    pub(super) fn set_attrs(
        &self,
        rights: Rights,
        was: Option<&Node>,
        node: &Node,
    ) -> Result<(), UpperError> {
        let owner = was.is_none_or(|w| (w.uid, w.gid) != (node.uid, node.gid));
        let perm = was.is_none_or(|w| w.perm != node.perm);
        let is_link = node.kind == FileKind::Symlink;
        if rights.owners {
            if owner {
                let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                rustix::fs::chownat(&self.dir, &*self.name, Some(uid), Some(gid), flags)
                    .map_err(self.fail("change the owner of"))?;
            }
            // A change of owner takes set-id bits away.
            if (perm || owner) && !is_link {
                self.chmod(node.perm)?;
            }
        } else if (owner || perm) && !is_link {
            let said = Stat {
                uid: node.uid,
                gid: node.gid,
                perm: node.perm,
                kind: Some(node.kind),
                rdev: node.rdev,
            };
            self.put_xattr(OVERRIDE_STAT, said.to_text().as_bytes())?;
            // This process must get at it whatever the mode says.
            let least = if node.kind == FileKind::Directory {
                0o700
            } else {
                0o600
            };
            self.chmod((node.perm & 0o777) | least)?;
        }
        Ok(())
    }

    fn chmod(&self, perm: u16) -> Result<(), UpperError> {
        let mode = Mode::from_raw_mode(perm.into());
        rustix::fs::chmodat(&self.dir, &*self.name, mode, AtFlags::empty())
            .map_err(self.fail("change the mode of"))
    }

    pub(super) fn set_times(&self, node: &Node) -> Result<(), UpperError> {
        let time = |t: Time| Timespec {
            tv_sec: t.sec,
            tv_nsec: t.nsec.into(),
        };
        let times = Timestamps {
            last_access: time(node.atime),
            last_modification: time(node.mtime),
        };
        rustix::fs::utimensat(&self.dir, &*self.name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(self.fail("set the times of"))
    }
}

/// Names in the work directory.
pub(super) fn work_name(ino: Ino, what: &str) -> Vec<u8> {
    format!("#{:x}{what}", ino.0).into_bytes()
}

pub(super) fn open_dir(path: &Path) -> Result<OwnedFd, UpperError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|e| error("open", path.to_owned(), e))
}
