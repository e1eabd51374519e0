//! From an image's configuration and a request to a runtime specification (OCI runtime-spec,
//! config.md); the rules are docker's.

mod environment;
mod etc;
mod limits;
mod mounts;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::Path};

use oci_spec::{
    image::{Config, ImageConfiguration},
    runtime::{Linux, LinuxNamespace, LinuxNamespaceType, Process, Root, Spec, User},
};

use self::{
    environment::environment,
    limits::{limit, resources},
    mounts::mounts,
};
pub use self::{environment::own_environment, etc::write_etc, mounts::bind};
use super::{
    ContainerError, caps, names,
    request::{Network, Request},
    signals,
    state::Settings,
};

/// Paths of /proc and /sys that nobody inside may read (docker's list).
const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Paths of /proc that nobody inside may write (docker's list).
const READ_ONLY: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// The specification of container `id`, whose directory is `dir`, and its other settings.
///
/// # Errors
/// [`ContainerError::Invalid`] for what makes no sense, [`ContainerError::NoCommand`].
pub fn build(
    id: &str,
    dir: &Path,
    image: &ImageConfiguration,
    request: &Request,
    command: &[String],
) -> Result<(Spec, Settings), ContainerError> {
    let empty = Config::default();
    let config = image.config().as_ref().unwrap_or(&empty);
    let hostname = hostname(id, request)?;
    let environment = environment(config, request, &hostname)?;
    let home_given = environment.iter().any(|e| e.starts_with("HOME="));
    let process = process(config, request, command, environment)?;
    let mut spec = Spec::default();
    let mut root = Root::default();
    root.set_path("upper".into())
        .set_readonly(Some(request.read_only));
    spec.set_root(Some(root))
        .set_hostname(Some(hostname))
        .set_mounts(Some(mounts(dir, request)?))
        .set_process(Some(process))
        .set_linux(Some(linux(request)?));
    Ok((spec, settings(config, request, home_given)?))
}

fn settings(
    config: &Config,
    request: &Request,
    home_given: bool,
) -> Result<Settings, ContainerError> {
    let stop_signal = request
        .stop_signal
        .clone()
        .or_else(|| config.stop_signal().clone().filter(|s| !s.is_empty()))
        .unwrap_or_else(|| "TERM".to_owned());
    signals::parse(&stop_signal)?;
    let mut labels: BTreeMap<String, String> = config
        .labels()
        .clone()
        .unwrap_or_default()
        .into_iter()
        .collect();
    for label in &request.label {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        labels.insert(key.to_owned(), value.to_owned());
    }
    Ok(Settings {
        auto_remove: request.rm,
        detached: false,
        open_stdin: request.interactive,
        init: request.init,
        host_network: request.network == Network::Host,
        single_id: request.single_id,
        volatile: request.volatile,
        transport: request.way.transport,
        opens: request.way.opens,
        user: request
            .user
            .clone()
            .or_else(|| config.user().clone())
            .unwrap_or_default(),
        home_given,
        stop_signal,
        stop_timeout: request.stop_timeout.unwrap_or(10),
        labels,
    })
}

fn hostname(id: &str, request: &Request) -> Result<String, ContainerError> {
    let name = match (&request.hostname, request.network) {
        (Some(name), _) => name.clone(),
        (None, Network::Host) => rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned(),
        (None, Network::None) => names::short(id).to_owned(),
    };
    let valid = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if name.is_empty() || name.len() > 64 || !valid {
        let why = "use at most 64 letters, digits, -, . and _";
        return Err(ContainerError::invalid("--hostname", name, why));
    }
    Ok(name)
}

/// What runs: `--entrypoint` replaces the image's entry point and drops its command; arguments
/// replace the command only.
fn command_line(
    config: &Config,
    request: &Request,
    command: &[String],
) -> Result<Vec<String>, ContainerError> {
    let mut args: Vec<String> = match &request.entrypoint {
        Some(program) if program.is_empty() => Vec::new(),
        Some(program) => vec![program.clone()],
        None => config.entrypoint().clone().unwrap_or_default(),
    };
    if !command.is_empty() {
        args.extend_from_slice(command);
    } else if request.entrypoint.is_none() {
        args.extend(config.cmd().clone().unwrap_or_default());
    }
    if args.is_empty() {
        return Err(ContainerError::NoCommand);
    }
    Ok(args)
}

fn process(
    config: &Config,
    request: &Request,
    command: &[String],
    environment: Vec<String>,
) -> Result<Process, ContainerError> {
    let cwd = request
        .workdir
        .clone()
        .or_else(|| config.working_dir().clone())
        .filter(|d| !d.is_empty())
        .unwrap_or_else(|| "/".to_owned());
    if !cwd.starts_with('/') {
        return Err(ContainerError::invalid(
            "working directory",
            cwd,
            "must begin with /",
        ));
    }
    let limits = request
        .ulimit
        .iter()
        .map(|text| limit(text))
        .collect::<Result<Vec<_>, _>>()?;
    let mut process = Process::default();
    process
        .set_terminal(Some(request.tty))
        .set_user(User::default())
        .set_args(Some(command_line(config, request, command)?))
        .set_env(Some(environment))
        .set_cwd(cwd.into())
        .set_capabilities(Some(caps::chosen(&request.cap_add, &request.cap_drop)?))
        .set_rlimits(Some(limits))
        .set_no_new_privileges(Some(true));
    Ok(process)
}

/// The namespaces that `request` asks for.
#[must_use]
pub fn namespaces(request: &Request) -> Vec<LinuxNamespaceType> {
    use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network as Net, Pid, User, Uts};

    let mut kinds = vec![User, Mount, Pid, Ipc, Uts, Cgroup];
    if request.network == Network::None {
        kinds.push(Net);
    }
    kinds
}

/// The namespaces of `spec`.
#[must_use]
pub fn namespaces_of(spec: &Spec) -> Vec<LinuxNamespaceType> {
    let listed = spec.linux().as_ref().and_then(|l| l.namespaces().as_ref());
    listed.into_iter().flatten().map(|n| n.typ()).collect()
}

/// Whether the command of `spec` gets a terminal.
#[must_use]
pub fn has_terminal(spec: &Spec) -> bool {
    spec.process().as_ref().and_then(|p| p.terminal()) == Some(true)
}

fn linux(request: &Request) -> Result<Linux, ContainerError> {
    let namespaces = namespaces(request)
        .into_iter()
        .map(|kind| {
            let mut namespace = LinuxNamespace::default();
            namespace.set_typ(kind);
            namespace
        })
        .collect();
    let own = |paths: &[&str]| Some(paths.iter().map(|p| (*p).to_owned()).collect());
    let mut linux = Linux::default();
    linux
        .set_namespaces(Some(namespaces))
        .set_resources(Some(resources(request)?))
        .set_devices(None)
        .set_masked_paths(own(MASKED))
        .set_readonly_paths(own(READ_ONLY));
    Ok(linux)
}
