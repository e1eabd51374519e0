//! Host directories as a lower layer: what overlayfs's `lowerdir=a:b:c` is.
//!
//! The directories are walked once, when the layer is opened, and merged into one tree in memory by
//! overlayfs's rules (`merge`); contents stay where they are, and are opened again when they are
//! read, beneath the directory's own descriptor and without following any link. The directories must
//! not be changed meanwhile, as with overlayfs; a file that vanished, was replaced or became shorter
//! is an error of that file ([`LowerError::Changed`]), never bytes of something else.
//!
//! Inode numbers depend on names only (breadth first, each directory's names in the order of their
//! bytes), so they are the same at the next mount while the directories are.

mod files;
pub mod marks;
mod merge;
pub mod scan;

use std::{
    borrow::Cow,
    fs::File,
    io,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use pellicle_store::{
    Attr, FileKind, Ino, Tree, TreeHeader, TreeKind,
    tree::{ContentRef, TreeError},
};
use rustix::{fs::SeekFrom, io::Errno};

use crate::{
    Entry, Lower, LowerError,
    content::{read_span, tree_error},
    opened::{Opened, open_limit},
};
use files::{Files, open_beneath};
use marks::{Marks, OverrideStat};
use scan::scan;

/// How host directories are read.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// Whose whiteouts, opaque marks and redirects count.
    pub marks: Marks,
    /// When owners, modes and kinds are taken from `user.containers.override_stat`.
    pub override_stat: OverrideStat,
    /// Whether `.wh.` files are whiteouts, as fuse-overlayfs has it.
    pub wh_files: bool,
    /// Whether whiteouts and opaque marks are kept, to hide what other layers have that this stack
    /// is laid over.
    pub keep_whiteouts: bool,
}

impl Default for HostOptions {
    fn default() -> Self {
        Self {
            marks: Marks::Any,
            override_stat: OverrideStat::Auto,
            wh_files: true,
            keep_whiteouts: false,
        }
    }
}

/// Why host directories could not be opened as a layer.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The host said no.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was being done, as `open`.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// Something else is there.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// What was named.
        path: PathBuf,
    },
    /// No directory was named.
    #[error("a layer of host directories needs at least one directory")]
    Empty,
    /// The directories make no tree.
    #[error("cannot make a tree of {}", path.display())]
    Tree {
        /// The top-most directory.
        path: PathBuf,
        /// Why.
        source: TreeError,
    },
}

/// One or more host directories as one read-only tree.
pub struct HostStack {
    tree: Tree,
    files: Files,
    /// Top-most first.
    tops: Vec<(OwnedFd, PathBuf)>,
    open: Opened<u64>,
}

impl HostStack {
    /// Opens `directories`, top-most first, as one tree.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn open(directories: &[PathBuf], options: &HostOptions) -> Result<Self, HostError> {
        let first = directories.first().ok_or(HostError::Empty)?;
        let mut layers = Vec::with_capacity(directories.len());
        for path in directories {
            layers.push(scan(path, options)?);
        }
        let merged = merge::merge(&layers, options.keep_whiteouts);
        let header = TreeHeader {
            kind: if options.keep_whiteouts {
                TreeKind::Layer
            } else {
                TreeKind::Image
            },
            identity: merged.identity,
            layers: Vec::new(),
        };
        let tree = merged.tree.finish(&header).and_then(Tree::from_bytes);
        let mut files = merged.files;
        files.finish();
        Ok(Self {
            tree: tree.map_err(|source| HostError::Tree {
                path: first.clone(),
                source,
            })?,
            files,
            tops: layers.into_iter().map(|l| (l.root, l.path)).collect(),
            open: Opened::new(open_limit()),
        })
    }

    /// The merged tree; contents are numbers of this stack's own.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The host file behind number `at`, and what messages call it.
    fn file(&self, ino: Ino, at: u64) -> Result<(Arc<File>, PathBuf), LowerError> {
        let missing = || LowerError::NoSuchNode {
            ino,
            wanted: "regular file",
        };
        let file = self.files.get(at).ok_or_else(missing)?;
        let (layer, path) = self.files.path(file);
        let (root, top) = self.tops.get(layer as usize).ok_or_else(missing)?;
        let shown = top.join(&path);
        if let Some(open) = self.open.get(&at) {
            return Ok((open, shown));
        }
        let opened = open_beneath(root, &path).and_then(|file| {
            let now = file.metadata()?;
            Ok((file, now))
        });
        let (opened, now) = match opened {
            Ok(opened) => opened,
            Err(e) if is_gone(&e) => return Err(changed(&shown, "it is not there any more")),
            Err(source) => {
                return Err(LowerError::Io {
                    what: shown.display().to_string(),
                    source,
                });
            }
        };
        if now.ino() != file.key.ino || !now.is_file() {
            return Err(changed(&shown, "another file is there now"));
        }
        let opened = Arc::new(opened);
        self.open.put(at, &opened);
        Ok((opened, shown))
    }

    /// A directory that this process could not list says so to whoever asks for its names.
    fn may_list(&self, dir: Ino) -> Result<(), LowerError> {
        if self.tree.is_implied(dir).map_err(tree_error)? {
            return Err(LowerError::Io {
                what: format!("directory {dir} of {}", self.tops_shown()),
                source: Errno::ACCESS.into(),
            });
        }
        Ok(())
    }

    fn tops_shown(&self) -> String {
        let tops = self.tops.iter().map(|(_, path)| path.display().to_string());
        tops.collect::<Vec<_>>().join(":")
    }
}

fn is_gone(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(
        errno,
        Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::STALE)
    )
}

fn changed(path: &Path, detail: &'static str) -> LowerError {
    LowerError::Changed {
        what: path.display().to_string(),
        detail,
    }
}

impl Lower for HostStack {
    fn inode_count(&self) -> u64 {
        self.tree.inode_count()
    }

    fn identity(&self) -> [u8; 32] {
        self.tree.identity().0
    }

    fn attr(&self, ino: Ino) -> Result<Attr, LowerError> {
        let mut attr = self.tree.attr(ino).map_err(tree_error)?;
        if attr.kind == FileKind::Regular
            && let ContentRef::Span { offset } = self.tree.content(ino).map_err(tree_error)?
            && let Some(file) = self.files.get(offset)
        {
            attr.blocks = file.blocks;
        }
        Ok(attr)
    }

    fn lookup(&self, dir: Ino, name: &[u8]) -> Result<Option<(Ino, FileKind)>, LowerError> {
        let found = self.tree.lookup(dir, name).map_err(tree_error)?;
        if found.is_none() {
            self.may_list(dir)?;
        }
        Ok(found)
    }

    fn entry(&self, dir: Ino, at: u64) -> Result<Option<Entry<'_>>, LowerError> {
        let entry = self.tree.entry(dir, at).map_err(tree_error)?;
        if entry.is_none() {
            self.may_list(dir)?;
        }
        Ok(entry.map(|e| Entry {
            name: e.name,
            ino: e.ino,
            kind: e.kind,
        }))
    }

    fn parent(&self, dir: Ino) -> Result<Ino, LowerError> {
        self.tree.parent(dir).map_err(tree_error)
    }

    fn readlink(&self, ino: Ino) -> Result<Cow<'_, [u8]>, LowerError> {
        let target = self.tree.readlink(ino).map_err(tree_error)?;
        Ok(Cow::Borrowed(target))
    }

    fn has_xattrs(&self, ino: Ino) -> Result<bool, LowerError> {
        self.tree.has_xattrs(ino).map_err(tree_error)
    }

    fn xattrs(&self, ino: Ino, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), LowerError> {
        self.tree.xattrs(ino, each).map_err(tree_error)
    }

    fn read(&self, ino: Ino, offset: u64, buf: &mut [u8]) -> Result<usize, LowerError> {
        let (content, size) = self.tree.content_and_size(ino).map_err(tree_error)?;
        let ContentRef::Span { offset: at } = content else {
            return Ok(0);
        };
        if offset >= size || buf.is_empty() {
            return Ok(0);
        }
        let (file, path) = self.file(ino, at)?;
        read_span(&file, offset, size, buf).map_err(|source| {
            if source.kind() == io::ErrorKind::UnexpectedEof {
                changed(&path, "it is shorter now")
            } else {
                LowerError::Io {
                    what: path.display().to_string(),
                    source,
                }
            }
        })
    }

    fn backing(&self, ino: Ino) -> Result<Option<Arc<File>>, LowerError> {
        let (content, size) = self.tree.content_and_size(ino).map_err(tree_error)?;
        let ContentRef::Span { offset: at } = content else {
            return Ok(None);
        };
        let (file, path) = self.file(ino, at)?;
        let now = file.metadata().map_err(|source| LowerError::Io {
            what: path.display().to_string(),
            source,
        })?;
        Ok((now.len() == size).then_some(file))
    }

    fn seek(&self, ino: Ino, offset: u64, data: bool) -> Result<Option<u64>, LowerError> {
        let (content, size) = self.tree.content_and_size(ino).map_err(tree_error)?;
        if offset >= size {
            return Ok(None);
        }
        let ContentRef::Span { offset: at } = content else {
            return Ok(None);
        };
        let (file, path) = self.file(ino, at)?;
        let whence = if data {
            SeekFrom::Data(offset)
        } else {
            SeekFrom::Hole(offset)
        };
        // The position of the shared descriptor moves, and nobody goes by it.
        match rustix::fs::seek(&*file, whence) {
            Ok(found) if data => Ok((found < size).then_some(found)),
            Ok(found) => Ok(Some(found.min(size))),
            Err(Errno::NXIO) if data => Ok(None),
            Err(Errno::NXIO) => Err(changed(&path, "it is shorter now")),
            Err(e) => Err(LowerError::Io {
                what: path.display().to_string(),
                source: e.into(),
            }),
        }
    }

    fn layer_of(&self, ino: Ino) -> Result<u32, LowerError> {
        self.tree.layer_of(ino).map_err(tree_error)
    }
}
