//! One writer per upper: `flock(2)` on a file that names its holder.
//!
//! The lock goes with the open file, so it ends with the process however that ends, and the file
//! stays for the next holder.

use std::{fs::File, os::unix::fs::FileExt, path::Path};

use rustix::{
    fs::{FlockOperation, OFlags},
    io::Errno,
};

use super::io_error;
use crate::{UpperError, host::open_at};

/// What it is called in the upper.
pub(super) const NAME: &str = "lock";

/// Held for as long as it lives.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing alone would leave it to a child that was forked meanwhile and not executed yet.
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

/// Takes the lock of the upper at `path`, opened as `dir`.
pub(super) fn take(dir: &File, path: &Path) -> Result<Lock, UpperError> {
    let lock_path = path.join(NAME);
    let file =
        open_at(dir, NAME, OFlags::RDWR | OFlags::CREATE).map_err(io_error("open", &lock_path))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            return Err(UpperError::InUse {
                path: path.to_owned(),
                holder: holder(&file),
            });
        }
        Err(e) => return Err(io_error("lock", &lock_path)(e.into())),
    }
    // The number is for messages only: on a full disk the lock holds without it.
    let pid = format!("{}\n", std::process::id());
    let _ = file
        .write_all_at(pid.as_bytes(), 0)
        .and_then(|()| file.set_len(pid.len() as u64));
    Ok(Lock(file))
}

fn holder(file: &File) -> Option<u32> {
    let mut text = [0; 16];
    let n = file.read_at(&mut text, 0).ok()?;
    std::str::from_utf8(text.get(..n)?)
        .ok()?
        .trim()
        .parse()
        .ok()
}
