//! The mounts of a specification: those that every container gets, and those asked for.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;

use super::etc;
use crate::container::{ContainerError, cgroup, request::Request};

pub(super) fn mounts(dir: &Path, request: &Request) -> Result<Vec<Mount>, ContainerError> {
    let safe = ["nosuid", "noexec", "nodev"];
    let shm = match &request.shm_size {
        Some(text) => cgroup::parse_memory(text)?.to_string(),
        None => "65536k".to_owned(),
    };
    let shm = format!("size={shm}");
    let mut pts = vec![
        "nosuid",
        "noexec",
        "newinstance",
        "ptmxmode=0666",
        "mode=0620",
    ];
    if !request.single_id {
        pts.push("gid=5");
    }
    let mut mounts = vec![
        mount("/proc", "proc", &safe),
        mount("/dev", "tmpfs", &["nosuid", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", &pts),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount(
            "/dev/shm",
            "tmpfs",
            &["nosuid", "noexec", "nodev", "mode=1777", &shm],
        ),
        mount("/dev/mqueue", "mqueue", &safe),
    ];
    for file in etc::FILES {
        mounts.push(bind(dir.join(file), Path::new("/etc").join(file), false));
    }
    let mut own: Vec<Mount> = Vec::new();
    for text in &request.tmpfs {
        own.push(tmpfs(text)?);
    }
    for text in &request.volume {
        own.push(volume(text)?);
    }
    // An outer one first, or it would cover the inner one.
    own.sort_by_key(|m| m.destination().components().count());
    for mount in own {
        // A mount asked for replaces one of ours in the same place.
        mounts.retain(|m| m.destination() != mount.destination());
        mounts.push(mount);
    }
    Ok(mounts)
}

fn mount(to: &str, kind: &str, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(to.into())
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(kind.into()))
        .set_options(Some(options.iter().map(|o| (*o).to_owned()).collect()));
    mount
}

/// A mount that shows `from` of the host at `to`.
#[must_use]
pub fn bind(from: PathBuf, to: PathBuf, read_only: bool) -> Mount {
    let mut options = vec!["rbind".to_owned(), "rprivate".to_owned()];
    if read_only {
        options.push("ro".to_owned());
    }
    let mut mount = Mount::default();
    mount
        .set_destination(to)
        .set_typ(Some("bind".to_owned()))
        .set_source(Some(from))
        .set_options(Some(options));
    mount
}

fn destination(what: &'static str, whole: &str, to: &str) -> Result<PathBuf, ContainerError> {
    let path = Path::new(to);
    if !path.is_absolute() {
        return Err(ContainerError::invalid(
            what,
            whole,
            "the path in the container must begin with /",
        ));
    }
    // Lexically, for comparing; links are the kernel's business once inside.
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                clean.pop();
            }
            std::path::Component::Normal(name) => clean.push(name),
            _ => {}
        }
    }
    if clean == Path::new("/") {
        return Err(ContainerError::invalid(
            what,
            whole,
            "the root itself cannot be mounted on",
        ));
    }
    Ok(clean)
}

fn tmpfs(text: &str) -> Result<Mount, ContainerError> {
    let (to, options) = text.split_once(':').unwrap_or((text, ""));
    let mut all = vec!["nosuid", "nodev", "noexec"];
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match option {
            "exec" | "suid" | "dev" => {
                let no = format!("no{option}");
                all.retain(|o| *o != no);
            }
            other => all.push(other),
        }
    }
    let mut mount = mount("", "tmpfs", &all);
    mount.set_destination(destination("--tmpfs", text, to)?);
    Ok(mount)
}

fn volume(text: &str) -> Result<Mount, ContainerError> {
    let bad = |why: &str| ContainerError::invalid("--volume", text, why);
    let mut parts = text.splitn(3, ':');
    let (Some(from), Some(to)) = (parts.next(), parts.next()) else {
        return Err(bad(
            "give HOST:CONTAINER; volumes without a path on the host are not supported",
        ));
    };
    let mut read_only = false;
    for option in parts
        .next()
        .unwrap_or_default()
        .split(',')
        .filter(|o| !o.is_empty())
    {
        match option {
            "ro" => read_only = true,
            "rw" => read_only = false,
            // Labels of SELinux, and propagation that is the default anyway.
            "z" | "Z" | "rprivate" | "private" | "rbind" => {}
            _ => return Err(bad("the options known are ro and rw")),
        }
    }
    if !from.starts_with(['/', '.', '~']) {
        return Err(bad(
            "named volumes are not supported: give a path that begins with / or ./",
        ));
    }
    let from =
        std::fs::canonicalize(from).map_err(|e| bad(&format!("{from}: {e}; make it first")))?;
    Ok(bind(from, destination("--volume", text, to)?, read_only))
}
