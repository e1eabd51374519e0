//! Where contents are on the host, and how they are opened again.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::PathBuf,
};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags},
    io::Errno,
};

use super::scan::{Dir, Key};

/// Bytes of a path that are resolved at once, below `PATH_MAX`.
const PATH_PART: usize = 3800;

/// A regular file whose content a tree shows.
#[derive(Debug)]
pub(super) struct HostFile {
    /// Its directory in [`Files::dirs`].
    pub(super) dir: u32,
    pub(super) name: Box<[u8]>,
    pub(super) key: Key,
    pub(super) blocks: u64,
}

/// A directory that such a file is in, or one above.
#[derive(Debug)]
struct HostDir {
    layer: u32,
    /// `None` for a layer's top.
    parent: Option<u32>,
    name: Box<[u8]>,
}

/// The files whose contents a tree shows.
#[derive(Debug, Default)]
pub(super) struct Files {
    files: Vec<HostFile>,
    dirs: Vec<HostDir>,
    numbers: HashMap<(u32, u32), u32>,
}

impl Files {
    /// The number here of directory `at` of `layer`, whose directories are `scanned`.
    pub(super) fn dir(&mut self, layer: u32, at: u32, scanned: &[Dir]) -> u32 {
        // From the directory up to one that is known, then down again.
        let mut missing = Vec::new();
        let mut here = at;
        let mut known = loop {
            if let Some(number) = self.numbers.get(&(layer, here)) {
                break Some(*number);
            }
            missing.push(here);
            match scanned.get(here as usize) {
                Some(dir) if here != 0 => here = dir.parent,
                _ => break None,
            }
        };
        for here in missing.into_iter().rev() {
            let name = scanned.get(here as usize).map(|dir| dir.name.clone());
            let number = u32::try_from(self.dirs.len()).unwrap_or(u32::MAX);
            self.dirs.push(HostDir {
                layer,
                parent: known,
                name: name.unwrap_or_default(),
            });
            self.numbers.insert((layer, here), number);
            known = Some(number);
        }
        known.unwrap_or(0)
    }

    pub(super) fn add(&mut self, file: HostFile) -> u64 {
        self.files.push(file);
        self.files.len() as u64 - 1
    }

    /// Lets go of what only building needed.
    pub(super) fn finish(&mut self) {
        self.numbers = HashMap::new();
        self.files.shrink_to_fit();
        self.dirs.shrink_to_fit();
    }

    pub(super) fn get(&self, at: u64) -> Option<&HostFile> {
        self.files.get(usize::try_from(at).ok()?)
    }

    /// The layer of `file`, and its path from that layer's top.
    pub(super) fn path(&self, file: &HostFile) -> (u32, PathBuf) {
        let mut parts = vec![&file.name];
        let mut layer = 0;
        let mut at = Some(file.dir);
        while let Some(dir) = at.and_then(|at| self.dirs.get(at as usize)) {
            layer = dir.layer;
            at = dir.parent;
            if at.is_some() {
                parts.push(&dir.name);
            }
        }
        let parts = parts.iter().rev();
        (layer, parts.map(|part| OsStr::from_bytes(part)).collect())
    }
}

/// Opens the regular file at `path` below `root`, following no link on the way.
pub(super) fn open_beneath(root: &OwnedFd, path: &std::path::Path) -> io::Result<File> {
    let mut at: Option<OwnedFd> = None;
    let mut part = PathBuf::new();
    for name in path {
        if part.as_os_str().len() + name.len() > PATH_PART {
            let from = at.as_ref().map_or(root.as_fd(), OwnedFd::as_fd);
            at = Some(resolve(from, &part, OFlags::PATH | OFlags::DIRECTORY)?);
            part = PathBuf::new();
        }
        part.push(name);
    }
    let from = at.as_ref().map_or(root.as_fd(), OwnedFd::as_fd);
    // Should it be a FIFO by now, the open must not wait for its writer.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    // As overlayfs, without a change of the access time; what is not ours may not be spared.
    match resolve(from, &part, flags | OFlags::NOATIME) {
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => Ok(resolve(from, &part, flags)?.into()),
        other => Ok(other?.into()),
    }
}

fn resolve(from: BorrowedFd<'_>, path: &std::path::Path, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(from, path, flags, Mode::empty(), how) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            // A host without openat2.
            Err(Errno::NOSYS) => return Ok(step_by_step(from, path, flags)?),
            other => return Ok(other?),
        }
    }
}

/// The same name by name: no component may be a link, and none leads up.
fn step_by_step(
    from: BorrowedFd<'_>,
    path: &std::path::Path,
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    let mut names = path.iter().peekable();
    let mut at: Option<OwnedFd> = None;
    while let Some(name) = names.next() {
        let here = at.as_ref().map_or(from, OwnedFd::as_fd);
        let flags = match names.peek() {
            Some(_) => OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            None => flags,
        };
        at = Some(rustix::fs::openat(here, name, flags, Mode::empty())?);
    }
    at.ok_or(Errno::NOENT)
}
