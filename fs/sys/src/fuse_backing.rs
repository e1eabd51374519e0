//! Host files that the kernel's FUSE driver reads by itself (`FUSE_DEV_IOC_BACKING_OPEN`).

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::{Arc, Weak},
};

/// `struct fuse_backing_map` of `include/uapi/linux/fuse.h`.
#[repr(C)]
struct Map {
    fd: i32,
    flags: u32,
    padding: u64,
}

mod ioctl {
    nix::ioctl_write_ptr!(backing_open, 229, 1, super::Map);
    nix::ioctl_write_ptr!(backing_close, 229, 2, u32);
}

/// A host file that a FUSE connection holds open under a number, until this is dropped or the
/// connection ends.
#[derive(Debug)]
pub struct BackingFile {
    device: Weak<OwnedFd>,
    number: i32,
}

impl BackingFile {
    /// Hands `file` to the connection of `device`, the descriptor of `/dev/fuse`.
    ///
    /// # Errors
    /// The host's: EPERM without `CAP_SYS_ADMIN` outside of user namespaces, EOPNOTSUPP and ELOOP
    /// for files that cannot be passed on.
    pub fn register(device: &Arc<OwnedFd>, file: &File) -> io::Result<Self> {
        let map = Map {
            fd: file.as_raw_fd(),
            flags: 0,
            padding: 0,
        };
        // SAFETY: the kernel reads one `Map` at the pointer, which is valid for the call.
        let number = unsafe { ioctl::backing_open(device.as_raw_fd(), &raw const map) }?;
        Ok(Self {
            device: Arc::downgrade(device),
            number,
        })
    }

    /// The connection's number for it, for the answer to OPEN.
    #[must_use]
    pub fn number(&self) -> i32 {
        self.number
    }
}

impl Drop for BackingFile {
    fn drop(&mut self) {
        if let Some(device) = self.device.upgrade() {
            let number = self.number.cast_unsigned();
            // SAFETY: the kernel reads one u32 at the pointer, which is valid for the call.
            // It fails only where the connection, and with it the number, is gone already.
            let _ = unsafe { ioctl::backing_close(device.as_raw_fd(), &raw const number) };
        }
    }
}
