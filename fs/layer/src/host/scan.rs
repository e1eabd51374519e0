//! One walk over a host directory: all that there is to know of it but contents.
//!
//! Directories are read by a few threads of this scan's own, each directory once: one `getdents64`
//! per buffer, one `statx` per name, one `llistxattr` where attributes can be. Nothing is followed:
//! neither symbolic links nor mounts, and every open is relative to a directory that is open already.
//! Each thread has a working directory of its own, so that `llistxattr` needs no path but a name;
//! where the host forbids that, names go through `/proc/self/fd`.

use std::{
    ffi::CStr,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Condvar, Mutex};
use pellicle_store::{Device, FileKind, Meta, Time};
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, RawDir, Statx, StatxAttributes, StatxFlags},
    io::Errno,
};

use super::{
    HostError, HostOptions,
    marks::{DEVICE_0, Marks, Meaning, NUMBER, OVERRIDE_STAT, OverrideStat, Stat},
};

/// Linux `XATTR_LIST_MAX` and `XATTR_SIZE_MAX`.
const XATTR_MAX: usize = 65536;
/// Bytes of names asked for at once.
const DENTS: usize = 64 << 10;
/// Threads of one scan at most; more only wait for each other.
const THREADS_MAX: usize = 8;

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

/// A directory still to be read.
struct Task {
    at: u32,
    /// Where it is to be opened; `None` for the top, which is open.
    from: Option<(Arc<OwnedFd>, Box<CStr>)>,
}

#[derive(Default)]
struct State {
    dirs: Vec<Dir>,
    todo: Vec<Task>,
    busy: usize,
    failed: Option<HostError>,
}

struct Shared<'a> {
    root: Arc<OwnedFd>,
    path: &'a Path,
    options: &'a HostOptions,
    /// Whether `user.containers.override_*` counts in this layer.
    overrides: bool,
    /// Whether links and devices may have attributes that this process sees.
    privileged: bool,
    state: Mutex<State>,
    more: Condvar,
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
    let shared = Shared {
        root: Arc::new(root),
        path,
        options,
        overrides,
        privileged: rustix::process::geteuid().is_root(),
        state: Mutex::default(),
        more: Condvar::new(),
    };
    {
        let mut state = shared.state.lock();
        state.dirs.push(Dir::default());
        state.todo.push(Task { at: 0, from: None });
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, THREADS_MAX) {
            scope.spawn(|| Reader::new(&shared).work());
        }
    });
    let state = shared.state.into_inner();
    if let Some(error) = state.failed {
        return Err(error);
    }
    let root = Arc::try_unwrap(shared.root).or_else(|held| {
        held.try_clone().map_err(|source| HostError::Io {
            doing: "keep open",
            path: path.into(),
            source,
        })
    })?;
    Ok(Scan {
        root,
        path: path.into(),
        dirs: state.dirs,
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

/// What the marks of a file say.
#[derive(Default)]
struct Found {
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    opaque: bool,
    whiteout: bool,
    device_0: bool,
    metacopy: bool,
    redirect: Option<Box<[u8]>>,
    number: Option<Box<[u8]>>,
    stat: Option<Stat>,
}

/// One thread of a scan.
struct Reader<'a> {
    shared: &'a Shared<'a>,
    /// The working directory is this thread's own.
    own_cwd: bool,
    dents: Vec<MaybeUninit<u8>>,
    names: Vec<u8>,
    value: Vec<u8>,
    /// A file system that has no attributes at all.
    without: Option<(u32, u32)>,
}

impl<'a> Reader<'a> {
    fn new(shared: &'a Shared<'a>) -> Self {
        Self {
            shared,
            own_cwd: nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).is_ok(),
            dents: vec![MaybeUninit::uninit(); DENTS],
            names: vec![0; XATTR_MAX],
            value: vec![0; XATTR_MAX],
            without: None,
        }
    }

    fn work(&mut self) {
        while let Some(task) = self.next() {
            let done = self.directory(&task);
            let mut state = self.shared.state.lock();
            state.busy -= 1;
            if let Err(error) = done {
                state.failed.get_or_insert(error);
            }
            self.shared.more.notify_all();
        }
    }

    fn next(&self) -> Option<Task> {
        let mut state = self.shared.state.lock();
        loop {
            if state.failed.is_some() {
                return None;
            }
            if let Some(task) = state.todo.pop() {
                state.busy += 1;
                return Some(task);
            }
            if state.busy == 0 {
                return None;
            }
            self.shared.more.wait(&mut state);
        }
    }

    /// Where directory `at` is, for messages.
    fn path_of(&self, mut at: u32) -> PathBuf {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
        let state = self.shared.state.lock();
        let mut parts = Vec::new();
        while let Some(dir) = state.dirs.get(at as usize).filter(|_| at != 0) {
            parts.push(dir.name.clone());
            at = dir.parent;
        }
        let mut path = self.shared.path.to_owned();
        for part in parts.iter().rev() {
            path.push(OsStr::from_bytes(part));
        }
        path
    }

    fn directory(&mut self, task: &Task) -> Result<(), HostError> {
        let at = task.at;
        let fail = |me: &Self, doing, error| failed(&me.path_of(at), doing, error);
        let fd = match &task.from {
            None => Arc::clone(&self.shared.root),
            Some((parent, name)) => match open_dir(parent, &**name, OFlags::NOFOLLOW) {
                Ok(fd) => Arc::new(fd),
                Err(Errno::ACCESS) => {
                    self.keep(at, |dir| dir.closed = true);
                    return Ok(());
                }
                Err(e) => return Err(fail(self, "open", e)),
            },
        };
        if task.from.is_none() {
            let stat = rustix::fs::statx(&*fd, c"", AtFlags::EMPTY_PATH, wanted())
                .map_err(|e| fail(self, "stat", e))?;
            let found = self
                .attributes_of_dir(&fd)
                .map_err(|e| fail(self, "read attributes of", e))?;
            self.keep(at, |dir| fill_dir(dir, &stat, found));
        }
        let place = self.enter(&fd).map_err(|e| fail(self, "enter", e))?;
        let mut entries: Vec<(Box<[u8]>, Entry)> = Vec::new();
        let mut subdirs: Vec<(Dir, Box<CStr>)> = Vec::new();
        let mut marks = WhFiles::default();
        let mut dents = std::mem::take(&mut self.dents);
        let mut names = RawDir::new(&*fd, &mut dents);
        let read = loop {
            let entry = match names.next() {
                None => break Ok(()),
                Some(Err(e)) => break Err(fail(self, "list", e)),
                Some(Ok(entry)) => entry,
            };
            let name = entry.file_name();
            let bytes = name.to_bytes();
            if bytes == b"." || bytes == b".." {
                continue;
            }
            let seen = self.entry(&place, &fd, name);
            if self.shared.options.wh_files
                && let Some(hidden) = bytes.strip_prefix(b".wh.")
                && !matches!(&seen, Ok(Some(seen)) if seen.is_numbered())
            {
                marks.note(hidden, &mut entries);
                continue;
            }
            match seen {
                Ok(Some(Seen::Entry(found))) => entries.push((bytes.into(), found)),
                Ok(Some(Seen::Dir(dir))) => {
                    let mut dir = *dir;
                    dir.parent = at;
                    dir.name = bytes.into();
                    subdirs.push((dir, name.into()));
                }
                // Removed since it was listed.
                Ok(None) => {}
                Err((doing, e)) => {
                    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
                    let path = self.path_of(at).join(OsStr::from_bytes(bytes));
                    break Err(failed(&path, doing, e));
                }
            }
        };
        self.dents = dents;
        read?;
        self.publish(at, &fd, entries, subdirs, marks);
        Ok(())
    }

    /// Puts down what was read, and what is to be read next.
    fn publish(
        &self,
        at: u32,
        fd: &Arc<OwnedFd>,
        mut entries: Vec<(Box<[u8]>, Entry)>,
        subdirs: Vec<(Dir, Box<CStr>)>,
        marks: WhFiles,
    ) {
        let mut state = self.shared.state.lock();
        for (dir, name) in subdirs {
            let number = u32::try_from(state.dirs.len()).unwrap_or(u32::MAX);
            entries.push((dir.name.clone(), Entry::Dir(number)));
            // What is mounted there is another tree.
            if !dir.closed {
                let from = Some((Arc::clone(fd), name));
                state.todo.push(Task { at: number, from });
            }
            let mut dir = dir;
            dir.closed = false;
            state.dirs.push(dir);
        }
        // A whiteout of a name that is there hides only what is below: the name itself counts.
        let is_whiteout = |entry: &Entry| matches!(entry, Entry::Whiteout);
        entries.sort_by(|a, b| {
            let key = is_whiteout(&a.1).cmp(&is_whiteout(&b.1));
            a.0.cmp(&b.0).then(key)
        });
        entries.dedup_by(|b, a| a.0 == b.0);
        if let Some(dir) = state.dirs.get_mut(at as usize) {
            dir.entries = entries;
            dir.opaque |= marks.opaque;
            dir.wh_files = marks.any;
        }
    }

    fn keep(&self, at: u32, change: impl FnOnce(&mut Dir)) {
        if let Some(dir) = self.shared.state.lock().dirs.get_mut(at as usize) {
            change(dir);
        }
    }

    /// Makes names in `fd` reachable for `llistxattr`: gives what to put before them.
    fn enter(&self, fd: &OwnedFd) -> Result<Vec<u8>, Errno> {
        if self.own_cwd {
            match rustix::process::fchdir(fd) {
                Ok(()) => return Ok(Vec::new()),
                // May be read but not searched.
                Err(Errno::ACCESS) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(format!("/proc/self/fd/{}/", fd.as_raw_fd()).into_bytes())
    }

    fn entry(
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

    fn attributes_of_dir(&mut self, fd: &OwnedFd) -> Result<Found, Errno> {
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

enum Seen {
    Entry(Entry),
    Dir(Box<Dir>),
}

impl Seen {
    /// Whether the dir upper made it, who writes no `.wh.` files: such a name is its user's own.
    fn is_numbered(&self) -> bool {
        match self {
            Seen::Entry(Entry::Other(other)) => other.number.is_some(),
            Seen::Dir(dir) => dir.number.is_some(),
            Seen::Entry(_) => false,
        }
    }
}

/// What the `.wh.` files of a directory say.
#[derive(Clone, Copy, Default)]
struct WhFiles {
    any: bool,
    opaque: bool,
}

impl WhFiles {
    /// Takes the file that is called `.wh.` and `hidden`.
    fn note(&mut self, hidden: &[u8], entries: &mut Vec<(Box<[u8]>, Entry)>) {
        self.any = true;
        if hidden == b".wh..opq" {
            self.opaque = true;
        } else if !hidden.is_empty() && !hidden.starts_with(b".wh.") {
            entries.push((hidden.into(), Entry::Whiteout));
        }
    }
}

fn wanted() -> StatxFlags {
    StatxFlags::BASIC_STATS
}

fn key_of(stat: &Statx) -> Key {
    Key {
        dev: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
        ino: stat.stx_ino,
    }
}

fn fill_dir(dir: &mut Dir, stat: &Statx, mut found: Found) {
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
