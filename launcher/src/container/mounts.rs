//! The mounts of a container, made inside its first process.
//!
//! In two halves around `pivot_root`. Before it, everything is made as a *detached* mount: proc and
//! sysfs because the kernel allows them in a user namespace only while full ones are in sight, bind
//! mounts because their sources are the host's. After it they are attached by path: by then `/` is
//! the container's root and nothing else is reachable, so that a symbolic link or `..` in an image
//! can lead a mount nowhere but into the container itself.
//!
//! Everything is made with the mount calls of Linux 5.2, and read-only with mount_setattr of 5.12.

use std::{
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::symlink,
    },
    path::{Path, PathBuf},
};

use oci_spec::runtime::{Mount, Spec};
use pellicle_store::FileKind;
use pellicle_sys::process::mount_set_attributes;
use rustix::{
    fs::{CWD, Mode, OFlags},
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
        fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
        open_tree, unmount,
    },
};

use super::step::{Doing, Failed};

/// The device nodes of every container; they come from the host, for a user namespace can make
/// none.
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];

/// Links in /dev (runtime-spec, config-linux.md, "Default Devices" and "Dev symbolic links").
const DEV_LINKS: &[(&str, &str)] = &[
    ("pts/ptmx", "ptmx"),
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
];

/// Mounts that are made and not attached yet.
pub(super) struct Detached {
    mounts: Vec<(OwnedFd, PathBuf, Kind)>,
    devices: Vec<(&'static str, OwnedFd)>,
    /// An empty read-only directory and a null device, to hide things with.
    hide_dir: OwnedFd,
    masked: Vec<String>,
    read_only: Vec<String>,
    read_only_root: bool,
}

/// What a mount goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
}

/// Makes all mounts of `spec` but the root.
pub(super) fn prepare(spec: &Spec) -> Result<Detached, Failed> {
    let mut mounts = Vec::new();
    for mount in spec.mounts().iter().flatten() {
        let (fd, kind) = one(mount).map_err(|f| {
            Failed::new(
                f.code,
                format!("mount {}: {}", mount.destination().display(), f.message),
            )
        })?;
        mounts.push((fd, mount.destination().clone(), kind));
    }
    let devices = DEVICES
        .iter()
        .map(|name| {
            let path = format!("/dev/{name}");
            tree(Path::new(&path), false)
                .doing(format!("take {path} of the host"))
                .map(|fd| (*name, fd))
        })
        .collect::<Result<_, _>>()?;
    let linux = spec.linux().as_ref();
    Ok(Detached {
        mounts,
        devices,
        hide_dir: file_system(
            "tmpfs",
            &["size=0k", "mode=755"],
            MountAttrFlags::MOUNT_ATTR_RDONLY,
        )
        .doing("make an empty directory")?,
        masked: linux
            .and_then(|l| l.masked_paths().clone())
            .unwrap_or_default(),
        read_only: linux
            .and_then(|l| l.readonly_paths().clone())
            .unwrap_or_default(),
        read_only_root: spec
            .root()
            .as_ref()
            .and_then(|r| r.readonly())
            .unwrap_or(false),
    })
}

/// Makes the mounted directory `root` the root of this mount namespace; nothing else is left.
pub(super) fn pivot(root: &Path) -> Result<(), Failed> {
    rustix::process::chdir(root).doing(format!("enter {}", root.display()))?;
    // The new root is put on the old one, whose mount then lies on top and is taken off.
    nix::unistd::pivot_root(".", ".").doing("change the root directory")?;
    unmount(".", UnmountFlags::DETACH).doing("leave the host's root directory")?;
    rustix::process::chdir("/").doing("enter the root directory")?;
    // One message tells the kernel of all that is in /, where every name would cost one of its own.
    if let Some(Err(e)) = fs::read_dir("/")
        .and_then(|mut d| d.next().transpose())
        .transpose()
    {
        return Err(e).doing("list the root directory");
    }
    Ok(())
}

/// Attaches what [`prepare`] made.
pub(super) fn attach(detached: &Detached) -> Result<(), Failed> {
    for (fd, to, kind) in &detached.mounts {
        put(fd, to, *kind)?;
        if to == Path::new("/dev") {
            fill_dev(&detached.devices)?;
        }
    }
    let mut hidden = None;
    for path in &detached.masked {
        hide(Path::new(path), &detached.hide_dir, &mut hidden)?;
    }
    for path in &detached.read_only {
        make_read_only(Path::new(path))?;
    }
    Ok(())
}

/// The last step: nothing can be made in a read-only root any more.
pub(super) fn finish(detached: &Detached) -> Result<(), Failed> {
    if detached.read_only_root {
        let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .doing("open the root directory")?;
        mount_set_attributes(root.as_fd(), u64::from(libc_attr::RDONLY), false)
            .doing("make the root directory read-only")?;
    }
    Ok(())
}

/// Puts terminal `slave` at /dev/console.
pub(super) fn console(slave: &Path) -> Result<(), Failed> {
    let fd = tree(slave, false).doing(format!("open {}", slave.display()))?;
    put(&fd, Path::new("/dev/console"), Kind::File)
}

mod libc_attr {
    /// `MOUNT_ATTR_RDONLY` (linux/mount.h).
    pub(super) const RDONLY: u32 = 1;
}

fn one(mount: &Mount) -> Result<(OwnedFd, Kind), Failed> {
    let options: Vec<&str> = mount
        .options()
        .iter()
        .flatten()
        .map(String::as_str)
        .collect();
    let source = mount.source().clone().unwrap_or_default();
    if is_bind(mount) {
        return bind(&source, &options);
    }
    let kind = mount.typ().clone().unwrap_or_default();
    let (attributes, data) = split(&options);
    let made = file_system(&kind, &data, attributes);
    match made {
        Ok(fd) => Ok((fd, Kind::Directory)),
        // A sysfs of its own needs a network namespace of its own.
        Err(e) if kind == "sysfs" && e == rustix::io::Errno::PERM => bind(
            Path::new("/sys"),
            &["rbind", "ro", "nosuid", "noexec", "nodev"],
        ),
        Err(e) => Err(Failed::new(125, format!("cannot make a {kind}: {e}"))),
    }
}

fn is_bind(mount: &Mount) -> bool {
    let mut options = mount.options().iter().flatten();
    options.any(|o| matches!(o.as_str(), "bind" | "rbind"))
}

/// What `mount` goes on: a regular file if it binds anything but a directory.
pub(super) fn kind(mount: &Mount) -> FileKind {
    let source = mount.source().as_deref();
    match source.filter(|_| is_bind(mount)).map(fs::metadata) {
        Some(Ok(meta)) if !meta.is_dir() => FileKind::Regular,
        _ => FileKind::Directory,
    }
}

fn bind(source: &Path, options: &[&str]) -> Result<(OwnedFd, Kind), Failed> {
    let recursive = !options.contains(&"bind");
    let fd = tree(source, recursive)
        .map_err(|e| Failed::new(125, format!("cannot bind {}: {e}", source.display())))?;
    let is_dir = rustix::fs::fstat(&fd)
        .map(|s| rustix::fs::FileType::from_raw_mode(s.st_mode).is_dir())
        .doing(format!("look at {}", source.display()))?;
    let (attributes, _) = split(options);
    if !attributes.is_empty() {
        // Only ever set: what the host locked (nosuid, nodev, ...) stays.
        mount_set_attributes(fd.as_fd(), u64::from(attributes.bits()), recursive)
            .doing(format!("bind {} so", source.display()))?;
    }
    let kind = if is_dir { Kind::Directory } else { Kind::File };
    Ok((fd, kind))
}

/// Mount attributes, and what is left over for the file system itself.
fn split<'a>(options: &[&'a str]) -> (MountAttrFlags, Vec<&'a str>) {
    let mut attributes = MountAttrFlags::empty();
    let mut data = Vec::new();
    for option in options {
        match *option {
            "ro" => attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY,
            "nosuid" => attributes |= MountAttrFlags::MOUNT_ATTR_NOSUID,
            "nodev" => attributes |= MountAttrFlags::MOUNT_ATTR_NODEV,
            "noexec" => attributes |= MountAttrFlags::MOUNT_ATTR_NOEXEC,
            "noatime" => attributes |= MountAttrFlags::MOUNT_ATTR_NOATIME,
            "bind" | "rbind" | "rw" | "suid" | "dev" | "exec" | "private" | "rprivate"
            | "relatime" | "strictatime" => {}
            other => data.push(other),
        }
    }
    (attributes, data)
}

fn file_system(
    kind: &str,
    data: &[&str],
    attributes: MountAttrFlags,
) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    // What mount, df and /proc/mounts show as the device.
    fsconfig_set_string(&context, "source", kind)?;
    for option in data {
        match option.split_once('=') {
            Some((key, value)) => fsconfig_set_string(&context, key, value)?,
            None => fsconfig_set_flag(&context, *option)?,
        }
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn tree(path: &Path, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(CWD, path, flags)
}

/// Attaches at `to`, which is made where it is missing.
fn put(fd: &OwnedFd, to: &Path, kind: Kind) -> Result<(), Failed> {
    match move_to(fd.as_fd(), to) {
        Err(rustix::io::Errno::NOENT) => {
            make_point(to, kind).doing(format!("make {} in the image", to.display()))?;
            move_to(fd.as_fd(), to).doing(format!("mount on {}", to.display()))
        }
        Err(rustix::io::Errno::NOTDIR) => Err(Failed::new(
            125,
            match kind {
                Kind::Directory => {
                    format!("cannot mount a directory on {}: it is a file", to.display())
                }
                Kind::File => format!("cannot mount a file on {}: it is a directory", to.display()),
            },
        )),
        other => other.doing(format!("mount on {}", to.display())),
    }
}

fn move_to(fd: BorrowedFd<'_>, to: &Path) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
    move_mount(fd, "", CWD, to, flags)
}

fn make_point(at: &Path, kind: Kind) -> io::Result<()> {
    let mut at = at.to_owned();
    // A link to nothing (/etc/resolv.conf often is one): what it leads to is made.
    for _ in 0..10 {
        match fs::read_link(&at) {
            Ok(target) => at = at.parent().unwrap_or(Path::new("/")).join(target),
            Err(_) => break,
        }
    }
    if kind == Kind::Directory {
        return fs::create_dir_all(at);
    }
    if let Some(parent) = at.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(at)
        .map(drop)
}

fn fill_dev(devices: &[(&'static str, OwnedFd)]) -> Result<(), Failed> {
    for dir in ["/dev/pts", "/dev/shm", "/dev/mqueue"] {
        fs::create_dir(dir).doing(format!("make {dir}"))?;
    }
    for (target, name) in DEV_LINKS {
        symlink(target, Path::new("/dev").join(name)).doing(format!("make /dev/{name}"))?;
    }
    for (name, fd) in devices {
        let path = Path::new("/dev").join(name);
        fs::File::create(&path).doing(format!("make {}", path.display()))?;
        put(fd, &path, Kind::File)?;
    }
    Ok(())
}

/// Lays nothing over `path`: an empty directory over a directory, the null device over a file.
/// `hidden` is the first directory that `empty_dir` went over: only an attached mount can be
/// cloned (before Linux 6.15), so that the later ones are copies of that.
fn hide<'a>(
    path: &'a Path,
    empty_dir: &OwnedFd,
    hidden: &mut Option<&'a Path>,
) -> Result<(), Failed> {
    let doing = || format!("hide {}", path.display());
    let is_dir = match fs::metadata(path) {
        Ok(meta) => meta.is_dir(),
        Err(e) if missing(&e) => return Ok(()),
        Err(e) => return Err(e).doing(doing()),
    };
    if is_dir && hidden.is_none() {
        *hidden = Some(path);
        return move_to(empty_dir.as_fd(), path).doing(doing());
    }
    let cover = match hidden {
        Some(first) if is_dir => tree(first, false),
        _ => tree(Path::new("/dev/null"), false),
    };
    move_to(cover.doing(doing())?.as_fd(), path).doing(doing())
}

fn make_read_only(path: &Path) -> Result<(), Failed> {
    let doing = || format!("make {} read-only", path.display());
    let fd = match tree(path, true) {
        Ok(fd) => fd,
        Err(e) if missing(&e.into()) => return Ok(()),
        Err(e) => return Err(e).doing(doing()),
    };
    mount_set_attributes(fd.as_fd(), u64::from(libc_attr::RDONLY), true).doing(doing())?;
    move_to(fd.as_fd(), path).doing(doing())
}

fn missing(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
