//! Holes: `fallocate` and `SEEK_DATA`/`SEEK_HOLE`.

use std::{fs::File, io, os::unix::fs::FileExt};

use pellicle_store::Ino;
use pellicle_upper::ContentSource;
use rustix::{
    fs::{FallocateFlags, SeekFrom, fallocate, seek},
    io::Errno,
};

use crate::{Union, check::check_range, content::host, error::Error, file::wrote};

/// What a mode of `fallocate(2)` asks for.
enum Wanted {
    Allocate,
    Punch,
    Zero,
}

impl Union {
    /// Allocates, punches or zeroes `length` bytes from `offset`. `mode` is `fallocate(2)`'s: 0,
    /// `KEEP_SIZE`, `PUNCH_HOLE|KEEP_SIZE`, `ZERO_RANGE[|KEEP_SIZE]`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for other modes and where the host cannot allocate,
    /// [`Error::Invalid`] for no bytes, and as [`Union::write`].
    pub fn fallocate(&self, ino: Ino, mode: i32, offset: u64, length: u64) -> Result<(), Error> {
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
        let size = inode.now()?.size;
        let sink = self.sink(&lock, u64::MAX)?;
        self.trim(&lock, &sink)?;
        // Past the inode's size there is nothing to clear; the host's file never grows here, so
        // that a failure leaves no trace.
        let inside = end.min(size).saturating_sub(offset);
        let done = match wanted {
            Wanted::Allocate => allocate(&sink.file, offset, length),
            Wanted::Punch => clear(&sink.file, offset, inside),
            Wanted::Zero => clear(&sink.file, offset, inside)
                .and_then(|()| allocate(&sink.file, offset, length)),
        };
        if let Err(error) = done {
            self.give_up(&lock, sink);
            return Err(match error {
                Errno::OPNOTSUPP => Error::Unsupported,
                other => host(ino, "allocate")(other.into()),
            });
        }
        let end = if keep_size { size } else { end };
        self.keep(&lock, sink, |change, inode| wrote(change, inode, end))
    }

    /// `SEEK_DATA` (`data`) or `SEEK_HOLE` from `offset`; the end of the file counts as a hole.
    ///
    /// # Errors
    /// [`Error::NoSuchOffset`] (ENXIO), [`Error::IsDirectory`], [`Error::Invalid`], damage, and the
    /// host's errors.
    pub fn seek(&self, ino: Ino, offset: u64, data: bool) -> Result<u64, Error> {
        let inode = self.regular(ino)?;
        let now = inode.now()?;
        if offset >= now.size {
            return Err(Error::NoSuchOffset);
        }
        let found = match now.content {
            ContentSource::Zero => None,
            ContentSource::Lower => self.lower.seek(ino, offset, data)?,
            ContentSource::Data => {
                let file = self.upper()?.data(ino)?;
                let whence = if data {
                    SeekFrom::Data(offset)
                } else {
                    SeekFrom::Hole(offset)
                };
                // The position of the shared descriptor moves, and nobody goes by it.
                match seek(&*file, whence) {
                    Ok(at) => Some(at),
                    Err(Errno::NXIO) => None,
                    Err(Errno::INVAL | Errno::OPNOTSUPP) => data.then_some(offset),
                    Err(error) => return Err(host(ino, "seek")(error.into())),
                }
            }
        };
        match found {
            Some(at) if at < now.size => Ok(at),
            Some(_) if !data => Ok(now.size),
            // Past the data file's end everything is hole.
            None if !data && now.content != ContentSource::Lower => Ok(offset),
            None if !data => Ok(now.size),
            _ => Err(Error::NoSuchOffset),
        }
    }
}

fn allocate(file: &File, offset: u64, length: u64) -> rustix::io::Result<()> {
    fallocate(file, FallocateFlags::KEEP_SIZE, offset, length)
}

/// Makes bytes zero that are inside the content: as a hole, or written where the host has none.
fn clear(file: &File, offset: u64, length: u64) -> rustix::io::Result<()> {
    if length == 0 {
        return Ok(());
    }
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match fallocate(file, punch, offset, length) {
        Err(Errno::OPNOTSUPP) => write_zeros(file, offset, length)
            .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO)),
        other => other,
    }
}

fn write_zeros(file: &File, mut offset: u64, mut length: u64) -> io::Result<()> {
    // Past the file's end there are zeros already.
    length = length.min(file.metadata()?.len().saturating_sub(offset));
    let zeros = vec![0; 64 * 1024];
    while length > 0 {
        let n = usize::try_from(length)
            .unwrap_or(zeros.len())
            .min(zeros.len());
        file.write_all_at(zeros.get(..n).unwrap_or_default(), offset)?;
        offset += n as u64;
        length -= n as u64;
    }
    Ok(())
}
