//! Every call to the host that the promises of a writable layer hang on, in one place, so that
//! tests can make each of them fail.
//!
//! A failpoint is named `module::operation::mode`, as `journal::sync_log::eio` or
//! `data::write::short`. The operations are those of [`Op`], the modes those of [`Mode`]; what has
//! no bytes to write has no `short`. After `crash` no call succeeds any more, as if the process had
//! died there.

use std::{
    fs::File,
    io,
    os::{fd::AsFd, unix::fs::FileExt},
};

use parking_lot::RwLock;
use rustix::{
    fs::{FallocateFlags, Mode as Perm, OFlags},
    io::Errno,
};

/// How much is written once more at a time, bytes; changes wait that long.
const PIECE: usize = 64 << 10;

#[cfg(any(test, feature = "failpoints"))]
mod faults;
#[cfg(any(test, feature = "failpoints"))]
pub use faults::{Event, Faults, Mode};

/// What can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Room for the log.
    Allocate,
    /// Mapping the log; where that fails it is written.
    Map,
    /// Putting log bytes where the kernel has them.
    Append,
    /// Noting in the header how far the log is on disk.
    Mark,
    /// Noting in the header who has the log open.
    Session,
    /// Writing once more what an earlier flush may have failed to write.
    Rewrite,
    /// Cutting the log.
    Truncate,
    /// Flushing the log.
    SyncLog,
    /// Flushing a data file or all of them.
    SyncData,
    /// Flushing a directory.
    SyncDir,
    /// Making a new log file.
    CreateLog,
    /// Making a data file.
    Create,
    /// Writing the new log of a compaction.
    Snapshot,
    /// Putting the new log in the place of the old.
    Rename,
    /// Removing a file.
    Remove,
    /// Writing content.
    DataWrite,
    /// Cutting or lengthening content.
    DataTruncate,
    /// Room for content, or a hole in it.
    DataAllocate,
    /// Copying content inside the kernel.
    DataCopy,
}

impl Op {
    /// Whether it writes bytes, so that half of it can be done.
    #[must_use]
    pub fn writes(self) -> bool {
        matches!(
            self,
            Self::Append
                | Self::Mark
                | Self::Session
                | Self::Rewrite
                | Self::Snapshot
                | Self::DataWrite
        )
    }

    /// All of them, with the first two parts of their failpoints' names.
    pub const ALL: [(Self, &'static str); 19] = [
        (Self::Allocate, "journal::allocate"),
        (Self::Map, "journal::map"),
        (Self::Append, "journal::append"),
        (Self::Mark, "journal::mark"),
        (Self::Session, "journal::session"),
        (Self::Rewrite, "journal::rewrite"),
        (Self::Truncate, "journal::truncate"),
        (Self::SyncLog, "journal::sync_log"),
        (Self::SyncData, "journal::sync_data"),
        (Self::SyncDir, "journal::sync_dir"),
        (Self::CreateLog, "journal::create_log"),
        (Self::Create, "journal::create"),
        (Self::Snapshot, "journal::snapshot"),
        (Self::Rename, "journal::rename"),
        (Self::Remove, "journal::remove"),
        (Self::DataWrite, "data::write"),
        (Self::DataTruncate, "data::truncate"),
        (Self::DataAllocate, "data::allocate"),
        (Self::DataCopy, "data::copy"),
    ];
}

/// How much of a write is to be done.
enum Amount {
    All,
    /// Half of it; then the host has no room.
    #[cfg(any(test, feature = "failpoints"))]
    Half,
}

/// The calls. The usual build adds nothing to them.
#[derive(Debug, Default)]
pub struct Host {
    /// Held by whoever changes content, and by [`rewrite`](Self::rewrite) alone.
    pub(crate) content: RwLock<()>,
    #[cfg(any(test, feature = "failpoints"))]
    pub(crate) faults: Faults,
}

static PLAIN: std::sync::LazyLock<Host> = std::sync::LazyLock::new(Host::default);

impl Host {
    /// The host as it is, for writable layers without failpoints.
    #[must_use]
    pub fn plain() -> &'static Self {
        &PLAIN
    }

    #[cfg(not(any(test, feature = "failpoints")))]
    #[allow(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "the shape of the tested build"
    )]
    pub(crate) fn trip(&self, _: Op) -> io::Result<()> {
        Ok(())
    }

    #[cfg(any(test, feature = "failpoints"))]
    pub(crate) fn trip(&self, op: Op) -> io::Result<()> {
        self.faults.trip(op).map(drop)
    }

    #[cfg(not(any(test, feature = "failpoints")))]
    #[allow(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "the shape of the tested build"
    )]
    fn amount(&self, _: Op) -> io::Result<Amount> {
        Ok(Amount::All)
    }

    #[cfg(any(test, feature = "failpoints"))]
    fn amount(&self, op: Op) -> io::Result<Amount> {
        let half = self.faults.trip(op)?;
        Ok(if half { Amount::Half } else { Amount::All })
    }

    /// Writes all of `bytes` to `at`.
    pub(crate) fn write_all(&self, op: Op, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        match self.amount(op)? {
            Amount::All => file.write_all_at(bytes, at),
            #[cfg(any(test, feature = "failpoints"))]
            Amount::Half => {
                file.write_all_at(bytes.get(..bytes.len() / 2).unwrap_or_default(), at)?;
                Err(Errno::NOSPC.into())
            }
        }
    }

    /// Gives `length` bytes from `offset` real blocks, and the file the size to hold them. Where
    /// the file system cannot, zeros are written.
    pub(crate) fn allocate(&self, file: &File, offset: u64, length: u64) -> io::Result<()> {
        self.trip(Op::Allocate)?;
        loop {
            match rustix::fs::fallocate(file, FallocateFlags::empty(), offset, length) {
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return write_zeros(file, offset, length),
                other => return other.map_err(Into::into),
            }
        }
    }

    /// Cuts the log.
    pub(crate) fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        self.trip(Op::Truncate)?;
        file.set_len(length)
    }

    pub(crate) fn sync_log(&self, file: &File) -> io::Result<()> {
        self.trip(Op::SyncLog)?;
        file.sync_data()?;
        self.tell_flushed(file);
        Ok(())
    }

    pub(crate) fn sync_data(&self, file: &File) -> io::Result<()> {
        self.trip(Op::SyncData)?;
        file.sync_data()?;
        self.tell_flushed(file);
        Ok(())
    }

    /// Flushes the whole file system that `dir` is on.
    pub(crate) fn sync_file_system(&self, dir: &File) -> io::Result<()> {
        self.trip(Op::SyncData)?;
        rustix::fs::syncfs(dir)?;
        #[cfg(any(test, feature = "failpoints"))]
        self.faults.tell(Event::FlushedAll);
        Ok(())
    }

    pub(crate) fn sync_dir(&self, dir: &File) -> io::Result<()> {
        self.trip(Op::SyncDir)?;
        dir.sync_all()?;
        self.tell_flushed(dir);
        Ok(())
    }

    #[cfg(not(any(test, feature = "failpoints")))]
    #[allow(clippy::unused_self, reason = "the shape of the tested build")]
    fn tell_flushed(&self, _: &File) {}

    #[cfg(any(test, feature = "failpoints"))]
    fn tell_flushed(&self, file: &File) {
        self.faults.tell(Event::Flushed(file));
    }

    pub(crate) fn rename(&self, dir: &File, from: &str, to: &str) -> io::Result<()> {
        self.trip(Op::Rename)?;
        rustix::fs::renameat(dir, from, dir, to).map_err(Into::into)
    }

    /// Removes `name`; that there is none is no error.
    pub(crate) fn remove(&self, dir: &File, name: &str) -> io::Result<()> {
        self.trip(Op::Remove)?;
        match rustix::fs::unlinkat(dir, name, rustix::fs::AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            other => other.map_err(Into::into),
        }
    }

    /// Makes an empty file `name`, or empties the one that is there.
    pub(crate) fn create(&self, op: Op, dir: &File, name: &str) -> io::Result<File> {
        self.trip(op)?;
        open_at(dir, name, OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC)
    }

    /// Writes content once: as much as the host takes.
    ///
    /// # Errors
    /// The host's.
    pub fn write_data(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<usize> {
        let _changes = self.content.read();
        match self.amount(Op::DataWrite)? {
            Amount::All => file.write_at(bytes, at),
            #[cfg(any(test, feature = "failpoints"))]
            Amount::Half if bytes.len() < 2 => Err(Errno::NOSPC.into()),
            #[cfg(any(test, feature = "failpoints"))]
            Amount::Half => file.write_at(bytes.get(..bytes.len() / 2).unwrap_or_default(), at),
        }
    }

    /// Writes all of `bytes` as content.
    ///
    /// # Errors
    /// The host's; part of it may be written then.
    pub fn write_all_data(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        let _changes = self.content.read();
        self.write_all(Op::DataWrite, file, bytes, at)
    }

    /// Makes a data file `length` bytes long.
    ///
    /// # Errors
    /// The host's.
    pub fn truncate_data(&self, file: &File, length: u64) -> io::Result<()> {
        let _changes = self.content.read();
        self.trip(Op::DataTruncate)?;
        file.set_len(length)
    }

    /// `fallocate(2)` of a data file.
    ///
    /// # Errors
    /// The host's.
    pub fn allocate_data(
        &self,
        file: &File,
        mode: FallocateFlags,
        offset: u64,
        length: u64,
    ) -> io::Result<()> {
        let _changes = self.content.read();
        self.trip(Op::DataAllocate)?;
        rustix::fs::fallocate(file, mode, offset, length).map_err(Into::into)
    }

    /// `copy_file_range(2)` into a data file; moves both offsets.
    ///
    /// # Errors
    /// The host's.
    pub fn copy_data(
        &self,
        from: &File,
        from_at: &mut u64,
        to: &File,
        to_at: &mut u64,
        length: usize,
    ) -> io::Result<usize> {
        let _changes = self.content.read();
        self.trip(Op::DataCopy)?;
        rustix::fs::copy_file_range(from, Some(from_at), to, Some(to_at), length)
            .map_err(Into::into)
    }

    /// Makes `to` share all content of `from`, where the file system can.
    ///
    /// # Errors
    /// The host's.
    pub fn clone_data(&self, from: &File, to: &File) -> io::Result<()> {
        let _changes = self.content.read();
        self.trip(Op::DataCopy)?;
        rustix::fs::ioctl_ficlone(to, from).map_err(Into::into)
    }

    /// Writes the bytes `from..end` of `file`, or as far as it reaches, once more, so that the kernel
    /// takes them for unwritten: after an error at flushing them it has them in memory only and would
    /// call them clean. Changes made through this value meanwhile are not lost, those of others may be.
    /// Zeros in a hole are left out: there is nothing that could have been lost, and a data file may
    /// be mostly hole. Returns where it came to.
    pub(crate) fn rewrite(&self, file: &File, from: u64, end: u64) -> io::Result<u64> {
        let mut at = from;
        let mut piece = vec![0; PIECE];
        while at < end {
            let most = piece.len().min(usize::try_from(end - at).unwrap_or(PIECE));
            let _alone = self.content.write();
            let n = match file.read_at(piece.get_mut(..most).unwrap_or_default(), at) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            let part = piece.get(..n).unwrap_or_default();
            if part.is_empty() {
                break;
            }
            if part.iter().any(|byte| *byte != 0) || !is_hole(file, at, n as u64) {
                self.write_all(Op::Rewrite, file, part, at)?;
            }
            at += n as u64;
        }
        Ok(at)
    }
}

/// Whether the host says for sure that there is no data in `length` bytes from `at`.
fn is_hole(file: &File, at: u64, length: u64) -> bool {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
        Ok(data) => data >= at + length,
        Err(error) => error == Errno::NXIO,
    }
}

/// Opens `name` in `dir` without following a symbolic link.
pub(crate) fn open_at(dir: impl AsFd, name: &str, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    loop {
        match rustix::fs::openat(dir.as_fd(), name, flags, Perm::RUSR | Perm::WUSR) {
            Err(Errno::INTR) => {}
            other => return other.map(File::from).map_err(Into::into),
        }
    }
}

pub(crate) fn no_space(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw_os_error),
        Some(Errno::NOSPC | Errno::DQUOT)
    )
}

fn write_zeros(file: &File, mut offset: u64, mut length: u64) -> io::Result<()> {
    let zeros = [0; 16 << 10];
    while length > 0 {
        let n = length.min(zeros.len() as u64);
        file.write_all_at(zeros.get(..n as usize).unwrap_or(&zeros), offset)?;
        offset += n;
        length -= n;
    }
    Ok(())
}
