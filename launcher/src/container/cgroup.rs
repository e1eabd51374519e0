//! Limits on memory, processor time and number of processes, by plain files of the cgroup file
//! systems (the kernel's admin-guide/cgroup-v2.rst and cgroup-v1/).
//!
//! A container gets a cgroup only if it has a limit, directly below the cgroup of whoever starts
//! it, so that limits from outside go on holding. On version 2 the starter's cgroup must be
//! delegated to it; having processes of its own, it then moves them one level down, for a cgroup
//! with controllers for its children may hold none. On version 1 only root can make cgroups.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use oci_spec::runtime::LinuxResources;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::ContainerError;

const CPU_PERIOD_US: u64 = 100_000;

/// What a container may use at most; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory; swap is not given on top.
    pub memory: Option<u64>,
    /// Processor time in microseconds per `CPU_PERIOD_US` of real time.
    pub cpu_quota_us: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

impl Limits {
    /// The limits that the specification's resources name.
    #[must_use]
    pub fn of(resources: &LinuxResources) -> Self {
        let positive = |n: i64| u64::try_from(n).ok().filter(|n| *n > 0);
        Self {
            memory: resources
                .memory()
                .and_then(|m| m.limit())
                .and_then(positive),
            cpu_quota_us: resources
                .cpu()
                .as_ref()
                .and_then(|c| c.quota())
                .and_then(positive),
            pids: resources.pids().as_ref().and_then(|p| positive(p.limit())),
        }
    }

    /// Whether there is no limit at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn controllers(&self) -> Vec<&'static str> {
        [
            ("memory", self.memory.is_some()),
            ("cpu", self.cpu_quota_us.is_some()),
            ("pids", self.pids.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, wanted)| wanted.then_some(name))
        .collect()
    }
}

/// `512m`, `1.5g`, `1048576`: bytes, in powers of 1024, as docker reads them.
///
/// # Errors
/// [`ContainerError::Invalid`]; less than 6 MiB too, in which nothing starts.
pub fn parse_memory(text: &str) -> Result<u64, ContainerError> {
    const LEAST: u64 = 6 << 20;
    let bad = |why: &str| ContainerError::invalid("--memory", text, why);
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match lower.get(digits.len()..).unwrap_or_default() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(bad("give a number with b, k, m, g or t")),
    };
    let number: f64 = digits
        .parse()
        .map_err(|_| bad("give a number with b, k, m, g or t"))?;
    let bytes = number * (1_u64 << shift) as f64;
    if !bytes.is_finite() || !(0.0..9e18).contains(&bytes) {
        return Err(bad("out of range"));
    }
    let bytes = bytes as u64;
    if bytes < LEAST {
        return Err(bad("at least 6m is needed"));
    }
    Ok(bytes)
}

/// `1.5` processors as microseconds per period.
///
/// # Errors
/// [`ContainerError::Invalid`].
pub fn parse_cpus(text: &str) -> Result<u64, ContainerError> {
    let bad = |why: &str| ContainerError::invalid("--cpus", text, why);
    let cpus: f64 = text
        .trim()
        .parse()
        .map_err(|_| bad("give a number such as 1.5"))?;
    if !(0.01..=65536.0).contains(&cpus) {
        return Err(bad("give a number from 0.01 on"));
    }
    Ok((cpus * CPU_PERIOD_US as f64) as u64)
}

/// The period that [`parse_cpus`] is relative to, microseconds.
#[must_use]
pub fn cpu_period_us() -> u64 {
    CPU_PERIOD_US
}

/// The cgroups of one container: one directory on version 2, one per controller on version 1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    dirs: Vec<PathBuf>,
}

impl Cgroup {
    /// Makes the cgroup of container `id` with `limits`; nothing if there are none.
    ///
    /// # Errors
    /// [`ContainerError::Limit`] where this user or this host cannot; nothing is left then.
    pub fn create(id: &str, limits: &Limits) -> Result<Self, ContainerError> {
        if limits.is_empty() {
            return Ok(Self::default());
        }
        let host = Host::look()?;
        let mut made = Self::default();
        let done = if host.is_v2 {
            made.create_v2(&host, id, limits)
        } else {
            made.create_v1(&host, id, limits)
        };
        match done {
            Ok(()) => Ok(made),
            Err(e) => {
                made.remove();
                Err(e)
            }
        }
    }

    /// Moves process `pid` in, and with it what it forks from now on.
    ///
    /// # Errors
    /// The host's.
    pub fn add(&self, pid: Pid) -> Result<(), ContainerError> {
        for dir in &self.dirs {
            let file = dir.join("cgroup.procs");
            fs::write(&file, pid.to_string()).map_err(ContainerError::file("write", file))?;
        }
        Ok(())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.dirs.is_empty()
    }

    /// The file that stops and resumes what is inside, on version 2.
    #[must_use]
    pub fn freezer(&self) -> Option<PathBuf> {
        let file = self.dirs.first()?.join("cgroup.freeze");
        file.exists().then_some(file)
    }

    /// Kills what is left inside and removes it. Tells whether it is gone.
    pub fn remove(&self) -> bool {
        // All of them, whatever happens to the first.
        let left = self.dirs.iter().filter(|dir| !remove_dir(dir)).count();
        left == 0
    }

    fn create_v1(&mut self, host: &Host, id: &str, limits: &Limits) -> Result<(), ContainerError> {
        if !rustix::process::geteuid().is_root() {
            return Err(ContainerError::Limit {
                what: limits.controllers().first().copied().unwrap_or("memory"),
                why: "this host has version 1 cgroups, where only root can make them".to_owned(),
                next: "run without --memory, --cpus and --pids-limit, run as root, or boot the host with `systemd.unified_cgroup_hierarchy=1`".to_owned(),
            });
        }
        for controller in limits.controllers() {
            let Some(own) = host.controller_dir(controller) else {
                return Err(no_controller(controller));
            };
            let dir = own.join(format!("pellicle-{id}"));
            fs::create_dir(&dir).map_err(|e| ContainerError::Limit {
                what: controller,
                why: format!("cannot make {}: {e}", dir.display()),
                next: "mount the cgroup file systems writable".to_owned(),
            })?;
            self.dirs.push(dir.clone());
            let values: Vec<(&str, String)> = match controller {
                "memory" => v1_memory(limits.memory.unwrap_or(u64::MAX)),
                "cpu" => vec![
                    ("cpu.cfs_period_us", CPU_PERIOD_US.to_string()),
                    (
                        "cpu.cfs_quota_us",
                        limits.cpu_quota_us.unwrap_or(CPU_PERIOD_US).to_string(),
                    ),
                ],
                _ => vec![("pids.max", limits.pids.unwrap_or(u64::MAX).to_string())],
            };
            write_values(controller, &dir, &values)?;
        }
        Ok(())
    }

    fn create_v2(&mut self, host: &Host, id: &str, limits: &Limits) -> Result<(), ContainerError> {
        let parent = host.v2_parent()?;
        enable(&parent, &limits.controllers())?;
        let dir = parent.join(format!("pellicle-{id}"));
        fs::create_dir(&dir).map_err(|e| not_delegated("memory", &dir, &e))?;
        self.dirs.push(dir.clone());
        for (controller, values) in v2_values(limits) {
            write_values(controller, &dir, &values)?;
        }
        Ok(())
    }
}

fn v1_memory(limit: u64) -> Vec<(&'static str, String)> {
    vec![
        ("memory.limit_in_bytes", limit.to_string()),
        // Absent without swap accounting.
        ("?memory.memsw.limit_in_bytes", limit.to_string()),
    ]
}

fn v2_values(limits: &Limits) -> Vec<(&'static str, Vec<(&'static str, String)>)> {
    let mut values = Vec::new();
    if let Some(bytes) = limits.memory {
        values.push((
            "memory",
            vec![
                ("memory.max", bytes.to_string()),
                ("?memory.swap.max", "0".to_owned()),
                ("?memory.oom.group", "1".to_owned()),
            ],
        ));
    }
    if let Some(quota) = limits.cpu_quota_us {
        values.push(("cpu", vec![("cpu.max", format!("{quota} {CPU_PERIOD_US}"))]));
    }
    if let Some(pids) = limits.pids {
        values.push(("pids", vec![("pids.max", pids.to_string())]));
    }
    values
}

/// A name that begins with `?` may be missing.
fn write_values(
    what: &'static str,
    dir: &Path,
    values: &[(&str, String)],
) -> Result<(), ContainerError> {
    for (name, value) in values {
        let (name, optional) = match name.strip_prefix('?') {
            Some(name) => (name, true),
            None => (*name, false),
        };
        let file = dir.join(name);
        match fs::write(&file, value) {
            Ok(()) => {}
            Err(_) if optional => {}
            Err(e) => {
                return Err(ContainerError::Limit {
                    what,
                    why: format!("cannot write {value} to {}: {e}", file.display()),
                    next: "the limit may be above one from outside, or below what is in use"
                        .to_owned(),
                });
            }
        }
    }
    Ok(())
}

fn no_controller(what: &'static str) -> ContainerError {
    ContainerError::Limit {
        what,
        why: format!("this host has no {what} controller mounted"),
        next: format!("enable it in the kernel (cgroup_enable={what}) or mount its cgroup"),
    }
}

fn not_delegated(what: &'static str, path: &Path, e: &io::Error) -> ContainerError {
    ContainerError::Limit {
        what,
        why: format!("the cgroup is not delegated to this user ({}: {e})", path.display()),
        next: "start it in a scope of your own: `systemd-run --user --scope -p Delegate=yes pellicle run ...`".to_owned(),
    }
}

/// Switches `controllers` on for the children of `parent`.
fn enable(parent: &Path, controllers: &[&'static str]) -> Result<(), ContainerError> {
    let listed = |name: &str| fs::read_to_string(parent.join(name)).unwrap_or_default();
    let (there, on) = (
        listed("cgroup.controllers"),
        listed("cgroup.subtree_control"),
    );
    for controller in controllers {
        if on.split_whitespace().any(|c| c == *controller) {
            continue;
        }
        if !there.split_whitespace().any(|c| c == *controller) {
            return Err(ContainerError::Limit {
                what: controller,
                why: format!("{} has no {controller} controller", parent.display()),
                next: "start it in a scope of your own: `systemd-run --user --scope -p Delegate=yes pellicle run ...`".to_owned(),
            });
        }
        let file = parent.join("cgroup.subtree_control");
        fs::write(&file, format!("+{controller}"))
            .map_err(|e| not_delegated(controller, &file, &e))?;
    }
    Ok(())
}

fn remove_dir(dir: &Path) -> bool {
    // The processes are dead, but may take a moment to leave.
    for attempt in 0..50_u32 {
        match fs::remove_dir(dir) {
            Ok(()) => return true,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return true,
            Err(_) if attempt == 0 => {
                // Version 2 only; on version 1 the pid namespace's end killed everything.
                let _ = fs::write(dir.join("cgroup.kill"), "1");
            }
            Err(_) => std::thread::sleep(Duration::from_millis(u64::from(attempt.min(20)))),
        }
    }
    false
}

/// Where this host has its cgroups, and where in them this process is.
struct Host {
    is_v2: bool,
    /// Version 1: controllers, directory of this process's cgroup.
    v1: Vec<(Vec<String>, PathBuf)>,
    /// Version 2: mount point and own path below it.
    v2: Option<(PathBuf, PathBuf)>,
}

impl Host {
    fn look() -> Result<Self, ContainerError> {
        let read =
            |path: &str| fs::read_to_string(path).map_err(ContainerError::file("read", path));
        Ok(Self::from_texts(
            &read("/proc/self/mountinfo")?,
            &read("/proc/self/cgroup")?,
        ))
    }

    fn from_texts(mountinfo: &str, own: &str) -> Self {
        // "hierarchy:controllers:path"; version 2 is hierarchy 0 without controllers.
        let own_path = |controller: &str| {
            own.lines().find_map(|line| {
                let mut fields = line.splitn(3, ':');
                let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
                let hit = if controller.is_empty() {
                    controllers.is_empty()
                } else {
                    controllers.split(',').any(|c| c == controller)
                };
                hit.then(|| path.trim_start_matches('/').to_owned())
            })
        };
        let (mut v1, mut v2) = (Vec::new(), None);
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let mut left = left.split(' ').skip(3);
            let (Some(root), Some(point)) = (left.next(), left.next()) else {
                continue;
            };
            let mut right = right.split(' ');
            let kind = right.next().unwrap_or_default();
            let options = right.nth(1).unwrap_or_default();
            let below = |path: &str| {
                // The mount may show only a part of the hierarchy.
                let path = Path::new("/").join(path);
                let relative = path.strip_prefix(root).unwrap_or(Path::new(""));
                PathBuf::from(point).join(relative)
            };
            match kind {
                "cgroup2" => {
                    if let Some(path) = own_path("") {
                        v2 = Some((PathBuf::from(point), below(&path)));
                    }
                }
                "cgroup" => {
                    let controllers: Vec<String> = options.split(',').map(str::to_owned).collect();
                    let path = controllers.iter().find_map(|c| own_path(c));
                    if let Some(path) = path {
                        v1.push((controllers, below(&path)));
                    }
                }
                _ => {}
            }
        }
        // Hybrid hosts have both; the controllers are version 1's there.
        let is_v2 = v2.is_some()
            && !v1.iter().any(|(c, _)| {
                c.iter()
                    .any(|c| ["memory", "cpu", "pids"].contains(&c.as_str()))
            });
        Self { is_v2, v1, v2 }
    }

    fn controller_dir(&self, controller: &str) -> Option<&Path> {
        self.v1
            .iter()
            .find(|(c, _)| c.iter().any(|c| c == controller))
            .map(|(_, dir)| dir.as_path())
    }

    /// The cgroup whose children may have controllers, emptied of our own processes.
    fn v2_parent(&self) -> Result<PathBuf, ContainerError> {
        let (mount, own) = self.v2.clone().ok_or_else(|| no_controller("memory"))?;
        if own == mount || own.ends_with("pellicle-supervisor") {
            // The root may hold processes and have controllers; the other is ours already.
            return Ok(own
                .parent()
                .filter(|_| own != mount)
                .unwrap_or(&mount)
                .to_owned());
        }
        let leaf = own.join("pellicle-supervisor");
        match fs::create_dir(&leaf) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(not_delegated("memory", &leaf, &e)),
        }
        for pid in fs::read_to_string(own.join("cgroup.procs"))
            .unwrap_or_default()
            .lines()
        {
            let file = leaf.join("cgroup.procs");
            fs::write(&file, pid).map_err(|e| not_delegated("memory", &file, &e))?;
        }
        Ok(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_processors_are_read_as_docker_reads_them() {
        assert_eq!(parse_memory("512m").unwrap(), 512 << 20);
        assert_eq!(parse_memory("1.5G").unwrap(), 3 << 29);
        assert_eq!(parse_memory("10485760").unwrap(), 10 << 20);
        for bad in [
            "",
            "m",
            "-1g",
            "1x",
            "nan",
            "inf",
            "1",
            "9999999999t",
            "1mm",
        ] {
            assert!(parse_memory(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_cpus("1.5").unwrap(), 150_000);
        for bad in ["", "0", "-1", "nan", "inf", "x", "1e99"] {
            assert!(parse_cpus(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cgroups_are_found_on_version_1_2_and_both() {
        let v1 = "30 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            31 25 0:27 /part /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
            32 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let own = "4:memory:/a/b\n1:cpu,cpuacct:/part/x\n0::/\n";
        let host = Host::from_texts(v1, own);
        assert!(!host.is_v2);
        let dir = |c| host.controller_dir(c).map(Path::to_owned);
        assert_eq!(dir("memory"), Some("/sys/fs/cgroup/memory/a/b".into()));
        assert_eq!(dir("cpu"), Some("/sys/fs/cgroup/cpu/x".into()));
        assert_eq!(dir("pids"), None);

        let v2 = "32 25 0:28 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n";
        let host = Host::from_texts(v2, "0::/user.slice/x.scope\n");
        assert!(host.is_v2);
        assert_eq!(
            host.v2,
            Some((
                "/sys/fs/cgroup".into(),
                "/sys/fs/cgroup/user.slice/x.scope".into()
            ))
        );
        assert!(!Host::from_texts("garbage\n - \na - b", "::::").is_v2);
    }

    #[test]
    fn version_2_files_get_the_values_the_kernel_documents() {
        let limits = Limits {
            memory: Some(8 << 20),
            cpu_quota_us: Some(50_000),
            pids: Some(7),
        };
        let dir = tempfile::tempdir().unwrap();
        for (what, values) in v2_values(&limits) {
            write_values(what, dir.path(), &values).unwrap();
        }
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(read("memory.max"), "8388608");
        assert_eq!(read("cpu.max"), "50000 100000");
        assert_eq!(read("pids.max"), "7");
    }

    #[test]
    fn a_controller_that_is_not_delegated_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cgroup.controllers"), "cpu pids").unwrap();
        fs::write(dir.path().join("cgroup.subtree_control"), "pids").unwrap();
        enable(dir.path(), &["pids", "cpu"]).unwrap();
        let refused = enable(dir.path(), &["memory"]).unwrap_err();
        assert!(refused.to_string().contains("memory"), "{refused}");
        assert!(refused.hint().unwrap().contains("systemd-run"));
    }
}
