//! Directories to be overlaid, and `pellicle-overlay` run on them.

use std::path::{Path, PathBuf};

use pellicle_tests::{Cmd, TestStore, Who, pellicle_overlay};

/// `lower`, `upper`, `work` and `merged` in a directory of the test's own.
pub(crate) struct Layers {
    pub(crate) store: TestStore,
}

/// Where changes are kept, as `-o upper=` has it.
pub(crate) const UPPERS: [&str; 2] = ["dir", "journal"];

impl Layers {
    /// The lower directory holds `file` ("lower"), `dir/inner`, and `link` to `file`.
    pub(crate) fn new(who: Who) -> Self {
        let store = TestStore::new(who);
        for name in ["lower", "lower/dir", "upper", "work", "merged"] {
            store.directory(name);
        }
        store.file("lower/file", "lower");
        store.file("lower/dir/inner", "inner");
        let this = Self { store };
        this.sh("ln -s file lower/link").ok();
        this
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.store.path(name)
    }

    /// `sh -euc SCRIPT` in the directory of the layers.
    pub(crate) fn sh(&self, script: &str) -> Cmd {
        self.here(Path::new("sh")).args(["-euc", script])
    }

    /// `program`, to be run in the directory of the layers.
    pub(crate) fn here(&self, program: &Path) -> Cmd {
        let mut command = self.store.who().command(program);
        // By this a server's process is known (`TestStore::servers`).
        command.env("PELLICLE_ROOT", self.store.root());
        command.current_dir(self.path(""));
        Cmd::new(command)
    }

    /// `pellicle-overlay -o OPTIONS merged`, in the directory of the layers.
    pub(crate) fn overlay(&self, options: &str) -> Cmd {
        self.here(&pellicle_overlay())
            .args(["-o", options, "merged"])
    }

    /// The options for all directories and this kind of upper.
    pub(crate) fn options(&self, upper: &str) -> String {
        format!("lowerdir=lower,upperdir=upper,workdir=work,upper={upper}")
    }

    /// Unmounts `merged`, and waits until nobody serves it any more.
    pub(crate) fn unmount(&self) {
        self.here(Path::new("fusermount3"))
            .args(["-u", "merged"])
            .ok();
        self.served_no_more();
    }

    pub(crate) fn served_no_more(&self) {
        pellicle_tests::wait_for(
            "the server's end",
            std::time::Duration::from_secs(60),
            || self.store.servers().is_empty().then_some(()),
        );
    }

    /// Everything in the directory of the layers, with contents, to see that nothing changed; but
    /// for the file that names who last tried to have a journal.
    pub(crate) fn all(&self) -> String {
        let script =
            "find . ! -path ./upper/lock -printf '%p|%y|%m|%U:%G|%s|%T@\\n' | LC_ALL=C sort
             find . -type f ! -path ./upper/lock -exec sha256sum {} + | LC_ALL=C sort -k2";
        self.sh(script).ok()
    }
}
