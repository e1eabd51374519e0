//! One inode that is not, or no more, as the lower tree has it.
//!
//! Two locks: [`Inode::lock_content`] is held across host I/O by whoever changes the content;
//! `state` only for the moment of reading or applying a change, never across a call to the host,
//! to the upper or to the lower tree, and never two at once except by [`crate::change`].

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU64},
};

use parking_lot::{Mutex, MutexGuard, RwLock};
use pellicle_store::{Attr, Device, FileKind, Ino, Time};
use pellicle_upper::{ContentSource, Node};

use crate::{
    error::Error,
    names::Names,
    ranges::{Piece, Ranges},
    request::KillSetId,
};

/// What is known of the upper's data file.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Data {
    /// The data file surely has no bytes past the inode's size, so the inode may grow over them.
    pub(crate) exact: bool,
    /// `st_blocks` of the data file, once asked.
    pub(crate) blocks: Option<u64>,
    /// Counts changes of content, so that a late answer about `blocks` is not kept.
    pub(crate) version: u64,
    /// The kernel may write to the data file by itself: what it was when last looked at.
    pub(crate) lent: Option<Stamp>,
}

/// What tells whether a data file was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) size: u64,
    pub(crate) modified: Time,
}

/// Overrides of the lower tree's extended attributes; `None` takes one away.
pub(crate) type Xattrs = BTreeMap<Box<[u8]>, Option<Box<[u8]>>>;

#[derive(Debug)]
pub(crate) struct State {
    /// Attributes and whereabouts of the content.
    pub(crate) now: Node,
    /// The upper knows of it; otherwise it is still as the lower tree has it.
    pub(crate) recorded: bool,
    /// Out of the table for good.
    pub(crate) gone: bool,
    /// Target of a symbolic link that the lower tree does not have.
    pub(crate) target: Option<Arc<[u8]>>,
    pub(crate) xattrs: Xattrs,
    /// Changed names of a directory.
    pub(crate) names: Option<Box<Names>>,
    pub(crate) data: Data,
    /// Of mixed content, and of no other: what is in the data file.
    pub(crate) own: Option<Box<Ranges>>,
}

#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) ino: Ino,
    pub(crate) kind: FileKind,
    /// How often the kernel was told of it; for new inodes only, see [`crate::table`].
    pub(crate) told: AtomicU64,
    content: Mutex<()>,
    pub(crate) state: RwLock<State>,
}

/// Proof that the content of one inode is locked. Taken before [`crate::change::Change`], never after.
pub(crate) struct ContentLock<'a> {
    pub(crate) inode: &'a Arc<Inode>,
    _held: MutexGuard<'a, ()>,
}

impl State {
    /// Whether nothing was ever said of an inode of the lower tree.
    pub(crate) fn is_as_below(&self) -> bool {
        !self.recorded && !self.gone && self.names.is_none() && self.xattrs.is_empty()
    }
}

impl State {
    /// Drops the names and ranges of what is gone; gives how many there were.
    pub(crate) fn take_details(&mut self) -> usize {
        let ranges = self.range_count();
        self.own = None;
        ranges + self.names.take().map_or(0, |names| names.len())
    }

    /// How many ranges are in the data file of mixed content.
    pub(crate) fn range_count(&self) -> usize {
        self.own.as_ref().map_or(0, |own| own.len())
    }

    /// The bytes from `start` to `end` of mixed content, by where they lie.
    pub(crate) fn pieces(&self, start: u64, end: u64) -> Vec<Piece> {
        let own = self.own.as_ref();
        own.map_or_else(Vec::new, |own| own.pieces(start, end))
    }
}

impl Inode {
    pub(crate) fn new(now: Node) -> Arc<Self> {
        Arc::new(Self {
            ino: now.ino,
            kind: now.kind,
            told: AtomicU64::new(0),
            content: Mutex::new(()),
            state: RwLock::new(State {
                now,
                recorded: false,
                gone: false,
                target: None,
                xattrs: Xattrs::new(),
                names: None,
                data: Data::default(),
                own: None,
            }),
        })
    }

    /// The attributes now; [`Error::NotFound`] once it is gone.
    pub(crate) fn now(&self) -> Result<Node, Error> {
        let state = self.state.read();
        if state.gone {
            return Err(Error::NotFound);
        }
        Ok(state.now)
    }

    pub(crate) fn lock_content(self: &Arc<Self>) -> ContentLock<'_> {
        ContentLock {
            inode: self,
            _held: self.content.lock(),
        }
    }

    /// Locks two contents in the order of their numbers; one if they are the same.
    pub(crate) fn lock_contents<'a>(
        a: &'a Arc<Self>,
        b: &'a Arc<Self>,
    ) -> (ContentLock<'a>, Option<ContentLock<'a>>) {
        match a.ino.cmp(&b.ino) {
            std::cmp::Ordering::Equal => (b.lock_content(), None),
            std::cmp::Ordering::Less => {
                let first = a.lock_content();
                (b.lock_content(), Some(first))
            }
            std::cmp::Ordering::Greater => {
                let second = b.lock_content();
                let first = a.lock_content();
                (second, Some(first))
            }
        }
    }

    /// Notes that bytes of the data file changed.
    pub(crate) fn data_changed(&self, exact: bool) {
        let mut state = self.state.write();
        state.data.exact = exact;
        state.data.blocks = None;
        state.data.version += 1;
    }
}

/// A new inode of `kind`, without content.
pub(crate) fn new_node(ino: Ino, kind: FileKind, now: Time) -> Node {
    Node {
        ino,
        kind,
        perm: 0,
        nlink: if kind == FileKind::Directory { 2 } else { 1 },
        uid: 0,
        gid: 0,
        rdev: Device::default(),
        size: if kind == FileKind::Directory {
            NEW_DIRECTORY_SIZE
        } else {
            0
        },
        content: ContentSource::Zero,
        atime: now,
        mtime: now,
        ctime: now,
        parent: Ino::ROOT,
    }
}

/// `st_size` of a new directory, as ext4 has it.
pub(crate) const NEW_DIRECTORY_SIZE: u64 = 4096;

pub(crate) fn attr_of(node: &Node, blocks: u64) -> Attr {
    Attr {
        ino: node.ino,
        kind: node.kind,
        perm: node.perm,
        nlink: node.nlink,
        uid: node.uid,
        gid: node.gid,
        rdev: node.rdev,
        size: node.size,
        blocks,
        atime: node.atime,
        mtime: node.mtime,
        ctime: node.ctime,
    }
}

/// Clears set-id bits.
pub(crate) fn clear_set_id(node: &mut Node, kill: KillSetId) {
    if node.kind == FileKind::Directory || kill == KillSetId::No {
        return;
    }
    node.perm &= !0o4000;
    if node.perm & 0o010 != 0 || kill == KillSetId::Stranger {
        node.perm &= !0o2000;
    }
}
