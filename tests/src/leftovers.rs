//! What a test has left behind: mounts, processes, cgroups, locks.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How long a container that has ended may take to be cleared away.
const GRACE: Duration = Duration::from_secs(120);

/// What is left after waiting a little for what is on its way out.
pub(crate) fn settled(dir: &Path, seconds: &str) -> Vec<String> {
    let start = Instant::now();
    let mut left = of(dir, seconds);
    let mut always: HashSet<String> = left.iter().cloned().collect();
    while !left.is_empty() && start.elapsed() < GRACE {
        thread::sleep(Duration::from_millis(50));
        left = of(dir, seconds);
        always.retain(|line| left.contains(line));
        left.retain(|line| always.contains(line));
    }
    left
}

/// What there is right now, one line each.
pub(crate) fn of(dir: &Path, seconds: &str) -> Vec<String> {
    let mut left = Vec::new();
    for point in mounts_under(dir) {
        left.push(format!("mount {}", point.display()));
    }
    let mut processes = processes_with(dir.as_os_str().as_encoded_bytes());
    processes.extend(processes_with(seconds.as_bytes()));
    for id in processes {
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        left.push(format!("process {id} {line}"));
    }
    left.extend(empty_cgroups());
    left.extend(locks_under(dir));
    left
}

/// Takes away mounts and processes so that the directory can be removed.
pub(crate) fn clear(dir: &Path, seconds: &str) {
    let mut processes = processes_with(dir.as_os_str().as_encoded_bytes());
    processes.extend(processes_with(seconds.as_bytes()));
    for id in processes {
        let _ = kill(
            Pid::from_raw(i32::try_from(id).unwrap_or(i32::MAX)),
            Signal::SIGKILL,
        );
    }
    for point in mounts_under(dir).into_iter().rev() {
        let _ = umount2(&point, MntFlags::MNT_DETACH);
    }
}

fn mounts_under(dir: &Path) -> Vec<PathBuf> {
    let info = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    info.lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .filter(|point| point.starts_with(dir))
        .collect()
}

/// Processes other than this one with `needle` in their command line or environment.
pub(crate) fn processes_with(needle: &[u8]) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(id) = entry
            .file_name()
            .to_str()
            .and_then(|n| n.parse::<u32>().ok())
        else {
            continue;
        };
        if id == std::process::id() || is_zombie(id) {
            continue;
        }
        let holds = |file: &str| {
            fs::read(entry.path().join(file))
                .is_ok_and(|bytes| bytes.windows(needle.len()).any(|w| w == needle))
        };
        if holds("cmdline") || holds("environ") {
            found.push(id);
        }
    }
    found
}

fn is_zombie(id: u32) -> bool {
    fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| {
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| rest.starts_with(" Z"))
    })
}

/// Cgroups of ours that nothing is in. (Those of running containers are not empty; one that is just
/// being made is only for a moment, which [`settled`] waits out.)
fn empty_cgroups() -> Vec<String> {
    let mut left = Vec::new();
    let mut dirs = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|t| t.is_dir()) {
                continue;
            }
            let path = entry.path();
            // "pellicle" alone may be the parent that stays.
            let ours = path.to_string_lossy().contains("pellicle")
                && path.file_name().is_some_and(|n| n != "pellicle");
            let events = fs::read_to_string(path.join("cgroup.events")).unwrap_or_default();
            let procs = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
            if ours && procs.is_empty() && !events.contains("populated 1") {
                left.push(format!("cgroup {}", path.display()));
            }
            dirs.push(path);
        }
    }
    left
}

/// File locks that are held on files under `dir`.
fn locks_under(dir: &Path) -> Vec<String> {
    let held: HashSet<u64> = fs::read_to_string("/proc/locks")
        .unwrap_or_default()
        .lines()
        .filter_map(|line| {
            let place = line
                .split_whitespace()
                .find(|word| word.matches(':').count() == 2)?;
            place.rsplit(':').next()?.parse().ok()
        })
        .collect();
    if held.is_empty() {
        return Vec::new();
    }
    let mut left = Vec::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            // Thousands of objects are not locked one by one.
            if meta.is_dir() && entry.file_name() != "objects" {
                dirs.push(entry.path());
            } else if held.contains(&meta.ino()) {
                left.push(format!("lock on {}", entry.path().display()));
            }
        }
    }
    left
}
