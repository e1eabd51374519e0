//! Content of regular files: reading, writing, sizes.
//!
//! Whoever changes content holds the inode's content lock; readers take none, and see for every
//! byte what was there before or after a change that runs beside them.

use std::{io, sync::Arc};

use pellicle_store::{FileKind, Ino};
use pellicle_upper::ContentSource;
use rustix::fs::ftruncate;

use crate::{
    Union,
    change::Change,
    check::{SIZE_MAX, check_range},
    content::{host, write_some},
    error::Error,
    inode::{Inode, clear_set_id},
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
            Found::Inode(inode) => {
                let now = inode.now()?;
                match now.kind {
                    FileKind::Regular => self.read_at(&now, offset, buf),
                    FileKind::Directory => Err(Error::IsDirectory),
                    _ => Err(Error::Invalid),
                }
            }
        }
    }

    /// Writes `data` and gives how many bytes; fewer than all only where the host ran out of room
    /// on the way. `kill_suid_sgid` as in [`SetAttr`](crate::SetAttr), and takes file capabilities
    /// away. The first write into a file of the lower tree copies it up.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::IsDirectory`], [`Error::Invalid`], [`Error::TooLarge`],
    /// [`Error::ReadOnly`], what the upper says and the host's errors.
    pub fn write(
        &self,
        ino: Ino,
        offset: u64,
        data: &[u8],
        kill_suid_sgid: bool,
    ) -> Result<usize, Error> {
        self.refuse_if_read_only()?;
        let inode = self.regular(ino)?;
        check_range(offset, data.len() as u64)?;
        if data.is_empty() {
            return Ok(0);
        }
        let lock = inode.lock_content();
        let sink = self.sink(&lock, u64::MAX)?;
        self.trim(&lock, &sink)?;
        let n = match write_some(&sink.file, data, offset) {
            Ok(n) => n,
            Err(error) => {
                self.give_up(&lock, sink);
                return Err(host(ino, "write")(error));
            }
        };
        let end = offset + n as u64;
        self.keep(&lock, sink, |change, inode| {
            wrote(change, inode, end)?;
            if kill_suid_sgid {
                change.edit(inode, clear_set_id)?;
                self.drop_capability(change, ino)?;
            }
            Ok(())
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
            ContentSource::Zero => self.commit_content(&lock, ContentSource::Zero, resize),
            ContentSource::Lower => {
                let sink = self.sink(&lock, u64::MAX)?;
                self.keep(&lock, sink, resize)
            }
            ContentSource::Data => {
                let sink = self.sink(&lock, u64::MAX)?;
                if size > now.size {
                    self.trim(&lock, &sink)?;
                    return self.keep(&lock, sink, resize);
                }
                let file = sink.file.clone();
                self.keep(&lock, sink, resize)?;
                // Failing here costs room only: the rest is cut before the file grows again.
                let cut = match file.metadata() {
                    Ok(m) if m.len() > size => ftruncate(&file, size).is_ok(),
                    Ok(_) => true,
                    Err(_) => false,
                };
                inode.data_changed(cut);
                Ok(())
            }
        }
    }

    /// Copies bytes from one file into another (or the same, if the ranges do not overlap) and
    /// gives how many: fewer at the end of the source, and at most [`COPY_MAX`] at once.
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
    ) -> Result<u64, Error> {
        self.refuse_if_read_only()?;
        let source = self.regular(from)?;
        let target = self.regular(to)?;
        let from_end = from_offset.saturating_add(length);
        let to_end = to_offset.saturating_add(length);
        if from == to && from_offset < to_end && to_offset < from_end {
            return Err(Error::Invalid);
        }
        let (lock, _source_lock) = Inode::lock_contents(&source, &target);
        let left = source.now()?.size.saturating_sub(from_offset);
        let length = length.min(left).min(COPY_MAX);
        if length == 0 {
            return Ok(0);
        }
        let end = check_range(to_offset, length)?;
        let sink = self.sink(&lock, u64::MAX)?;
        self.trim(&lock, &sink)?;
        // After the copy-up: within one file the bytes are in the data file by now, though no
        // change says so yet, and the lower content is still the same.
        let now = source.now()?;
        let copied = self.copy_content(&now, from_offset, &sink.file, to_offset, length);
        if let Err(error) = copied {
            self.give_up(&lock, sink);
            return Err(error);
        }
        self.keep(&lock, sink, |change, inode| wrote(change, inode, end))?;
        Ok(length)
    }

    fn copy_content(
        &self,
        now: &pellicle_upper::Node,
        from: u64,
        to: &std::fs::File,
        at: u64,
        length: u64,
    ) -> Result<(), Error> {
        let file = match now.content {
            ContentSource::Lower => self.lower.backing(now.ino)?,
            ContentSource::Data => Some(self.upper()?.data(now.ino)?),
            ContentSource::Zero => None,
        };
        let mut done = 0;
        if let Some(file) = &file {
            done = crate::content::copy_in_kernel(file, from, to, at, length);
        }
        self.copy_bytes(now, from + done, to, at + done, length - done)
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

    /// The whole content of `ino` as one host file of exactly the inode's size, for passthrough:
    /// of the lower tree, or, with `write`, the upper's data file (copied up first where need be).
    /// `None` where there is no such file. Whoever changes the file says so with
    /// [`Union::backing_changed`].
    ///
    /// # Errors
    /// As [`Union::write`].
    pub fn backing(&self, ino: Ino, write: bool) -> Result<Option<Arc<std::fs::File>>, Error> {
        if !write && matches!(self.table.find(ino), Found::Untouched) {
            return Ok(self.lower.backing(ino)?);
        }
        let inode = self.regular(ino)?;
        let lock = inode.lock_content();
        let now = inode.now()?;
        if now.content != ContentSource::Data && !write {
            let whole =
                now.content == ContentSource::Lower && self.lower.attr(ino)?.size == now.size;
            return Ok(if whole {
                self.lower.backing(ino)?
            } else {
                None
            });
        }
        if now.content == ContentSource::Data {
            let file = self.upper()?.data(ino)?;
            if !self.is_read_only() {
                fit(&file, now.size).map_err(host(ino, "fit"))?;
                inode.data_changed(true);
            }
            return Ok(Some(file));
        }
        let sink = self.sink(&lock, u64::MAX)?;
        let file = sink.file.clone();
        if let Err(error) = fit(&file, now.size) {
            self.give_up(&lock, sink);
            return Err(host(ino, "fit")(error));
        }
        self.keep(&lock, sink, |_, _| Ok(()))?;
        Ok(Some(file))
    }

    /// Takes over the size of a data file that the kernel wrote to directly, with the times now.
    ///
    /// # Errors
    /// As [`Union::write`].
    pub fn backing_changed(&self, ino: Ino) -> Result<(), Error> {
        let inode = self.regular(ino)?;
        let lock = inode.lock_content();
        if inode.now()?.content != ContentSource::Data {
            return Ok(());
        }
        let sink = self.sink(&lock, u64::MAX)?;
        let size = sink.file.metadata().map_err(host(ino, "stat"))?.len();
        self.keep(&lock, sink, |change, inode| {
            let now = change.now;
            change.edit(inode, |node| {
                node.size = size;
                node.mtime = now;
                node.ctime = now;
            })
        })
    }
}

/// Most bytes that one [`Union::copy_range`] copies, so that others get at the file in between.
pub const COPY_MAX: u64 = 128 << 20;

/// The inode after a write that ended at `end`.
pub(crate) fn wrote(change: &mut Change<'_>, inode: &Arc<Inode>, end: u64) -> Result<(), Error> {
    let now = change.now;
    change.edit(inode, |node| {
        node.size = node.size.max(end);
        node.mtime = now;
        node.ctime = now;
    })
}

fn fit(file: &std::fs::File, size: u64) -> io::Result<()> {
    if file.metadata()?.len() != size {
        ftruncate(file, size)?;
    }
    Ok(())
}
