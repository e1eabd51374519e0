//! Where the host has its cgroups, and where in them new ones may be made.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{no_controller, not_delegated};
use crate::container::ContainerError;

/// Where this host has its cgroups, and where in them this process is.
pub(super) struct Host {
    pub(super) is_v2: bool,
    /// Version 1: controllers, directory of this process's cgroup.
    v1: Vec<(Vec<String>, PathBuf)>,
    /// Version 2: mount point and own path below it.
    v2: Option<(PathBuf, PathBuf)>,
}

impl Host {
    /// Looks at the host.
    pub(super) fn look() -> Result<Self, ContainerError> {
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

    /// Version 1: this process's cgroup of `controller`.
    pub(super) fn controller_dir(&self, controller: &str) -> Option<&Path> {
        self.v1
            .iter()
            .find(|(c, _)| c.iter().any(|c| c == controller))
            .map(|(_, dir)| dir.as_path())
    }

    /// The cgroup whose children may have controllers, emptied of our own processes.
    pub(super) fn v2_parent(&self) -> Result<PathBuf, ContainerError> {
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
}
