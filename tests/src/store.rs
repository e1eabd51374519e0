//! A store of its own for each test, and what is done in it.

use std::{
    env,
    ffi::OsStr,
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use tempfile::TempDir;

use crate::{Cmd, Who, debian_layers, leftovers, pellicle, tools_image, wait_for, write_program};

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
    sleep: u64,
}

impl TestStore {
    /// An empty store.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn new(who: Who) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let dir = tempfile::Builder::new()
            .prefix("pellicle-e2e-")
            .tempdir_in(scratch())
            .expect("temporary directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let store = Self {
            who,
            // Always ten digits, so that none is a part of another.
            sleep: 5_000_000_000
                + u64::from(std::process::id()) * 1000
                + NEXT.fetch_add(1, Ordering::Relaxed) % 1000,
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
            .limit(Duration::from_secs(600))
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

    /// Writes a program in the test's own directory, as [`write_program`].
    ///
    /// # Panics
    /// If that fails.
    pub fn program(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        write_program(&path, text);
        self.own(&path);
        path
    }

    /// `pellicle umount DIR`, once nobody uses the mount: what a test had open in it a child of another
    /// thread holds until it executes.
    ///
    /// # Panics
    /// If that takes long, or it cannot be unmounted for another reason.
    pub fn unmount(&self, dir: &Path) {
        wait_for("the end of all use", Duration::from_secs(60), || {
            let out = self.cmd(["umount"]).arg(dir).run();
            if out.code() != 0 && out.err().contains("busy") {
                return None;
            }
            let _ = out.succeeded();
            Some(())
        });
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

    /// What is left behind once everything has had time to go.
    #[must_use]
    pub fn left_behind(&self) -> Vec<String> {
        leftovers::settled(self.dir.path(), &self.seconds())
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
