//! The two mounts, over lower directories that are alike.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};
use pellicle_tests::{Overlay, Way, unmount, wait_for};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use tempfile::TempDir;

use super::side::{Object, Side, Times};
use crate::write;

/// Our mount and the kernel's.
pub(super) struct Stand {
    pub(super) way: Way,
    pub(super) ours: Side,
    pub(super) theirs: Side,
    /// The second in which it was made; what lies below is older.
    pub(super) start: i64,
    /// After what lies below was made, and before anything was copied up.
    pub(super) made: (i64, u32),
    overlay: Overlay,
    kernel: Kernel,
}

impl Stand {
    pub(super) fn new(way: Way) -> Self {
        let overlay = Overlay::new(way, fill);
        let kernel = Kernel::new();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.expect("after 1970");
        let seconds = i64::try_from(now.as_secs()).expect("soon");
        Self {
            way,
            ours: Side::new(overlay.at()),
            theirs: Side::new(kernel.at()),
            start: seconds - 1,
            made: (seconds, now.subsec_nanos()),
            overlay,
            kernel,
        }
    }

    pub(super) fn times(&self, object: &Object) -> (Option<Times>, Option<Times>) {
        (self.ours.times(object), self.theirs.times(object))
    }

    pub(super) fn remount(&mut self) {
        self.ours.close_all();
        self.theirs.close_all();
        self.overlay.remount();
        self.kernel.unmount();
        // Whoever has just made a mount namespace has ours too, until he has left it.
        let limit = Duration::from_secs(60);
        wait_for("the oracle's upper directory", limit, || {
            match self.kernel.mount() {
                Err(Errno::EBUSY) => None,
                done => {
                    done.expect("mount");
                    Some(())
                }
            }
        });
    }

    pub(super) fn ours_at(&self) -> PathBuf {
        self.overlay.at()
    }

    pub(super) fn theirs_at(&self) -> PathBuf {
        self.kernel.at()
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        // What is open keeps a mount busy.
        self.ours.close_all();
        self.theirs.close_all();
    }
}

/// A mount of kernel overlayfs.
struct Kernel(TempDir);

impl Kernel {
    fn new() -> Self {
        let kernel = Self::prepared();
        fill(&kernel.0.path().join("low"), &kernel.0.path().join("high"));
        kernel.mount().expect("mount");
        kernel
    }

    fn prepared() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("k-")
            .tempdir_in(pellicle_tests::scratch())
            .expect("temporary directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        for name in ["low", "high", "upper", "work", "at"] {
            fs::create_dir(dir.path().join(name)).expect("mkdir");
        }
        Self(dir)
    }

    fn at(&self) -> PathBuf {
        self.0.path().join("at")
    }

    fn mount(&self) -> nix::Result<()> {
        let dir = self.0.path().display();
        let options = format!(
            "lowerdir={dir}/high:{dir}/low,upperdir={dir}/upper,workdir={dir}/work,\
             redirect_dir=on,index=on,xino=on,metacopy=off"
        );
        let (kind, flags) = ("overlay", MsFlags::MS_NOATIME | MsFlags::MS_NODEV);
        mount(
            Some(kind),
            &self.at(),
            Some(kind),
            flags,
            Some(options.as_str()),
        )
    }

    fn unmount(&self) {
        unmount(&self.at());
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let _ = umount2(&self.at(), MntFlags::MNT_DETACH);
    }
}

/// Whether the oracle can be had.
pub(super) fn kernel_can() -> nix::Result<()> {
    Kernel::prepared().mount()
}

/// Lower directories in the few names that the operations know: files, links and nodes of either
/// layer, merged and opaque directories, a whiteout, owners, set-id bits, attributes, holes.
fn fill(low: &Path, high: &Path) {
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    };
    let attribute = |path: &Path, name: &str, value: &[u8]| {
        rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).expect("setxattr");
    };
    let node = |path: PathBuf, kind, dev| {
        rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o644), dev).expect("mknod");
    };
    for dir in ["a/b/c", "c/d", "e/a"] {
        fs::create_dir_all(low.join(dir)).expect("mkdir");
    }
    for dir in ["a/b", "c/e", "d/a"] {
        fs::create_dir_all(high.join(dir)).expect("mkdir");
    }
    write(low.join("b"), vec![b'l'; 10_000]);
    fs::hard_link(low.join("b"), low.join("a/c")).expect("link");
    fs::hard_link(low.join("b"), low.join("c/a")).expect("link");
    write(low.join("a/a"), "a/a");
    write(low.join("a/b/a"), "hidden by the opaque a/b above");
    write(low.join("c/b"), "hidden by a whiteout");
    node(high.join("c/b"), FileType::CharacterDevice, 0);
    attribute(&high.join("a/b"), "trusted.overlay.opaque", b"y");
    write(high.join("a/b/d"), vec![b'h'; 5_000]);
    write(high.join("c/c"), "set-id");
    mode(&high.join("c/c"), 0o6755);
    write(low.join("c/d/a"), "of a user");
    chown(low.join("c/d/a"), Some(12_345), Some(12_345)).expect("chown");
    chown(low.join("c/d"), Some(12_345), Some(0)).expect("chown");
    mode(&low.join("c/d"), 0o2775);
    attribute(&low.join("c/d/a"), "user.x", b"below");
    attribute(&low.join("e"), "trusted.t", b"below");
    mode(&low.join("e"), 0o1777);
    symlink("../b", low.join("a/d")).expect("symlink");
    symlink("c", low.join("e/b")).expect("symlink");
    node(low.join("e/c"), FileType::Fifo, 0);
    node(
        high.join("d/b"),
        FileType::CharacterDevice,
        rustix::fs::makedev(1, 3),
    );
    let sparse = fs::File::create(low.join("e/d")).expect("create");
    sparse.set_len(100_000).expect("truncate");
    std::os::unix::fs::FileExt::write_all_at(&sparse, &[b's'; 5_000], 50_000).expect("write");
    drop(sparse);
    write(low.join("e/e"), "");
    for root in [low, high] {
        mode(root, 0o755);
        age(root, &mut 1_000_000_000);
    }
    // The top of the merged tree is that of the upper directory for one, of the lower for another.
    let top = fs::metadata(high).expect("stat");
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: top.atime(),
            tv_nsec: top.atime_nsec(),
        },
        last_modification: Timespec {
            tv_sec: top.mtime(),
            tv_nsec: top.mtime_nsec(),
        },
    };
    let upper = high.with_file_name("upper");
    rustix::fs::utimensat(CWD, upper, &times, AtFlags::empty()).expect("utimensat");
}

/// Gives everything below `path` an old time of its own, directories after what is in them.
fn age(path: &Path, next: &mut i64) {
    if path.is_dir() && !path.is_symlink() {
        let mut below: Vec<_> = fs::read_dir(path)
            .expect("list")
            .map(|entry| entry.expect("list").path())
            .collect();
        below.sort();
        for path in below {
            age(&path, next);
        }
    }
    *next += 1;
    let time = |nanoseconds| Timespec {
        tv_sec: *next,
        tv_nsec: nanoseconds,
    };
    let times = Timestamps {
        last_access: time(1),
        last_modification: time(999_999_999),
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("utimensat");
}
