//! Every call to the host that the journal's promises hang on, in one place, so that tests can
//! make each of them fail.
//!
//! A failpoint is named `journal::operation::mode`; the operations are those of [`Op`], the modes
//! `enospc`, `edquot`, `eio`, and `crash`, after which no call of that journal succeeds any more,
//! as if the process had died there.

use std::{
    fs::File,
    io,
    os::{fd::AsFd, unix::fs::FileExt},
};

use rustix::{
    fs::{FallocateFlags, Mode, OFlags},
    io::Errno,
};

/// What can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Op {
    /// Room for the log.
    Allocate,
    /// Putting log bytes where the kernel has them.
    Append,
    /// Flushing the log.
    SyncLog,
    /// Flushing a data file or all of them.
    SyncData,
    /// Flushing a directory.
    SyncDir,
    /// Making a data file.
    Create,
    /// Writing the new log of a compaction.
    Snapshot,
    /// Putting the new log in the place of the old.
    Rename,
    /// Removing a file.
    Remove,
}

#[derive(Debug, Default)]
pub(super) struct Host {
    #[cfg(any(test, feature = "failpoints"))]
    pub(super) faults: Faults,
}

impl Host {
    #[cfg(not(any(test, feature = "failpoints")))]
    #[allow(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "the shape of the tested build"
    )]
    pub(super) fn trip(&self, _: Op) -> io::Result<()> {
        Ok(())
    }

    #[cfg(any(test, feature = "failpoints"))]
    pub(super) fn trip(&self, op: Op) -> io::Result<()> {
        self.faults.trip(op)
    }

    /// Gives `length` bytes from `offset` real blocks, and the file the size to hold them. Where
    /// the file system cannot, zeros are written.
    pub(super) fn allocate(&self, file: &File, offset: u64, length: u64) -> io::Result<()> {
        self.trip(Op::Allocate)?;
        loop {
            match rustix::fs::fallocate(file, FallocateFlags::empty(), offset, length) {
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return write_zeros(file, offset, length),
                other => return other.map_err(Into::into),
            }
        }
    }

    pub(super) fn sync_log(&self, file: &File) -> io::Result<()> {
        self.trip(Op::SyncLog)?;
        file.sync_data()
    }

    pub(super) fn sync_data(&self, file: &File) -> io::Result<()> {
        self.trip(Op::SyncData)?;
        file.sync_data()
    }

    /// Flushes the whole file system that `dir` is on.
    pub(super) fn sync_file_system(&self, dir: &File) -> io::Result<()> {
        self.trip(Op::SyncData)?;
        rustix::fs::syncfs(dir).map_err(Into::into)
    }

    pub(super) fn sync_dir(&self, dir: &File) -> io::Result<()> {
        self.trip(Op::SyncDir)?;
        dir.sync_all()
    }

    pub(super) fn rename(&self, dir: &File, from: &str, to: &str) -> io::Result<()> {
        self.trip(Op::Rename)?;
        rustix::fs::renameat(dir, from, dir, to).map_err(Into::into)
    }

    /// Removes `name`; that there is none is no error.
    pub(super) fn remove(&self, dir: &File, name: &str) -> io::Result<()> {
        self.trip(Op::Remove)?;
        match rustix::fs::unlinkat(dir, name, rustix::fs::AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            other => other.map_err(Into::into),
        }
    }
}

/// Opens `name` in `dir` without following a symbolic link.
pub(super) fn open_at(dir: impl AsFd, name: &str, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    loop {
        match rustix::fs::openat(dir.as_fd(), name, flags, Mode::RUSR | Mode::WUSR) {
            Err(Errno::INTR) => {}
            other => return other.map(File::from).map_err(Into::into),
        }
    }
}

pub(super) fn no_space(error: &io::Error) -> bool {
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

#[cfg(any(test, feature = "failpoints"))]
pub use faults::Faults;

#[cfg(any(test, feature = "failpoints"))]
mod faults {
    use super::{Errno, Op, io};
    use parking_lot::Mutex;
    use std::sync::Arc;

    /// Which calls of one journal to its host fail; shared with the test that decides.
    #[derive(Clone, Debug, Default)]
    pub struct Faults(Arc<Mutex<State>>);

    #[derive(Debug, Default)]
    struct State {
        armed: Vec<(Op, Errno, bool, u32)>,
        dead: bool,
    }

    impl Faults {
        /// Makes the call named `journal::operation::mode` fail `times` times. Returns whether
        /// there is such a failpoint.
        pub fn arm(&self, name: &str, times: u32) -> bool {
            let mut parts = name.split("::");
            let (Some("journal"), Some(op), Some(mode), None) =
                (parts.next(), parts.next(), parts.next(), parts.next())
            else {
                return false;
            };
            let op = match op {
                "allocate" => Op::Allocate,
                "append" => Op::Append,
                "sync_log" => Op::SyncLog,
                "sync_data" => Op::SyncData,
                "sync_dir" => Op::SyncDir,
                "create" => Op::Create,
                "snapshot" => Op::Snapshot,
                "rename" => Op::Rename,
                "remove" => Op::Remove,
                _ => return false,
            };
            let (errno, crash) = match mode {
                "enospc" => (Errno::NOSPC, false),
                "edquot" => (Errno::DQUOT, false),
                "eio" => (Errno::IO, false),
                "crash" => (Errno::IO, true),
                _ => return false,
            };
            self.0.lock().armed.push((op, errno, crash, times));
            true
        }

        /// Lets everything succeed again, except after a crash.
        pub fn clear(&self) {
            self.0.lock().armed.clear();
        }

        pub(super) fn trip(&self, op: Op) -> io::Result<()> {
            let mut state = self.0.lock();
            let mut hit = None;
            if let Some(fault) = state.armed.iter_mut().find(|f| f.0 == op && f.3 > 0) {
                fault.3 -= 1;
                hit = Some((fault.1, fault.2));
            }
            if let Some((_, true)) = hit {
                state.dead = true;
            }
            if state.dead {
                return Err(Errno::IO.into());
            }
            hit.map_or(Ok(()), |(errno, _)| Err(errno.into()))
        }
    }
}
