//! What the union asks of the writable layer over it.
//!
//! The union keeps the merged tree in memory and tells the upper every change as a *batch* of
//! [`Record`]s. A record states what now is (this name leads to that inode, this inode has these
//! attributes), never how it came about, so replaying a log from its start gives the state again,
//! and a snapshot of the state is itself a log.

use std::{fs::File, io, path::PathBuf, sync::Arc};

use pellicle_layer::LowerError;
use pellicle_store::{Attr, Device, FileKind, Ino, Time};

use crate::host::Host;

/// Where the content of a regular file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentSource {
    /// In the lower tree, under the same inode number, cut off at the node's size.
    Lower,
    /// In the upper's data file of that inode number. Bytes past the data file's end, up to the
    /// node's size, are zeros; bytes past the node's size are not part of the content.
    Data,
    /// In the upper's data file, as with [`ContentSource::Data`], where a [`Record::Own`] says so;
    /// elsewhere in the lower tree, under the same inode number.
    Mixed,
    /// Nowhere: `size` zero bytes (a new file that was never written, or no regular file).
    Zero,
}

impl ContentSource {
    /// Whether there is a data file.
    #[must_use]
    pub fn has_data(self) -> bool {
        matches!(self, Self::Data | Self::Mixed)
    }
}

/// Everything the upper knows of an inode but its names, target and extended attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its number.
    pub ino: Ino,
    /// Its type; never changes.
    pub kind: FileKind,
    /// `0..=0o7777`.
    pub perm: u16,
    /// Number of names; 0 once it has none and is only held open.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number.
    pub rdev: Device,
    /// Bytes of content.
    pub size: u64,
    /// Where the content is.
    pub content: ContentSource,
    /// Last access.
    pub atime: Time,
    /// Last change of content.
    pub mtime: Time,
    /// Last change of the inode.
    pub ctime: Time,
    /// The directory that holds this directory; [`Ino::ROOT`] for all other kinds.
    pub parent: Ino,
}

impl Node {
    /// What an inode of the lower tree is before anything was said of it. `parent` as in
    /// [`Node::parent`].
    #[must_use]
    pub fn of_lower(attr: &Attr, parent: Ino) -> Self {
        Self {
            ino: attr.ino,
            kind: attr.kind,
            perm: attr.perm,
            nlink: attr.nlink,
            uid: attr.uid,
            gid: attr.gid,
            rdev: attr.rdev,
            size: attr.size,
            content: match attr.kind {
                FileKind::Regular => ContentSource::Lower,
                _ => ContentSource::Zero,
            },
            atime: attr.atime,
            mtime: attr.mtime,
            ctime: attr.ctime,
            parent,
        }
    }
}

/// One statement about the merged tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// The inode is as said. The first such record of an inode of the lower tree is what makes
    /// its attributes the upper's.
    Node(Node),
    /// The bytes `start..end` of `ino`, whose content is [`ContentSource::Mixed`], are in its data
    /// file. It adds to what was said before, and is void once the content is anything else.
    Own {
        /// The file.
        ino: Ino,
        /// First byte.
        start: u64,
        /// Behind the last byte, more than `start`; `u64::MAX` for all there will ever be.
        end: u64,
    },
    /// `name` in `parent` leads to `ino`.
    Entry {
        /// The directory.
        parent: Ino,
        /// The name in it.
        name: &'a [u8],
        /// Where it leads.
        ino: Ino,
        /// The kind of `ino`.
        kind: FileKind,
    },
    /// `name` in `parent` leads nowhere, whatever the lower tree has there (a whiteout).
    NoEntry {
        /// The directory.
        parent: Ino,
        /// The name in it.
        name: &'a [u8],
    },
    /// The target of symbolic link `ino`.
    Symlink {
        /// The link.
        ino: Ino,
        /// Where it points.
        target: &'a [u8],
    },
    /// Extended attribute `name` of `ino` has this value, whatever the lower tree has.
    Xattr {
        /// The inode.
        ino: Ino,
        /// Full name, as `user.x`.
        name: &'a [u8],
        /// Its value.
        value: &'a [u8],
    },
    /// `ino` has no extended attribute `name`, whatever the lower tree has.
    NoXattr {
        /// The inode.
        ino: Ino,
        /// Full name.
        name: &'a [u8],
    },
    /// `ino` is gone for good: no name, not open. Everything said of it before is void.
    Gone {
        /// The inode.
        ino: Ino,
    },
}

/// How much of a lower file is copied at a time, by an upper that keeps [`Record::Own`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunks {
    /// Files of up to so many bytes are copied whole at the first change of their content.
    pub whole: u64,
    /// Bytes to which a change is rounded out that touches nothing which was copied before. More
    /// once a file is in many pieces.
    pub size: u64,
}

impl Default for Chunks {
    fn default() -> Self {
        Self {
            whole: 64 << 10,
            size: 4 << 10,
        }
    }
}

/// A place between two batches of an upper's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogPosition {
    /// Batches before it, in the upper's own count.
    pub seq: u64,
    /// Which log file, where in it, and the checksum of the frame before.
    pub(crate) generation: u64,
    pub(crate) offset: u64,
    pub(crate) chain: u64,
}

impl LogPosition {
    /// For a layer whose position is a count and nothing else.
    #[must_use]
    pub fn after(seq: u64) -> Self {
        Self {
            seq,
            ..Self::default()
        }
    }
}

/// What opening an upper found; for the person, and for `info`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Batches that were applied.
    pub batches: u64,
    /// Whether the upper was closed in good order the last time.
    pub clean: bool,
    /// Bytes of an unfinished tail that were set aside.
    pub torn_bytes: u64,
    /// Whether the host went down since, so that changes which were never synced may be missing.
    pub host_crashed: bool,
}

/// Room on the file system that holds the upper, in bytes and inodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Preferred block size, bytes.
    pub block_size: u32,
    /// All bytes.
    pub total: u64,
    /// Free bytes.
    pub free: u64,
    /// Free bytes for unprivileged users.
    pub available: u64,
    /// All inodes.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
}

/// Why an upper could not be opened or could not keep a change.
#[derive(Debug, thiserror::Error)]
pub enum UpperError {
    /// The host said no: no space, quota, I/O error, read-only. Nothing was changed.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was being done, as `write to`.
        doing: &'static str,
        /// The host file.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("{} is in use{}", path.display(), holder.map(|p| format!(" by process {p}")).unwrap_or_default())]
    InUse {
        /// The upper's directory.
        path: PathBuf,
        /// The process that holds it, where known.
        holder: Option<u32>,
    },
    /// It belongs to another lower tree.
    #[error("{} was written over another image and cannot be used over this one", path.display())]
    OtherLower {
        /// The upper's directory.
        path: PathBuf,
    },
    /// A version of the format that this program does not know.
    #[error("{} has format version {found}, this program knows {known}; use a newer pellicle", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest one known here.
        known: u32,
    },
    /// Damaged where it was already durable, so that no consistent state holds everything synced.
    #[error("{} is damaged at byte {offset}: {detail}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// How.
        detail: String,
    },
    /// The directory, or the host under it, does not do as a writable layer. Nothing was changed.
    #[error("{} cannot be used as a writable layer: {detail}", path.display())]
    Unsuitable {
        /// The directory.
        path: PathBuf,
        /// Why, and what to do.
        detail: String,
    },
    /// The lower tree failed to give what was to be copied up.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// An earlier flush failed, and what the host did keep is unknown: nothing more is taken.
    #[error("an earlier write to {} failed to reach the disk; remount to go on from what is there", path.display())]
    Poisoned {
        /// The upper's directory.
        path: PathBuf,
    },
}

/// A writable layer. All methods may be called from any thread at once.
pub trait Upper: Send + Sync {
    /// Calls `apply` with every record since the beginning, batch by batch in order, and tells
    /// what was found. Called once, before any other method.
    ///
    /// # Errors
    /// [`UpperError::Corrupt`] and the host's errors.
    fn replay(&self, apply: &mut dyn FnMut(Record<'_>)) -> Result<Recovery, UpperError>;

    /// Keeps `batch`: all of it or, on error and after a crash, none of it. It survives the end of
    /// this process from the moment this returns, and a crash of the host from the next sync on.
    /// The caller orders batches that depend on each other by its own locks.
    ///
    /// # Errors
    /// The host's errors ([`UpperError::Io`] with ENOSPC, EDQUOT, …), [`UpperError::Poisoned`].
    fn commit(&self, batch: &[Record<'_>]) -> Result<(), UpperError>;

    /// Sets room aside for one batch of a few records, so that it will not fail for want of room
    /// after content was changed in place. Followed by [`Upper::release`].
    ///
    /// # Errors
    /// As [`Upper::commit`].
    fn reserve(&self) -> Result<(), UpperError> {
        Ok(())
    }

    /// In which pieces lower files are to be copied; `None` for an upper that knows whole files
    /// only, and takes no [`ContentSource::Mixed`].
    fn chunks(&self) -> Option<Chunks> {
        None
    }

    /// Gives back what [`Upper::reserve`] set aside; the next commit may use it. To be called
    /// where no other commit can come between.
    fn release(&self) {}

    /// The data file of `ino`, open for reading. Kept open by the upper within bounds.
    ///
    /// # Errors
    /// The host's errors; a missing data file is [`UpperError::Corrupt`].
    fn data(&self, ino: Ino) -> Result<Arc<File>, UpperError>;

    /// The data file of `ino`, open for reading and writing. One that became a content of a store
    /// ([`Upper::is_held`]) is parted from it first, which copies it.
    ///
    /// # Errors
    /// As [`Upper::data`], and [`Upper::create_data`].
    fn data_to_write(&self, ino: Ino) -> Result<Arc<File>, UpperError> {
        self.data(ino)
    }

    /// Takes no change any more: what is kept is about to be removed.
    fn retire(&self) {}

    /// Whether nobody changes the data files as long as this lives, so that they may be given one more
    /// name and become contents of a store. From then on they are not written to any more: see
    /// [`Upper::data_to_write`].
    fn is_held(&self) -> bool {
        false
    }

    /// An empty data file for `ino`, replacing any that was there. It counts only once a batch
    /// says [`ContentSource::Data`] or [`ContentSource::Mixed`].
    ///
    /// # Errors
    /// The host's errors.
    fn create_data(&self, ino: Ino) -> Result<Arc<File>, UpperError>;

    /// Says that something in the data file of `ino` is about to stand for bytes of the lower tree, be
    /// it a copy of them or what was written over them, so that it must be on disk no later than the
    /// batch that makes it count (else a crash of the host would lose bytes which had been durable in
    /// the lower tree).
    fn note_copied(&self, ino: Ino);

    /// Removes the data file of `ino`, if any.
    fn remove_data(&self, ino: Ino);

    /// Says that what was done to the data file of `ino` since the last batch about it failed, and
    /// does not count: bytes past the node's size, and the host file's times. For uppers whose data
    /// file tells by itself how long the file is; others need do nothing.
    fn undo_data(&self, _ino: Ino) {}

    /// Makes the data of `ino` and every batch so far durable.
    ///
    /// # Errors
    /// The host's errors; afterwards the upper is [`UpperError::Poisoned`].
    fn sync_file(&self, ino: Ino) -> Result<(), UpperError>;

    /// Makes everything so far durable.
    ///
    /// # Errors
    /// As [`Upper::sync_file`].
    fn sync_all(&self) -> Result<(), UpperError>;

    /// Whether the log is worth compacting, given that a snapshot would have about
    /// `live_records` records.
    fn wants_compaction(&self, live_records: u64) -> bool;

    /// Where the log ends now. To be asked between two batches, while none is being applied.
    fn position(&self) -> LogPosition;

    /// Replaces the log by `snapshot`, which calls its argument with every record of the state.
    ///
    /// Commits may go on meanwhile: each thing that `snapshot` says may be as it was at `since` or
    /// at any later moment, for all batches after `since` are kept behind it, and a record says
    /// what is, whatever was before. Atomic. One at a time.
    ///
    /// # Errors
    /// The host's errors; the old log then stays.
    #[allow(
        clippy::type_complexity,
        reason = "one place; a name would hide what is called"
    )]
    fn compact(
        &self,
        since: LogPosition,
        snapshot: &mut dyn FnMut(&mut dyn FnMut(Record<'_>)),
    ) -> Result<(), UpperError>;

    /// What content is written through: a layer with failpoints has its own.
    fn host(&self) -> &Host {
        Host::plain()
    }

    /// Room left.
    ///
    /// # Errors
    /// The host's errors.
    fn space(&self) -> Result<Space, UpperError>;
}
