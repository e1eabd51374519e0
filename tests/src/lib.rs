//! What the end-to-end suites share: finding the built `pellicle`, running it as root and as an
//! ordinary user with a time limit, a store of its own for each test, and the check that a test
//! leaves nothing behind.
//!
//! The suites (one test binary each, in `suites/`) drive the command line only; nothing here knows
//! Pellicle's insides. A test that cannot run on this machine calls [`skip`] with the reason, which
//! `tools/test` prints, counts, and in CI compares with `expected-skips`.

pub mod archive;
mod command;
mod fixture;
mod leftovers;
mod overlay;
mod store;
mod terminal;
pub mod tree;
mod who;

pub use command::{Cmd, Outcome, Running};
pub use fixture::{debian_layers, tools_image};
pub use overlay::{Layers, OpenPolicy, Overlay, Way, unmount};
pub use store::{TestStore, scratch};
pub use terminal::Terminal;
pub use who::Who;

use std::{
    env,
    fs::OpenOptions,
    io::Write as _,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

/// Records that `test` did not run, and why. The caller returns right after it.
pub fn skip(test: &str, why: &str) {
    eprintln!("skipped: {test}: {why}");
    if let Some(file) = env::var_os("PELLICLE_TEST_SKIPS") {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(file)
            .expect("PELLICLE_TEST_SKIPS can be written");
        writeln!(file, "{test}: {why}").expect("PELLICLE_TEST_SKIPS can be written");
    }
}

/// The `pellicle` under test: `PELLICLE_BIN`, else the one built beside this test binary.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn pellicle() -> PathBuf {
    env::var_os("PELLICLE_BIN").map_or_else(|| built("pellicle"), PathBuf::from)
}

/// The `pellicle-overlay` under test: `PELLICLE_OVERLAY_BIN`, else the one built beside this test
/// binary; a copy that every user can execute.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn pellicle_overlay() -> PathBuf {
    let program = env::var_os("PELLICLE_OVERLAY_BIN")
        .map_or_else(|| built("pellicle-overlay"), PathBuf::from);
    who::readable_copy(&program)
}

fn built(name: &str) -> PathBuf {
    // target/debug/deps/run-0123 -> target/debug/pellicle
    let exe = env::current_exe().expect("own path");
    let dir = exe
        .parent()
        .and_then(Path::parent)
        .expect("target directory");
    let path = dir.join(name);
    assert!(
        path.is_file(),
        "{} is missing: build it first (cargo build -p {name})",
        path.display()
    );
    path
}

/// The repository.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ is in the repository")
        .to_path_buf()
}

/// Writes a program to `path`, by another process: what is open here for writing a child of another
/// thread holds until it executes, and meanwhile nobody can execute the program.
///
/// # Panics
/// If that fails.
pub fn write_program(path: &Path, text: &str) {
    let mut write = std::process::Command::new("sh");
    write
        .args(["-c", "cat >\"$1\" && chmod 755 \"$1\"", "sh"])
        .arg(path);
    Cmd::new(write).stdin(text).ok();
}

/// Processes that are about to end.
///
/// One of several threads is not gone with the first of them, nor with its memory, by which
/// [`TestStore::servers`] knows it: the kernel may have sent its children their death signal while
/// another thread still holds its locks.
pub struct Ending(Vec<OwnedFd>);

impl Ending {
    /// Those of `processes` that are there now.
    ///
    /// # Panics
    /// If a number is none of a process.
    #[must_use]
    pub fn of(processes: &[u32]) -> Self {
        let all = processes.iter().filter_map(|id| {
            let pid = Pid::from_raw(i32::try_from(*id).expect("pid"))?;
            pidfd_open(pid, PidfdFlags::empty()).ok()
        });
        Self(all.collect())
    }

    /// Waits until nothing of them is left.
    ///
    /// # Panics
    /// When one is still there after two minutes.
    pub fn wait(self) {
        for process in &self.0 {
            let mut end = [PollFd::new(process, PollFlags::IN)];
            let limit = Timespec {
                tv_sec: 120,
                tv_nsec: 0,
            };
            let ready = poll(&mut end, Some(&limit)).expect("poll");
            assert_eq!(ready, 1, "a process that was to end is still there");
        }
    }
}

/// Ends processes as a crash would, and waits until nothing of them is left.
///
/// # Panics
/// When one is still there after two minutes.
pub fn kill_9(processes: &[u32]) {
    let all = Ending::of(processes);
    for process in &all.0 {
        let _ = pidfd_send_signal(process, Signal::KILL);
    }
    all.wait();
}

/// For a shell that has just got a mount namespace of its own: lets go of our mounts that other tests
/// have at the moment, of which it has copies. A server lives as long as any copy of its mount.
pub const LET_GO: &str =
    "awk '$3 ~ /^fuse[.]pellicle/ { print $2 }' /proc/self/mounts | xargs -r -n 1 umount -l || :";

/// Waits until `ready` gives something, at most `limit`.
///
/// # Panics
/// When the time is over, naming `what`.
pub fn wait_for<T>(what: &str, limit: Duration, mut ready: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} for {what}");
        std::thread::sleep(Duration::from_millis(30));
    }
}
