//! Where the bytes of a regular file are, and how they get to where they may be changed.
//!
//! The rest of the union knows only [`Union::read_now`], [`Union::sink`], [`Union::claim`] and the
//! four [`ContentSource`]s; what is mixed is dealt with in [`crate::mixed`].
//!
//! Two rules make sizes true at every crash: bytes of the data file past the inode's size are no
//! content and are cut off before the inode grows over them ([`Union::trim`]), and bytes past the
//! data file's end are zeros. So a write first puts bytes, then commits the size; a truncation
//! first commits the size, then cuts the file.

use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

use pellicle_store::Ino;
use pellicle_upper::{ContentSource, Host, Node, Upper};

use crate::{
    Union,
    change::Change,
    error::Error,
    inode::{ContentLock, Inode},
    mixed::Saying,
};

/// Bytes moved at a time where the host cannot do it in the kernel.
const BUFFER: usize = 256 * 1024;

/// A data file that may be written, under its content lock.
pub(crate) struct Sink<'u> {
    pub(crate) file: Arc<File>,
    /// It counts only once a change says so.
    fresh: bool,
    /// What is changed in place cannot be taken back, so it shall not be for want of room that the
    /// change cannot be kept.
    room: Option<Room<'u>>,
    /// What the change says of mixed content; `None` if all content is in the data file.
    pub(crate) mixed: Option<Saying>,
}

/// Room for one small change.
struct Room<'u>(&'u dyn Upper);

impl<'u> Room<'u> {
    fn set_aside(upper: &'u dyn Upper) -> Result<Self, Error> {
        upper.reserve()?;
        Ok(Self(upper))
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl Sink<'_> {
    /// The change came to `end` only.
    pub(crate) fn shorten(&mut self, end: u64) {
        if let Some(mixed) = &mut self.mixed {
            mixed.shorten(end);
        }
    }
}

impl Union {
    /// Reads content; short only at its end.
    pub(crate) fn read_now(
        &self,
        inode: &Inode,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<usize, Error> {
        let (now, pieces) = {
            let state = inode.state.read();
            if state.gone {
                return Err(Error::NotFound);
            }
            let end = offset.saturating_add(buf.len() as u64);
            (state.now, state.pieces(offset, end.min(state.now.size)))
        };
        let left = now.size.saturating_sub(offset);
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let Some(buf) = buf.get_mut(..want).filter(|buf| !buf.is_empty()) else {
            return Ok(0);
        };
        let got = match now.content {
            ContentSource::Lower => self.lower.read(now.ino, offset, buf)?,
            ContentSource::Zero => 0,
            ContentSource::Mixed => self.read_pieces(now.ino, &pieces, buf)?,
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

    /// The data file of a locked inode, made where there is none: with all of the content, or with
    /// none of it if that is to be copied piece by piece ([`Union::claim`]).
    pub(crate) fn sink(&self, lock: &ContentLock<'_>) -> Result<Sink<'_>, Error> {
        self.refuse_if_read_only()?;
        let now = lock.inode.now()?;
        let upper = self.upper()?;
        if now.content.has_data() {
            let file = upper.data_to_write(now.ino)?;
            let mixed = now.content == ContentSource::Mixed;
            return Ok(Sink {
                file,
                fresh: false,
                room: Some(Room::set_aside(upper)?),
                mixed: mixed.then(|| Saying::new(upper.chunks().unwrap_or_default(), None)),
            });
        }
        let file = upper.create_data(now.ino)?;
        let mixed = match self.copy_up(lock.inode, &now, &file) {
            Ok(mixed) => mixed,
            Err(error) => {
                upper.remove_data(now.ino);
                return Err(error);
            }
        };
        lock.inode.data_changed(true);
        Ok(Sink {
            file,
            fresh: true,
            room: None,
            mixed,
        })
    }

    /// Cuts off what an unfinished write may have left past the inode's size.
    pub(crate) fn trim(&self, lock: &ContentLock<'_>, sink: &Sink<'_>) -> Result<(), Error> {
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
            self.host().truncate_data(&sink.file, size).map_err(&fail)?;
        }
        lock.inode.data_changed(true);
        Ok(())
    }

    /// Commits what was done to the data file, with whatever else `edit` changes.
    pub(crate) fn keep(
        &self,
        lock: &ContentLock<'_>,
        mut sink: Sink<'_>,
        edit: impl FnOnce(&mut Change<'_>, &Arc<Inode>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let room = sink.room.take();
        let (source, own) = Self::outcome(lock, &sink);
        if sink.mixed.as_ref().is_some_and(Saying::claims) {
            // Not before all of it is in the data file, or a sync beside this could miss the rest.
            self.upper()?.note_copied(lock.inode.ino);
        }
        let kept = self.commit_content(lock, source, |change, inode| {
            // No other change comes between this and the commit.
            drop(room);
            own.into_iter().for_each(|range| change.own(inode, range));
            edit(change, inode)
        });
        match &kept {
            Ok(()) => {
                let exact = lock.inode.state.read().data.exact;
                lock.inode.data_changed(exact);
            }
            Err(_) => self.give_up(lock, &sink),
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
    pub(crate) fn give_up(&self, lock: &ContentLock<'_>, sink: &Sink<'_>) {
        if sink.fresh {
            if let Ok(upper) = self.upper() {
                upper.remove_data(lock.inode.ino);
            }
        } else {
            if let Ok(upper) = self.upper() {
                upper.undo_data(lock.inode.ino);
            }
            lock.inode.data_changed(false);
        }
    }

    /// Fills the new data file of a lower file: shared with it where the host can, else by copying
    /// all of it or, if it is large, nothing yet.
    fn copy_up(&self, inode: &Inode, now: &Node, to: &File) -> Result<Option<Saying>, Error> {
        if now.content != ContentSource::Lower || now.size == 0 {
            return Ok(None);
        }
        let upper = self.upper()?;
        let from = self.lower.backing(now.ino)?;
        let cloned = from.as_deref().is_some_and(|from| {
            from.metadata().is_ok_and(|m| m.len() == now.size)
                && self.host().clone_data(from, to).is_ok()
        });
        if !cloned {
            let chunks = upper.chunks().filter(|chunks| now.size > chunks.whole);
            if let Some(chunks) = chunks {
                return Ok(Some(Saying::new(chunks, Some(now.size))));
            }
            self.copy_lower(inode, 0, now.size, to, from.as_deref())?;
        }
        upper.note_copied(now.ino);
        Ok(None)
    }

    /// Copies bytes of `source` through memory, counting them in `copied`.
    pub(crate) fn copy_bytes(
        &self,
        source: &Inode,
        mut from: u64,
        to: &File,
        mut at: u64,
        mut length: u64,
        copied: &mut u64,
    ) -> Result<(), Error> {
        if length == 0 {
            return Ok(());
        }
        let mut buf = vec![0; usize::try_from(length).unwrap_or(BUFFER).min(BUFFER)];
        while length > 0 {
            let want = usize::try_from(length).unwrap_or(BUFFER).min(buf.len());
            let part = buf.get_mut(..want).unwrap_or_default();
            let got = self.read_now(source, from, part)?;
            if got == 0 {
                break;
            }
            let part = part.get(..got).unwrap_or_default();
            let done = write_some(self.host(), to, part, at).map_err(host(source.ino, "copy"))?;
            from += done as u64;
            at += done as u64;
            length -= done as u64;
            *copied += done as u64;
        }
        Ok(())
    }

    /// Copies inside the kernel as far as it will; the rest is the caller's.
    pub(crate) fn copy_in_kernel(
        &self,
        from: &File,
        from_at: u64,
        to: &File,
        to_at: u64,
        length: u64,
    ) -> u64 {
        let (mut from_at, mut to_at, mut done) = (from_at, to_at, 0);
        while done < length {
            let want = usize::try_from(length - done).unwrap_or(usize::MAX >> 1);
            let host = self.host();
            match host.copy_data(from, &mut from_at, to, &mut to_at, want) {
                Ok(0) | Err(_) => break,
                Ok(n) => done += n as u64,
            }
        }
        done
    }

    /// Blocks of the data file and of what is still below, asked of the host once per change of content.
    pub(crate) fn ask_blocks(&self, inode: &Inode, version: u64) -> Result<u64, Error> {
        use std::os::unix::fs::MetadataExt;
        let file = self.upper()?.data(inode.ino)?;
        let blocks = file.metadata().map_err(host(inode.ino, "stat"))?.blocks();
        let blocks = blocks.saturating_add(self.blocks_left(inode)?);
        let mut state = inode.state.write();
        if state.data.version == version {
            state.data.blocks = Some(blocks);
        }
        Ok(blocks)
    }
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
pub(crate) fn write_some(host: &Host, file: &File, data: &[u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
        match host.write_data(file, rest, offset + done as u64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => (),
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// Makes a host file exactly `size` bytes long.
pub(crate) fn fit(host: &Host, file: &File, size: u64) -> io::Result<()> {
    if file.metadata()?.len() != size {
        host.truncate_data(file, size)?;
    }
    Ok(())
}

pub(crate) fn host(ino: Ino, doing: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Content { ino, doing, source }
}
