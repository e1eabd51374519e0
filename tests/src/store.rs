//! A store of its own for each test, and what is done in it.

use std::{
    env,
    ffi::OsStr,
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use tempfile::TempDir;

use crate::{Cmd, Who, debian_layers, leftovers, pellicle, tools_image};

/// Where tests put their files: `PELLICLE_TEST_SCRATCH`, else the temporary directory.
#[must_use]
pub fn scratch() -> PathBuf {
    env::var_os("PELLICLE_TEST_SCRATCH").map_or_else(env::temp_dir, PathBuf::from)
}

/// A directory that is removed with the test, holding a store and room for the test's files, owned
/// by whom the test runs as. Dropping it checks that nothing is left behind.
pub struct TestStore {
    who: Who,
    dir: TempDir,
    /// Seconds that no other test sleeps: names this test's processes in a container.
    sleep: u32,
}

impl TestStore {
    /// An empty store.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn new(who: Who) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let dir = tempfile::Builder::new()
            .prefix("pellicle-e2e-")
            .tempdir_in(scratch())
            .expect("temporary directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let store = Self {
            who,
            sleep: 1_000_000 + std::process::id() * 100 + NEXT.fetch_add(1, Ordering::Relaxed),
            dir,
        };
        store.own(store.dir.path());
        store
    }

    /// A store with the small image `tools` (this machine's shell and common tools).
    ///
    /// # Panics
    /// If the import fails.
    #[must_use]
    pub fn with_tools(who: Who) -> Self {
        let store = Self::new(who);
        store.cmd(["import"]).arg(tools_image()).arg("tools").ok();
        store
    }

    /// A store with the Debian image of `tools/image full`, as `debian`. `None` where that image
    /// could not be made.
    ///
    /// # Panics
    /// If the import fails.
    #[must_use]
    pub fn with_debian(who: Who) -> Option<Self> {
        let layers = debian_layers()?;
        let store = Self::new(who);
        store
            .cmd(["import"])
            .arg(&layers[0])
            .arg("debian")
            .arg("--layer")
            .arg(&layers[1])
            .arg("--layer")
            .arg(&layers[2])
            .limit(std::time::Duration::from_secs(300))
            .ok();
        Some(store)
    }

    /// Whom it belongs to.
    #[must_use]
    pub fn who(&self) -> Who {
        self.who
    }

    /// The store's root.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// A path in the test's own directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes a directory in the test's own directory.
    ///
    /// # Panics
    /// If that fails.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).expect("mkdir");
        self.own(&path);
        path
    }

    /// Writes a file in the test's own directory.
    ///
    /// # Panics
    /// If that fails.
    pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).expect("write");
        self.own(&path);
        path
    }

    fn own(&self, path: &Path) {
        if nix::unistd::geteuid().is_root() {
            let (uid, gid) = self.who.ids();
            chown(path, Some(uid), Some(gid)).expect("chown");
        }
    }

    /// `pellicle ARGS...` on this store.
    #[must_use]
    pub fn cmd<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Cmd {
        let mut command = self.who.command(&pellicle());
        command.env("PELLICLE_ROOT", self.root());
        Cmd::new(command).args(args)
    }

    /// `pellicle run --rm ARGS...`, where the arguments are words of `line`.
    #[must_use]
    pub fn run(&self, line: &str) -> Cmd {
        self.cmd(["run", "--rm"]).args(line.split_whitespace())
    }

    /// `pellicle run --rm IMAGE sh -c SCRIPT`.
    #[must_use]
    pub fn sh(&self, image: &str, script: &str) -> Cmd {
        self.cmd(["run", "--rm", image, "sh", "-c", script])
    }

    /// A number of seconds to sleep by which the processes of this test can be told from others'.
    #[must_use]
    pub fn seconds(&self) -> String {
        self.sleep.to_string()
    }

    /// Processes that sleep [`seconds`](Self::seconds).
    #[must_use]
    pub fn sleepers(&self) -> Vec<u32> {
        leftovers::processes_with(self.seconds().as_bytes())
    }

    /// Processes that serve this store (its root is in their command line or environment).
    #[must_use]
    pub fn servers(&self) -> Vec<u32> {
        leftovers::processes_with(self.root().as_os_str().as_encoded_bytes())
    }

    /// What is left behind right now: one line each.
    #[must_use]
    pub fn leftovers(&self) -> Vec<String> {
        leftovers::of(self.dir.path(), &self.seconds())
    }
}

impl Drop for TestStore {
    fn drop(&mut self) {
        let left = leftovers::settled(self.dir.path(), &self.seconds());
        // What is left would keep the directory from going, and the next test from a clean machine.
        leftovers::clear(self.dir.path(), &self.seconds());
        assert!(
            left.is_empty() || thread::panicking(),
            "left behind:\n{}",
            left.join("\n")
        );
    }
}
