//! Mounting and unmounting: by `mount(2)` where this process may, through `fusermount3` where not.
//!
//! Both ways give the `/dev/fuse` descriptor of the new mount, which any process may then serve.
//! The kernel checks permissions itself (`default_permissions`), always: the server never does.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags},
};

use crate::{FuseError, helper};

/// How a mount appears and whom it lets in.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// The source that `mount` and `/proc/mounts` show; any bytes but NUL.
    pub fs_name: String,
    /// Refuse writes in the kernel already.
    pub read_only: bool,
    /// Let users other than the one who mounts in, as far as the permissions of the files go.
    /// In a user namespace: everyone of that namespace and of those below it. Through the helper
    /// this needs `user_allow_other` in `/etc/fuse.conf`, except for root.
    pub allow_other: bool,
    /// Ignore set-user-ID and set-group-ID bits and file capabilities. Wanted on a host; a
    /// container needs them and is held by its user namespace or its own `no_new_privs`.
    /// The helper always sets it for users other than root.
    pub no_suid: bool,
    /// What follows `fuse.` in the type that `mount` and `/proc/mounts` show; the name of the
    /// program that serves, by custom.
    pub subtype: String,
    /// Let device nodes work as devices. Real root only; elsewhere the kernel does not.
    pub devices: bool,
    /// Execute nothing.
    pub no_exec: bool,
    /// Set no access times.
    pub no_atime: bool,
    /// Set no access times of directories.
    pub no_dir_atime: bool,
    /// Every write is synced.
    pub sync: bool,
    /// Every change of a directory is synced.
    pub dir_sync: bool,
}

impl MountOptions {
    /// The word of `mount(8)` and the flag of `mount(2)` for each way in which this differs from
    /// what the kernel does by itself.
    pub(crate) fn flags(&self) -> impl Iterator<Item = (&'static str, MsFlags)> {
        [
            (self.read_only, "ro", MsFlags::MS_RDONLY),
            (self.no_suid, "nosuid", MsFlags::MS_NOSUID),
            (!self.devices, "nodev", MsFlags::MS_NODEV),
            (self.no_exec, "noexec", MsFlags::MS_NOEXEC),
            (self.no_atime, "noatime", MsFlags::MS_NOATIME),
            (self.no_dir_atime, "nodiratime", MsFlags::MS_NODIRATIME),
            (self.sync, "sync", MsFlags::MS_SYNCHRONOUS),
            (self.dir_sync, "dirsync", MsFlags::MS_DIRSYNC),
        ]
        .into_iter()
        .filter_map(|(on, word, flag)| on.then_some((word, flag)))
    }
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            fs_name: "pellicle".to_owned(),
            read_only: false,
            allow_other: false,
            no_suid: false,
            subtype: "pellicle".to_owned(),
            devices: false,
            no_exec: false,
            no_atime: false,
            no_dir_atime: false,
            sync: false,
            dir_sync: false,
        }
    }
}

/// Mounts on `dir` with `mount(2)`, for a process with `CAP_SYS_ADMIN` in the user namespace that
/// owns its mount namespace: root, or the first process of a container being made. The mount
/// answers nothing until the returned descriptor is served.
///
/// # Errors
/// [`FuseError`]: no `/dev/fuse`, no right, `dir` not a directory, and the kernel's others.
pub fn mount_here(dir: &Path, options: &MountOptions) -> Result<OwnedFd, FuseError> {
    check_mountpoint(dir)?;
    let device = open_device()?;
    // The ids are those this process has in its own user namespace, which is
    // where the kernel looks them up (fs/fuse/inode.c, fuse_parse_param).
    let mut data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions",
        device.as_raw_fd(),
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    if options.allow_other {
        data.push_str(",allow_other");
    }
    let flags = options.flags().map(|(_, flag)| flag).collect();
    let fs_type = format!("fuse.{}", options.subtype);
    let source = if options.fs_name.is_empty() {
        "pellicle"
    } else {
        &options.fs_name
    };
    nix::mount::mount(
        Some(source),
        dir,
        Some(fs_type.as_str()),
        flags,
        Some(data.as_str()),
    )
    .map_err(|e: Errno| {
        let path = dir.to_owned();
        match e {
            Errno::EPERM | Errno::EACCES => FuseError::MountDenied {
                path,
                source: e.into(),
            },
            Errno::ENOTDIR => FuseError::NotDirectory { path },
            Errno::ENODEV => FuseError::NoDevice,
            _ => FuseError::Mount {
                path,
                source: e.into(),
            },
        }
    })?;
    Ok(device)
}

/// Mounts on `dir` through the setuid program `fusermount3`, for users without any privilege, in
/// the mount namespace that this process is in.
///
/// # Errors
/// [`FuseError`]: `fusermount3` missing or refusing, [`FuseError::OthersDenied`].
pub fn mount_with_helper(dir: &Path, options: &MountOptions) -> Result<OwnedFd, FuseError> {
    check_mountpoint(dir)?;
    // The helper's own messages about a missing device do not say what to do.
    drop(open_device()?);
    if options.allow_other && !helper::others_allowed() {
        return Err(FuseError::OthersDenied);
    }
    helper::mount(dir, options)
}

/// Unmounts what is mounted on `dir`, with whatever this process may use: `umount2(2)`, else
/// `fusermount3`. With `lazy` the name is freed at once and the mount goes when its last user does.
///
/// # Errors
/// [`FuseError::Busy`] (not with `lazy`), [`FuseError::NotMounted`], and the host's others.
pub fn unmount(dir: &Path, lazy: bool) -> Result<(), FuseError> {
    let mut flags = MntFlags::UMOUNT_NOFOLLOW;
    flags.set(MntFlags::MNT_DETACH, lazy);
    match nix::mount::umount2(dir, flags) {
        Ok(()) => Ok(()),
        // Without the right to unmount the kernel says EPERM before it looks at the path.
        Err(Errno::EPERM) => helper::unmount(dir, lazy),
        Err(e) => Err(unmount_error(dir.to_owned(), e)),
    }
}

fn unmount_error(path: PathBuf, e: Errno) -> FuseError {
    match e {
        Errno::EBUSY => FuseError::Busy { path },
        Errno::EINVAL => FuseError::NotMounted { path },
        Errno::ENOENT => FuseError::NoMountpoint { path },
        _ => FuseError::Unmount {
            path,
            source: e.into(),
        },
    }
}

fn check_mountpoint(dir: &Path) -> Result<(), FuseError> {
    let path = dir.to_owned();
    match std::fs::metadata(dir) {
        Ok(m) if m.is_dir() => Ok(()),
        Ok(_) => Err(FuseError::NotDirectory { path }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(FuseError::NoMountpoint { path }),
        Err(e) if e.raw_os_error() == Some(libc::ENOTCONN) => Err(FuseError::Stale { path }),
        // ENOTDIR in the middle of the path, EACCES and the like: the kernel's words say it.
        Err(source) => Err(FuseError::Mount { path, source }),
    }
}

fn open_device() -> Result<OwnedFd, FuseError> {
    File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .map(OwnedFd::from)
        .map_err(|source| match source.raw_os_error() {
            // ENODEV and ENXIO: the node is there and no driver behind it.
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => FuseError::NoDevice,
            Some(libc::EACCES | libc::EPERM) => FuseError::DeviceDenied { source },
            _ => FuseError::Device { source },
        })
}
