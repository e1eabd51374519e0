//! The threads of a scan, and what they put down together.

use std::{
    ffi::{CStr, OsStr},
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Condvar, Mutex};
use rustix::{
    fs::{AtFlags, OFlags, RawDir},
    io::Errno,
};

use super::{
    Dir, Entry, failed,
    look::{Seen, fill_dir, wanted},
    open_dir,
};
use crate::host::{HostError, HostOptions};

/// Linux `XATTR_LIST_MAX` and `XATTR_SIZE_MAX`.
const XATTR_MAX: usize = 65536;
/// Bytes of names asked for at once.
const DENTS: usize = 64 << 10;

/// Threads of one scan at most; more only wait for each other.
const THREADS_MAX: usize = 8;

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

pub(super) struct Shared<'a> {
    root: Arc<OwnedFd>,
    path: &'a Path,
    pub(super) options: &'a HostOptions,
    /// Whether `user.containers.override_*` counts in this layer.
    pub(super) overrides: bool,
    /// Whether links and devices may have attributes that this process sees.
    pub(super) privileged: bool,
    state: Mutex<State>,
    more: Condvar,
}

/// Reads the directories from `root` on, which is at `path` and becomes the first of them.
/// `overrides` is whether `user.containers.override_*` counts.
pub(super) fn walk(
    root: &Arc<OwnedFd>,
    path: &Path,
    options: &HostOptions,
    overrides: bool,
) -> Result<Vec<Dir>, HostError> {
    let shared = Shared {
        root: Arc::clone(root),
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
    match state.failed {
        None => Ok(state.dirs),
        Some(error) => Err(error),
    }
}

/// One thread of a scan.
pub(super) struct Reader<'a> {
    pub(super) shared: &'a Shared<'a>,
    /// The working directory is this thread's own.
    own_cwd: bool,
    dents: Vec<MaybeUninit<u8>>,
    pub(super) names: Vec<u8>,
    pub(super) value: Vec<u8>,
    /// A file system that has no attributes at all.
    pub(super) without: Option<(u32, u32)>,
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
