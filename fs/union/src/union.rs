//! The merged tree itself: what it is made of, and how an inode is found.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use pellicle_layer::Lower;
use pellicle_store::{FileKind, Ino};
use pellicle_upper::{Host, Node, Recovery, Upper};

use crate::{
    error::Error,
    inode::Inode,
    replay,
    request::Options,
    table::{Found, Table},
};

/// What the change lock guards besides the right to change.
#[derive(Debug, Default)]
pub(crate) struct ChangeCount {
    /// Changes since the upper was last asked about compaction.
    pub(crate) since_check: u32,
}

/// One tree out of a read-only lower tree and the changes kept in an upper.
///
/// All methods may be called from any thread at once. None of them panics, whatever it is given.
pub struct Union {
    pub(crate) lower: Arc<dyn Lower>,
    upper: Option<Box<dyn Upper>>,
    read_only: bool,
    pub(crate) table: Table,
    pub(crate) changes: Mutex<ChangeCount>,
    /// Held by whoever compacts the log; never waited for.
    pub(crate) compacting: Mutex<()>,
    next_ino: AtomicU64,
    /// Names that the changed directories speak of and ranges of mixed content, for the size of a
    /// snapshot.
    detail_count: AtomicU64,
    /// Whether anything differs from the lower tree at all.
    pub(crate) has_changed: AtomicBool,
    /// Inodes that lost their last name and that the kernel still knows of.
    pub(crate) unnamed: AtomicU64,
    /// How often the kernel forgot an inode of the lower tree.
    pub(crate) forgets: AtomicU64,
}

impl fmt::Debug for Union {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Union")
            .field("read_only", &self.read_only)
            .field("touched", &self.table.len())
            .finish_non_exhaustive()
    }
}

impl Union {
    /// Opens the tree of `lower` with the changes of `upper` replayed. Inodes that had no name
    /// left are dropped. Without an `upper` the union is read-only.
    ///
    /// Costs as much as there are changes, whatever the size of `lower`.
    ///
    /// # Errors
    /// What the upper says of its log, [`Error::Damaged`] if the log contradicts the lower tree,
    /// [`Error::NoMemory`].
    pub fn open(
        lower: Arc<dyn Lower>,
        upper: Option<Box<dyn Upper>>,
        options: Options,
    ) -> Result<(Self, Recovery), Error> {
        let count = lower.inode_count();
        let mut union = Self {
            table: Table::new(count)?,
            read_only: options.read_only || upper.is_none(),
            lower,
            upper,
            changes: Mutex::default(),
            compacting: Mutex::default(),
            next_ino: AtomicU64::new(count.saturating_add(1)),
            detail_count: AtomicU64::new(0),
            has_changed: AtomicBool::new(false),
            unnamed: AtomicU64::new(0),
            forgets: AtomicU64::new(0),
        };
        let (recovery, next) = replay::replay(&union)?;
        union.next_ino = AtomicU64::new(next);
        replay::drop_orphans(&union);
        if !union.read_only {
            union.compact_if_worth_it();
        }
        Ok((union, recovery))
    }

    /// Whether every change is refused.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    pub(crate) fn upper(&self) -> Result<&dyn Upper, Error> {
        self.upper.as_deref().ok_or(Error::ReadOnly)
    }

    /// What content is written through.
    pub(crate) fn host(&self) -> &Host {
        self.upper.as_deref().map_or(Host::plain(), Upper::host)
    }

    /// A number that no inode had before in this mount, nor in the log it was opened with.
    pub(crate) fn new_ino(&self) -> Ino {
        Ino(self.next_ino.fetch_add(1, Ordering::Relaxed))
    }

    /// Numbers below this may be inodes.
    pub(crate) fn ino_end(&self) -> u64 {
        self.next_ino.load(Ordering::Relaxed)
    }

    pub(crate) fn note_details(&self, before: usize, after: usize) {
        let (before, after) = (before as u64, after as u64);
        self.detail_count
            .fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
    }

    /// About how many records a snapshot would have.
    pub(crate) fn live_records(&self) -> u64 {
        self.table.len() + self.detail_count.load(Ordering::Relaxed)
    }

    /// The inode's state, made from the lower tree if it was never touched. That alone changes
    /// nothing anyone can see.
    pub(crate) fn adopt(&self, ino: Ino) -> Result<Arc<Inode>, Error> {
        match self.table.find(ino) {
            Found::Inode(inode) => Ok(inode),
            Found::Absent => Err(Error::NotFound),
            Found::Untouched => {
                let attr = self.lower.attr(ino)?;
                let parent = match attr.kind {
                    FileKind::Directory => self.lower.parent(ino)?,
                    _ => Ino::ROOT,
                };
                self.table
                    .adopt(Inode::new(Node::of_lower(&attr, parent)))
                    .ok_or(Error::NotFound)
            }
        }
    }

    pub(crate) fn kind(&self, ino: Ino) -> Result<FileKind, Error> {
        match self.table.find(ino) {
            Found::Inode(inode) => Ok(inode.now()?.kind),
            Found::Absent => Err(Error::NotFound),
            Found::Untouched => Ok(self.lower.attr(ino)?.kind),
        }
    }

    /// A regular file, to be read or changed.
    pub(crate) fn regular(&self, ino: Ino) -> Result<Arc<Inode>, Error> {
        let inode = self.adopt(ino)?;
        match inode.now()?.kind {
            FileKind::Regular => Ok(inode),
            FileKind::Directory => Err(Error::IsDirectory),
            FileKind::Symlink
            | FileKind::CharDevice
            | FileKind::BlockDevice
            | FileKind::Fifo
            | FileKind::Socket => Err(Error::Invalid),
        }
    }

    pub(crate) fn refuse_if_read_only(&self) -> Result<(), Error> {
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        Ok(())
    }
}
