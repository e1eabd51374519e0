//! Where COPY and ADD take files from: the context, or the tree of a stage or an image.
//!
//! Both are seen as a tree of their own: a symbolic link or `..` leads nowhere outside it. Paths here
//! are relative, without `.` and `..`; the empty one is the root.

use std::{
    ffi::{OsStr, OsString},
    io::Read,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Component, Path, PathBuf},
};

use pellicle_store::{Device, Digest, FileKind, Time};

use super::BuildError;

/// Symbolic links followed in one path, as the kernel has it.
const LINKS_MAX: usize = 40;

/// What is known of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) kind: FileKind,
    /// `0..=0o7777`
    pub(super) perm: u16,
    pub(super) mtime: Time,
    pub(super) rdev: Device,
}

/// Extended attributes: names and values.
pub(super) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// A tree that files are taken from.
pub(super) trait Source: Send + Sync {
    /// What messages call it.
    fn name(&self) -> String;
    /// What is at `path`, the last link not followed.
    fn entry(&self, path: &Path) -> Result<Option<Entry>, BuildError>;
    /// The names in a directory, sorted.
    fn names(&self, dir: &Path) -> Result<Vec<OsString>, BuildError>;
    /// The bytes of a regular file.
    fn open(&self, path: &Path) -> Result<Box<dyn Read + '_>, BuildError>;
    /// The target of a symbolic link.
    fn link(&self, path: &Path) -> Result<Vec<u8>, BuildError>;
    /// Extended attributes that are to be copied.
    fn xattrs(&self, path: &Path) -> Result<Xattrs, BuildError>;
    /// The digest of a regular file's bytes.
    fn digest(&self, path: &Path, entry: &Entry) -> Result<Digest, BuildError>;
    /// Whether a directory is seen only for what is in it.
    fn is_only_a_way(&self, _dir: &Path) -> bool {
        false
    }
}

/// `text` as a path inside a source, `..` never leading above its root; whether it did try to.
pub(super) fn inside(text: &OsStr) -> (PathBuf, bool) {
    let mut clean = PathBuf::new();
    let mut left = false;
    for part in Path::new(text).components() {
        match part {
            Component::ParentDir => left |= !clean.pop(),
            Component::Normal(name) => clean.push(name),
            _ => {}
        }
    }
    (clean, left)
}

/// `path` with all its symbolic links followed; `None` if it leads nowhere.
///
/// # Errors
/// What the source says.
pub(super) fn resolve(source: &dyn Source, path: &Path) -> Result<Option<PathBuf>, BuildError> {
    let mut done = PathBuf::new();
    let mut rest: Vec<OsString> = parts(path);
    let mut links = 0;
    while let Some(name) = rest.pop() {
        if name == ".." {
            done.pop();
            continue;
        }
        let next = done.join(&name);
        let Some(entry) = source.entry(&next)? else {
            return Ok(None);
        };
        if entry.kind != FileKind::Symlink {
            done = next;
            continue;
        }
        links += 1;
        if links > LINKS_MAX {
            return Ok(None);
        }
        let target = OsString::from_vec(source.link(&next)?);
        if Path::new(&target).is_absolute() {
            done = PathBuf::new();
        }
        rest.extend(parts(Path::new(&target)));
    }
    Ok(Some(done))
}

/// The names in `path`, the first one last.
fn parts(path: &Path) -> Vec<OsString> {
    let mut all: Vec<OsString> = path
        .components()
        .filter_map(|c| match c {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect();
    all.reverse();
    all
}

/// The paths in `source` that `pattern` means, sorted; itself if it has no `*`, `?` or `[`.
///
/// # Errors
/// A broken pattern, and what the source says.
pub(super) fn matching(source: &dyn Source, pattern: &Path) -> Result<Vec<PathBuf>, BuildError> {
    let text = pattern.as_os_str().as_bytes();
    if !text.iter().any(|b| b"*?[\\".contains(b)) {
        return Ok(vec![pattern.to_owned()]);
    }
    let mut found = vec![PathBuf::new()];
    for part in pattern.components() {
        let Component::Normal(name) = part else {
            continue;
        };
        let glob = name.to_str().map(super::ignore::matcher).transpose();
        let glob = glob
            .map_err(|why| BuildError::request(why, "close the bracket, or put a \\ before it"))?;
        let mut next = Vec::new();
        for dir in found {
            let Some(real) = resolve(source, &dir)? else {
                continue;
            };
            if source
                .entry(&real)?
                .is_none_or(|e| e.kind != FileKind::Directory)
            {
                continue;
            }
            for candidate in source.names(&real)? {
                if glob
                    .as_ref()
                    .is_some_and(|g| g.is_match(Path::new(&candidate)))
                {
                    next.push(dir.join(candidate));
                }
            }
        }
        found = next;
    }
    Ok(found)
}

/// Tells `into` everything of the tree at `path` that a copy has: names, kinds, modes, links and
/// contents; neither owners nor times.
///
/// # Errors
/// What the source says.
pub(super) fn fingerprint(
    source: &dyn Source,
    path: &Path,
    into: &mut pellicle_store::Hasher,
) -> Result<(), BuildError> {
    let mut todo = vec![path.to_owned()];
    while let Some(path) = todo.pop() {
        let Some(entry) = source.entry(&path)? else {
            continue;
        };
        let name = path.as_os_str().as_bytes();
        let perm = if source.is_only_a_way(&path) {
            0
        } else {
            entry.perm
        };
        into.update(&(name.len() as u64).to_le_bytes());
        into.update(name);
        into.update(format!("{:?} {perm:o} ", entry.kind).as_bytes());
        match entry.kind {
            FileKind::Regular => into.update(&source.digest(&path, &entry)?.0),
            FileKind::Symlink => into.update(Digest::of(&source.link(&path)?).0.as_slice()),
            FileKind::Directory => {
                let names = source.names(&path)?;
                todo.extend(names.iter().rev().map(|n| path.join(n)));
            }
            FileKind::CharDevice | FileKind::BlockDevice => {
                into.update(format!("{:?}", entry.rdev).as_bytes());
            }
            FileKind::Fifo | FileKind::Socket => {}
        }
    }
    Ok(())
}
