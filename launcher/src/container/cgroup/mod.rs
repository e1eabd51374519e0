//! Limits on memory, processor time and number of processes, by plain files of the cgroup file
//! systems (the kernel's admin-guide/cgroup-v2.rst and cgroup-v1/).
//!
//! A container gets a cgroup only if it has a limit, directly below the cgroup of whoever starts
//! it, so that limits from outside go on holding. On version 2 the starter's cgroup must be
//! delegated to it; having processes of its own, it then moves them one level down, for a cgroup
//! with controllers for its children may hold none. On version 1 only root can make cgroups.

mod host;
mod limits;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

pub use self::limits::{Limits, cpu_period_us, parse_cpus, parse_memory};
use self::{host::Host, limits::CPU_PERIOD_US};
use super::ContainerError;

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

#[cfg(test)]
mod tests {
    use super::*;

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
