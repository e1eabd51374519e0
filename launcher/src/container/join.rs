//! `exec`: another process in a running container.
//!
//! Two forks: the first enters the container's namespaces and then forks the command, since a
//! process cannot change its own pid namespace. The command is the supervisor's child all the same
//! (`CLONE_PARENT`), so that it is waited for, and dies with it, like that of `run`.

use std::{
    convert::Infallible,
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd as _, OwnedFd},
};

use nix::sched::{CloneFlags, setns};
use oci_spec::runtime::{Process as SpecProcess, Spec};
use pellicle_sys::process::{Forked, Kinship, exit_now, fork};
use rustix::fs::{Mode, OFlags, open};

use super::{
    ContainerError,
    attend::{self, Process, Signals},
    begin,
    channel::{Channel, Message},
    environ::Environment,
    init::{self, Command, Place, Streams},
    names, passwd,
    seccomp::{self, Filters},
    spec::namespaces_of,
    state::{State, Status},
    step::{Doing, Failed},
    streams::{self, Attach},
    supervise,
};

/// A passwd or group file is read up to here.
const FILE_MAX: u64 = 1 << 20;

/// What to execute, and how.
#[derive(Clone, Debug, Default)]
pub struct Exec {
    /// The command.
    pub command: Vec<String>,
    /// `NAME=VALUE` or `NAME`.
    pub env: Vec<String>,
    /// Working directory; the container's if `None`.
    pub workdir: Option<String>,
    /// `user[:group]`; the container's if `None`.
    pub user: Option<String>,
    /// It gets a terminal.
    pub tty: bool,
    /// Our standard input goes in.
    pub input: bool,
    /// What comes out goes to our standard output and error.
    pub output: bool,
}

/// Runs `exec` in the container of `state` to its end; its exit code.
///
/// # Errors
/// [`ContainerError::NotRunning`]; [`ContainerError::Child`] if the command could not be executed.
pub fn run(
    state: &State,
    spec: &Spec,
    exec: &Exec,
    on_executed: impl FnOnce() -> io::Result<()>,
) -> Result<i32, ContainerError> {
    let not_running = || ContainerError::NotRunning(names::short(&state.id).to_owned());
    if state.status != Status::Running {
        return Err(not_running());
    }
    // The first process is closed to others where it is our init process.
    let target = state.command_process.as_ref().or(state.process.as_ref());
    let target = target.and_then(|p| p.open()).ok_or_else(not_running)?;
    let signals = Signals::catch()?;
    let process = process(state, spec, exec)?;
    let capabilities = process.capabilities().clone().unwrap_or_default();
    let filters = seccomp::build(&capabilities).map_err(|e| ContainerError::Host {
        doing: "make the system call filter".to_owned(),
        source: io::Error::other(e),
    })?;
    let attach = Attach {
        input: exec.input,
        output: exec.output,
        keep_open: false,
    };
    let prepare = ContainerError::host::<io::Error>;
    let (ours, theirs) = Channel::pair().map_err(prepare("make a socket pair"))?;
    let (streams, ends) = if exec.tty {
        (None, None)
    } else {
        let (streams, ends) = streams::pipes(attach).map_err(prepare("make pipes"))?;
        (Some(streams), Some(ends))
    };
    let entering = Entering {
        target: &target,
        namespaces: begin::flags(namespaces_of(spec)),
        single_id: state.settings.single_id,
        user: exec.user.as_deref().unwrap_or(&state.settings.user),
        process: &process,
        streams: streams.as_ref(),
        channel: &theirs,
        filters: &filters,
    };
    let fork = fork(0, Kinship::Child).map_err(prepare("make a process"))?;
    let Forked::Parent { pid, pidfd } = fork else {
        drop(ours);
        entering.run()
    };
    let mut helper = Process::new(pidfd);
    drop((theirs, streams));
    state.cgroup.add(pid)?;
    ours.tell(&Message::Go, None)
        .map_err(prepare("start the command"))?;
    let executed = attend::until_executed(&ours, &mut helper, &signals, |_| Ok(()))?;
    helper.wait()?;
    let mut command = Process::new(executed.command.ok_or_else(not_running)?);
    on_executed().map_err(prepare("tell that the command runs"))?;
    supervise::attended(
        &mut command,
        &signals,
        ends,
        executed.terminal,
        attach,
        None,
    )
}

fn process(state: &State, spec: &Spec, exec: &Exec) -> Result<SpecProcess, ContainerError> {
    let mut process = spec.process().clone().unwrap_or_default();
    let mut env = Environment::of(process.env().clone().unwrap_or_default());
    if exec.tty && !env.has("TERM") {
        env.set("TERM=xterm".to_owned());
    }
    for text in &exec.env {
        env.assign(text)?;
    }
    if let Some(dir) = &exec.workdir {
        if !dir.starts_with('/') {
            let why = "must begin with /";
            return Err(ContainerError::invalid("--workdir", dir, why));
        }
        process.set_cwd(dir.into());
    }
    if exec.command.is_empty() {
        let id = names::short(&state.id);
        return Err(ContainerError::invalid(
            "command",
            "",
            format!("give one to run in {id}"),
        ));
    }
    process
        .set_env(Some(env.into_vec()))
        .set_args(Some(exec.command.clone()))
        .set_terminal(Some(exec.tty));
    Ok(process)
}

/// The forked side.
struct Entering<'a> {
    target: &'a OwnedFd,
    namespaces: i32,
    single_id: bool,
    user: &'a str,
    process: &'a SpecProcess,
    streams: Option<&'a Streams>,
    channel: &'a Channel,
    filters: &'a Filters,
}

impl Entering<'_> {
    fn run(&self) -> ! {
        let attempt = std::panic::AssertUnwindSafe(|| self.enter());
        let failed = match std::panic::catch_unwind(attempt) {
            Ok(Err(failed)) => failed,
            Ok(Ok(never)) => match never {},
            Err(_) => Failed::new(125, "the process that enters the container panicked"),
        };
        exit_now(failed.tell(self.channel))
    }

    fn enter(&self) -> Result<Infallible, Failed> {
        init::die_with_supervisor(self.channel)?;
        pellicle_sys::process::reset_signals();
        pellicle_sys::process::close_on_exec_from(3).doing("close descriptors")?;
        // Until then it is being put into the container's cgroup.
        match self.channel.receive().doing("hear from the supervisor")? {
            Some((Message::Go, _)) => {}
            _ => exit_now(125),
        }
        init::hide_memory()?;
        setns(self.target, CloneFlags::from_bits_retain(self.namespaces)).map_err(|e| {
            Failed::new(125, format!("cannot enter the container's namespaces: {e}"))
                .with_next("containers are entered by the user who runs them")
        })?;
        init::become_root(self.single_id)?;
        match fork(0, Kinship::Sibling).doing("make the command's process")? {
            Forked::Parent { pidfd, .. } => {
                self.channel
                    .send(&Message::Joined, Some(pidfd.as_fd()))
                    .doing("tell the supervisor of the command's process")?;
                exit_now(0)
            }
            Forked::Child => self.become_command(),
        }
    }

    fn become_command(&self) -> Result<Infallible, Failed> {
        init::die_with_supervisor(self.channel)?;
        let (passwd, group) = (read("/etc/passwd"), read("/etc/group"));
        let identity = passwd::resolve(self.user, &passwd, &group)
            .map_err(|e| Failed::new(125, e.to_string()))?;
        let place = Place {
            streams: self.streams,
            channel: self.channel,
            filters: self.filters,
            is_console: false,
        };
        let command = Command::of(self.process, &identity.home)?;
        init::become_command(self.process, &identity, &command, &place)
    }
}

/// A regular file of the container, in which this process already is; empty if there is none. A
/// pipe or a device in its place must not make us wait.
fn read(path: &str) -> Vec<u8> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let mut bytes = Vec::new();
    if let Ok(fd) = open(path, flags, Mode::empty()) {
        let file = File::from(fd);
        if file.metadata().is_ok_and(|m| m.is_file()) {
            // What could be read counts: a line that is cut off is no entry.
            let _ = file.take(FILE_MAX).read_to_end(&mut bytes);
        }
    }
    bytes
}
