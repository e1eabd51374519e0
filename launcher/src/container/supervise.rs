//! The supervisor: makes a container's process, serves its root file system, passes signals on,
//! keeps the log and records the end.
//!
//! It has one thread until the fork; those that serve and copy come after. Whatever goes wrong on
//! the way, dropping what was made so far kills the process, which takes the container with it, and
//! removes the cgroup.

use std::{
    io,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use pellicle_fuse::{ServeOptions, Server, serve};
use pellicle_store::{Store, StoreLock};
use pellicle_sys::process::{Forked, Kinship, fork};
use pellicle_union::Union;

use super::{
    ContainerError,
    attend::{self, Process, Signals},
    cgroup::{Cgroup, Limits},
    channel::{Channel, Message},
    idmap::{self, IdMaps},
    init::{self, Plan},
    log::Log,
    names,
    passwd::{self, Identity},
    registry::{Held, Registry},
    root::{self, Upper},
    seccomp,
    spec::{ETC_FILES, write_etc},
    state::{ProcessId, State, Status, now},
    streams::{self, Attach, Ends},
    terminal,
};

/// How long the kernel gets to take the mount down after the last process ended.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(3);

/// A container to be run, and how.
pub struct Run<'a> {
    /// The store of its image.
    pub store: &'a Store,
    /// Keeps its layers from being collected.
    pub lock: StoreLock,
    /// Where it belongs.
    pub registry: &'a Registry,
    /// Its lock.
    pub held: Held,
    /// Its id maps.
    pub maps: IdMaps,
    /// Its state.
    pub state: State,
    /// Its specification.
    pub spec: Spec,
    /// Our standard input goes in.
    pub input: bool,
    /// What comes out goes to our standard output and error.
    pub output: bool,
    /// It has never run before: if its command cannot be executed, it is removed again.
    pub is_new: bool,
    /// Called once the command is executed; an error stops the container.
    pub on_executed: Box<dyn FnOnce() -> io::Result<()> + 'a>,
}

/// Runs a container to its end; the exit code of its command.
///
/// # Errors
/// If its command could not be executed. A container that was new is gone then.
pub fn run(mut run: Run<'_>) -> Result<i32, ContainerError> {
    let mut live = Live::default();
    let result = to_the_end(&mut run, &mut live);
    // The process is gone: nothing but leftovers from here on.
    let stray = !live.cgroup.remove();
    let Run {
        registry,
        held,
        mut state,
        is_new,
        ..
    } = run;
    let id = state.id.clone();
    let forget = state.settings.auto_remove || (is_new && result.is_err());
    let code = match &result {
        Ok(code) => *code,
        Err(e) => i32::from(e.exit_code().unwrap_or(125)),
    };
    if stray {
        tracing::warn!(
            "a cgroup of container {} could not be removed",
            names::short(&id)
        );
    }
    if forget {
        // Nobody will ever read what it wrote: no time is spent on closing it in good order.
        registry.remove(held, &id, Some(&state.name), Some(code))?;
        std::mem::forget(live);
        tracing::debug!("removed");
        return result;
    }
    let closed = live.close();
    state.status = Status::Exited;
    state.finished = Some(now());
    state.exit_code = Some(code);
    state.process = None;
    state.command_process = None;
    state.cgroup = Cgroup::default();
    state.error = result
        .as_ref()
        .err()
        .or(closed.as_ref().err())
        .map(ToString::to_string);
    state.save(&held.dir)?;
    registry.release(held, &id, code);
    closed?;
    result
}

/// What lives as long as the container.
#[derive(Default)]
struct Live {
    cgroup: Cgroup,
    union: Option<Arc<Union>>,
    server: Option<Server>,
}

impl Live {
    /// Waits until the kernel has handed back everything written, and closes the journal.
    fn close(self) -> Result<(), ContainerError> {
        let deadline = Instant::now() + UNMOUNT_PATIENCE;
        if let Some(server) = self.server {
            while !server.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            // Else somebody outside still looks into the mount; it goes with this process.
            if server.is_finished() {
                server.join()?;
            }
        }
        // Dropping the union would sync too, but could tell nobody that it failed.
        if let Some(union) = &self.union {
            union.sync_all()?;
        }
        drop(self.union);
        Ok(())
    }
}

fn to_the_end(run: &mut Run<'_>, live: &mut Live) -> Result<i32, ContainerError> {
    tracing::debug!("container made");
    let signals = Signals::catch()?;
    write_etc(&run.held.dir, &run.spec, run.state.settings.host_network)?;
    let capabilities = run
        .spec
        .process()
        .as_ref()
        .and_then(|p| p.capabilities().clone())
        .unwrap_or_default();
    let filters = seccomp::build(&capabilities).map_err(|e| ContainerError::Host {
        doing: "make the system call filter".to_owned(),
        source: io::Error::other(e),
    })?;
    let limits = run
        .spec
        .linux()
        .as_ref()
        .and_then(|l| l.resources().as_ref())
        .map(Limits::of);
    live.cgroup = Cgroup::create(&run.state.id, &limits.unwrap_or_default())?;
    let is_tty = run.spec.process().as_ref().and_then(|p| p.terminal()) == Some(true);
    let attach = Attach {
        input: run.input,
        output: run.output,
        keep_open: run.state.settings.open_stdin,
    };
    let rootfs = run.held.dir.join("rootfs");
    let plan = Plan {
        spec: &run.spec,
        rootfs: &rootfs,
        fs_name: format!("pellicle:{}", names::short(&run.state.id)),
        reap: run.state.settings.init,
        single_id: run.maps.is_single(),
        has_cgroup: !live.cgroup.is_empty(),
        filters: &filters,
    };
    let (mut process, channel, ends) = make(&plan, is_tty, attach)?;
    tracing::debug!("forked");
    let pid = pid_of(&process)?;
    // The helpers work while this goes on.
    let writing = run.maps.begin(pid)?;
    tracing::debug!("id maps begun");
    run.state.status = Status::Running;
    run.state.started = Some(now());
    run.state.process = ProcessId::of(pid);
    run.state.cgroup = live.cgroup.clone();
    run.state.save(&run.held.dir)?;

    let union = open_root(run)?;
    live.union = Some(Arc::clone(&union));
    let identity = identity(&union, &run.state)?;
    run.state.mount_points = mount_points(&union, run)?;
    tracing::debug!("root opened");
    writing.finish()?;
    tracing::debug!("id maps written");
    live.cgroup.add(pid)?;
    channel
        .send(&Message::Go(identity), None)
        .map_err(ContainerError::host("start the container"))?;
    let executed = attend::until_executed(&channel, &signals, |fd| {
        let options = ServeOptions {
            passthrough: false,
            ..ServeOptions::default()
        };
        live.server = Some(serve(fd, Arc::clone(&union), options)?);
        tracing::debug!("root served");
        Ok(())
    })?;
    tracing::debug!("executed");
    drop(channel);
    if let Some(fd) = &executed.command {
        run.state.command_process = pid_in(fd).and_then(ProcessId::of);
    }
    if executed.command.is_some() || !run.state.mount_points.is_empty() {
        run.state.save(&run.held.dir)?;
    }
    let told = std::mem::replace(&mut run.on_executed, Box::new(|| Ok(())))();
    told.map_err(ContainerError::host("tell that the container runs"))?;
    let log = Log::new(&run.held.dir);
    attended(
        &mut process,
        &signals,
        ends,
        executed.terminal,
        attach,
        Some(&log),
    )
}

/// Copies the streams and passes signals on until the end.
pub(super) fn attended(
    process: &mut Process,
    signals: &Signals,
    ends: Option<Ends>,
    master: Option<OwnedFd>,
    attach: Attach,
    log: Option<&Log>,
) -> Result<i32, ContainerError> {
    let copying = ContainerError::host::<io::Error>;
    let mut raw = None;
    let (pumps, _kept) = match (&master, ends) {
        (Some(master), _) => {
            if attach.input {
                raw = terminal::Raw::enter().map_err(copying("make the terminal raw"))?;
            }
            let pumps = streams::copy_terminal(master, attach, log);
            (pumps.map_err(copying("copy the terminal"))?, None)
        }
        (None, Some(ends)) => {
            streams::copy_pipes(ends, attach, log).map_err(copying("copy the streams"))?
        }
        (None, None) => return attend::until_ended(process, signals, None),
    };
    let code = attend::until_ended(process, signals, master.as_ref())?;
    tracing::debug!("ended");
    pumps.finish(signals);
    drop(raw);
    Ok(code)
}

/// Forks the container's first process; ours of its streams, unless it has a terminal.
fn make(
    plan: &Plan<'_>,
    is_tty: bool,
    attach: Attach,
) -> Result<(Process, Channel, Option<Ends>), ContainerError> {
    let prepare = ContainerError::host::<io::Error>;
    let (ours, theirs) = Channel::pair().map_err(prepare("make a socket pair"))?;
    let (streams, ends) = if is_tty {
        (None, None)
    } else {
        let (streams, ends) = streams::pipes(attach).map_err(prepare("make pipes"))?;
        (Some(streams), Some(ends))
    };
    match fork(clone_flags(plan.spec, plan.has_cgroup), Kinship::Child) {
        Ok(Forked::Child) => {
            // Open here too, it would never be seen to close when the supervisor dies, and a file
            // system on its way to it would never be given up.
            drop(ours);
            init::run(plan, streams.as_ref(), &theirs)
        }
        Ok(Forked::Parent { pidfd, .. }) => Ok((Process::new(pidfd), ours, ends)),
        Err(e)
            if matches!(
                e.raw_os_error(),
                Some(libc::EPERM | libc::ENOSPC | libc::EUSERS)
            ) =>
        {
            Err(idmap::why_refused(e))
        }
        Err(e) => Err(prepare("make the container's process")(e)),
    }
}

/// `CLONE_NEW*` for the namespaces of `spec`. The cgroup namespace of a container with limits is
/// made later, when it is in its cgroup.
fn clone_flags(spec: &Spec, has_cgroup: bool) -> i32 {
    flags(
        init::namespaces(spec)
            .into_iter()
            .filter(|n| !(has_cgroup && *n == LinuxNamespaceType::Cgroup)),
    )
}

/// The `CLONE_NEW*` bits of namespaces.
pub(super) fn flags(namespaces: impl Iterator<Item = LinuxNamespaceType>) -> i32 {
    namespaces.fold(0, |all, namespace| {
        all | match namespace {
            LinuxNamespaceType::User => libc::CLONE_NEWUSER,
            LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
            LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
            LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
            LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
            LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
            LinuxNamespaceType::Network => libc::CLONE_NEWNET,
            // clone(2) has no bit for it that is not taken.
            LinuxNamespaceType::Time => 0,
        }
    })
}

fn open_root(run: &Run<'_>) -> Result<Arc<Union>, ContainerError> {
    let settings = &run.state.settings;
    let upper = Upper::Serve {
        // What is removed at its end need not survive the host.
        volatile: settings.volatile || settings.auto_remove,
    };
    let (union, recovery) = root::open(run.store, &run.state, &run.held.dir, upper)?;
    if !recovery.clean && recovery.batches > 0 {
        tracing::info!(
            "the writable layer was not closed in good order; {} changes were taken over",
            recovery.batches
        );
    }
    Ok(Arc::new(union))
}

fn identity(union: &Union, state: &State) -> Result<Identity, ContainerError> {
    let passwd = root::read(union, b"/etc/passwd")?;
    let group = root::read(union, b"/etc/group")?;
    passwd::resolve(&state.settings.user, &passwd, &group)
}

/// What has to be made in the image to mount on, besides what earlier runs made.
fn mount_points(union: &Union, run: &Run<'_>) -> Result<Vec<String>, ContainerError> {
    let mut points = run.state.mount_points.clone();
    let etc = ETC_FILES.iter().map(|f| format!("/etc/{f}"));
    let mounts = run.spec.mounts().iter().flatten();
    let all = mounts
        .map(|m| m.destination().to_string_lossy().into_owned())
        .chain(etc);
    for path in all {
        let inside_dev = path.starts_with("/dev/");
        if !inside_dev && !points.contains(&path) && root::find(union, path.as_bytes())?.is_none() {
            points.push(path);
        }
    }
    Ok(points)
}

fn pid_of(process: &Process) -> Result<rustix::process::Pid, ContainerError> {
    pid_in(process).ok_or_else(|| ContainerError::Host {
        doing: "find the container's process in /proc".to_owned(),
        source: io::ErrorKind::NotFound.into(),
    })
}

/// The number of the process that `pidfd` is open at, as this process sees it.
pub(super) fn pid_in(pidfd: impl std::os::fd::AsFd) -> Option<rustix::process::Pid> {
    use std::os::fd::AsRawFd as _;

    let number = pidfd.as_fd().as_raw_fd();
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).ok()?;
    let pid = info.lines().find_map(|l| l.strip_prefix("Pid:"))?;
    rustix::process::Pid::from_raw(pid.trim().parse().ok().filter(|n| *n > 0)?)
}
