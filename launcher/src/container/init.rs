//! The container's first process, from the fork to `execve`.
//!
//! It is a copy of the supervisor, made while that had one thread, so that ordinary code may run
//! here; it never returns into the supervisor's code and drops nothing of it. Order matters:
//! mounts while all capabilities are there; the user, then the capability sets, then the death
//! signal (which a change of credentials clears), then the filters.

use std::{
    convert::Infallible,
    ffi::{CString, OsStr},
    fs,
    io::{Read as _, Seek as _},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
    thread::JoinHandle,
};

use nix::sched::{CloneFlags, unshare};
use oci_spec::runtime::{LinuxCapabilities, LinuxNamespaceType, PosixRlimitType, Process, Spec};
use pellicle_fuse::{MountOptions, mount_here};
use pellicle_sys::process as sys;
use rustix::{
    mount::MountPropagationFlags,
    process::{Resource, Rlimit, Signal},
    pty::OpenptFlags,
};
use serde::{Deserialize, Serialize};

use super::{
    caps,
    channel::{Channel, Message},
    cpus, idmap, mounts,
    passwd::Identity,
    prefetch, reaper,
    seccomp::{self, Filters},
    spec::namespaces_of,
    step::{Doing, Failed},
};

/// What the first process needs to know.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) spec: Spec,
    /// Where the root is mounted before it is entered.
    pub(super) rootfs: PathBuf,
    /// What `/proc/mounts` shows as its source.
    pub(super) fs_name: String,
    /// A process of ours stays as the first one and reaps.
    pub(super) reap: bool,
    /// Only one id is mapped.
    pub(super) single_id: bool,
    /// It gets a cgroup of its own before it goes on.
    pub(super) has_cgroup: bool,
}

/// Descriptors that become standard input, output and error.
pub(super) struct Streams {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// Makes the container around this process and executes its command. `own` are the namespaces that it
/// makes by itself.
pub(super) fn run(own: CloneFlags, streams: Option<&Streams>, channel: &Channel) -> ! {
    let attempt = std::panic::AssertUnwindSafe(|| build(own, streams, channel));
    let failed = match std::panic::catch_unwind(attempt) {
        Ok(Err(failed)) => failed,
        Ok(Ok(never)) => match never {},
        Err(_) => Failed::new(125, "the container's first process panicked"),
    };
    sys::exit_now(failed.tell(channel))
}

fn build(
    own: CloneFlags,
    streams: Option<&Streams>,
    channel: &Channel,
) -> Result<Infallible, Failed> {
    die_with_supervisor(channel)?;
    cpus::step_aside();
    sys::reset_signals();
    // Whatever the caller's shell left open is not the container's.
    sys::close_on_exec_from(3).doing("close descriptors (Linux 5.11 or newer is needed)")?;
    // What follows is done while the id maps are written.
    unshare(own).map_err(no_namespaces)?;
    let plan = &hear_plan(channel)?;
    let is_namespace = |n| namespaces_of(&plan.spec).contains(&n);
    // Where there are limits, that of cgroups is made when this process is in its own.
    if !plan.has_cgroup && is_namespace(LinuxNamespaceType::Cgroup) {
        unshare(CloneFlags::CLONE_NEWCGROUP).map_err(no_namespaces)?;
    }
    let process = process_of(&plan.spec)?;
    let none = LinuxCapabilities::default();
    let filters = seccomp::build(process.capabilities().as_ref().unwrap_or(&none))
        .map_err(|e| Failed::new(125, format!("cannot make the system call filter: {e}")))?;
    let Message::Go = hear(channel)?.0 else {
        return Err(out_of_turn());
    };
    hide_memory()?;
    become_root(plan.single_id)?;
    // A change of credentials cleared it.
    die_with_supervisor(channel)?;
    mount_root(plan, channel)?;
    let Message::Be(identity) = hear(channel)?.0 else {
        return Err(out_of_turn());
    };
    let command = Command::of(process, &identity.home)?;
    let ahead = enter_root(plan, &command)?;
    if is_namespace(LinuxNamespaceType::Network) {
        sys::loopback_up().doing("switch the loopback device on")?;
    }
    if let Some(name) = plan.spec.hostname() {
        rustix::system::sethostname(name.as_bytes()).doing("set the host name")?;
    }
    if plan.reap {
        // A fork takes one thread along, and whatever locks the others hold.
        if let Some(ahead) = ahead {
            let _ = ahead.join();
        }
        reaper::fork_below(channel)?;
    }
    let place = Place {
        streams,
        channel,
        filters: &filters,
        is_console: true,
    };
    become_command(process, &identity, &command, &place)
}

fn no_namespaces(e: nix::errno::Errno) -> Failed {
    let failed = |why: &str| Failed::new(125, format!("cannot make namespaces: {why}"));
    match e {
        nix::errno::Errno::ENOSPC => {
            failed("a limit on them is reached (No space left on device)").with_next(idmap::LIMITS)
        }
        e => failed(e.desc()),
    }
}

/// Waits for the supervisor to say what is to be made.
fn hear_plan(channel: &Channel) -> Result<Plan, Failed> {
    let (Message::Plan, Some(file)) = hear(channel)? else {
        return Err(out_of_turn());
    };
    let mut text = Vec::new();
    let mut file = fs::File::from(file);
    file.rewind().doing("read what is to be made")?;
    file.read_to_end(&mut text)
        .doing("read what is to be made")?;
    serde_json::from_slice(&text).doing("understand what is to be made")
}

/// The supervisor's next message.
fn hear(channel: &Channel) -> Result<(Message, Option<OwnedFd>), Failed> {
    let heard = channel.receive().doing("hear from the supervisor")?;
    // It is dying, and has said why.
    Ok(heard.unwrap_or_else(|| sys::exit_now(125)))
}

fn out_of_turn() -> Failed {
    Failed::new(125, "the supervisor said something out of turn")
}

/// What surrounds a command that is about to be executed.
pub(super) struct Place<'a> {
    /// `None` only with a terminal.
    pub(super) streams: Option<&'a Streams>,
    pub(super) channel: &'a Channel,
    pub(super) filters: &'a Filters,
    /// Its terminal is the container's console.
    pub(super) is_console: bool,
}

/// Until it executes something, this process is a copy of the supervisor, whose memory, environment
/// and descriptors are not for those inside the container it enters. (Not before the id maps are
/// written, which only the owner of the process may do.)
pub(super) fn hide_memory() -> Result<(), Failed> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};

    set_dumpable_behavior(DumpableBehavior::NotDumpable).doing("hide the memory")
}

/// Whether the first process makes this namespace of its own: one that its fork need not wait for.
/// The network's takes longer to make than all others together.
pub(super) fn makes_itself(namespace: LinuxNamespaceType) -> bool {
    !matches!(
        namespace,
        LinuxNamespaceType::User | LinuxNamespaceType::Mount | LinuxNamespaceType::Pid
    )
}

pub(super) fn process_of(spec: &Spec) -> Result<&Process, Failed> {
    spec.process()
        .as_ref()
        .ok_or_else(|| Failed::new(125, "config.json names no process"))
}

/// Mounts the root and has the supervisor serve it.
fn mount_root(plan: &Plan, channel: &Channel) -> Result<(), Failed> {
    use rustix::mount::mount_change;

    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .doing("separate the mounts from the host's")?;
    let options = MountOptions {
        fs_name: plan.fs_name.clone(),
        read_only: false,
        allow_other: true,
        no_suid: false,
        ..MountOptions::default()
    };
    let fuse = mount_here(&plan.rootfs, &options).map_err(|e| {
        let cause = std::error::Error::source(&e)
            .map(|s| format!(": {s}"))
            .unwrap_or_default();
        Failed::new(
            125,
            format!("cannot mount the root file system: {e}{cause}"),
        )
    })?;
    channel
        .send(&Message::Fuse, Some(fuse.as_fd()))
        .doing("hand the file system over")?;
    // The supervisor's copy alone keeps the connection: with it gone, every access fails at once.
    drop(fuse);
    Ok(())
}

/// The whole file system of the container. Returns the thread that asks for the command's pages.
fn enter_root(plan: &Plan, command: &Command) -> Result<Option<JoinHandle<()>>, Failed> {
    let detached = mounts::prepare(&plan.spec)?;
    mounts::pivot(&plan.rootfs)?;
    let ahead = prefetch::begin(command.paths().map(Path::to_owned).collect());
    mounts::attach(&detached)?;
    if plan.has_cgroup {
        // Only now: the root of the cgroup namespace is where its maker is at that moment.
        unshare(CloneFlags::CLONE_NEWCGROUP).map_err(no_namespaces)?;
    }
    if let Some(process) = plan.spec.process().as_ref() {
        let cwd = process.cwd();
        if !cwd.is_dir() {
            fs::create_dir_all(cwd)
                .doing(format!("make the working directory {}", cwd.display()))?;
        }
    }
    mounts::finish(&detached)?;
    Ok(ahead)
}

/// The common end of `run` and `exec`: everything that belongs to one process.
pub(super) fn become_command(
    process: &Process,
    identity: &Identity,
    command: &Command,
    place: &Place<'_>,
) -> Result<Infallible, Failed> {
    // Fails only for the leader of a group, which a fork is not.
    let _ = rustix::process::setsid();
    let _ = sys::new_session_keyring();
    take_streams(process, identity, place)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    set_limits(process)?;
    let none = LinuxCapabilities::default();
    let capabilities = process.capabilities().as_ref().unwrap_or(&none);
    caps::bound(capabilities).doing("give up capabilities")?;
    change_user(identity)?;
    // As the new user, whose right to enter it counts.
    rustix::process::chdir(process.cwd().as_path()).doing(format!(
        "enter the working directory {}",
        process.cwd().display()
    ))?;
    caps::take_on(capabilities, identity.uid == 0).doing("set capabilities")?;
    die_with_supervisor(place.channel)?;
    place
        .filters
        .install()
        .map_err(|e| Failed::new(125, format!("cannot install the system call filter: {e}")))?;
    let supervisor = "tell the supervisor that the command is executed";
    place
        .channel
        .send(&Message::Executing, None)
        .doing(supervisor)?;
    Err(command.execute())
}

/// If the supervisor dies, so does this process, and with it the container. It may have died just
/// before, when it could not be told: then its end of the channel is closed.
pub(super) fn die_with_supervisor(channel: &Channel) -> Result<(), Failed> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .doing("ask for the death signal")?;
    if channel.is_abandoned() {
        sys::exit_now(125);
    }
    Ok(())
}

/// Root of the user namespace.
pub(super) fn become_root(single_id: bool) -> Result<(), Failed> {
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

    let (uid, gid) = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
    if !single_id {
        match set_thread_groups(&[]) {
            // Below a user namespace whose maker had to give the right up.
            Err(rustix::io::Errno::PERM) if !may_set_groups() => {}
            left => left.doing("leave the host's groups")?,
        }
    }
    set_thread_res_gid(gid, gid, gid).doing("become group 0")?;
    set_thread_res_uid(uid, uid, uid).doing("become user 0")
}

fn change_user(identity: &Identity) -> Result<(), Failed> {
    use rustix::{
        fs::{Gid, Uid},
        thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
    };

    let unmapped = |what: &str, id: u32, e: rustix::io::Errno| {
        let failed = Failed::new(125, format!("cannot become {what} {id}: {e}"));
        match e {
            rustix::io::Errno::INVAL => failed.with_next(
                "that id is not mapped in this container: see subuid(5), and do without --single-id",
            ),
            _ => failed,
        }
    };
    if may_set_groups() {
        let groups: Vec<Gid> = identity.groups.iter().map(|g| Gid::from_raw(*g)).collect();
        set_thread_groups(&groups).doing("set the supplementary groups")?;
    }
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    set_thread_res_gid(gid, gid, gid).map_err(|e| unmapped("group", identity.gid, e))?;
    set_thread_res_uid(uid, uid, uid).map_err(|e| unmapped("user", identity.uid, e))
}

/// Whether groups can be set, and those that there are can be left (user_namespaces(7)).
fn may_set_groups() -> bool {
    fs::read("/proc/self/setgroups").is_ok_and(|t| t.starts_with(b"allow"))
}

fn take_streams(process: &Process, identity: &Identity, place: &Place<'_>) -> Result<(), Failed> {
    use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

    if process.terminal() == Some(true) {
        let slave = open_terminal(place)?;
        own(&slave, identity);
        rustix::process::ioctl_tiocsctty(&slave).doing("take the terminal")?;
        dup2_stdin(&slave).doing("set standard input")?;
        dup2_stdout(&slave).doing("set standard output")?;
        return dup2_stderr(&slave).doing("set standard error");
    }
    let Some(streams) = place.streams else {
        return Ok(());
    };
    for fd in [&streams.stdin, &streams.stdout, &streams.stderr] {
        own(fd, identity);
    }
    dup2_stdin(&streams.stdin).doing("set standard input")?;
    dup2_stdout(&streams.stdout).doing("set standard output")?;
    dup2_stderr(&streams.stderr).doing("set standard error")
}

/// So that the command can open /dev/stdout anew, whoever it runs as. Pipes and terminals only:
/// others are the host's.
fn own(fd: &OwnedFd, identity: &Identity) {
    let Ok(stat) = rustix::fs::fstat(fd) else {
        return;
    };
    let is_tty = rustix::termios::isatty(fd);
    if is_tty || rustix::fs::FileType::from_raw_mode(stat.st_mode).is_fifo() {
        let uid = rustix::fs::Uid::from_raw(identity.uid);
        // The group of a terminal is tty's, which guards writing to it.
        let gid = (!is_tty).then(|| rustix::fs::Gid::from_raw(identity.gid));
        let _ = rustix::fs::fchown(fd, Some(uid), gid);
    }
}

/// A new terminal of the container's own devpts; its master side goes to the supervisor.
fn open_terminal(place: &Place<'_>) -> Result<OwnedFd, Failed> {
    use rustix::{
        fs::{Mode, OFlags},
        pty::{ioctl_tiocgptpeer, ptsname, unlockpt},
    };

    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master =
        rustix::fs::open("/dev/pts/ptmx", flags, Mode::empty()).doing("open /dev/pts/ptmx")?;
    unlockpt(&master).doing("unlock the terminal")?;
    let slave = ioctl_tiocgptpeer(
        &master,
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    )
    .doing("open the terminal")?;
    let name = ptsname(&master, Vec::new()).doing("name the terminal")?;
    let name = PathBuf::from(OsStr::from_bytes(name.as_bytes()));
    if place.is_console {
        mounts::console(&name)?;
    }
    place
        .channel
        .send(&Message::Terminal, Some(master.as_fd()))
        .doing("hand the terminal over")?;
    Ok(slave)
}

fn set_limits(process: &Process) -> Result<(), Failed> {
    for limit in process.rlimits().iter().flatten() {
        let resource = match limit.typ() {
            PosixRlimitType::RlimitCpu => Resource::Cpu,
            PosixRlimitType::RlimitFsize => Resource::Fsize,
            PosixRlimitType::RlimitData => Resource::Data,
            PosixRlimitType::RlimitStack => Resource::Stack,
            PosixRlimitType::RlimitCore => Resource::Core,
            PosixRlimitType::RlimitRss => Resource::Rss,
            PosixRlimitType::RlimitNproc => Resource::Nproc,
            PosixRlimitType::RlimitNofile => Resource::Nofile,
            PosixRlimitType::RlimitMemlock => Resource::Memlock,
            PosixRlimitType::RlimitAs => Resource::As,
            PosixRlimitType::RlimitLocks => Resource::Locks,
            PosixRlimitType::RlimitSigpending => Resource::Sigpending,
            PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
            PosixRlimitType::RlimitNice => Resource::Nice,
            PosixRlimitType::RlimitRtprio => Resource::Rtprio,
            PosixRlimitType::RlimitRttime => Resource::Rttime,
        };
        let value = |n: u64| (n != u64::MAX).then_some(n);
        let new = Rlimit {
            current: value(limit.soft()),
            maximum: value(limit.hard()),
        };
        rustix::process::setrlimit(resource, new).doing(format!("set {}", limit.typ()))?;
    }
    Ok(())
}

/// What is executed, ready for `execve`.
pub(super) struct Command {
    name: String,
    candidates: Vec<CString>,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Command {
    pub(super) fn of(process: &Process, home: &str) -> Result<Self, Failed> {
        let args = process.args().clone().unwrap_or_default();
        let mut env = process.env().clone().unwrap_or_default();
        let name = args.first().cloned().unwrap_or_default();
        if name.is_empty() {
            return Err(Failed::new(127, "the command is empty"));
        }
        if !env.iter().any(|e| e.starts_with("HOME=")) {
            env.push(format!("HOME={home}"));
        }
        let path = env
            .iter()
            .find_map(|e| e.strip_prefix("PATH="))
            .unwrap_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        let candidates = if name.contains('/') {
            vec![name.clone()]
        } else {
            path.split(':')
                .map(|dir| if dir.is_empty() { "." } else { dir })
                .map(|dir| format!("{dir}/{name}"))
                .collect()
        };
        let c = |texts: Vec<String>| -> Result<Vec<CString>, Failed> {
            let nul = |t: String| Failed::new(125, format!("{t:?}: it holds a NUL byte"));
            texts
                .into_iter()
                .map(|t| CString::new(t.as_str()).map_err(|_| nul(t)))
                .collect()
        };
        Ok(Self {
            name,
            candidates: c(candidates)?,
            args: c(args)?,
            env: c(env)?,
        })
    }

    /// Where it may be, as far as that does not depend on the working directory.
    fn paths(&self) -> impl Iterator<Item = &Path> {
        let paths = self.candidates.iter().map(|c| c.as_bytes());
        paths
            .map(|bytes| Path::new(OsStr::from_bytes(bytes)))
            .filter(|path| path.is_absolute())
    }

    /// Does not return but with the reason, as docker's exit codes have it: 127 for what does not
    /// exist, 126 for what cannot be executed.
    fn execute(&self) -> Failed {
        use nix::errno::Errno;

        let mut worst = None;
        for candidate in &self.candidates {
            let Err(e) = nix::unistd::execve(candidate, &self.args, &self.env);
            match e {
                Errno::ENOENT | Errno::ENOTDIR => {}
                Errno::EACCES => worst = Some((candidate, e)),
                e => {
                    worst = Some((candidate, e));
                    break;
                }
            }
        }
        let name = &self.name;
        let paths = self.candidates.iter().map(|c| c.to_string_lossy());
        let there = paths.into_iter().find(|path| Path::new(&**path).exists());
        match worst {
            None if there.is_some() => Failed::new(
                127,
                format!(
                    "{}: the interpreter it names does not exist in the container",
                    there.unwrap_or_default()
                ),
            ),
            None if !name.contains('/') => {
                Failed::new(127, format!("{name}: not found in the container's PATH"))
            }
            None => Failed::new(127, format!("{name}: no such file in the container")),
            Some((path, e)) => {
                let path = path.to_string_lossy();
                let failed = Failed::new(126, format!("cannot execute {path}: {}", e.desc()));
                match e {
                    Errno::ENOEXEC => failed.with_next(
                        "is the image for another processor, or is it a script without a #! line?",
                    ),
                    _ => failed,
                }
            }
        }
    }
}
