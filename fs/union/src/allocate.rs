//! Holes: `fallocate` and `SEEK_DATA`/`SEEK_HOLE`.

use std::{fs::File, io};

use pellicle_store::Ino;
use pellicle_upper::{ContentSource, Host};
use rustix::{
    fs::{FallocateFlags, SeekFrom, seek},
    io::Errno,
};

use crate::{
    Union, check::check_range, content::host, error::Error, ranges::Range, request::KillSetId,
};

/// What a mode of `fallocate(2)` asks for.
enum Wanted {
    Allocate,
    Punch,
    Zero,
}

impl Union {
    /// Allocates, punches or zeroes `length` bytes from `offset`. `mode` is `fallocate(2)`'s: 0,
    /// `KEEP_SIZE`, `PUNCH_HOLE|KEEP_SIZE`, `ZERO_RANGE[|KEEP_SIZE]`. `kill` as for [`Union::write`].
    ///
    /// # Errors
    /// [`Error::Unsupported`] for other modes and where the host cannot allocate,
    /// [`Error::Invalid`] for no bytes, and as [`Union::write`].
    pub fn fallocate(
        &self,
        ino: Ino,
        mode: i32,
        offset: u64,
        length: u64,
        kill: impl Into<KillSetId>,
    ) -> Result<(), Error> {
        self.refuse_if_read_only()?;
        let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
        let wanted = match mode & !libc::FALLOC_FL_KEEP_SIZE {
            0 => Wanted::Allocate,
            libc::FALLOC_FL_PUNCH_HOLE if keep_size => Wanted::Punch,
            libc::FALLOC_FL_ZERO_RANGE => Wanted::Zero,
            _ => return Err(Error::Unsupported),
        };
        let inode = self.regular(ino)?;
        if length == 0 {
            return Err(Error::Invalid);
        }
        let end = check_range(offset, length)?;
        let lock = inode.lock_content();
        let _lent = self.change_lent(&lock)?;
        let size = inode.now()?.size;
        let mut sink = self.sink(&lock)?;
        self.trim(&lock, &sink)?;
        // Past the inode's size there is nothing to clear; the host's file never grows here, so
        // that a failure leaves no trace.
        let inside = end.min(size).saturating_sub(offset);
        if !matches!(wanted, Wanted::Allocate) {
            let cleared = Range {
                start: offset,
                end: offset + inside,
            };
            self.claim(&lock, &mut sink, cleared)?;
        }
        let done = match wanted {
            Wanted::Allocate => allocate(self.host(), &sink.file, offset, length),
            Wanted::Punch => clear(self.host(), &sink.file, offset, inside),
            // In this order, so that want of room leaves the content as it was.
            Wanted::Zero => allocate(self.host(), &sink.file, offset, length)
                .and_then(|()| zero(self.host(), &sink.file, offset, inside)),
        };
        if let Err(error) = done {
            self.give_up(&lock, &sink);
            return Err(match Errno::from_io_error(&error) {
                Some(Errno::OPNOTSUPP) => Error::Unsupported,
                _ => host(ino, "allocate")(error),
            });
        }
        let end = if keep_size { size } else { end };
        self.keep(&lock, sink, |change, inode| {
            self.wrote(change, inode, end, kill.into())
        })
    }

    /// `SEEK_DATA` (`data`) or `SEEK_HOLE` from `offset`; the end of the file counts as a hole.
    ///
    /// # Errors
    /// [`Error::NoSuchOffset`] (ENXIO), [`Error::IsDirectory`], [`Error::Invalid`], damage, and the
    /// host's errors.
    pub fn seek(&self, ino: Ino, offset: u64, data: bool) -> Result<u64, Error> {
        let inode = self.regular(ino)?;
        self.look_if_lent(&inode)?;
        let now = inode.now()?;
        if offset >= now.size {
            return Err(Error::NoSuchOffset);
        }
        let found = match now.content {
            ContentSource::Zero => None,
            ContentSource::Lower => self.lower.seek(ino, offset, data)?,
            ContentSource::Data => {
                let file = self.upper()?.data(ino)?;
                seek_in(&file, offset, data).map_err(host(ino, "seek"))?
            }
            ContentSource::Mixed => self.seek_mixed(&inode, offset, now.size, data)?,
        };
        let needs_lower = matches!(now.content, ContentSource::Lower | ContentSource::Mixed);
        match found {
            Some(at) if at < now.size => Ok(at),
            Some(_) if !data => Ok(now.size),
            // Past the data file's end everything is hole.
            None if !data && !needs_lower => Ok(offset),
            None if !data => Ok(now.size),
            _ => Err(Error::NoSuchOffset),
        }
    }
}

/// `SEEK_DATA` or `SEEK_HOLE` in a data file; `None` past its end.
pub(crate) fn seek_in(file: &File, offset: u64, data: bool) -> io::Result<Option<u64>> {
    let whence = if data {
        SeekFrom::Data(offset)
    } else {
        SeekFrom::Hole(offset)
    };
    // The position of the shared descriptor moves, and nobody goes by it.
    match seek(file, whence) {
        Ok(at) => Ok(Some(at)),
        Err(Errno::NXIO) => Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(data.then_some(offset)),
        Err(error) => Err(error.into()),
    }
}

fn allocate(host: &Host, file: &File, offset: u64, length: u64) -> io::Result<()> {
    host.allocate_data(file, FallocateFlags::KEEP_SIZE, offset, length)
}

/// Makes bytes zero that are inside the content: as a hole, or written where the host has none.
pub(crate) fn clear(host: &Host, file: &File, offset: u64, length: u64) -> io::Result<()> {
    if length == 0 {
        return Ok(());
    }
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match host.allocate_data(file, punch, offset, length) {
        Err(e) if Errno::from_io_error(&e) == Some(Errno::OPNOTSUPP) => {
            write_zeros(host, file, offset, length)
        }
        other => other,
    }
}

/// Makes bytes zero that are inside the content and have room.
fn zero(host: &Host, file: &File, offset: u64, length: u64) -> io::Result<()> {
    if length == 0 {
        return Ok(());
    }
    let zero = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
    match host.allocate_data(file, zero, offset, length) {
        Err(e) if Errno::from_io_error(&e) == Some(Errno::OPNOTSUPP) => {
            write_zeros(host, file, offset, length)
        }
        other => other,
    }
}

fn write_zeros(host: &Host, file: &File, mut offset: u64, mut length: u64) -> io::Result<()> {
    // Past the file's end there are zeros already.
    length = length.min(file.metadata()?.len().saturating_sub(offset));
    let zeros = vec![0; 64 * 1024];
    while length > 0 {
        let n = usize::try_from(length)
            .unwrap_or(zeros.len())
            .min(zeros.len());
        host.write_all_data(file, zeros.get(..n).unwrap_or_default(), offset)?;
        offset += n as u64;
        length -= n as u64;
    }
    Ok(())
}
