//! From an image's configuration and a request to a runtime specification (OCI runtime-spec,
//! config.md); the rules are docker's.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use oci_spec::{
    image::{Config, ImageConfiguration},
    runtime::{
        Linux, LinuxCpu, LinuxMemory, LinuxNamespace, LinuxNamespaceType, LinuxPids,
        LinuxResources, Mount, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, Root,
        Spec, User,
    },
};

use super::{
    ContainerError, caps, cgroup,
    environ::Environment,
    names,
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

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Files of the container's directory that are shown in its /etc.
const ETC_FILES: &[&str] = &["hosts", "hostname", "resolv.conf"];

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

fn environment(
    config: &Config,
    request: &Request,
    hostname: &str,
) -> Result<Vec<String>, ContainerError> {
    let mut env = Environment::of([PATH.to_owned(), format!("HOSTNAME={hostname}")]);
    if request.tty {
        env.set("TERM=xterm".to_owned());
    }
    for assignment in config.env().iter().flatten() {
        if assignment.contains('\0') {
            let what = "environment variable of the image";
            return Err(ContainerError::invalid(
                what,
                assignment,
                "it holds a NUL byte",
            ));
        }
        if assignment.contains('=') {
            env.set(assignment.clone());
        }
    }
    for file in &request.env_file {
        let text = std::fs::read_to_string(file).map_err(ContainerError::file("read", file))?;
        for line in text.lines().map(str::trim_start) {
            if !line.is_empty() && !line.starts_with('#') {
                env.assign(line)?;
            }
        }
    }
    for text in &request.env {
        env.assign(text)?;
    }
    Ok(env.into_vec())
}

/// The variables of `spec` that were asked for, by its image or a person: without those that every
/// container is given, unless `image` has them.
#[must_use]
pub fn own_environment(spec: &Spec, image: &[String]) -> Vec<String> {
    let hostname = spec.hostname().as_deref().unwrap_or_default();
    let given = [
        PATH.to_owned(),
        format!("HOSTNAME={hostname}"),
        "TERM=xterm".to_owned(),
    ];
    let env = spec.process().as_ref().and_then(|p| p.env().clone());
    let mut env = env.unwrap_or_default();
    env.retain(|e| !given.contains(e) || image.contains(e));
    env
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

fn limit(text: &str) -> Result<PosixRlimit, ContainerError> {
    let bad = |why: &str| ContainerError::invalid("--ulimit", text, why);
    let (name, values) = text
        .split_once('=')
        .ok_or_else(|| bad("give NAME=SOFT[:HARD]"))?;
    let typ: PosixRlimitType = format!("RLIMIT_{}", name.to_ascii_uppercase())
        .parse()
        .map_err(|_| bad("no such limit"))?;
    let value = |text: &str| match text {
        "-1" | "unlimited" => Ok(u64::MAX),
        number => number
            .parse::<u64>()
            .map_err(|_| bad("give a number or unlimited")),
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = (value(soft)?, value(hard)?);
    if soft > hard {
        return Err(bad("the soft limit is above the hard one"));
    }
    PosixRlimitBuilder::default()
        .typ(typ)
        .soft(soft)
        .hard(hard)
        .build()
        .map_err(|e| bad(&e.to_string()))
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

fn mounts(dir: &Path, request: &Request) -> Result<Vec<Mount>, ContainerError> {
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
    for file in ETC_FILES {
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

fn resources(request: &Request) -> Result<LinuxResources, ContainerError> {
    let mut resources = LinuxResources::default();
    resources.set_devices(None);
    if let Some(text) = &request.memory {
        let bytes = i64::try_from(cgroup::parse_memory(text)?).unwrap_or(i64::MAX);
        let mut memory = LinuxMemory::default();
        memory.set_limit(Some(bytes)).set_swap(Some(bytes));
        resources.set_memory(Some(memory));
    }
    if let Some(text) = &request.cpus {
        let mut cpu = LinuxCpu::default();
        cpu.set_quota(i64::try_from(cgroup::parse_cpus(text)?).ok())
            .set_period(Some(cgroup::cpu_period_us()));
        resources.set_cpu(Some(cpu));
    }
    if let Some(limit) = request.pids_limit {
        let mut pids = LinuxPids::default();
        pids.set_limit(i64::from(limit));
        resources.set_pids(Some(pids));
    }
    Ok(resources)
}

/// Writes the files that the container sees in its /etc.
///
/// # Errors
/// The host's.
pub fn write_etc(dir: &Path, spec: &Spec, host_network: bool) -> Result<(), ContainerError> {
    use std::os::unix::fs::OpenOptionsExt as _;

    let name = spec.hostname().clone().unwrap_or_default();
    let of_host = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (hosts, resolv) = if host_network {
        (of_host("/etc/hosts"), of_host("/etc/resolv.conf"))
    } else {
        let hosts = format!(
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{name}\n"
        );
        (hosts, "# no network\n".to_owned())
    };
    for (file, text) in ETC_FILES.iter().zip([hosts, format!("{name}\n"), resolv]) {
        let path = dir.join(file);
        std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(&path)
            .and_then(|mut f| {
                use std::io::Write as _;
                // Whatever the umask: users other than root read it too.
                rustix::fs::fchmod(&f, rustix::fs::Mode::from_raw_mode(0o644))?;
                f.write_all(text.as_bytes())
            })
            .map_err(ContainerError::file("write", path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(json: &str) -> ImageConfiguration {
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[]}},"config":{json}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn built(
        json: &str,
        request: &Request,
        command: &[&str],
    ) -> Result<(Spec, Settings), ContainerError> {
        let command: Vec<String> = command.iter().map(|s| (*s).to_owned()).collect();
        build(
            &"a".repeat(64),
            Path::new("/c"),
            &image(json),
            request,
            &command,
        )
    }

    fn args(json: &str, request: &Request, command: &[&str]) -> Option<Vec<String>> {
        let (spec, _) = built(json, request, command).ok()?;
        spec.process().as_ref()?.args().clone()
    }

    #[test]
    fn entrypoint_and_command_merge_as_docker_merges_them() {
        let both = r#"{"Entrypoint":["e","1"],"Cmd":["c"]}"#;
        let with = |program: &str| Request {
            entrypoint: Some(program.to_owned()),
            ..Request::default()
        };
        let plain = Request::default();
        let is = |got: Option<Vec<String>>, want: &[&str]| assert_eq!(got.unwrap(), want);
        is(args(both, &plain, &[]), &["e", "1", "c"]);
        is(args(both, &plain, &["x", "y"]), &["e", "1", "x", "y"]);
        is(args(both, &with("p"), &[]), &["p"]);
        is(args(both, &with("p"), &["x"]), &["p", "x"]);
        is(args(both, &with(""), &["x"]), &["x"]);
        is(args(r#"{"Cmd":["c","d"]}"#, &plain, &[]), &["c", "d"]);
        assert!(matches!(
            built("{}", &plain, &[]),
            Err(ContainerError::NoCommand)
        ));
    }

    #[test]
    fn environment_comes_from_image_then_request_and_has_a_path() {
        let request = Request {
            env: vec![
                "A=2".into(),
                "PATH".into(),
                "PELLICLE_NOT_SET_HERE".into(),
                "E=".into(),
            ],
            ..Request::default()
        };
        let (spec, settings) = built(
            r#"{"Env":["A=1","B=1","PATH=/img","PELLICLE_NOT_SET_HERE=1","broken"],"Cmd":["x"]}"#,
            &request,
            &[],
        )
        .unwrap();
        let env = spec.process().as_ref().unwrap().env().clone().unwrap();
        let path = format!("PATH={}", std::env::var("PATH").unwrap());
        assert_eq!(
            env,
            [path.as_str(), "HOSTNAME=aaaaaaaaaaaa", "A=2", "B=1", "E="]
        );
        assert!(!settings.home_given);
    }

    #[test]
    fn what_no_environment_can_hold_is_refused_by_name() {
        let image = r#"{"Env":["A=x\u0000y"],"Cmd":["x"]}"#;
        let said = built(image, &Request::default(), &[])
            .unwrap_err()
            .to_string();
        assert!(
            said.contains(r#""A=x\0y""#) && said.contains("NUL"),
            "{said}"
        );
        let image = r#"{"Env":["A=x\ny","=v"],"Cmd":["x"]}"#;
        assert!(built(image, &Request::default(), &[]).is_ok());
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let cases: Vec<(Request, &str)> = vec![
            (
                Request {
                    workdir: Some("rel".into()),
                    ..Request::default()
                },
                "rel",
            ),
            (
                Request {
                    volume: vec!["/".into()],
                    ..Request::default()
                },
                "--volume",
            ),
            (
                Request {
                    volume: vec!["/:rel".into()],
                    ..Request::default()
                },
                "--volume",
            ),
            (
                Request {
                    volume: vec!["/:/a/..".into()],
                    ..Request::default()
                },
                "root itself",
            ),
            (
                Request {
                    volume: vec!["name:/x".into()],
                    ..Request::default()
                },
                "named",
            ),
            (
                Request {
                    volume: vec!["/no/such/dir/:/x".into()],
                    ..Request::default()
                },
                "make it",
            ),
            (
                Request {
                    volume: vec!["/:/x:rwx".into()],
                    ..Request::default()
                },
                "options",
            ),
            (
                Request {
                    hostname: Some("a b".into()),
                    ..Request::default()
                },
                "--hostname",
            ),
            (
                Request {
                    memory: Some("lots".into()),
                    ..Request::default()
                },
                "--memory",
            ),
            (
                Request {
                    cap_add: vec!["FLY".into()],
                    ..Request::default()
                },
                "capability",
            ),
            (
                Request {
                    ulimit: vec!["nofile=5:1".into()],
                    ..Request::default()
                },
                "--ulimit",
            ),
            (
                Request {
                    stop_signal: Some("NOPE".into()),
                    ..Request::default()
                },
                "signal",
            ),
            (
                Request {
                    env: vec!["=x".into()],
                    ..Request::default()
                },
                "environment",
            ),
        ];
        for (request, want) in cases {
            let e = built(r#"{"Cmd":["x"]}"#, &request, &[])
                .unwrap_err()
                .to_string();
            assert!(e.contains(want), "{e}");
        }
    }

    #[test]
    fn volumes_nest_and_replace_what_is_ours() {
        let request = Request {
            volume: vec!["/:/a/b".into(), "/:/a:ro".into(), "/:/dev/shm".into()],
            ..Request::default()
        };
        let (spec, _) = built(r#"{"Cmd":["x"]}"#, &request, &[]).unwrap();
        let mounts = spec.mounts().clone().unwrap();
        let at = |p: &str| {
            mounts
                .iter()
                .position(|m| m.destination() == Path::new(p))
                .unwrap()
        };
        assert!(at("/a") < at("/a/b"));
        assert_eq!(mounts[at("/dev/shm")].typ().as_deref(), Some("bind"));
        assert!(
            mounts[at("/a")]
                .options()
                .as_ref()
                .unwrap()
                .contains(&"ro".to_owned())
        );
    }
}
