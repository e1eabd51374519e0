//! One name of a directory, looked at: its kind, its attributes, and what its marks say.

use std::{
    ffi::CStr,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use pellicle_store::{Device, FileKind, Meta, Time};
use rustix::{
    fs::{AtFlags, CWD, OFlags, Statx, StatxAttributes, StatxFlags},
    io::Errno,
};

use super::{Dir, Entry, Key, Other, open_quietly, walk::Reader};
use crate::host::marks::{DEVICE_0, Marks, Meaning, NUMBER, Stat};

/// What the marks of a file say.
#[derive(Default)]
pub(super) struct Found {
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    opaque: bool,
    whiteout: bool,
    device_0: bool,
    metacopy: bool,
    redirect: Option<Box<[u8]>>,
    number: Option<Box<[u8]>>,
    stat: Option<Stat>,
}

/// What a name was seen to lead to.
pub(super) enum Seen {
    Entry(Entry),
    Dir(Box<Dir>),
}

impl Seen {
    /// Whether the dir upper made it, who writes no `.wh.` files: such a name is its user's own.
    pub(super) fn is_numbered(&self) -> bool {
        match self {
            Seen::Entry(Entry::Other(other)) => other.number.is_some(),
            Seen::Dir(dir) => dir.number.is_some(),
            Seen::Entry(_) => false,
        }
    }
}

impl Reader<'_> {
    /// What `name` in directory `fd` is; `place` is as [`Reader::enter`] gave it. `None` if it is
    /// gone by now.
    pub(super) fn entry(
        &mut self,
        place: &[u8],
        fd: &OwnedFd,
        name: &CStr,
    ) -> Result<Option<Seen>, (&'static str, Errno)> {
        let stat = match rustix::fs::statx(fd, name, AtFlags::SYMLINK_NOFOLLOW, wanted()) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(("stat", e)),
        };
        let Some(mut kind) = FileKind::from_mode(u32::from(stat.stx_mode)) else {
            return Err(("tell the kind of", Errno::IO));
        };
        if kind == FileKind::CharDevice && stat.stx_rdev_major == 0 && stat.stx_rdev_minor == 0 {
            return Ok(Some(Seen::Entry(Entry::Whiteout)));
        }
        let may_have = match kind {
            FileKind::Regular | FileKind::Directory => true,
            _ => self.shared.privileged,
        };
        let mut found = Found::default();
        if may_have && self.without != Some((stat.stx_dev_major, stat.stx_dev_minor)) {
            let path = [place, name.to_bytes()].concat();
            match self.attributes(&path) {
                Ok(some) => found = some,
                Err(Errno::OPNOTSUPP) => {
                    self.without = Some((stat.stx_dev_major, stat.stx_dev_minor));
                }
                Err(Errno::NOENT | Errno::NODATA) => return Ok(None),
                // Of a file that may not be read, only the names' list is told.
                Err(Errno::ACCESS) => {}
                Err(e) => return Err(("read attributes of", e)),
            }
        }
        if kind == FileKind::Directory {
            let mut dir = Dir::default();
            fill_dir(&mut dir, &stat, found);
            dir.closed = stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
            return Ok(Some(Seen::Dir(Box::new(dir))));
        }
        if found.whiteout && kind == FileKind::Regular && stat.stx_size == 0 {
            return Ok(Some(Seen::Entry(Entry::Whiteout)));
        }
        let mut rdev = Device {
            major: stat.stx_rdev_major,
            minor: stat.stx_rdev_minor,
        };
        let mut meta = meta_of(&stat, &mut found);
        let mut target = Vec::new();
        if kind == FileKind::Symlink {
            target = rustix::fs::readlinkat(fd, name, Vec::new())
                .map_err(|e| ("read the link", e))?
                .into_bytes();
        }
        if found.device_0 && kind == FileKind::Regular && stat.stx_size == 0 {
            kind = FileKind::CharDevice;
        }
        // What the host could not store is a plain file there.
        if let Some(said) = found.stat.filter(|_| kind == FileKind::Regular)
            && let Some(other) = said.kind.filter(|k| *k != FileKind::Directory)
        {
            kind = other;
            rdev = said.rdev;
            if kind == FileKind::Symlink {
                let path = [place, name.to_bytes()].concat();
                target = read_small(&path).map_err(|e| ("read", e))?;
                meta.perm = 0o777;
            }
        }
        Ok(Some(Seen::Entry(Entry::Other(Box::new(Other {
            meta,
            kind,
            key: key_of(&stat),
            nlink: stat.stx_nlink,
            size: match kind {
                FileKind::Regular => stat.stx_size,
                _ => 0,
            },
            blocks: stat.stx_blocks,
            rdev,
            target: target.into(),
            metacopy: found.metacopy,
            redirect: found.redirect,
            number: found.number,
        })))))
    }

    pub(super) fn attributes_of_dir(&mut self, fd: &OwnedFd) -> Result<Found, Errno> {
        let path = format!("/proc/self/fd/{}/.", fd.as_raw_fd());
        match self.attributes(path.as_bytes()) {
            Err(Errno::OPNOTSUPP | Errno::ACCESS) => Ok(Found::default()),
            other => other,
        }
    }

    /// The attributes of what is at `path`, marks told apart.
    fn attributes(&mut self, path: &[u8]) -> Result<Found, Errno> {
        let mut found = Found::default();
        let n = rustix::fs::llistxattr(path, self.names.as_mut_slice())?;
        if n == 0 {
            return Ok(found);
        }
        let marks = self.shared.options.marks;
        let names = self.names.get(..n).unwrap_or_default();
        for name in names.split(|b| *b == 0).filter(|name| !name.is_empty()) {
            let meaning = marks.meaning(name, self.shared.overrides);
            if meaning == Meaning::Hidden {
                continue;
            }
            let n = match rustix::fs::lgetxattr(path, name, self.value.as_mut_slice()) {
                Ok(n) => n,
                // Taken away since, not for this process to read, or (capabilities) not valid.
                Err(Errno::NODATA | Errno::ACCESS | Errno::PERM | Errno::INVAL) => continue,
                Err(e) => return Err(e),
            };
            let value = self.value.get(..n).unwrap_or_default();
            match meaning {
                Meaning::Hidden => {}
                Meaning::Own(shown) => found.xattrs.push((shown.to_vec(), value.to_vec())),
                Meaning::Override => found.stat = Stat::parse(value).or(found.stat),
                Meaning::Mark(b"opaque") => found.opaque |= value == b"y",
                Meaning::Mark(b"whiteout") => found.whiteout = true,
                Meaning::Mark(b"metacopy") => found.metacopy = true,
                Meaning::Mark(DEVICE_0) => found.device_0 = true,
                Meaning::Mark(b"redirect") => found.redirect = Some(value.into()),
                Meaning::Mark(NUMBER) => found.number = Some(value.into()),
                Meaning::Mark(_) => {
                    if let Some(shown) = Marks::unescaped(name) {
                        found.xattrs.push((shown, value.to_vec()));
                    }
                }
            }
        }
        // One name may be stored plainly and behind an escape.
        found.xattrs.sort_unstable();
        found.xattrs.dedup_by(|b, a| a.0 == b.0);
        Ok(found)
    }
}

/// What is asked of each file.
pub(super) fn wanted() -> StatxFlags {
    StatxFlags::BASIC_STATS
}

fn key_of(stat: &Statx) -> Key {
    Key {
        dev: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
        ino: stat.stx_ino,
    }
}

/// Puts down what is known of a directory from outside.
pub(super) fn fill_dir(dir: &mut Dir, stat: &Statx, mut found: Found) {
    dir.meta = meta_of(stat, &mut found);
    dir.key = key_of(stat);
    dir.opaque = found.opaque;
    dir.redirect = found.redirect;
    dir.number = found.number;
}

fn meta_of(stat: &Statx, found: &mut Found) -> Meta {
    let time = |t: rustix::fs::StatxTimestamp| Time {
        sec: t.tv_sec,
        nsec: t.tv_nsec,
    };
    let mut meta = Meta {
        perm: stat.stx_mode & 0o7777,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        atime: time(stat.stx_atime),
        mtime: time(stat.stx_mtime),
        ctime: time(stat.stx_ctime),
        xattrs: std::mem::take(&mut found.xattrs),
    };
    if let Some(said) = &found.stat {
        meta.uid = said.uid;
        meta.gid = said.gid;
        meta.perm = said.perm;
    }
    meta
}

/// The target of a link that is stored as a file.
fn read_small(path: &[u8]) -> Result<Vec<u8>, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = open_quietly(CWD, path, flags)?;
    let mut target = vec![0; 4096];
    let n = rustix::io::pread(fd.as_fd(), target.as_mut_slice(), 0)?;
    target.truncate(n);
    Ok(target)
}
