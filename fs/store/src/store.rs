//! A store: one root directory.
//!
//! ```text
//! version              what this directory is
//! objects/ab/cdef...   file contents, by SHA-256
//! trees/<hex>          tree files: of layers by diff id, of images by chain id
//! blobs/sha256/<hex>   blobs as pulled
//! images/ containers/  the launcher's
//! locks/ tmp/
//! quarantine/          what repairs set aside
//! ```
//!
//! A tree is published last: once it can be seen, everything it names is there and durable. A tree
//! of more than one layer is made of trees that are there, so that it can be made again at any
//! time, and two processes that make it at once make the same file.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

use crate::{
    Blobs, Digest, Objects, StoreError, StoreLock, Tree, TreeBuilder, TreeError, TreeHeader,
    TreeKind, Whiteouts, flatten,
    lock::{Hold, adding, open_lock_file},
    temp::{Temps, sync_dir},
};

/// The content of `version`.
const VERSION: &str = "pellicle store 1\n";

const CONTAINERS: &str = "containers";

const DIRS: [&str; 7] = [
    "objects",
    "trees",
    "blobs/sha256",
    "images",
    CONTAINERS,
    "locks",
    "tmp",
];

/// One store. Cloning is cheap; all methods may be called from any thread.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    objects: Objects,
    blobs: Blobs,
    temps: Arc<Temps>,
    /// Exclusive locks held through this store.
    exclusive: Arc<AtomicUsize>,
}

impl Store {
    /// Opens the store at `root`, making what is missing of its layout, and removes what
    /// interrupted writers left. A store that cannot be written to can be opened and read.
    ///
    /// # Errors
    /// [`StoreError::Layout`] if it is of a newer version, and the host's.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        lay_out(root)?;
        let root = fs::canonicalize(root).map_err(StoreError::io("open", root))?;
        let temps = Arc::new(Temps::new(&root));
        if let Err(error) = temps.clean() {
            tracing::warn!(%error, "cannot clean up after an interrupted writer");
        }
        Ok(Self {
            inner: Arc::new(Inner {
                objects: Objects::new(&root, Arc::clone(&temps)),
                blobs: Blobs::new(&root, Arc::clone(&temps)),
                root,
                temps,
                exclusive: Arc::default(),
            }),
        })
    }

    /// Its root directory, absolute.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// File contents.
    #[must_use]
    pub fn objects(&self) -> &Objects {
        &self.inner.objects
    }

    /// Blobs.
    #[must_use]
    pub fn blobs(&self) -> &Blobs {
        &self.inner.blobs
    }

    pub(crate) fn temps(&self) -> &Temps {
        &self.inner.temps
    }

    /// The file of the tree called `id`.
    #[must_use]
    pub fn tree_path(&self, id: &Digest) -> PathBuf {
        self.root().join("trees").join(id.hex())
    }

    /// Whether it has the tree of that diff id (or chain id), and can open it: one whose header is
    /// damaged is to be made again.
    #[must_use]
    pub fn has_tree(&self, id: &Digest) -> bool {
        self.tree(id).is_ok()
    }

    /// The tree of a layer, by diff id (or of an image that was flattened before, by chain id).
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Tree`].
    pub fn tree(&self, id: &Digest) -> Result<Tree, StoreError> {
        let path = self.tree_path(id);
        let tree = Tree::open(&path).map_err(|e| match e {
            TreeError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                StoreError::Missing {
                    what: "tree",
                    id: *id,
                }
            }
            other => other.into(),
        })?;
        if tree.identity() == *id {
            return Ok(tree);
        }
        Err(TreeError::Damaged {
            file: path.display().to_string(),
            block: None,
            detail: format!("it is the tree of {}", tree.identity()),
        }
        .into())
    }

    /// Makes a layer's tree and everything it names durable, then visible.
    ///
    /// # Errors
    /// [`StoreError::Tree`] if it cannot be a tree file, and the host's; nothing is published then.
    pub fn publish_tree(&self, id: &Digest, tree: TreeBuilder) -> Result<Tree, StoreError> {
        self.objects().0.sync()?;
        let header = TreeHeader {
            kind: TreeKind::Layer,
            identity: *id,
            layers: vec![*id],
        };
        self.write_tree(&header, tree)
    }

    pub(crate) fn write_tree(
        &self,
        header: &TreeHeader,
        tree: TreeBuilder,
    ) -> Result<Tree, StoreError> {
        let mut temp = self.temps().create()?;
        let shown = temp.path.clone();
        tree.write(header, &mut temp.file, &shown)?;
        temp.file
            .sync_all()
            .map_err(StoreError::io("sync", &shown))?;
        Tree::open(&shown)?.check()?;
        let path = self.tree_path(&header.identity);
        temp.publish(&path)?;
        sync_dir(&self.root().join("trees"))?;
        Ok(Tree::open(&path)?)
    }

    /// The flattened tree of that stack of layers, lowest first; made when first asked for (in
    /// memory only where the store cannot be written to). One that turns out damaged is made anew.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if a layer's tree is not there, damage of a layer, the host's.
    pub fn image_tree(&self, diff_ids: &[Digest]) -> Result<Tree, StoreError> {
        let Some(chain) = Digest::chain(diff_ids) else {
            return self.empty_image();
        };
        if let [only] = diff_ids {
            // Whiteouts and opaque marks have nothing below them to hide.
            return self.tree(only);
        }
        match self.tree(&chain) {
            Ok(tree) if tree.layers() == diff_ids => return Ok(tree),
            Ok(_) | Err(StoreError::Missing { .. }) => {}
            Err(StoreError::Tree(error)) if !matches!(error, TreeError::Io { .. }) => {
                tracing::warn!(%error, "making the image tree anew");
            }
            Err(error) => return Err(error),
        }
        let layers = diff_ids.iter().map(|id| self.tree(id));
        let layers = layers.collect::<Result<Vec<_>, _>>()?;
        let header = TreeHeader {
            kind: TreeKind::Image,
            identity: chain,
            layers: diff_ids.to_vec(),
        };
        match self.write_tree(&header, flatten(&layers, Whiteouts::Apply)?) {
            Err(StoreError::Io { source, .. }) if cannot_write(&source) => {
                let bytes = flatten(&layers, Whiteouts::Apply)?.finish(&header)?;
                Ok(Tree::from_bytes(bytes)?)
            }
            other => other,
        }
    }

    fn empty_image(&self) -> Result<Tree, StoreError> {
        let header = TreeHeader {
            kind: TreeKind::Image,
            identity: Digest::of(b""),
            layers: Vec::new(),
        };
        Ok(Tree::from_bytes(TreeBuilder::new().finish(&header)?)?)
    }

    /// Holds off collection. To be held by whoever relies on what is in the store: a mount, an
    /// import. Waits half a minute for a collection to end.
    ///
    /// # Errors
    /// [`StoreError::Busy`], and the host's.
    pub fn lock_shared(&self) -> Result<StoreLock, StoreError> {
        StoreLock::shared(self.root())
    }

    /// To be held by whoever puts contents into the store, from before the first until the tree that
    /// names them is published: a repair does not take away meanwhile what was found there. Waits
    /// half a minute for one that is about to.
    ///
    /// # Errors
    /// [`StoreError::Busy`], and the host's.
    pub fn lock_adding(&self) -> Result<Hold, StoreError> {
        adding(self.root())
    }

    /// Holds off everything else. To be held from before it is decided what is still wanted until
    /// [`Store::collect`] has returned.
    ///
    /// # Errors
    /// [`StoreError::Busy`] at once if anyone has a lock; the host's.
    pub fn lock_exclusive(&self) -> Result<StoreLock, StoreError> {
        StoreLock::exclusive(self.root(), &self.inner.exclusive)
    }

    /// Whether this store (or a clone of it) holds the exclusive lock.
    pub(crate) fn is_locked(&self) -> bool {
        self.inner.exclusive.load(SeqCst) > 0
    }
}

fn cannot_write(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    matches!(code, Some(libc::EROFS | libc::EACCES | libc::EPERM))
}

/// Asks that the directories made in `dir` lie apart on the disk, as `chattr +T` does; ext4 listens.
///
/// It puts a new file into the block group of its directory, and for minutes passes over the inodes that
/// were freed there, one by one. Thus an image's removal, or a container that removes many files, would make
/// each file of the next containers take fifty times as long, were they all neighbours.
fn spread(dir: &Path) {
    let _ = fs::File::open(dir).and_then(|dir| {
        let flags = ioctl_getflags(&dir)? | IFlags::TOPDIR;
        Ok(ioctl_setflags(&dir, flags)?)
    });
}

/// Makes what is missing of the layout of a store at `root`.
fn lay_out(root: &Path) -> Result<(), StoreError> {
    let version = root.join("version");
    match fs::read_to_string(&version) {
        Ok(text) if text == VERSION => {}
        Ok(text) => {
            return Err(StoreError::Layout {
                root: root.to_owned(),
                detail: format!(
                    "its version is {:?}",
                    text.trim_end().get(..64).unwrap_or(text.trim_end())
                ),
            });
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(root).map_err(StoreError::io("create", root))?;
            spread(root);
            fs::write(&version, VERSION).map_err(StoreError::io("create", &version))?;
        }
        Err(e) => return Err(StoreError::io("read", &version)(e)),
    }
    for dir in DIRS.map(|d| root.join(d)) {
        if !dir.is_dir() {
            fs::create_dir_all(&dir).map_err(StoreError::io("create", &dir))?;
            if dir.ends_with(CONTAINERS) {
                spread(&dir);
            }
        }
    }
    for lock in ["locks/store", "locks/tmp"] {
        open_lock_file(&root.join(lock))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_made_apart_where_the_host_can_be_asked_for_it() {
        let flags = |dir: &Path| {
            let dir = fs::File::open(dir).expect("open");
            ioctl_getflags(&dir).unwrap_or(IFlags::empty())
        };
        let top = tempfile::tempdir_in("/var/tmp").expect("dir");
        spread(top.path());
        let here = flags(top.path()) & IFlags::TOPDIR;
        let root = top.path().join("store");
        Store::open(&root).expect("store");
        assert_eq!(flags(&root) & IFlags::TOPDIR, here);
        assert_eq!(flags(&root.join(CONTAINERS)) & IFlags::TOPDIR, here);
        assert!(!flags(&root.join("objects")).contains(IFlags::TOPDIR));
    }
}
