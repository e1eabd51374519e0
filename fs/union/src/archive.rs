//! A tree as a tar archive: of a container for `export`, of a layer for its diff id and its blob.
//!
//! Names are in the order of their bytes, each directory followed by what is in it; nothing but the
//! tree decides a byte. Sockets have no form in an archive and are left out.

use std::{
    collections::HashMap,
    io::{self, Write},
    vec,
};

use pellicle_store::{
    Attr, Extent, FileKind, Ino, Meta, Tree,
    archive::{ArchiveWriter, Kind},
    import::{Cancel, Progress},
};

use crate::{Union, commit::CommitError, error::Error, names::Target};

/// Bytes of content read at a time.
const BUFFER: usize = 256 << 10;
/// Entries between two looks at whether to stop.
const BATCH: u64 = 256;
/// How often in a row the data of a file may be gone when its end is asked for.
const GONE_MAX: u32 = 1000;

/// Who watches, and may stop, what takes long.
#[derive(Clone)]
pub struct Watch<'a> {
    /// Looked at once per buffer.
    pub cancel: Cancel,
    /// Hears of bytes and entries.
    pub progress: &'a dyn Progress,
}

/// What was put into an archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Archived {
    /// Entries.
    pub entries: u64,
    /// Bytes of file contents, holes not counted.
    pub content_bytes: u64,
    /// Sockets that were left out.
    pub sockets: u64,
}

/// The names of a directory that are still to be written, and its own path.
struct Open {
    path: Vec<u8>,
    names: vec::IntoIter<(Vec<u8>, Target)>,
}

struct Archiver<'a, W> {
    union: &'a Union,
    /// The layer that the union is of, to write its whiteouts.
    marks: Option<&'a Tree>,
    out: ArchiveWriter<W>,
    /// First name of each inode with several.
    links: HashMap<Ino, Vec<u8>>,
    watch: &'a Watch<'a>,
    done: Archived,
}

impl Watch<'_> {
    /// Nobody watches.
    #[must_use]
    pub fn nobody() -> Self {
        Self {
            cancel: Cancel::default(),
            progress: &(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), CommitError> {
        if self.cancel.is_cancelled() {
            return Err(CommitError::Cancelled);
        }
        Ok(())
    }
}

impl Union {
    /// Writes the whole tree as a tar archive. With `marks`, the union is over that layer and nothing
    /// else, and its whiteouts and opaque marks are written as an OCI layer has them (image-spec
    /// layer.md); what it only implies is left out.
    ///
    /// # Errors
    /// Damage, the host's errors, [`CommitError::Write`] with what `out` says, and
    /// [`CommitError::Cancelled`].
    pub fn write_archive(
        &self,
        marks: Option<&Tree>,
        out: impl Write,
        watch: &Watch<'_>,
    ) -> Result<Archived, CommitError> {
        let mut archiver = Archiver {
            union: self,
            marks,
            out: ArchiveWriter::new(out),
            links: HashMap::new(),
            watch,
            done: Archived::default(),
        };
        archiver.run()?;
        archiver.out.finish().map_err(refused)?;
        Ok(archiver.done)
    }

    /// Everything about an inode that is in every entry, times of access and change being that of
    /// modification, as they are where an archive does not tell them.
    pub(crate) fn meta(&self, attr: &Attr) -> Result<Meta, Error> {
        let mut xattrs = Vec::new();
        for name in self.names_of_xattrs(attr.ino)? {
            if let Some(value) = self.xattr_of(attr.ino, &name)? {
                xattrs.push((name, value));
            }
        }
        Ok(Meta {
            perm: attr.perm,
            uid: attr.uid,
            gid: attr.gid,
            atime: attr.mtime,
            mtime: attr.mtime,
            ctime: attr.mtime,
            xattrs,
        })
    }

    /// The data of a file of `size` bytes, in order, holes left out. The file may be cut and written to
    /// meanwhile.
    pub(crate) fn extents(&self, ino: Ino, size: u64) -> Result<Vec<Extent>, Error> {
        let mut extents = Vec::new();
        let (mut at, mut gone) = (0, 0);
        while at < size {
            let start = match self.seek(ino, at, true) {
                Ok(start) if start < size => start,
                Ok(_) | Err(Error::NoSuchOffset) => break,
                Err(error) => return Err(error),
            };
            let end = match self.seek(ino, start, false) {
                Ok(end) => end.min(size),
                Err(Error::NoSuchOffset) => start,
                Err(error) => return Err(error),
            };
            let is_gone = end <= start;
            // Who says so over and over contradicts himself.
            if start < at || (is_gone && gone == GONE_MAX) {
                return Err(Error::damaged(format!(
                    "inode {ino} has a hole inside its data"
                )));
            }
            if is_gone {
                // Cut between the two questions, it has no data there any more.
                (at, gone) = (start, gone + 1);
                continue;
            }
            extents.push(Extent {
                offset: start,
                len: end - start,
            });
            (at, gone) = (end, 0);
        }
        Ok(extents)
    }
}

impl Union {
    /// Calls `each` with the bytes of `extents`, one after the other. What a file that became shorter
    /// meanwhile has no more are zeros.
    pub(crate) fn read_extents(
        &self,
        ino: Ino,
        extents: &[Extent],
        watch: &Watch<'_>,
        each: &mut dyn FnMut(&[u8]) -> Result<(), CommitError>,
    ) -> Result<(), CommitError> {
        let longest = extents.iter().map(|e| e.len).max().unwrap_or(0);
        let mut buffer = vec![0; usize::try_from(longest).unwrap_or(BUFFER).min(BUFFER)];
        for Extent { offset, len } in extents {
            let (mut at, end) = (*offset, offset + len);
            while at < end {
                watch.check()?;
                let want = usize::try_from(end - at).unwrap_or(BUFFER).min(BUFFER);
                let part = buffer.get_mut(..want).unwrap_or_default();
                let got = self.read(ino, at, part)?;
                part.get_mut(got..).unwrap_or_default().fill(0);
                each(part)?;
                at += want as u64;
                watch.progress.bytes(want as u64);
            }
        }
        Ok(())
    }
}

/// Whoever takes the archive does not.
fn refused(source: io::Error) -> CommitError {
    CommitError::Write { source }
}

impl<W: Write> Archiver<'_, W> {
    fn run(&mut self) -> Result<(), CommitError> {
        let mut stack = vec![self.directory(Vec::new(), Ino::ROOT)?];
        while let Some(dir) = stack.last_mut() {
            let Some((name, (ino, kind))) = dir.names.next() else {
                stack.pop();
                continue;
            };
            let path = [dir.path.as_slice(), &name].concat();
            match kind {
                FileKind::Directory => {
                    stack.push(self.directory([path, b"/".to_vec()].concat(), ino)?)
                }
                _ => self.entry(path, ino)?,
            }
        }
        Ok(())
    }

    /// Writes directory `ino` at `path`, which ends with a slash or is empty.
    fn directory(&mut self, path: Vec<u8>, ino: Ino) -> Result<Open, CommitError> {
        let shown: &[u8] = if path.is_empty() { b"./" } else { &path };
        let is_implied = match self.marks {
            Some(tree) => tree.is_implied(ino).map_err(CommitError::tree)?,
            None => false,
        };
        if !is_implied {
            let meta = self.union.meta(&self.union.attr(ino)?)?;
            self.put(shown, &Kind::Directory, &meta)?;
        }
        self.marks(&path, ino)?;
        let mut names = Vec::new();
        self.union.list(ino, 0, &mut |entry| {
            names.push((entry.name.to_vec(), (entry.ino, entry.kind)));
            std::ops::ControlFlow::Continue(())
        })?;
        names.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Ok(Open {
            path,
            names: names.into_iter(),
        })
    }

    /// Writes the marks of directory `ino`.
    fn marks(&mut self, path: &[u8], ino: Ino) -> Result<(), CommitError> {
        let Some(tree) = self.marks else {
            return Ok(());
        };
        let mut names: Vec<&[u8]> = Vec::new();
        if tree.is_opaque(ino).map_err(CommitError::tree)? {
            names.push(b".wh..opq");
        }
        let mut at = 0;
        while let Some(name) = tree.whiteout(ino, at).map_err(CommitError::tree)? {
            names.push(name);
            at += 1;
        }
        let meta = Meta {
            perm: 0o600,
            ..Meta::default()
        };
        let empty = Kind::Regular {
            size: 0,
            extents: None,
        };
        for name in names {
            self.put(&[path, b".wh.", name].concat(), &empty, &meta)?;
        }
        Ok(())
    }

    fn entry(&mut self, path: Vec<u8>, ino: Ino) -> Result<(), CommitError> {
        let attr = self.union.attr(ino)?;
        if attr.nlink > 1 {
            if let Some(first) = self.links.get(&ino).cloned() {
                let meta = Meta {
                    xattrs: Vec::new(),
                    ..self.union.meta(&attr)?
                };
                return self.put(&path, &Kind::HardLink(&first), &meta);
            }
            if attr.kind != FileKind::Socket {
                self.links.insert(ino, path.clone());
            }
        }
        let meta = self.union.meta(&attr)?;
        match attr.kind {
            FileKind::Regular => self.regular(&path, &attr, &meta),
            FileKind::Symlink => {
                let target = self.union.readlink(ino)?;
                self.put(&path, &Kind::Symlink(&target), &meta)
            }
            FileKind::CharDevice => self.put(&path, &Kind::CharDevice(attr.rdev), &meta),
            FileKind::BlockDevice => self.put(&path, &Kind::BlockDevice(attr.rdev), &meta),
            FileKind::Fifo => self.put(&path, &Kind::Fifo, &meta),
            FileKind::Socket => {
                self.done.sockets += 1;
                Ok(())
            }
            FileKind::Directory => Err(Error::NotDirectory.into()),
        }
    }

    fn regular(&mut self, path: &[u8], attr: &Attr, meta: &Meta) -> Result<(), CommitError> {
        let (ino, size) = (attr.ino, attr.size);
        let extents = self.union.extents(ino, size)?;
        let whole = [Extent {
            offset: 0,
            len: size,
        }];
        let is_whole = size == 0 || extents == whole;
        let kind = Kind::Regular {
            size,
            extents: (!is_whole).then_some(extents.as_slice()),
        };
        self.put(path, &kind, meta)?;
        self.done.content_bytes += extents.iter().map(|e| e.len).sum::<u64>();
        let out = &mut self.out;
        self.union
            .read_extents(ino, &extents, self.watch, &mut |part| {
                out.content(part).map_err(refused)
            })
    }

    fn put(&mut self, path: &[u8], kind: &Kind<'_>, meta: &Meta) -> Result<(), CommitError> {
        self.done.entries += 1;
        if self.done.entries.is_multiple_of(BATCH) {
            self.watch.check()?;
            self.watch.progress.entries(BATCH);
        }
        self.out.entry(path, kind, meta).map_err(refused)
    }
}
