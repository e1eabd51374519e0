//! A directory of files named by the SHA-256 of what is in them: what [`crate::Objects`] and
//! [`crate::Blobs`] have in common.
//!
//! Files appear whole, by rename, and never change. How durable they are then is the difference:
//! a blob is on disk when its writer returns; objects, of which an import makes thousands, only
//! when a tree that names them is published ([`Pool::sync`]). Should the host go down before, there
//! may be files that are shorter than their content; so a file counts as the content one is about to
//! store only if it is as long, and is replaced otherwise.

use std::{
    collections::{BTreeSet, HashSet},
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use crate::{
    Digest, Hasher, StoreError,
    temp::{Temp, Temps, sync_dir},
};

/// Contents up to this many bytes are held in memory until their digest is known, so that one
/// that is there already costs no file.
const HOLD_MAX: usize = 128 << 10;

/// Up to this many new files are synced one by one; for more the whole file system is.
const FEW: usize = 16;

/// Bytes read at a time of a file that is taken in.
const HASH_BUFFER: usize = 256 << 10;

/// How a file of the host becomes a content of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taking {
    /// It is given one more name: no byte is moved, and nobody may write to it from then on under
    /// its old one. It is copied where it cannot be (another file system).
    Link,
    /// It is copied, sharing its blocks where the host can.
    Copy,
}

/// When the names of a [`Pool`] are durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// When the writer has finished.
    AtOnce,
    /// After [`Pool::sync`].
    OnSync,
}

/// One directory of contents. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Pool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `object` or `blob`.
    what: &'static str,
    dir: PathBuf,
    /// Whether names are split after two digits.
    split: bool,
    durability: Durability,
    temps: Arc<Temps>,
    pending: Mutex<Pending>,
    /// What is there and known to be damaged: it is replaced when its content comes again.
    distrusted: Mutex<HashSet<Digest>>,
}

/// What this process put there, or found there and relies on, and has not synced.
#[derive(Debug)]
enum Pending {
    Few(Vec<Digest>),
    Many,
    /// A sync failed: what the host has kept is unknown, and it does not tell twice.
    Failed,
}

impl Pool {
    pub(crate) fn new(
        what: &'static str,
        dir: PathBuf,
        split: bool,
        durability: Durability,
        temps: Arc<Temps>,
    ) -> Self {
        Self(Arc::new(Inner {
            what,
            dir,
            split,
            durability,
            temps,
            pending: Mutex::new(Pending::Few(Vec::new())),
            distrusted: Mutex::default(),
        }))
    }

    /// Has `ids` replaced, whatever is there, when their contents come again.
    pub(crate) fn distrust(&self, ids: impl IntoIterator<Item = Digest>) {
        self.0.distrusted.lock().extend(ids);
    }

    /// Whether `id` is distrusted, and was not replaced since.
    pub(crate) fn is_distrusted(&self, id: &Digest) -> bool {
        self.0.distrusted.lock().contains(id)
    }

    /// Trusts everything again.
    pub(crate) fn trust_all(&self) {
        self.0.distrusted.lock().clear();
    }

    pub(crate) fn path(&self, id: &Digest) -> PathBuf {
        let hex = id.hex();
        match hex.split_at_checked(2) {
            Some((head, tail)) if self.0.split => self.0.dir.join(head).join(tail),
            _ => self.0.dir.join(hex),
        }
    }

    pub(crate) fn writer(&self) -> Writer {
        Writer {
            pool: self.clone(),
            hash: Sha256::new(),
            len: 0,
            held: Vec::new(),
            temp: None,
        }
    }

    pub(crate) fn put(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let id = Digest::of(bytes);
        self.publish(&id, bytes.len() as u64, None, bytes)?;
        Ok(id)
    }

    pub(crate) fn open(&self, id: &Digest) -> Result<File, StoreError> {
        let path = self.path(id);
        File::open(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => StoreError::Missing {
                what: self.0.what,
                id: *id,
            },
            _ => StoreError::io("open", &path)(e),
        })
    }

    pub(crate) fn size(&self, id: &Digest) -> Result<Option<u64>, StoreError> {
        let path = self.path(id);
        match fs::metadata(&path) {
            Ok(meta) => Ok(Some(meta.len())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StoreError::io("look at", &path)(e)),
        }
    }

    pub(crate) fn remove(&self, id: &Digest) -> Result<bool, StoreError> {
        let path = self.path(id);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(StoreError::io("remove", &path)(e)),
        }
    }

    /// Calls `each` with everything that is there. Files that are named otherwise are passed over.
    pub(crate) fn each(
        &self,
        each: &mut dyn FnMut(Digest, &Path) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for dir in self.directories()? {
            self.each_in(&dir, each)?;
        }
        Ok(())
    }

    /// The directory of all of it.
    pub(crate) fn top(&self) -> &Path {
        &self.0.dir
    }

    /// The directories that its files are in.
    pub(crate) fn directories(&self) -> Result<Vec<PathBuf>, StoreError> {
        if !self.0.split {
            return Ok(vec![self.0.dir.clone()]);
        }
        let is_head = |entry: &fs::DirEntry| {
            let name = entry.file_name();
            name.len() == 2 && name.as_encoded_bytes().iter().all(u8::is_ascii_hexdigit)
        };
        let entries = list(&self.0.dir)?.into_iter();
        Ok(entries.filter(is_head).map(|e| e.path()).collect())
    }

    /// [`Pool::each`] in one of its directories.
    pub(crate) fn each_in(
        &self,
        dir: &Path,
        each: &mut dyn FnMut(Digest, &Path) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let head = match dir.file_name().and_then(|name| name.to_str()) {
            Some(head) if self.0.split => head,
            _ => "",
        };
        each_named(dir, head, each)
    }

    /// Makes everything durable that this process put here or found here so far.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        let mut pending = self.0.pending.lock();
        let synced = match &*pending {
            Pending::Few(ids) if ids.is_empty() => return Ok(()),
            Pending::Few(ids) => self.sync_few(ids),
            Pending::Many => File::open(&self.0.dir)
                .and_then(|dir| Ok(rustix::fs::syncfs(dir)?))
                .map_err(StoreError::io("sync", &self.0.dir)),
            Pending::Failed => {
                let earlier = io::Error::other("an earlier sync failed; start again");
                Err(StoreError::io("sync", &self.0.dir)(earlier))
            }
        };
        *pending = match &synced {
            Ok(()) => Pending::Few(Vec::new()),
            Err(_) => Pending::Failed,
        };
        synced
    }

    fn sync_few(&self, ids: &[Digest]) -> Result<(), StoreError> {
        let mut dirs = BTreeSet::from([self.0.dir.clone()]);
        for id in ids {
            let path = self.path(id);
            self.open(id)?
                .sync_all()
                .map_err(StoreError::io("sync", &path))?;
            dirs.extend(path.parent().map(Path::to_owned));
        }
        dirs.iter().try_for_each(|dir| sync_dir(dir))
    }

    /// Takes in the content of `file`, which nobody changes meanwhile. `each` hears how many bytes
    /// were read and says whether to go on; `None` if not.
    pub(crate) fn take_in(
        &self,
        file: &File,
        how: Taking,
        each: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Option<Digest>, StoreError> {
        let copied = match how {
            Taking::Copy => Some(self.0.temps.copy(file)?),
            Taking::Link => None,
        };
        let from = copied.as_ref().map_or(file, |temp| &temp.file);
        let Some((id, len)) = self.hash(from, each)? else {
            return Ok(None);
        };
        if self.size(&id)? != Some(len) {
            let temp = match copied {
                Some(temp) => temp,
                None => match self.0.temps.link(file)? {
                    Some(temp) => temp,
                    None => self.0.temps.copy(file)?,
                },
            };
            temp.publish(&self.path(&id))?;
        }
        self.note(id);
        Ok(Some(id))
    }

    fn hash(
        &self,
        file: &File,
        each: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Option<(Digest, u64)>, StoreError> {
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; HASH_BUFFER];
        let mut at = 0;
        loop {
            let n = match file.read_at(&mut buffer, at) {
                Ok(0) => return Ok(Some(hasher.finish())),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(StoreError::io("take a file into", &self.0.dir)(e)),
            };
            hasher.update(buffer.get(..n).unwrap_or_default());
            at += n as u64;
            if !each(n as u64) {
                return Ok(None);
            }
        }
    }

    /// Puts the `len` bytes of `id` there: those of `temp` followed by `rest`.
    fn publish(
        &self,
        id: &Digest,
        len: u64,
        temp: Option<Temp>,
        rest: &[u8],
    ) -> Result<(), StoreError> {
        if self.is_distrusted(id) || self.size(id)? != Some(len) {
            let mut temp = match temp {
                Some(temp) => temp,
                None => self.0.temps.create()?,
            };
            let written = temp.file.write_all(rest);
            written.map_err(StoreError::io("write", &temp.path))?;
            if self.0.durability == Durability::AtOnce {
                let synced = temp.file.sync_all();
                synced.map_err(StoreError::io("sync", &temp.path))?;
            }
            temp.publish(&self.path(id))?;
            self.0.distrusted.lock().remove(id);
        }
        match self.0.durability {
            // Also when it was there: whoever put it there may not have come this far yet.
            Durability::AtOnce => self.sync_few(&[*id]),
            Durability::OnSync => {
                self.note(*id);
                Ok(())
            }
        }
    }

    fn note(&self, id: Digest) {
        let mut pending = self.0.pending.lock();
        if let Pending::Few(ids) = &mut *pending {
            ids.push(id);
            if ids.len() > FEW {
                *pending = Pending::Many;
            }
        }
    }
}

fn list(dir: &Path) -> Result<Vec<fs::DirEntry>, StoreError> {
    fs::read_dir(dir)
        .and_then(Iterator::collect)
        .map_err(StoreError::io("list", dir))
}

fn each_named(
    dir: &Path,
    head: &str,
    each: &mut dyn FnMut(Digest, &Path) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    for entry in list(dir)? {
        let name = entry.file_name();
        let text = format!("sha256:{head}{}", name.to_string_lossy());
        if let Ok(id) = text.parse() {
            each(id, &entry.path())?;
        }
    }
    Ok(())
}

/// Takes bytes for one object or blob, hashing them on the way. Dropping it without
/// [`Writer::finish`] leaves nothing.
#[derive(Debug)]
pub struct Writer {
    pool: Pool,
    hash: Sha256,
    len: u64,
    /// The content as long as it is small.
    held: Vec<u8>,
    /// Where it goes once it is not.
    temp: Option<Temp>,
}

impl io::Write for Writer {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.temp.is_none() && self.held.len() + buf.len() > HOLD_MAX {
            let mut temp = self.pool.0.temps.create().map_err(into_io)?;
            temp.file.write_all(&self.held)?;
            self.held = Vec::new();
            self.temp = Some(temp);
        }
        let taken = match &mut self.temp {
            Some(temp) => temp.file.write(buf)?,
            None => {
                self.held.extend_from_slice(buf);
                buf.len()
            }
        };
        self.hash.update(buf.get(..taken).unwrap_or_default());
        self.len += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The host's own error where there is one, so that its number is not lost.
fn into_io(error: StoreError) -> io::Error {
    match error {
        StoreError::Io { source, .. } => source,
        other => io::Error::other(other),
    }
}

impl Writer {
    /// Bytes taken so far.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether none were.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Digest of the bytes taken so far: an import compares it with what was promised before it
    /// publishes anything.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest(self.hash.clone().finalize().into())
    }

    /// Publishes what was written under its digest. If that is there already, what was written is
    /// dropped.
    ///
    /// # Errors
    /// The host's.
    pub fn finish(self) -> Result<Digest, StoreError> {
        let id = Digest(self.hash.finalize().into());
        self.pool.publish(&id, self.len, self.temp, &self.held)?;
        Ok(id)
    }

    /// Publishes it only if its digest is `expected`.
    ///
    /// # Errors
    /// [`StoreError::Mismatch`] if it is not, and the host's.
    pub fn finish_as(self, expected: &Digest) -> Result<(), StoreError> {
        let found = self.digest();
        if found == *expected {
            return self.finish().map(|_| ());
        }
        Err(StoreError::Mismatch {
            what: self.pool.0.what,
            expected: *expected,
            found,
        })
    }
}
