//! What a file system promises, by the suites that others are judged by: on a mount whose files lie
//! in lower directories, over each kind of writable layer and with each way to open files.
//!
//! `PELLICLE_TEST_FULL=1` runs all of it, which takes an hour or more.

mod fsx;
mod oracle;
mod pieces;
mod pjdfstest;
mod rules;
mod stress;
mod threads;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use pellicle_tests::{repository, skip};

/// Whether the long form is asked for.
fn full() -> bool {
    env::var_os("PELLICLE_TEST_FULL").is_some()
}

/// Whether `test` can run at all; says why not.
fn can_run(test: &str) -> bool {
    if !nix::unistd::geteuid().is_root() {
        skip(test, "needs root");
        return false;
    }
    true
}

/// A program that `tools/test` installs.
fn tool(test: &str, name: &str) -> Option<PathBuf> {
    let cache = env::var_os("PELLICLE_CACHE")
        .map_or_else(|| repository().join(".cache"), PathBuf::from)
        .join("cargo/bin");
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .chain([cache])
        .map(|dir| dir.join(name))
        .find(|program| program.is_file());
    if found.is_none() {
        skip(
            test,
            &format!("{name} is not installed (tools/test does that)"),
        );
    }
    found
}

fn write(path: PathBuf, bytes: impl AsRef<[u8]>) {
    fs::write(&path, bytes).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
}

/// Files and directories in both lower directories, some of the same name, with links.
fn some_files(low: &Path, high: &Path) {
    for dir in [low, high] {
        for sub in ["work", "both/deep"] {
            fs::create_dir_all(dir.join(sub)).expect("mkdir");
        }
    }
    for n in 0..40 {
        write(low.join(format!("work/low{n}")), format!("low {n}"));
        write(high.join(format!("work/high{n}")), format!("high {n}"));
        write(high.join(format!("both/deep/{n}")), vec![b'd'; n * 997]);
    }
    write(low.join("work/same"), "from below");
    write(high.join("work/same"), "from above");
    write(low.join("large"), vec![b'l'; 3_000_000]);
    fs::hard_link(low.join("large"), low.join("work/twin")).expect("link");
    std::os::unix::fs::symlink("../large", low.join("work/link")).expect("symlink");
}
