//! Why a file system could not be mounted, served or unmounted, and what to do about it.

use std::{io, path::PathBuf};

/// What went wrong between this process, the mount point and the kernel's FUSE driver.
#[derive(Debug, thiserror::Error)]
pub enum FuseError {
    /// The kernel has no FUSE driver, or a container hides its device.
    #[error(
        "/dev/fuse does not exist: load the driver with `modprobe fuse`, or, inside a container, \
         start that with `--device /dev/fuse`"
    )]
    NoDevice,
    /// The device is there and refuses this user.
    #[error(
        "not allowed to open /dev/fuse: let every user open it with `chmod 666 /dev/fuse` \
         (as root), as distributions do by default"
    )]
    DeviceDenied {
        /// The host's answer.
        source: io::Error,
    },
    /// The device could not be opened for another reason.
    #[error("cannot open /dev/fuse")]
    Device {
        /// The host's answer.
        source: io::Error,
    },
    /// There is nothing to mount on.
    #[error("{} does not exist: make it with `mkdir -p`", path.display())]
    NoMountpoint {
        /// The directory asked for.
        path: PathBuf,
    },
    /// Only directories can be mounted on.
    #[error("{} is not a directory", path.display())]
    NotDirectory {
        /// What was asked for.
        path: PathBuf,
    },
    /// A server died under this mount point and its mount is still there.
    #[error(
        "{} still holds a mount whose server is gone: remove it with `fusermount3 -u {}`, or `umount` as root",
        path.display(), path.display()
    )]
    Stale {
        /// The mount point.
        path: PathBuf,
    },
    /// Mounting needs rights that this process has not got.
    #[error(
        "not allowed to mount on {}: this process is neither root nor in a user namespace of its own; \
         where user namespaces are switched off, `sysctl kernel.unprivileged_userns_clone=1`, \
         `sysctl user.max_user_namespaces=15000` or \
         `sysctl kernel.apparmor_restrict_unprivileged_userns=0` switch them on",
        path.display()
    )]
    MountDenied {
        /// The mount point.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// The kernel refused the mount for another reason.
    #[error("cannot mount on {}", path.display())]
    Mount {
        /// The mount point.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// An unprivileged mount needs a program that is not installed.
    #[error(
        "fusermount3 is not installed, and mounting without root needs it: `apt install fuse3`"
    )]
    NoHelper,
    /// That program could not be run or talked to.
    #[error("cannot run fusermount3")]
    Helper {
        /// The host's answer.
        source: io::Error,
    },
    /// That program said no; its own words follow.
    #[error("fusermount3 refused to {doing} {}: {said}", path.display())]
    HelperRefused {
        /// `mount` or `unmount`.
        doing: &'static str,
        /// The mount point.
        path: PathBuf,
        /// What it printed.
        said: String,
    },
    /// The administrator does not let users open their mounts to others.
    #[error(
        "mounts that other users may enter are not allowed here: ask the administrator to put a line \
         `user_allow_other` into /etc/fuse.conf, or mount for yourself only"
    )]
    OthersDenied,
    /// Something still uses the mount.
    #[error("{} is busy: a process works in it or has a file of it open; end that (`fuser -vm {}` lists them), or unmount lazily",
        path.display(), path.display())]
    Busy {
        /// The mount point.
        path: PathBuf,
    },
    /// Nothing of ours is mounted there.
    #[error("{} is not a mount point", path.display())]
    NotMounted {
        /// What was to be unmounted.
        path: PathBuf,
    },
    /// The kernel refused to unmount for another reason.
    #[error("cannot unmount {}", path.display())]
    Unmount {
        /// The mount point.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// The first exchange with the kernel failed.
    #[error("the kernel's FUSE driver and this program could not agree on how to talk")]
    Handshake {
        /// What failed.
        source: io::Error,
    },
    /// Serving ended other than by unmounting.
    #[error("serving the file system ended with an error")]
    Serve {
        /// What failed.
        source: io::Error,
    },
}
