//! A file that is appended to through a shared mapping.
//!
//! The journal puts its batches here: stores into the mapping belong to the kernel the moment they
//! are made, so they survive `kill -9` of the process, and they cost no system call. The mapping is
//! only ever written, never read through: reading goes through `pread`, where a damaged disk is an
//! error and not a signal, and where nobody else's stores can change bytes under a reference.
//!
//! The owner must have real space behind the mapped range (`fallocate`) and must not shorten the
//! file below it; a store to a page that cannot be had is SIGBUS.

use std::{
    fs::File,
    io,
    os::fd::AsFd,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::mm::{MapFlags, MremapFlags, ProtFlags, mmap, mremap, munmap};

/// A writable shared mapping of a file from its start.
#[derive(Debug)]
pub struct LogMap {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping is owned by this value alone, is not tied to a thread, and every method that
// stores to it takes `&mut self`.
unsafe impl Send for LogMap {}

impl LogMap {
    /// Maps the first `length` bytes of `file`, which must be open for reading and writing.
    ///
    /// # Errors
    /// The host's: ENODEV where the file system cannot map files shared, ENOMEM; EINVAL for an
    /// empty range.
    pub fn new(file: &File, length: u64) -> io::Result<Self> {
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory in use.
        let base = unsafe {
            mmap(
                ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file.as_fd(),
                0,
            )
        }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, length })
    }

    /// Makes the mapping reach `length` bytes, which must not be less than it has.
    ///
    /// # Errors
    /// The host's; the mapping then stays as it was.
    pub fn extend(&mut self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
        if length < self.length {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: base and length are those of the mapping this value owns, and no reference into
        // it exists, so it may move.
        let base = unsafe {
            mremap(
                self.base.as_ptr().cast(),
                self.length,
                length,
                MremapFlags::MAYMOVE,
            )
        }?;
        self.base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        self.length = length;
        Ok(())
    }

    /// Copies `bytes` to offset `at`.
    ///
    /// # Errors
    /// `InvalidInput` if that reaches out of the mapping.
    pub fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let at = self.checked(at, bytes.len())?;
        // SAFETY: `checked` keeps the range inside the mapping, and a mapping of this value's own
        // cannot overlap a slice that Rust handed out.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.as_ptr().add(at), bytes.len())
        };
        Ok(())
    }

    /// Stores `word` (little-endian on disk) at offset `at`, a multiple of 8, in one piece and not
    /// before anything that was written earlier.
    ///
    /// # Errors
    /// `InvalidInput` if that is unaligned or out of the mapping.
    pub fn publish(&mut self, at: u64, word: u64) -> io::Result<()> {
        let at = self.checked(at, 8)?;
        if !at.is_multiple_of(8) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: in range, and aligned because mappings begin at a page and `at` divides by 8;
        // an atomic may be made of memory that nothing in this process reaches otherwise.
        let word_there = unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(at).cast()) };
        word_there.store(word.to_le(), Ordering::Release);
        Ok(())
    }

    fn checked(&self, at: u64, length: usize) -> io::Result<usize> {
        usize::try_from(at)
            .ok()
            .filter(|at| at.checked_add(length).is_some_and(|end| end <= self.length))
            .ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }
}

impl Drop for LogMap {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own and nothing borrows from it.
        // An error would mean that it was never mapped; there is nothing to do about it.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Read, os::unix::fs::FileExt};

    #[test]
    fn stores_are_in_the_file_and_the_mapping_grows() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let mut map = LogMap::new(&file, 4096).unwrap();
        map.write(100, b"abc").unwrap();
        map.publish(8, 0x0102_0304_0506_0708).unwrap();
        file.set_len(1 << 20).unwrap();
        map.extend(1 << 20).unwrap();
        map.write((1 << 20) - 3, b"xyz").unwrap();
        let mut all = Vec::new();
        (&file).read_to_end(&mut all).unwrap();
        assert_eq!(&all[100..103], b"abc");
        assert_eq!(&all[8..16], &[8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(&all[(1 << 20) - 3..], b"xyz");
        let mut word = [0; 3];
        file.read_exact_at(&mut word, 100).unwrap();
        assert_eq!(&word, b"abc");
    }

    #[test]
    fn nothing_is_stored_out_of_range_or_unaligned() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let mut map = LogMap::new(&file, 4096).unwrap();
        assert!(map.write(4094, b"abc").is_err());
        assert!(map.write(u64::MAX, b"abc").is_err());
        assert!(map.publish(4092, 1).is_err());
        assert!(map.publish(12, 1).is_err());
        assert!(map.extend(100).is_err());
    }
}
