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
    path::{Path, PathBuf},
    time::{Duration, Instant},
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

/// Ends processes as a crash would, and waits until nothing of them is left.
///
/// A process of several threads is not gone with the first of them: the kernel may have sent its
/// children their death signal while another thread still holds its locks.
///
/// # Panics
/// When one is still there after a minute.
pub fn kill_9(processes: &[u32]) {
    use rustix::{
        event::{PollFd, PollFlags, Timespec, poll},
        process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
    };

    let all: Vec<_> = processes
        .iter()
        .filter_map(|id| Pid::from_raw(i32::try_from(*id).expect("pid")))
        // One that has ended meanwhile needs no kill.
        .filter_map(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
        .collect();
    for process in &all {
        let _ = pidfd_send_signal(process, Signal::KILL);
    }
    for process in &all {
        let mut end = [PollFd::new(process, PollFlags::IN)];
        let minute = Timespec {
            tv_sec: 60,
            tv_nsec: 0,
        };
        let ready = poll(&mut end, Some(&minute)).expect("poll");
        assert_eq!(ready, 1, "a killed process is there after a minute");
    }
}

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
