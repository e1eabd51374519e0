//! A mounted union that goes away with its value.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use pellicle_fuse::{
    MountOptions, ServeOptions, Served, Server, Transport, mount_here, mount_with_helper, serve,
    unmount,
};
use pellicle_layer::Lower;
use pellicle_store::{Attr, Ino};
use pellicle_union::{Options, Union};

use crate::{lower::MemoryLower, upper::MemoryUpper};

/// Set for runs of this same program as another user: how to mount there.
pub(crate) const MOUNT_BY: &str = "PELLICLE_TEST_MOUNT_BY";

/// Set to `ring` for runs of this same program over io_uring; otherwise `/dev/fuse` is used.
pub(crate) const TRANSPORT: &str = "PELLICLE_TEST_TRANSPORT";

pub(crate) struct Mounted {
    pub(crate) union: Arc<Union>,
    pub(crate) server: Option<Server>,
    dir: tempfile::TempDir,
}

/// Whether tests that mount can run here at all; says why not.
pub(crate) fn can_mount() -> bool {
    let why = match fs::File::options().read(true).write(true).open("/dev/fuse") {
        Err(e) => format!("/dev/fuse: {e}"),
        Ok(_) if by_helper() || rustix::process::geteuid().is_root() => return true,
        Ok(_) => "neither root nor told to use fusermount3".to_owned(),
    };
    println!("skipped: cannot mount here: {why}");
    false
}

pub(crate) fn by_helper() -> bool {
    std::env::var_os(MOUNT_BY).is_some_and(|v| v == "helper")
}

/// Root with all ids, as opposed to the root of a user namespace of one id.
pub(crate) fn real_root() -> bool {
    rustix::process::geteuid().is_root() && std::env::var_os(MOUNT_BY).is_none()
}

/// Whether this run is to use the ring, and so must.
pub(crate) fn over_ring() -> bool {
    std::env::var_os(TRANSPORT).is_some_and(|v| v == "ring")
}

impl Mounted {
    /// Over `lower`, writable.
    pub(crate) fn writable(lower: MemoryLower) -> Self {
        Self::with(lower, false, ServeOptions::default())
    }

    pub(crate) fn with(lower: MemoryLower, read_only: bool, options: ServeOptions) -> Self {
        let upper: Option<Box<dyn pellicle_upper::Upper>> = if read_only {
            None
        } else {
            Some(Box::new(MemoryUpper::default()))
        };
        let lower: Arc<dyn Lower> = Arc::new(lower);
        let (union, _) = Union::open(lower, upper, Options { read_only }).unwrap();
        let union = Arc::new(union);
        let dir = tempfile::tempdir().unwrap();
        let mount = MountOptions {
            read_only,
            ..MountOptions::default()
        };
        let fd = if by_helper() {
            mount_with_helper(dir.path(), &mount).unwrap()
        } else {
            mount_here(
                dir.path(),
                &MountOptions {
                    allow_other: true,
                    ..mount
                },
            )
            .unwrap()
        };
        let transport = match options.transport {
            Transport::Auto if over_ring() => Transport::Ring,
            Transport::Auto => Transport::Dev,
            given => given,
        };
        let options = ServeOptions {
            transport,
            ..options
        };
        let server = serve(fd, union.clone(), options).unwrap();
        if over_ring() && transport == Transport::Ring {
            assert!(
                matches!(server.served(), Served::Ring { .. }),
                "{:?}",
                server.served()
            );
        }
        Self {
            union,
            server: Some(server),
            dir,
        }
    }

    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn stats(&self) -> &pellicle_fuse::Stats {
        self.server.as_ref().unwrap().stats()
    }

    /// Every name in the mount with what `lstat` says of it.
    pub(crate) fn walk(&self) -> BTreeMap<PathBuf, fs::Metadata> {
        let mut seen = BTreeMap::new();
        let mut todo = vec![self.root().to_owned()];
        while let Some(path) = todo.pop() {
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_dir() {
                for entry in fs::read_dir(&path).unwrap() {
                    todo.push(entry.unwrap().path());
                }
            }
            seen.insert(path, meta);
        }
        seen
    }

    /// That whatever the kernel has in its caches is what the union says, for every name.
    pub(crate) fn assert_kernel_agrees(&self, after: &str) {
        let seen = self.walk();
        for (path, meta) in &seen {
            let attr = self.resolve(path.strip_prefix(self.root()).unwrap());
            assert_eq!(
                of_kernel(meta),
                of_union(&attr),
                "{} after {after}",
                path.display()
            );
        }
        assert_eq!(
            seen.len(),
            self.count(Ino::ROOT) + 1,
            "number of names after {after}"
        );
    }

    pub(crate) fn resolve(&self, path: &Path) -> Attr {
        let mut attr = self.union.attr(Ino::ROOT).unwrap();
        for name in path {
            attr = self.union.lookup(attr.ino, name.as_bytes()).unwrap();
        }
        attr
    }

    fn count(&self, dir: Ino) -> usize {
        let mut below = Vec::new();
        self.union
            .list(dir, 0, &mut |e| {
                below.push((e.ino, e.kind));
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
        below.len()
            + below
                .iter()
                .filter(|(_, k)| *k == pellicle_store::FileKind::Directory)
                .map(|&(ino, _)| self.count(ino))
                .sum::<usize>()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let done = unmount(self.dir.path(), true);
        if let Some(server) = self.server.take()
            && done.is_ok()
            && !std::thread::panicking()
        {
            server.join().unwrap();
        }
    }
}

/// What `stat` tells, in words that can be compared and read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    ino: u64,
    mode: String,
    nlink: u64,
    owner: (u32, u32),
    rdev: u64,
    size: u64,
    blocks: u64,
    atime: (i64, i64),
    mtime: (i64, i64),
    ctime: (i64, i64),
}

fn of_kernel(m: &fs::Metadata) -> Stat {
    Stat {
        ino: m.ino(),
        mode: format!("{:o}", m.mode()),
        nlink: m.nlink(),
        owner: (m.uid(), m.gid()),
        rdev: m.rdev(),
        size: m.size(),
        blocks: m.blocks(),
        atime: (m.atime(), m.atime_nsec()),
        mtime: (m.mtime(), m.mtime_nsec()),
        ctime: (m.ctime(), m.ctime_nsec()),
    }
}

fn of_union(a: &Attr) -> Stat {
    let time = |t: pellicle_store::Time| (t.sec, i64::from(t.nsec));
    Stat {
        ino: a.ino.0,
        mode: format!("{:o}", a.kind.mode_bits() | u32::from(a.perm)),
        nlink: a.nlink.into(),
        owner: (a.uid, a.gid),
        rdev: libc::makedev(a.rdev.major, a.rdev.minor),
        size: a.size,
        blocks: a.blocks,
        atime: time(a.atime),
        mtime: time(a.mtime),
        ctime: time(a.ctime),
    }
}
