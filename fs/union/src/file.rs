//! Content of regular files: reading, writing, sizes.
//!
//! Whoever changes content holds the inode's content lock; readers take none, and see for every
//! byte what was there before or after a change that runs beside them.

use std::sync::Arc;

use pellicle_store::{FileKind, Ino};
use pellicle_upper::ContentSource;

use crate::{
    Union,
    change::Change,
    check::{SIZE_MAX, check_range},
    content::{Sink, host, write_some},
    error::Error,
    inode::{ContentLock, Inode, clear_set_id},
    ranges::{Piece, Range},
    request::KillSetId,
    table::Found,
};

impl Union {
    /// Reads into `buf`; short only at the end of the file. Does not change the access time.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::IsDirectory`] or [`Error::Invalid`] for what is no regular
    /// file, damage, and the host's errors.
    pub fn read(&self, ino: Ino, offset: u64, buf: &mut [u8]) -> Result<usize, Error> {
        match self.table.find(ino) {
            Found::Absent => Err(Error::NotFound),
            Found::Untouched => match self.lower.read(ino, offset, buf) {
                Ok(n) => Ok(n),
                Err(error) => match self.kind(ino)? {
                    FileKind::Regular => Err(error.into()),
                    FileKind::Directory => Err(Error::IsDirectory),
                    _ => Err(Error::Invalid),
                },
            },
            Found::Inode(inode) => match inode.kind {
                FileKind::Regular => self.read_now(&inode, offset, buf),
                FileKind::Directory => Err(Error::IsDirectory),
                _ => Err(Error::Invalid),
            },
        }
    }

    /// Writes `data` and gives how many bytes; fewer than all only where the host ran out of room
    /// on the way. `kill` says which set-id bits go; file capabilities always do. The first write
    /// into a file of the lower tree copies it up, or what is around the write in a large one.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::IsDirectory`], [`Error::Invalid`], [`Error::TooLarge`],
    /// [`Error::ReadOnly`], what the upper says and the host's errors.
    pub fn write(
        &self,
        ino: Ino,
        offset: u64,
        data: &[u8],
        kill: impl Into<KillSetId>,
    ) -> Result<usize, Error> {
        self.refuse_if_read_only()?;
        let inode = self.regular(ino)?;
        let end = check_range(offset, data.len() as u64)?;
        if data.is_empty() {
            return Ok(0);
        }
        let lock = inode.lock_content();
        let _lent = self.change_lent(&lock)?;
        let mut sink = self.sink(&lock)?;
        self.trim(&lock, &sink)?;
        self.claim(&lock, &mut sink, Range { start: offset, end })?;
        let n = match write_some(self.host(), &sink.file, data, offset) {
            Ok(n) => n,
            Err(error) => {
                self.give_up(&lock, &sink);
                return Err(host(ino, "write")(error));
            }
        };
        let end = offset + n as u64;
        if n < data.len() {
            sink.shorten(end);
        }
        self.keep(&lock, sink, |change, inode| {
            self.wrote(change, inode, end, kill.into())
        })?;
        Ok(n)
    }

    /// Makes the content `size` bytes long; `edit` changes whatever else goes with it.
    pub(crate) fn truncate(
        &self,
        ino: Ino,
        size: u64,
        edit: impl FnOnce(&mut Change<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let inode = self.regular(ino)?;
        if size > SIZE_MAX {
            return Err(Error::TooLarge);
        }
        let lock = inode.lock_content();
        let _lent = self.change_lent(&lock)?;
        let now = inode.now()?;
        let resize = |change: &mut Change<'_>, inode: &Arc<Inode>| {
            change.edit(inode, |node| node.size = size)?;
            edit(change)
        };
        match now.content {
            // A lower file that shrinks needs no copy: its content is cut off at the inode's size.
            ContentSource::Lower if size > 0 && size <= now.size => {
                self.commit_content(&lock, ContentSource::Lower, resize)
            }
            ContentSource::Lower if size == 0 => {
                self.commit_content(&lock, ContentSource::Zero, resize)
            }
            ContentSource::Zero if size <= HOST_HOLDS => {
                self.commit_content(&lock, ContentSource::Zero, resize)
            }
            ContentSource::Lower | ContentSource::Zero => {
                let sink = self.sink(&lock)?;
                self.stretch(&lock, &sink, size)?;
                self.keep(&lock, sink, resize)
            }
            ContentSource::Data | ContentSource::Mixed => {
                let mut sink = self.sink(&lock)?;
                if size > now.size {
                    self.trim(&lock, &sink)?;
                    self.stretch(&lock, &sink, size)?;
                    return self.keep(&lock, sink, resize);
                }
                Self::claim_rest(&lock, &mut sink, size);
                let file = sink.file.clone();
                self.keep(&lock, sink, resize)?;
                // Failing here costs room only: the rest is cut before the file grows again.
                let cut = match file.metadata() {
                    Ok(m) if m.len() > size => self.host().truncate_data(&file, size).is_ok(),
                    Ok(_) => true,
                    Err(_) => false,
                };
                inode.data_changed(cut);
                Ok(())
            }
        }
    }

    /// Has the host say, before it is promised, that a data file can be so large.
    fn stretch(&self, lock: &ContentLock<'_>, sink: &Sink<'_>, size: u64) -> Result<(), Error> {
        if size <= HOST_HOLDS {
            return Ok(());
        }
        self.host()
            .truncate_data(&sink.file, size)
            .map_err(|error| {
                self.give_up(lock, sink);
                host(lock.inode.ino, "extend")(error)
            })
    }

    /// Copies bytes from one file into another (or the same, if the ranges do not overlap) and
    /// gives how many: fewer at the end of the source, and at most [`COPY_MAX`] at once. `kill` as
    /// for [`Union::write`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for ranges that overlap, and as [`Union::write`].
    pub fn copy_range(
        &self,
        from: Ino,
        from_offset: u64,
        to: Ino,
        to_offset: u64,
        length: u64,
        kill: impl Into<KillSetId>,
    ) -> Result<u64, Error> {
        self.refuse_if_read_only()?;
        let source = self.regular(from)?;
        let target = self.regular(to)?;
        let from_end = from_offset.saturating_add(length);
        let to_end = to_offset.saturating_add(length);
        if from == to && from_offset < to_end && to_offset < from_end {
            return Err(Error::Invalid);
        }
        self.look_if_lent(&source)?;
        let (lock, _source_lock) = Inode::lock_contents(&source, &target);
        let _lent = self.change_lent(&lock)?;
        let left = source.now()?.size.saturating_sub(from_offset);
        let length = length.min(left).min(COPY_MAX);
        if length == 0 {
            return Ok(0);
        }
        check_range(to_offset, length)?;
        let mut sink = self.sink(&lock)?;
        self.trim(&lock, &sink)?;
        let wanted = Range {
            start: to_offset,
            end: to_offset + length,
        };
        self.claim(&lock, &mut sink, wanted)?;
        // Within one file the bytes may be in the data file by now, though no change says so yet,
        // and the lower content is still the same.
        let mut done = 0;
        let from = Range {
            start: from_offset,
            end: from_offset + length,
        };
        let copied = self.copy_content(&source, from, &sink.file, to_offset, &mut done);
        // What is in place already cannot be taken back, so it is told.
        if let Err(error) = copied
            && done == 0
        {
            self.give_up(&lock, &sink);
            return Err(error);
        }
        let end = to_offset + done;
        if done < length {
            sink.shorten(end);
        }
        self.keep(&lock, sink, |change, inode| {
            self.wrote(change, inode, end, kill.into())
        })?;
        Ok(done)
    }

    /// What else a write that ended at `end` changes.
    pub(crate) fn wrote(
        &self,
        change: &mut Change<'_>,
        inode: &Arc<Inode>,
        end: u64,
        kill: KillSetId,
    ) -> Result<(), Error> {
        let now = change.now;
        change.edit(inode, |node| {
            node.size = node.size.max(end);
            node.mtime = now;
            node.ctime = now;
            clear_set_id(node, kill);
        })?;
        self.drop_capability(change, inode.ino)
    }

    fn copy_content(
        &self,
        source: &Inode,
        from: Range,
        to: &std::fs::File,
        at: u64,
        done: &mut u64,
    ) -> Result<(), Error> {
        let (content, mut pieces) = {
            let state = source.state.read();
            (state.now.content, state.pieces(from.start, from.end))
        };
        if content != ContentSource::Mixed {
            pieces.push(Piece {
                start: from.start,
                end: from.end,
                own: content == ContentSource::Data,
            });
        }
        for piece in pieces {
            let file = match content {
                ContentSource::Zero => None,
                _ if piece.own => Some(self.upper()?.data(source.ino)?),
                _ => self.lower.backing(source.ino)?,
            };
            let (start, mut left) = (piece.start, piece.end - piece.start);
            let moved = file.map_or(0, |file| {
                self.copy_in_kernel(&file, start, to, at + *done, left)
            });
            *done += moved;
            left -= moved;
            let behind = at + *done;
            self.copy_bytes(source, start + moved, to, behind, left, done)?;
        }
        Ok(())
    }

    /// Makes the content of `ino` and every change so far durable.
    ///
    /// # Errors
    /// The host's errors; the upper takes nothing more then.
    pub fn sync_file(&self, ino: Ino) -> Result<(), Error> {
        match self.table.find(ino) {
            Found::Absent => Err(Error::NotFound),
            // The lower tree is durable, and no change speaks of this inode.
            Found::Untouched => Ok(()),
            Found::Inode(inode) => {
                inode.now()?;
                self.look_if_lent(&inode)?;
                match self.upper() {
                    Ok(upper) if !self.is_read_only() => Ok(upper.sync_file(ino)?),
                    _ => Ok(()),
                }
            }
        }
    }

    /// Makes everything so far durable.
    ///
    /// # Errors
    /// As [`Union::sync_file`].
    pub fn sync_all(&self) -> Result<(), Error> {
        match self.upper() {
            Ok(upper) if !self.is_read_only() => Ok(upper.sync_all()?),
            _ => Ok(()),
        }
    }

    /// Takes no change any more: what was written is about to be removed.
    pub fn retire(&self) {
        if let Ok(upper) = self.upper() {
            upper.retire();
        }
    }

    /// The whole content of `ino` as one host file of exactly the inode's size, to be read by the
    /// kernel itself while nothing changes: for a read-only union. `None` where there is no such
    /// file. See [`Union::lend`] for one that is written to.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::IsDirectory`], [`Error::Invalid`], and the host's errors.
    pub fn backing(&self, ino: Ino) -> Result<Option<Arc<std::fs::File>>, Error> {
        if matches!(self.table.find(ino), Found::Untouched) {
            return Ok(self.lower.backing(ino)?);
        }
        let now = self.regular(ino)?.now()?;
        Ok(match now.content {
            ContentSource::Lower if self.lower.attr(ino)?.size == now.size => {
                self.lower.backing(ino)?
            }
            ContentSource::Data => {
                let file = self.upper()?.data(ino)?;
                let length = file.metadata().map_err(host(ino, "stat"))?.len();
                (length == now.size).then_some(file)
            }
            ContentSource::Lower | ContentSource::Mixed | ContentSource::Zero => None,
        })
    }
}

/// Files of up to this size every host holds; beyond it the host is asked.
const HOST_HOLDS: u64 = 1 << 30;

/// Most bytes that one [`Union::copy_range`] copies, so that others get at the file in between.
pub const COPY_MAX: u64 = 128 << 20;
