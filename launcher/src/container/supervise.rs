//! The supervisor: makes a container's process, serves its root file system, passes signals on,
//! keeps the log and records the end.
//!
//! It has one thread until the fork; those that serve and copy come after. Whatever goes wrong on
//! the way, dropping what was made so far kills the process, which takes the container with it, and
//! removes the cgroup.

use std::{
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    sync::Arc,
    time::{Duration, Instant},
};

use oci_spec::runtime::{Mount, Spec};
use pellicle_fuse::{ServeOptions, Server, serve};
use pellicle_layer::Lower;
use pellicle_store::{Store, StoreLock};
use pellicle_union::Union;

use super::{
    ContainerError,
    attend::{self, Process, Signals},
    begin::Begun,
    cgroup::{Cgroup, Limits},
    channel::Message,
    init::Plan,
    log::Log,
    mounts, names,
    passwd::{self, Identity},
    process::ProcessId,
    registry::{Held, Registry},
    root::{self, Upper},
    spec::write_etc,
    state::{State, Status, now},
    streams::{self, Attach, Ends},
    terminal,
};
use crate::events::{self, Event};

/// How long the kernel gets to take the mount down after the last process ended.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(3);

/// How long the server gets to say that it has ended. Without a process the mount goes, and it ends.
const SERVER_PATIENCE: Duration = Duration::from_millis(50);

/// A container to be run, and how.
pub struct Run<'a> {
    /// The store of its image.
    pub store: &'a Store,
    /// Keeps its layers from being collected.
    pub lock: StoreLock,
    /// Where it belongs.
    pub registry: &'a Registry,
    /// Its state.
    pub state: State,
    /// Its specification.
    pub spec: Spec,
    /// At the end, print what requests came for its files.
    pub stats: bool,
    /// It has never run before: if its command cannot be executed, it is removed again.
    pub is_new: bool,
    /// What it wrote stays, for a layer to be made of it, even if its state says that it is to be removed
    /// at its end.
    pub keep: bool,
    /// Called once the command is executed; an error stops the container.
    pub on_executed: Box<dyn FnOnce() -> io::Result<()> + 'a>,
}

/// Runs a container to its end; the exit code of its command.
///
/// `begun` is to become it. `hold` makes the container, if it is new, and takes its lock.
///
/// # Errors
/// If its command could not be executed. A container that was new is gone then.
pub fn run(
    mut run: Run<'_>,
    begun: Begun,
    hold: impl FnOnce(&mut State, &Spec) -> Result<Held, ContainerError>,
) -> Result<i32, ContainerError> {
    let resources = run.spec.linux().as_ref();
    let resources = resources.and_then(|l| l.resources().as_ref());
    let limits = resources.map(Limits::of).unwrap_or_default();
    begun.tell(&plan(&run, &begun, &limits))?;
    let lower = root::lower(run.store, &run.state)?;
    run.state.status = Status::Running;
    run.state.started = Some(now());
    run.state.process = ProcessId::of(begun.pid);
    run.state.mount_points = missing_points(&root::bare(&lower)?, &run.spec)?;
    // Complete as it is, so that it is written once: to replace a file that was just written makes
    // the host write it out at once, and removing it wait for that.
    let held = hold(&mut run.state, &run.spec)?;
    tracing::debug!("container made");
    let mut live = Live::default();
    let result = to_the_end(&mut run, &held, lower, (begun, limits), &mut live);
    // The process is gone: nothing but leftovers from here on.
    let stray = !live.cgroup.remove();
    let Run {
        store,
        lock,
        registry,
        mut state,
        is_new,
        keep,
        stats,
        ..
    } = run;
    if stats && let Some(server) = &live.server {
        eprint!("{}\n{}", server.serving(), server.stats());
    }
    let id = state.id.clone();
    let forget = (state.settings.auto_remove && !keep) || (is_new && result.is_err());
    let executed = live.executed;
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
        // Nobody will ever read what it wrote: no time is spent on closing it in good order. A mount that
        // somebody outside still looks into must not write where another container may be by then.
        if let Some(union) = &live.union {
            union.retire();
        }
        // Whoever waited for the end may collect.
        drop(lock);
        registry.remove(held, &id, Some(&state.name), Some(code))?;
        if executed {
            let gone = Event::container("destroy", &state);
            events::note(store.root(), &[died(&state, code), gone]);
        }
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
    if executed {
        events::note(store.root(), &[died(&state, code)]);
    }
    // Whoever waits for the end may collect then.
    drop(lock);
    registry.release(held, &id, code);
    closed?;
    result
}

fn died(state: &State, code: i32) -> Event {
    Event::container("die", state).with("exitCode", code.to_string())
}

/// What lives as long as the container.
#[derive(Default)]
struct Live {
    cgroup: Cgroup,
    union: Option<Arc<Union>>,
    server: Option<Server>,
    /// Its command began to run.
    executed: bool,
}

impl Live {
    /// Why its root is not served any more, if that is so: what the container's process then says is only
    /// what came of it.
    fn why_not_served(&mut self) -> Option<ContainerError> {
        let deadline = Instant::now() + SERVER_PATIENCE;
        while !self.server.as_ref()?.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        let server = self.server.take_if(|server| server.is_finished())?;
        server.join().err().map(ContainerError::from)
    }

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

fn plan(run: &Run<'_>, begun: &Begun, limits: &Limits) -> Plan {
    Plan {
        spec: run.spec.clone(),
        // In its own mount namespace alone, where nobody needs what is below.
        rootfs: run.registry.dir(&run.state.id).join("upper"),
        fs_name: format!("pellicle:{}", names::short(&run.state.id)),
        reap: run.state.settings.init,
        single_id: begun.single_id,
        has_cgroup: !limits.is_empty(),
    }
}

fn to_the_end(
    run: &mut Run<'_>,
    held: &Held,
    lower: Arc<dyn Lower>,
    (begun, limits): (Begun, Limits),
    live: &mut Live,
) -> Result<i32, ContainerError> {
    let Begun {
        signals,
        attach,
        mut process,
        pid,
        channel,
        ends,
        maps,
        single_id: _,
    } = begun;
    write_etc(&held.dir, &run.spec, run.state.settings.host_network)?;
    live.cgroup = Cgroup::create(&run.state.id, &limits)?;
    run.state.cgroup = live.cgroup.clone();
    if !run.is_new || !live.cgroup.is_empty() {
        run.state.save(&held.dir)?;
    }
    let starting = ContainerError::host::<io::Error>;
    let added = maps.finish().and_then(|()| live.cgroup.add(pid));
    // A process that has ended has told why.
    added.map_err(|e| attend::last_words_or(&channel, e))?;
    tracing::debug!("id maps written");
    channel
        .tell(&Message::Go, None)
        .map_err(starting("start the container"))?;
    // While it makes its mount.
    let union = open_root(run, held, lower)?;
    live.union = Some(Arc::clone(&union));
    let identity = identity(&union, &run.state)?;
    for mount in outer_mounts(&run.spec) {
        let path = mount.destination().as_os_str().as_bytes();
        root::make_point(&union, path, mounts::kind(mount))?;
    }
    tracing::debug!("root opened");
    channel
        .tell(&Message::Be(identity), None)
        .map_err(starting("start the container"))?;
    let executed = attend::until_executed(&channel, &mut process, &signals, |fd| {
        let options = ServeOptions {
            transport: run.state.settings.transport.into(),
            opens: run.state.settings.opens.into(),
            ..ServeOptions::default()
        };
        let server = serve(fd, Arc::clone(&union), options)?;
        run.registry.note_served(&run.state.id, &server.serving())?;
        live.server = Some(server);
        tracing::debug!("root served");
        Ok(())
    });
    let executed = executed.map_err(|e| live.why_not_served().unwrap_or(e))?;
    tracing::debug!("executed");
    drop(channel);
    if let Some(fd) = &executed.command {
        run.state.command_process = pid_in(fd).and_then(ProcessId::of);
        run.state.save(&held.dir)?;
    }
    // Beside the command, which runs already.
    live.executed = true;
    let new = run.is_new.then(|| Event::container("create", &run.state));
    let begun: Vec<Event> = new
        .into_iter()
        .chain([Event::container("start", &run.state)])
        .collect();
    events::note(run.store.root(), &begun);
    let told = std::mem::replace(&mut run.on_executed, Box::new(|| Ok(())))();
    told.map_err(ContainerError::host("tell that the container runs"))?;
    let log = Log::new(&held.dir);
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

fn open_root(
    run: &Run<'_>,
    held: &Held,
    lower: Arc<dyn Lower>,
) -> Result<Arc<Union>, ContainerError> {
    let settings = &run.state.settings;
    let upper = Upper::Serve {
        // What is removed at its end need not survive the host.
        volatile: settings.volatile || settings.auto_remove,
    };
    let (union, recovery) = root::open_over(lower, &held.dir, upper)?;
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

/// What is mounted on the root, and not in another mount.
fn outer_mounts(spec: &Spec) -> impl Iterator<Item = &Mount> {
    let all = || spec.mounts().iter().flatten();
    all().filter(move |mount| {
        let to = mount.destination();
        !all().any(|m| to != m.destination() && to.starts_with(m.destination()))
    })
}

/// What the image lacks to mount on.
fn missing_points(image: &Union, spec: &Spec) -> Result<Vec<String>, ContainerError> {
    let mut missing = Vec::new();
    for mount in outer_mounts(spec) {
        let path = mount.destination().to_string_lossy().into_owned();
        if root::find(image, path.as_bytes())?.is_none() {
            missing.push(path);
        }
    }
    Ok(missing)
}

/// The number of the process that `pidfd` is open at, as this process sees it.
pub(super) fn pid_in(pidfd: impl std::os::fd::AsFd) -> Option<rustix::process::Pid> {
    use std::os::fd::AsRawFd as _;

    let number = pidfd.as_fd().as_raw_fd();
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).ok()?;
    let pid = info.lines().find_map(|l| l.strip_prefix("Pid:"))?;
    rustix::process::Pid::from_raw(pid.trim().parse().ok().filter(|n| *n > 0)?)
}
