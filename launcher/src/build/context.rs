//! The context: a directory of the host, without what its ignore file leaves out.
//!
//! Everything is opened below the directory by `openat2(2)` with the directory as its root, so that no
//! link, however it changes meanwhile, leads out of it.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read},
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use pellicle_store::{Device, Digest, FileKind, Hasher, Time};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::{
    BuildError,
    ignore::Ignore,
    source::{Entry, Source, Xattrs},
    statcache::StatCache,
};

/// Names of ignore files, the first that is there counts (podman's order).
const IGNORE_FILES: [&str; 2] = [".containerignore", ".dockerignore"];
/// Largest ignore file read.
const IGNORE_MAX: u64 = 1 << 20;
/// Bytes read at a time.
const BUFFER: usize = 256 << 10;

/// A directory of the host.
#[derive(Debug)]
pub(super) struct Context {
    path: PathBuf,
    dir: File,
    ignore: Ignore,
    notes: StatCache,
}

impl Context {
    /// Opens the context directory `path` for a build in the store at `root`; `file` is the Containerfile, whose own ignore file
    /// (`NAME.dockerignore` beside it) counts before the context's.
    ///
    /// # Errors
    /// If there is no such directory, or its ignore file is broken.
    pub(super) fn open(root: &Path, path: &Path, file: Option<&Path>) -> Result<Self, BuildError> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|e| BuildError::io("open the context", path)(e.into()))?;
        Ok(Self {
            path: path.to_owned(),
            dir: dir.into(),
            ignore: ignore(path, file)?,
            notes: StatCache::open(root, path),
        })
    }

    /// Notes what its files look like, so that the next build reads only those that changed.
    pub(super) fn note(&self) {
        self.notes.save();
    }

    /// The directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether all of the directory is seen.
    pub(super) fn is_whole(&self) -> bool {
        self.ignore.is_empty()
    }

    fn open_at(&self, path: &Path, flags: OFlags) -> io::Result<File> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let mut flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        if !flags.contains(OFlags::PATH) {
            // A FIFO in the place of a file must not hang us.
            flags |= OFlags::NONBLOCK;
        }
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.dir, path, flags, Mode::empty(), how)
            .map(File::from)
            .map_err(Into::into)
    }

    fn error(&self, doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BuildError {
        BuildError::io(doing, self.path.join(path))
    }

    fn is_hidden(&self, path: &Path) -> bool {
        !path.as_os_str().is_empty() && self.ignore.hides(path)
    }

    /// Whether something in directory `dir`, which is itself left out, is seen.
    fn leads_somewhere(&self, dir: &Path) -> Result<bool, BuildError> {
        if !self.ignore.brings_back() {
            return Ok(false);
        }
        let mut todo = vec![dir.to_owned()];
        while let Some(dir) = todo.pop() {
            for name in self.list(&dir)? {
                let path = dir.join(name);
                if !self.is_hidden(&path) {
                    return Ok(true);
                }
                if self
                    .look(&path)?
                    .is_some_and(|e| e.kind == FileKind::Directory)
                {
                    todo.push(path);
                }
            }
        }
        Ok(false)
    }

    fn list(&self, dir: &Path) -> Result<Vec<OsString>, BuildError> {
        let file = self
            .open_at(dir, OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(self.error("list", dir))?;
        let mut names = Vec::new();
        let entries =
            rustix::fs::Dir::read_from(&file).map_err(|e| self.error("list", dir)(e.into()))?;
        for entry in entries {
            let entry = entry.map_err(|e| self.error("list", dir)(e.into()))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name.to_vec()));
            }
        }
        names.sort();
        Ok(names)
    }

    fn look(&self, path: &Path) -> Result<Option<Entry>, BuildError> {
        let file = match self.open_at(path, OFlags::PATH) {
            Ok(file) => file,
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(e) => return Err(self.error("open", path)(e)),
        };
        let meta = file.metadata().map_err(self.error("look at", path))?;
        Ok(Some(entry_of(&meta)))
    }
}

fn entry_of(meta: &fs::Metadata) -> Entry {
    let kind = meta.file_type();
    let rdev = meta.rdev();
    Entry {
        kind: if kind.is_dir() {
            FileKind::Directory
        } else if kind.is_symlink() {
            FileKind::Symlink
        } else if kind.is_char_device() {
            FileKind::CharDevice
        } else if kind.is_block_device() {
            FileKind::BlockDevice
        } else if kind.is_fifo() {
            FileKind::Fifo
        } else if kind.is_socket() {
            FileKind::Socket
        } else {
            FileKind::Regular
        },
        perm: (meta.mode() & 0o7777) as u16,
        mtime: Time {
            sec: meta.mtime(),
            nsec: u32::try_from(meta.mtime_nsec()).unwrap_or(0),
        },
        rdev: Device {
            major: rustix::fs::major(rdev),
            minor: rustix::fs::minor(rdev),
        },
    }
}

impl Source for Context {
    fn name(&self) -> String {
        format!("the context {}", self.path.display())
    }

    fn entry(&self, path: &Path) -> Result<Option<Entry>, BuildError> {
        let found = self.look(path)?;
        match &found {
            Some(entry) if self.is_hidden(path) => {
                let way = entry.kind == FileKind::Directory && self.leads_somewhere(path)?;
                Ok(found.filter(|_| way))
            }
            _ => Ok(found),
        }
    }

    fn names(&self, dir: &Path) -> Result<Vec<OsString>, BuildError> {
        let mut names = self.list(dir)?;
        if !self.ignore.is_empty() {
            let mut seen = Vec::new();
            for name in names {
                if self.entry(&dir.join(&name))?.is_some() {
                    seen.push(name);
                }
            }
            names = seen;
        }
        Ok(names)
    }

    fn open(&self, path: &Path) -> Result<Box<dyn Read + '_>, BuildError> {
        let file = self
            .open_at(path, OFlags::RDONLY)
            .map_err(self.error("open", path))?;
        Ok(Box::new(file))
    }

    fn link(&self, path: &Path) -> Result<Vec<u8>, BuildError> {
        let file = self
            .open_at(path, OFlags::PATH)
            .map_err(self.error("open", path))?;
        rustix::fs::readlinkat(&file, "", Vec::new())
            .map(|target| target.into_bytes())
            .map_err(|e| self.error("read the link", path)(e.into()))
    }

    fn xattrs(&self, _path: &Path) -> Result<Xattrs, BuildError> {
        // What the host's file systems note of files is no part of a context.
        Ok(Vec::new())
    }

    fn digest(&self, path: &Path, _entry: &Entry) -> Result<Digest, BuildError> {
        let mut file = self
            .open_at(path, OFlags::RDONLY)
            .map_err(self.error("open", path))?;
        let meta = file.metadata().map_err(self.error("look at", path))?;
        if let Some(digest) = self.notes.find(path, &meta) {
            return Ok(digest);
        }
        let mut hash = Hasher::default();
        let mut buffer = vec![0; BUFFER];
        loop {
            let n = match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(self.error("read", path)(e)),
            };
            hash.update(buffer.get(..n).unwrap_or_default());
        }
        let (digest, _) = hash.finish();
        self.notes.note(path, &meta, digest);
        Ok(digest)
    }

    fn is_only_a_way(&self, dir: &Path) -> bool {
        self.is_hidden(dir)
    }
}

fn ignore(context: &Path, file: Option<&Path>) -> Result<Ignore, BuildError> {
    let mut candidates = Vec::new();
    if let Some(file) = file {
        for end in IGNORE_FILES {
            let mut name = file.as_os_str().as_bytes().to_vec();
            name.extend_from_slice(end.as_bytes());
            candidates.push(PathBuf::from(OsString::from_vec(name)));
        }
    }
    candidates.extend(IGNORE_FILES.map(|name| context.join(name)));
    for path in candidates {
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(BuildError::io("open", &path)(e)),
        };
        let mut text = String::new();
        file.take(IGNORE_MAX)
            .read_to_string(&mut text)
            .map_err(BuildError::io("read", &path))?;
        return Ignore::parse(&text).map_err(|(line, why)| {
            BuildError::request(
                format!("{}:{line}: {why}", path.display()),
                "mend the pattern, or put a \\ before its special characters",
            )
        });
    }
    Ok(Ignore::default())
}
