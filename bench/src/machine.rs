//! The machine that a figure belongs to, and what speaks against believing it.

use std::{collections::BTreeMap, fs, path::Path, process::Command, thread};

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// Above this many processes that want to run, on average over a minute, something else does.
const BUSY: f64 = 0.5;
/// Above this part of the processors' time taken by the hypervisor, others decide what is measured.
const STOLEN: f64 = 0.02;

/// What is told about it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) memory_mib: u64,
    /// What the drivers stand on.
    pub(crate) host_file_system: String,
    /// Runnable processes over the last minute, before the run.
    pub(crate) load: f64,
    pub(crate) root: bool,
    /// Of the programs that take part, by name.
    pub(crate) versions: BTreeMap<String, String>,
    /// When it was measured, UTC.
    pub(crate) date: String,
}

impl Machine {
    /// Looks at this one; drivers stand on the file system of `work`.
    pub(crate) fn look(work: &Path) -> Result<Self> {
        let memory = field("/proc/meminfo", "MemTotal").unwrap_or_default();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Ok(Self {
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?
                .trim()
                .to_owned(),
            cpu: field("/proc/cpuinfo", "model name")
                .unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cpus: thread::available_parallelism().map_or(1, usize::from),
            memory_mib: first_number(&memory) / 1024,
            host_file_system: said(
                Command::new("findmnt")
                    .args(["-n", "-o", "FSTYPE", "-T"])
                    .arg(work),
            )
            .unwrap_or_else(|| "unknown".to_owned()),
            load: load
                .split(' ')
                .next()
                .and_then(|n| n.parse().ok())
                .unwrap_or(0.0),
            root: nix::unistd::geteuid().is_root(),
            versions: versions(),
            date: said(Command::new("date").args(["-u", "+%F %H:%M"])).unwrap_or_default(),
        })
    }

    /// What speaks against measuring now.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.load > BUSY {
            warnings.push(format!(
                "the machine is busy (load {:.1}): expect noise, and wait until it is below {BUSY} for figures to keep",
                self.load
            ));
        }
        if fs::read_dir("/proc").is_ok_and(reclaims) {
            warnings.push(
                "the kernel takes back memory that was not used for a while (kdamond runs): what should be in the page cache may not be".to_owned(),
            );
        }
        warnings
    }
}

/// Whether one of the processes is DAMON's, which reclaims by itself.
fn reclaims(mut processes: fs::ReadDir) -> bool {
    processes.any(|entry| {
        let comm = entry.map(|entry| entry.path().join("comm"));
        comm.is_ok_and(|comm| fs::read(comm).is_ok_and(|name| name.starts_with(b"kdamond")))
    })
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Linux {}, {} x {}, {} MiB, {}",
            self.kernel, self.cpus, self.cpu, self.memory_mib, self.host_file_system
        )
    }
}

/// The processors' time, to see what others took of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    all: u64,
    stolen: u64,
}

impl Clock {
    /// Since the machine started; `None` where `/proc/stat` is not to be had.
    pub(crate) fn now() -> Option<Self> {
        let text = fs::read_to_string("/proc/stat").ok()?;
        let line = text.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<u64> = line
            .split_whitespace()
            .filter_map(|n| n.parse().ok())
            .take(8)
            .collect();
        Some(Self {
            all: ticks.iter().sum(),
            stolen: ticks.get(7).copied().unwrap_or(0),
        })
    }

    /// What to say of the time since then.
    pub(crate) fn warning(self) -> Option<String> {
        let now = Self::now()?;
        let all = now.all.saturating_sub(self.all).max(1);
        let part = now.stolen.saturating_sub(self.stolen) as f64 / all as f64;
        (part > STOLEN).then(|| {
            format!(
                "the hypervisor took {:.0} % of the processors' time (steal): the figures are not this machine's alone",
                part * 100.0
            )
        })
    }
}

/// The value of a `name: value` line.
pub(crate) fn field(file: impl AsRef<Path>, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The number that `text` begins with; 0 without one.
pub(crate) fn first_number(text: &str) -> u64 {
    let word = text.split_whitespace().next();
    word.and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// The first line that `command` says, if it succeeds.
fn said(command: &mut Command) -> Option<String> {
    let out = command.output().ok().filter(|out| out.status.success())?;
    let text = String::from_utf8_lossy(&out.stdout);
    Some(text.lines().next()?.trim().to_owned())
}

fn versions() -> BTreeMap<String, String> {
    let ask = [
        "podman", "crun", "bwrap", "skopeo", "umoci", "ctr", "fio", "git", "sqlite3",
    ];
    let of_peers = ask.into_iter().filter_map(|program| {
        let text = said(Command::new(program).arg("--version"))?;
        Some((program.to_owned(), version_in(&text)?))
    });
    let ours = ("pellicle".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    of_peers.chain([ours]).collect()
}

/// The first word of `text` that is a version: `fio-3.33`, `v1.2`, `2.0`.
pub(crate) fn version_in(text: &str) -> Option<String> {
    text.split(|c: char| c.is_whitespace() || c == '-' || c == 'v')
        .map(|word| word.trim_matches(|c: char| !c.is_ascii_alphanumeric()))
        .find(|word| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit()))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_what_programs_say() {
        for (said, version) in [
            ("fio-3.33", "3.33"),
            ("podman version 4.3.1", "4.3.1"),
            ("fuse-overlayfs: version 1.10", "1.10"),
            ("ctr github.com/containerd/containerd v1.7.2", "1.7.2"),
            ("3.40.1 2022-12-28 14:03:47 df5c253c0b3dd", "3.40.1"),
        ] {
            assert_eq!(version_in(said).as_deref(), Some(version), "{said}");
        }
        assert_eq!(version_in("no version"), None);
    }

    #[test]
    fn the_machine_is_told_with_its_kernel_and_file_system() {
        let machine = Machine::look(Path::new("/")).unwrap();
        assert!(!machine.kernel.is_empty() && machine.cpus > 0 && machine.memory_mib > 0);
        assert!(!machine.host_file_system.is_empty());
    }
}
