//! The drop-in writable layer: `upperdir` and `workdir` in kernel overlayfs's on-disk format.
//!
//! Memory holds which inode is where on the host; the host directory is the log. A batch of
//! statements becomes calls of the host in this order: what is needed is copied up and made in the
//! work directory, where nobody sees it; then one rename, link or removal makes the change visible;
//! then times of directories follow. `fs/docs/DIR_UPPER.md` has the format and the promises.
//!
//! One lock, over all of memory: the union has one change under way at any time anyway.

mod commit;
mod copy;
mod host;
mod move_names;
mod names;
mod open;
mod replay;
mod state;
mod wh_files;

use std::{
    fs::File,
    num::NonZeroUsize,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use pellicle_layer::Lower;
use pellicle_store::{FileKind, Ino};
use rustix::{fd::OwnedFd, fs::OFlags, io::Errno};

use crate::{ContentSource, LogPosition, Record, Recovery, Space, Upper, UpperError};
use host::{At, DIRECTORY, Rights, work_name};
use names::LowerNames;
pub use open::{DirOptions, Owners, Privilege};
use state::{Staged, State};

/// Where the host keeps file capabilities (capabilities(7)).
const CAPABILITY: &[u8] = b"security.capability";
/// Open directories and open data files, each.
const OPEN_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(255);

/// A writable layer in a host directory; see the module head.
pub struct DirUpper {
    lower: Arc<dyn Lower>,
    lower_names: LowerNames,
    path: PathBuf,
    root: Arc<OwnedFd>,
    /// `workdir/work`.
    work: Arc<OwnedFd>,
    rights: Rights,
    /// Lower directories are moved by a redirect; else they are copied up whole.
    redirects: bool,
    volatile: bool,
    /// Begins every noted number, so that those of another lower tree are not taken for ours.
    tag: [u8; 8],
    state: Mutex<State>,
    poisoned: AtomicBool,
    _lock: open::Lock,
}

impl std::fmt::Debug for DirUpper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DirUpper")
            .field("path", &self.path)
            .field("rights", &self.rights)
            .finish_non_exhaustive()
    }
}

impl DirUpper {
    fn corrupt(&self, detail: String) -> UpperError {
        UpperError::Unsuitable {
            path: self.path.clone(),
            detail,
        }
    }

    /// What is noted of inode `ino`.
    fn number(&self, ino: Ino) -> [u8; 16] {
        let mut text = [0; 16];
        let (tag, number) = text.split_at_mut(8);
        tag.copy_from_slice(&self.tag);
        number.copy_from_slice(&ino.0.to_le_bytes());
        text
    }

    fn work_at(&self, name: &[u8]) -> At {
        At::new(&self.work, name)
    }

    /// A name in the work directory that nothing has.
    fn temporary(&self, state: &mut State) -> At {
        state.temporaries += 1;
        self.work_at(format!("#t{:x}", state.temporaries).as_bytes())
    }

    /// The open directory `ino`.
    fn dir(&self, state: &mut State, ino: Ino) -> Result<Arc<OwnedFd>, UpperError> {
        let mut way = Vec::new();
        let mut at = ino;
        let mut open = loop {
            if at == Ino::ROOT {
                break Arc::clone(&self.root);
            }
            if let Some(open) = state.dirs.get(&at) {
                break Arc::clone(open);
            }
            let inode = state.inodes.get(&at);
            let Some((parent, name)) = inode.and_then(|inode| inode.places.first()) else {
                if inode.is_some_and(|inode| inode.in_work) {
                    let name = work_name(at, "");
                    let at = self.work_at(&name);
                    let fd = at.open(DIRECTORY);
                    break Arc::new(fd.map_err(|e| host::error("open", at.shown(), e))?);
                }
                return Err(self.corrupt(format!("directory {at} is not there")));
            };
            way.push((at, name.clone()));
            at = *parent;
        };
        while let Some((ino, name)) = way.pop() {
            let at = At::new(&open, &name);
            let fd = at.open(DIRECTORY);
            open = Arc::new(fd.map_err(|e| host::error("open", at.shown(), e))?);
            state.dirs.put(ino, Arc::clone(&open));
        }
        Ok(open)
    }

    /// `name` in directory `dir` on the host.
    fn at(&self, state: &mut State, dir: Ino, name: &[u8]) -> Result<At, UpperError> {
        Ok(At::new(&self.dir(state, dir)?, name))
    }

    /// Where `ino` is on the host: under one of its names.
    fn place(&self, state: &mut State, ino: Ino) -> Result<At, UpperError> {
        if ino == Ino::ROOT {
            return Ok(At::new(&self.root, b"."));
        }
        let place = state
            .inodes
            .get(&ino)
            .and_then(|i| i.places.first().cloned());
        match place {
            Some((dir, name)) => self.at(state, dir, &name),
            None => Ok(self.work_at(&work_name(ino, ""))),
        }
    }

    fn set_name(&self, state: &mut State, dir: Ino, name: &[u8], to: Option<Ino>) {
        if let Some(dir) = state.inodes.get_mut(&dir) {
            dir.names.insert(name.into(), to);
        }
        state.dirty.insert(dir);
    }

    fn drop_name(&self, state: &mut State, dir: Ino, name: &[u8]) {
        if let Some(dir) = state.inodes.get_mut(&dir) {
            dir.names.remove(name);
        }
        state.dirty.insert(dir);
    }

    fn refuse_if_poisoned(&self) -> Result<(), UpperError> {
        if self.poisoned.load(Ordering::SeqCst) {
            return Err(UpperError::Poisoned {
                path: self.path.clone(),
            });
        }
        Ok(())
    }

    fn open_data(&self, state: &mut State, ino: Ino) -> Result<Arc<File>, UpperError> {
        if let Some(file) = state.files.get(&ino) {
            return Ok(Arc::clone(file));
        }
        let at = self.place(state, ino)?;
        let file = at
            .open_file()
            .map_err(|e| host::error("open", at.shown(), e))?;
        let file = Arc::new(file);
        state.files.put(ino, Arc::clone(&file));
        Ok(file)
    }

    /// Opens the host file of `ino`, which is about to be written to, and notes its capabilities: the
    /// host takes them away then, also if the change comes to nothing in the end.
    fn open_to_write(&self, ino: Ino) -> Result<Arc<File>, UpperError> {
        let mut state = self.state.lock();
        let file = self.open_data(&mut state, ino)?;
        let mut value = vec![0; 256]; // Linux has at most 24 bytes.
        match rustix::fs::fgetxattr(&*file, CAPABILITY, value.as_mut_slice()) {
            Ok(n) => {
                value.truncate(n);
                state.capabilities.insert(ino, value);
            }
            Err(_) => drop(state.capabilities.remove(&ino)),
        }
        Ok(file)
    }

    /// Makes the host file of `ino` again what the last batch said, as far as that is known.
    fn undo(&self, ino: Ino) {
        let mut state = self.state.lock();
        let Some(node) = state.inodes.get(&ino).map(|inode| inode.node) else {
            return;
        };
        if node.kind != FileKind::Regular {
            return;
        }
        let undone = self.open_data(&mut state, ino).and_then(|file| {
            let at = self.place(&mut state, ino)?;
            let size = |to| {
                rustix::fs::ftruncate(&*file, to).map_err(|e| host::error("size", at.shown(), e))
            };
            if node.content == ContentSource::Zero {
                size(0)?;
            }
            size(node.size)?;
            if let Some(value) = state.capabilities.get(&ino)
                && at.get_xattr(CAPABILITY).is_none()
            {
                at.put_xattr(CAPABILITY, value)?;
            }
            at.set_times(&node)
        });
        if let Err(error) = undone {
            tracing::warn!(%error, "a failed write leaves bytes past the end of its file");
        }
    }

    /// After a failed flush nobody knows what is on disk.
    fn flushed(&self, done: Result<(), Errno>, path: PathBuf) -> Result<(), UpperError> {
        done.map_err(|e| {
            self.poisoned.store(true, Ordering::SeqCst);
            host::error("flush", path, e)
        })
    }

    /// Flushes the names of directory `dir`.
    fn sync_dir(&self, state: &mut State, dir: Ino) -> Result<(), UpperError> {
        let fd = self.dir(state, dir)?;
        let at = At::new(&fd, b".");
        let flushed = at
            .open(OFlags::RDONLY | OFlags::DIRECTORY)
            .and_then(rustix::fs::fsync);
        self.flushed(flushed, at.shown())
    }
}

impl Upper for DirUpper {
    fn replay(&self, apply: &mut dyn FnMut(Record<'_>)) -> Result<Recovery, UpperError> {
        self.read_back(apply)
    }

    fn commit(&self, batch: &[Record<'_>]) -> Result<(), UpperError> {
        self.refuse_if_poisoned()?;
        self.keep(&mut self.state.lock(), batch)
    }

    fn data(&self, ino: Ino) -> Result<Arc<File>, UpperError> {
        let mut state = self.state.lock();
        self.open_data(&mut state, ino)
    }

    fn data_to_write(&self, ino: Ino) -> Result<Arc<File>, UpperError> {
        self.open_to_write(ino)
    }

    fn create_data(&self, ino: Ino) -> Result<Arc<File>, UpperError> {
        self.refuse_if_poisoned()?;
        let mut state = self.state.lock();
        // A new or emptied file is there already, and is nothing but zeros.
        let is_zero = |inode: &state::Inode| inode.node.content == ContentSource::Zero;
        if state.inodes.get(&ino).is_some_and(is_zero) {
            drop(state);
            return self.open_to_write(ino);
        }
        let at = self.work_at(&work_name(ino, ".data"));
        at.unlink()?;
        let file = Arc::new(at.create()?);
        let staged = Staged {
            file: Arc::clone(&file),
            copied: false,
        };
        state.staged.insert(ino, staged);
        Ok(file)
    }

    fn note_copied(&self, ino: Ino) {
        if let Some(staged) = self.state.lock().staged.get_mut(&ino) {
            staged.copied = true;
        }
    }

    fn remove_data(&self, ino: Ino) {
        // What a batch made count goes by a batch; this is about what never counted.
        if self.state.lock().staged.remove(&ino).is_some() {
            let at = self.work_at(&work_name(ino, ".data"));
            if let Err(error) = at.unlink() {
                tracing::warn!(%error, "a data file stays until the next mount");
            }
        } else {
            // It was nothing but zeros, and is again.
            self.undo(ino);
        }
    }

    fn undo_data(&self, ino: Ino) {
        self.undo(ino);
    }

    fn sync_file(&self, ino: Ino) -> Result<(), UpperError> {
        self.refuse_if_poisoned()?;
        if self.volatile {
            return Ok(());
        }
        let (file, path) = {
            let mut state = self.state.lock();
            let Some(inode) = state.inodes.get(&ino) else {
                return Ok(());
            };
            let kind = inode.node.kind;
            let at = self.place(&mut state, ino)?;
            let open = match kind {
                FileKind::Regular => self.open_data(&mut state, ino).map(Some)?,
                FileKind::Directory => {
                    let fd = at.open(OFlags::RDONLY | OFlags::DIRECTORY);
                    let fd = fd.map_err(|e| host::error("open", at.shown(), e))?;
                    Some(Arc::new(File::from(fd)))
                }
                _ => None,
            };
            (open, at.shown())
        };
        if let Some(file) = file {
            self.flushed(rustix::fs::fsync(&*file), path)?;
        }
        let mut state = self.state.lock();
        let dirty: Vec<Ino> = state.dirty.iter().copied().collect();
        for dir in dirty {
            if state.inodes.contains_key(&dir) {
                self.sync_dir(&mut state, dir)?;
            }
            state.dirty.remove(&dir);
        }
        Ok(())
    }

    fn sync_all(&self) -> Result<(), UpperError> {
        self.refuse_if_poisoned()?;
        if self.volatile {
            return Ok(());
        }
        let root = At::new(&self.root, b".");
        let flushed = root
            .open(OFlags::RDONLY | OFlags::DIRECTORY)
            .and_then(rustix::fs::syncfs);
        self.flushed(flushed, self.path.clone())?;
        self.state.lock().dirty.clear();
        Ok(())
    }

    fn wants_compaction(&self, _live_records: u64) -> bool {
        false
    }

    fn position(&self) -> LogPosition {
        LogPosition::default()
    }

    fn compact(
        &self,
        _since: LogPosition,
        _snapshot: &mut dyn FnMut(&mut dyn FnMut(Record<'_>)),
    ) -> Result<(), UpperError> {
        Ok(())
    }

    fn space(&self) -> Result<Space, UpperError> {
        let fail = |e| host::error("stat the file system of", self.path.clone(), e);
        let root = At::new(&self.root, b".");
        let fd = root
            .open(OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(fail)?;
        let s = rustix::fs::fstatvfs(fd).map_err(fail)?;
        let bytes = |blocks: u64| blocks.saturating_mul(s.f_frsize);
        Ok(Space {
            block_size: u32::try_from(s.f_bsize).unwrap_or(4096),
            total: bytes(s.f_blocks),
            free: bytes(s.f_bfree),
            available: bytes(s.f_bavail),
            files: s.f_files,
            files_free: s.f_ffree,
        })
    }
}
