//! What the upper directory holds, as memory knows it.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    sync::Arc,
};

use lru::LruCache;
use pellicle_store::{FileKind, Ino};
use rustix::fd::OwnedFd;

use crate::Node;

/// An inode that is on the host: under all its names in the upper directory, or, without a name,
/// in the work directory.
#[derive(Debug)]
pub(super) struct Inode {
    /// As the host has it.
    pub(super) node: Node,
    /// All its names; one for a directory, none for the top.
    pub(super) places: Vec<(Ino, Box<[u8]>)>,
    /// It is in the work directory, having no name.
    pub(super) in_work: bool,
    /// A directory's names on the host; `None` is a whiteout.
    pub(super) names: HashMap<Box<[u8]>, Option<Ino>>,
    /// A directory that also shows what the lower directory of its number has.
    pub(super) merged: bool,
    /// It has a redirect.
    pub(super) redirected: bool,
    /// A directory that holds `.wh.` files, which are replaced before its names change.
    pub(super) wh_files: bool,
    /// The host file is only metadata: the kernel made it so, and its content is the lower file's.
    pub(super) metacopy: bool,
}

impl Inode {
    pub(super) fn new(node: Node) -> Self {
        Self {
            node,
            places: Vec::new(),
            in_work: false,
            names: HashMap::new(),
            merged: false,
            redirected: false,
            wh_files: false,
            metacopy: false,
        }
    }

    pub(super) fn is_dir(&self) -> bool {
        self.node.kind == FileKind::Directory
    }
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) inodes: HashMap<Ino, Inode>,
    /// Data files that no batch has made count yet.
    pub(super) staged: HashMap<Ino, Staged>,
    /// Lower directories that were removed: nothing in them has a name any more.
    pub(super) gone: HashSet<Ino>,
    /// Open directories.
    pub(super) dirs: LruCache<Ino, Arc<OwnedFd>>,
    /// Open data files.
    pub(super) files: LruCache<Ino, Arc<File>>,
    /// Directories whose names changed since the last sync.
    pub(super) dirty: HashSet<Ino>,
    /// Capabilities of files when they were last about to be written to.
    pub(super) capabilities: HashMap<Ino, Vec<u8>>,
    /// Numbers below this are noted as given.
    pub(super) reserved: u64,
    /// Counts names in the work directory.
    pub(super) temporaries: u64,
}

/// A data file in the work directory.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) file: Arc<File>,
    /// It holds what was durable in the lower tree.
    pub(super) copied: bool,
}
