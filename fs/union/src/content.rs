//! Where the bytes of a regular file are, and how they get to where they may be changed.
//!
//! The seam behind which copy-up by chunks goes: the rest of the union knows only
//! [`Union::read_at`], [`Union::sink`] and the three [`ContentSource`]s.
//!
//! Two rules make sizes true at every crash: bytes of the data file past the inode's size are no
//! content and are cut off before the inode grows over them ([`Union::trim`]), and bytes past the
//! data file's end are zeros. So a write first puts bytes, then commits the size; a truncation
//! first commits the size, then cuts the file.

use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

use pellicle_store::Ino;
use pellicle_upper::{ContentSource, Node};
use rustix::fs::{copy_file_range, ftruncate, ioctl_ficlone};

use crate::{
    Union,
    change::Change,
    error::Error,
    inode::{ContentLock, Inode},
};

/// Bytes moved at a time where the host cannot do it in the kernel.
const BUFFER: usize = 256 * 1024;

/// A data file that may be written, under its content lock.
pub(crate) struct Sink {
    pub(crate) file: Arc<File>,
    /// It counts only once a change says so.
    fresh: bool,
}

impl Union {
    /// Reads content as `now` has it; short only at its end.
    pub(crate) fn read_at(&self, now: &Node, offset: u64, buf: &mut [u8]) -> Result<usize, Error> {
        let left = now.size.saturating_sub(offset);
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let Some(buf) = buf.get_mut(..want).filter(|buf| !buf.is_empty()) else {
            return Ok(0);
        };
        let got = match now.content {
            ContentSource::Lower => self.lower.read(now.ino, offset, buf)?,
            ContentSource::Zero => 0,
            ContentSource::Data => {
                let file = self.upper()?.data(now.ino)?;
                read_full(&file, buf, offset).map_err(host(now.ino, "read"))?
            }
        };
        if let Some(rest) = buf.get_mut(got..) {
            rest.fill(0);
        }
        Ok(want)
    }

    /// The data file of a locked inode, made and filled with the first `keep` bytes of what the
    /// content is now where there is none.
    pub(crate) fn sink(&self, lock: &ContentLock<'_>, keep: u64) -> Result<Sink, Error> {
        self.refuse_if_read_only()?;
        let now = lock.inode.now()?;
        let upper = self.upper()?;
        if now.content == ContentSource::Data {
            let file = upper.data(now.ino)?;
            return Ok(Sink { file, fresh: false });
        }
        let file = upper.create_data(now.ino)?;
        let keep = keep.min(now.size);
        if now.content == ContentSource::Lower && keep > 0 {
            if let Err(error) = self.copy_up(&now, keep, &file) {
                upper.remove_data(now.ino);
                return Err(error);
            }
            upper.note_copied(now.ino);
        }
        lock.inode.data_changed(true);
        Ok(Sink { file, fresh: true })
    }

    /// Cuts off what an unfinished write may have left past the inode's size.
    pub(crate) fn trim(&self, lock: &ContentLock<'_>, sink: &Sink) -> Result<(), Error> {
        let (size, exact) = {
            let state = lock.inode.state.read();
            (state.now.size, state.data.exact)
        };
        if exact {
            return Ok(());
        }
        let fail = host(lock.inode.ino, "trim");
        let length = sink.file.metadata().map_err(&fail)?.len();
        if length > size {
            ftruncate(&sink.file, size)
                .map_err(io::Error::from)
                .map_err(&fail)?;
        }
        lock.inode.data_changed(true);
        Ok(())
    }

    /// Commits what was done to the data file, with whatever else `edit` changes.
    pub(crate) fn keep(
        &self,
        lock: &ContentLock<'_>,
        sink: Sink,
        edit: impl FnOnce(&mut Change<'_>, &Arc<Inode>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let kept = self.commit_content(lock, ContentSource::Data, edit);
        match &kept {
            Ok(()) => {
                let exact = lock.inode.state.read().data.exact;
                lock.inode.data_changed(exact);
            }
            Err(_) => self.give_up(lock, sink),
        }
        kept
    }

    /// Commits a change of an inode whose content then is at `source`.
    pub(crate) fn commit_content(
        &self,
        lock: &ContentLock<'_>,
        source: ContentSource,
        edit: impl FnOnce(&mut Change<'_>, &Arc<Inode>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut change = Change::begin(self)?;
        change.edit(lock.inode, |node| node.content = source)?;
        edit(&mut change, lock.inode)?;
        change.commit()
    }

    /// Forgets what was done to the data file.
    pub(crate) fn give_up(&self, lock: &ContentLock<'_>, sink: Sink) {
        if sink.fresh {
            if let Ok(upper) = self.upper() {
                upper.remove_data(lock.inode.ino);
            }
        } else {
            lock.inode.data_changed(false);
        }
    }

    /// Copies the first `keep` bytes of a lower file: shared with it where the host can, in the
    /// kernel where it can, holes left as holes.
    fn copy_up(&self, now: &Node, keep: u64, to: &File) -> Result<(), Error> {
        let ino = now.ino;
        let from = self.lower.backing(ino)?;
        if let Some(from) = &from
            && from.metadata().is_ok_and(|m| m.len() == keep)
            && ioctl_ficlone(to, from).is_ok()
        {
            return Ok(());
        }
        let mut at = 0;
        while at < keep {
            let Some(data) = self.lower.seek(ino, at, true)?.filter(|d| *d < keep) else {
                break;
            };
            let data = data.max(at);
            let hole = self.lower.seek(ino, data, false)?.unwrap_or(keep).min(keep);
            if hole <= data {
                return Err(Error::damaged(format!(
                    "inode {ino} has a hole inside its data"
                )));
            }
            let mut done = data;
            if let Some(from) = &from {
                done += copy_in_kernel(from, data, to, data, hole - data);
            }
            self.copy_bytes(now, done, to, done, hole - done)?;
            at = hole;
        }
        Ok(())
    }

    /// Copies bytes of `now` through memory.
    pub(crate) fn copy_bytes(
        &self,
        now: &Node,
        mut from: u64,
        to: &File,
        mut at: u64,
        mut length: u64,
    ) -> Result<(), Error> {
        if length == 0 {
            return Ok(());
        }
        let mut buf = vec![0; usize::try_from(length).unwrap_or(BUFFER).min(BUFFER)];
        while length > 0 {
            let want = usize::try_from(length).unwrap_or(BUFFER).min(buf.len());
            let part = buf.get_mut(..want).unwrap_or_default();
            let got = self.read_at(now, from, part)?;
            if got == 0 {
                break;
            }
            to.write_all_at(part.get(..got).unwrap_or_default(), at)
                .map_err(host(now.ino, "copy"))?;
            from += got as u64;
            at += got as u64;
            length -= got as u64;
        }
        Ok(())
    }

    /// Blocks of the data file, asked of the host once per change of content.
    pub(crate) fn ask_blocks(&self, inode: &Inode, version: u64) -> Result<u64, Error> {
        use std::os::unix::fs::MetadataExt;
        let file = self.upper()?.data(inode.ino)?;
        let blocks = file.metadata().map_err(host(inode.ino, "stat"))?.blocks();
        let mut state = inode.state.write();
        if state.data.version == version {
            state.data.blocks = Some(blocks);
        }
        Ok(blocks)
    }
}

/// Copies inside the kernel as far as it will; the rest is the caller's.
pub(crate) fn copy_in_kernel(from: &File, from_at: u64, to: &File, to_at: u64, length: u64) -> u64 {
    let (mut from_at, mut to_at, mut done) = (from_at, to_at, 0);
    while done < length {
        let want = usize::try_from(length - done).unwrap_or(usize::MAX >> 1);
        match copy_file_range(from, Some(&mut from_at), to, Some(&mut to_at), want) {
            Ok(0) | Err(_) => break,
            Ok(n) => done += n as u64,
        }
    }
    done
}

/// Reads until `buf` is full or the file ends.
pub(crate) fn read_full(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => (),
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Writes what the host takes; an error only if that is nothing at all.
pub(crate) fn write_some(file: &File, data: &[u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
        match file.write_at(rest, offset + done as u64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => (),
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
    }
    Ok(done)
}

pub(crate) fn host(ino: Ino, doing: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Content { ino, doing, source }
}
