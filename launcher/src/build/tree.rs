//! The tree of a stage or an image as a source of COPY.

use std::{
    ffi::OsString,
    io::{self, Read},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Component, Path},
    sync::Arc,
};

use pellicle_layer::{Lower, LowerError};
use pellicle_store::{Content, Digest, FileKind, Hasher, Ino};

use super::{
    BuildError,
    source::{Entry, Source, Xattrs},
};

/// Bytes read at a time.
const BUFFER: usize = 256 << 10;

/// A read-only tree.
pub(super) struct TreeSource {
    tree: Arc<dyn Lower>,
    name: String,
}

impl TreeSource {
    /// `tree`, which messages call `name`.
    pub(super) fn new(tree: Arc<dyn Lower>, name: String) -> Self {
        Self { tree, name }
    }

    fn find(&self, path: &Path) -> Result<Option<Ino>, BuildError> {
        let mut at = Ino::ROOT;
        let mut kind = FileKind::Directory;
        for part in path.components() {
            let Component::Normal(name) = part else {
                continue;
            };
            if kind != FileKind::Directory {
                return Ok(None);
            }
            match self.tree.lookup(at, name.as_bytes()).map_err(damaged)? {
                Some(found) => (at, kind) = found,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    fn there(&self, path: &Path) -> Result<Ino, BuildError> {
        self.find(path)?
            .ok_or(BuildError::Union(pellicle_union::Error::NotFound))
    }
}

fn damaged(error: LowerError) -> BuildError {
    BuildError::Union(error.into())
}

impl Source for TreeSource {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn entry(&self, path: &Path) -> Result<Option<Entry>, BuildError> {
        let Some(ino) = self.find(path)? else {
            return Ok(None);
        };
        let attr = self.tree.attr(ino).map_err(damaged)?;
        Ok(Some(Entry {
            kind: attr.kind,
            perm: attr.perm,
            mtime: attr.mtime,
            rdev: attr.rdev,
        }))
    }

    fn names(&self, dir: &Path) -> Result<Vec<OsString>, BuildError> {
        let ino = self.there(dir)?;
        let mut names = Vec::new();
        while let Some(entry) = self.tree.entry(ino, names.len() as u64).map_err(damaged)? {
            names.push(OsString::from_vec(entry.name.to_vec()));
        }
        names.sort();
        Ok(names)
    }

    fn open(&self, path: &Path) -> Result<Box<dyn Read + '_>, BuildError> {
        Ok(Box::new(Reader {
            tree: &*self.tree,
            ino: self.there(path)?,
            at: 0,
        }))
    }

    fn link(&self, path: &Path) -> Result<Vec<u8>, BuildError> {
        let target = self.tree.readlink(self.there(path)?).map_err(damaged)?;
        Ok(target.into_owned())
    }

    fn xattrs(&self, path: &Path) -> Result<Xattrs, BuildError> {
        let mut all = Vec::new();
        self.tree
            .xattrs(self.there(path)?, &mut |name, value| {
                all.push((name.to_vec(), value.to_vec()));
            })
            .map_err(damaged)?;
        Ok(all)
    }

    fn digest(&self, path: &Path, _entry: &Entry) -> Result<Digest, BuildError> {
        match self.tree.stored(self.there(path)?).map_err(damaged)? {
            Some(Content::Object(id)) => return Ok(id),
            Some(Content::Inline(bytes)) => return Ok(Digest::of(&bytes)),
            _ => {}
        }
        let mut file = self.open(path)?;
        let mut hash = Hasher::default();
        let mut buffer = vec![0; BUFFER];
        loop {
            let n = file
                .read(&mut buffer)
                .map_err(BuildError::io("read", Path::new(&self.name).join(path)))?;
            if n == 0 {
                return Ok(hash.finish().0);
            }
            hash.update(buffer.get(..n).unwrap_or_default());
        }
    }
}

struct Reader<'a> {
    tree: &'a dyn Lower,
    ino: Ino,
    at: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self
            .tree
            .read(self.ino, self.at, buf)
            .map_err(io::Error::other)?;
        self.at += n as u64;
        Ok(n)
    }
}
