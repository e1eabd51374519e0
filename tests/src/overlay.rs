//! Lower directories, a writable layer over them, and the mount of both.

use std::{
    collections::BTreeMap,
    fmt, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::mount::{MntFlags, umount2};
use rustix::fs::FileType;
use tempfile::TempDir;

use crate::{store::scratch, tree::Node, wait_for};

/// How long a server gets to end once it is unmounted. It flushes what was written, and takes back what was
/// removed: on a busy disk that takes a while.
const END: Duration = Duration::from_secs(180);

/// What lies below and above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layers {
    /// A log and data files, over imported layers: what containers have.
    Journal,
    /// A log and data files, over host directories.
    JournalOverDirectories,
    /// Kernel overlayfs's format over host directories, with its `trusted.` marks.
    Directory,
    /// The same with `user.` marks, and owners, modes and devices in an attribute: what a user
    /// without privileges has.
    DirectoryOfUser,
}

/// What opening a file costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenPolicy {
    /// No message: the kernel opens by itself.
    Silent,
    /// Answered by the server.
    Answered,
    /// Answered with a host file, where there is one, that the kernel reads and writes by itself.
    Passthrough,
}

/// How a tree is kept and served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Its layers.
    pub layers: Layers,
    /// Its opens.
    pub opens: OpenPolicy,
}

impl Way {
    /// Every way there is: both writable layers with every policy; those that differ from them in
    /// where things are, not in how they are served, with one.
    #[must_use]
    pub fn all() -> Vec<Self> {
        use OpenPolicy::{Answered, Passthrough, Silent};
        let whole = [Layers::Journal, Layers::Directory];
        let mut all: Vec<_> = whole
            .into_iter()
            .flat_map(|layers| [Silent, Answered, Passthrough].map(|opens| Self { layers, opens }))
            .collect();
        for layers in [Layers::JournalOverDirectories, Layers::DirectoryOfUser] {
            let opens = Silent;
            all.push(Self { layers, opens });
        }
        all
    }

    /// Whether a large lower file that is written to is copied in pieces, and not whole.
    #[must_use]
    pub fn copies_pieces(self) -> bool {
        matches!(
            self.layers,
            Layers::Journal | Layers::JournalOverDirectories
        )
    }

    /// What of a tree lasts over a remount. Access times in host directories are the host's, where whoever
    /// lists them changes them. A dir upper has no place for change times, nor, where it may not mark
    /// symbolic links, for what is not theirs on the host (`fs/docs/DIR_UPPER.md`).
    #[must_use]
    pub fn lasting(self, mut tree: BTreeMap<PathBuf, Node>) -> BTreeMap<PathBuf, Node> {
        let on_host = matches!(self.layers, Layers::Directory | Layers::DirectoryOfUser);
        for node in tree.values_mut() {
            let is_link = FileType::from_raw_mode(node.mode) == FileType::Symlink;
            if self.layers != Layers::Journal {
                node.accessed = (0, 0);
            }
            if on_host {
                node.times[1] = (0, 0);
            }
            if is_link && self.layers == Layers::DirectoryOfUser {
                node.ino = 0;
                node.owner = (0, 0);
            }
        }
        tree
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layers = match self.layers {
            Layers::Journal => "trees,upper=journal",
            Layers::JournalOverDirectories => "upper=journal",
            Layers::Directory => "upper=dir",
            Layers::DirectoryOfUser => "upper=dir,userxattr,xattr_permissions=2",
        };
        let opens = match self.opens {
            OpenPolicy::Silent => "silent",
            OpenPolicy::Answered => "answered",
            OpenPolicy::Passthrough => "passthrough",
        };
        write!(f, "{layers},opens={opens}")
    }
}

/// Lower directories and an upper, mounted; all gone when dropped.
pub struct Overlay {
    way: Way,
    dir: TempDir,
    /// The highest first.
    lower: Vec<PathBuf>,
    server: Option<Child>,
}

impl Overlay {
    /// Mounts what `fill` puts into the lower directories: the lower first.
    ///
    /// # Panics
    /// If it cannot be mounted.
    #[must_use]
    pub fn new(way: Way, fill: impl FnOnce(&Path, &Path)) -> Self {
        Self::over(way, |dir| {
            let (low, high) = (dir.join("low"), dir.join("high"));
            for made in [&low, &high] {
                fs::create_dir(made).expect("mkdir");
            }
            fill(&low, &high);
            vec![high, low]
        })
    }

    /// Mounts the lower directories, the highest first, that `make` makes in the directory it is
    /// given or has elsewhere.
    ///
    /// # Panics
    /// If it cannot be mounted.
    #[must_use]
    pub fn over(way: Way, make: impl FnOnce(&Path) -> Vec<PathBuf>) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("o-")
            .tempdir_in(scratch())
            .expect("temporary directory");
        // Other users are to reach the mount.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        for name in ["upper", "work", "at"] {
            fs::create_dir(dir.path().join(name)).expect("mkdir");
        }
        let lower = make(dir.path());
        let mut overlay = Self {
            way,
            dir,
            lower,
            server: None,
        };
        overlay.mount();
        overlay
    }

    /// The mount.
    #[must_use]
    pub fn at(&self) -> PathBuf {
        self.path("at")
    }

    /// A path beside the mount.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Unmounts and mounts again: the kernel has forgotten everything then, and the server too.
    ///
    /// # Panics
    /// If that fails, or the server ends otherwise than in good order.
    pub fn remount(&mut self) {
        unmount(&self.at());
        let mut server = self.server.take().expect("mounted");
        let begun = Instant::now();
        let ended = wait_for("the server to end", END, || {
            server.try_wait().expect("wait")
        });
        if begun.elapsed() > Duration::from_secs(10) {
            eprintln!("the server took {:?} to end", begun.elapsed());
        }
        assert!(ended.success(), "the server ended with {ended}");
        self.mount();
    }

    /// The server's process id.
    ///
    /// # Panics
    /// Between [`kill`](Self::kill) and [`again`](Self::again).
    #[must_use]
    pub fn server(&self) -> u32 {
        self.server.as_ref().expect("mounted").id()
    }

    /// Kills the server (`kill -9`) and takes the dead mount away. Who works in it meanwhile sees
    /// ENOTCONN.
    ///
    /// # Panics
    /// If it is not mounted.
    pub fn kill(&mut self) {
        let mut server = self.server.take().expect("mounted");
        server.kill().expect("kill");
        server.wait().expect("wait");
        umount2(&self.at(), MntFlags::MNT_DETACH).expect("the dead mount is there");
    }

    /// Mounts again after [`kill`](Self::kill).
    ///
    /// # Panics
    /// If that fails.
    pub fn again(&mut self) {
        self.mount();
    }

    fn mount(&mut self) {
        let lower: Vec<_> = self.lower.iter().map(|l| l.display().to_string()).collect();
        let options = format!(
            "lowerdir={},upperdir={},workdir={},{}",
            lower.join(":"),
            self.path("upper").display(),
            self.path("work").display(),
            self.way,
        );
        let mut server = match self.way.layers {
            Layers::Journal => Command::new(serve()),
            _ => Command::new(crate::pellicle_overlay()),
        };
        if self.way.layers != Layers::Journal {
            server.arg("-f");
        }
        let mut server = server
            .arg("-o")
            .arg(options)
            .arg(self.at())
            .stdin(Stdio::null())
            .spawn()
            .expect("the server can be started");
        wait_for("the mount", Duration::from_secs(60), || {
            let ended = server.try_wait().expect("wait");
            assert!(ended.is_none(), "the server ended with {ended:?}");
            is_mounted(&self.at()).then_some(())
        });
        self.server = Some(server);
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = umount2(&self.at(), MntFlags::MNT_DETACH);
        let Some(mut server) = self.server.take() else {
            return;
        };
        let begun = Instant::now();
        while begun.elapsed() < END {
            if matches!(server.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = server.kill();
        let _ = server.wait();
        assert!(thread::panicking(), "the server outlived its mount");
    }
}

/// Unmounts `at` once nobody uses it: a child of another thread holds what is open here until it
/// executes.
///
/// # Panics
/// If that takes long, or fails otherwise.
pub fn unmount(at: &Path) {
    wait_for(
        "the end of all use",
        Duration::from_secs(60),
        || match umount2(at, MntFlags::empty()) {
            Err(nix::Error::EBUSY) => None,
            done => {
                done.expect("unmount");
                Some(())
            }
        },
    );
}

fn is_mounted(at: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let at = at.to_str().expect("a plain path");
    table.lines().any(|line| line.split(' ').nth(4) == Some(at))
}

/// The example of fs/fuse that imports directories and serves them.
fn serve() -> PathBuf {
    let beside = crate::pellicle().with_file_name("examples/serve");
    assert!(
        beside.is_file(),
        "{} is missing: build it first (cargo build -p pellicle-fuse --example serve)",
        beside.display()
    );
    beside
}
