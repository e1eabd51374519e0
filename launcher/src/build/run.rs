//! RUN: a container over the stage so far, made and supervised by a process of its own, and a layer of
//! what its journal says.
//!
//! A process of its own, because the supervisor forks before it has threads, and takes the signals.

use std::{
    fs::{self, File},
    io::{self, Seek as _, Write as _},
    os::{fd::AsFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use oci_spec::{
    image::ImageConfiguration,
    runtime::{Mount, Spec},
};
use pellicle_layer::Lower;
use pellicle_store::{Digest, Store};
use pellicle_sys::process::send_signal;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open},
};
use serde::{Deserialize, Serialize};

use super::{BuildError, Place, layer, layer::Times};
use crate::{
    container::{
        ContainerError,
        begin::Begin,
        idmap::IdMaps,
        names,
        registry::{Held, Registry},
        request::{Network, Request},
        spec,
        state::State,
        supervise,
    },
    image::NewLayer,
};
use pellicle_union::Watch;

/// How long a command that was asked to stop gets.
const GRACE: Duration = Duration::from_secs(2);
/// Longest part of a command that a message shows.
const SHOWN_MAX: usize = 120;

/// What the process that runs a RUN is told.
#[derive(Debug, Serialize, Deserialize)]
pub struct Job {
    state: State,
    spec: Spec,
    /// Where it puts its [`Answer`].
    answer: PathBuf,
}

/// What became of it.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    /// The command ended with this code.
    Ended(i32),
    /// There was no command.
    Failed { why: String, next: Option<String> },
}

/// Runs the container of a job; the process for it does nothing else. The exit code of its command.
///
/// # Errors
/// If the answer cannot be written; everything else is in the answer.
pub fn serve(root: &Path, job: Job) -> Result<i32, BuildError> {
    // The container goes with this process, which goes with the build.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let answer = match contained(root, job.state, job.spec) {
        Ok(code) => Answer::Ended(code),
        Err(e) => Answer::Failed {
            why: with_causes(&e),
            next: match &e {
                BuildError::Engine(e) => e.hint(),
                other => other.next(),
            },
        },
    };
    let text =
        serde_json::to_vec(&answer).map_err(|e| BuildError::io("write", &job.answer)(e.into()))?;
    fs::write(&job.answer, text).map_err(BuildError::io("write", &job.answer))?;
    Ok(match answer {
        Answer::Ended(code) => code,
        Answer::Failed { .. } => 125,
    })
}

fn with_causes(error: &BuildError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

fn contained(root: &Path, mut state: State, spec: Spec) -> Result<i32, BuildError> {
    let maps = IdMaps::for_this_user(state.settings.single_id)?;
    state.settings.single_id |= maps.fell_back.is_some();
    let begin = Begin {
        namespaces: spec::namespaces_of(&spec),
        output: true,
        ..Begin::default()
    };
    let begun = begin.fork(&maps)?;
    let store = Store::open(root)?;
    let registry = Registry::new(store.root());
    let run = supervise::Run {
        store: &store,
        lock: store.lock_shared()?,
        registry: &registry,
        state,
        spec,
        stats: false,
        is_new: true,
        keep: true,
        on_executed: Box::new(|| Ok(())),
    };
    let hold = |state: &mut State, spec: &Spec| registry.create(state, spec);
    Ok(supervise::run(run, begun, hold)?)
}

/// A RUN that is to be done.
pub(super) struct Running<'a> {
    pub(super) place: &'a Place,
    /// What runs, for messages.
    pub(super) shown: &'a str,
    pub(super) config: &'a ImageConfiguration,
    pub(super) diff_ids: &'a [Digest],
    pub(super) command: Vec<String>,
    /// `NAME=VALUE`, on top of the image's.
    pub(super) env: Vec<String>,
    pub(super) network: Network,
    pub(super) tmpfs: Vec<String>,
    pub(super) mounts: Vec<Mount>,
    /// A directory for this step alone.
    pub(super) work: &'a Path,
    /// Nothing is shown unless it fails.
    pub(super) quiet: bool,
    pub(super) times: Times,
}

impl Running<'_> {
    /// Runs it, and makes a layer of what it changed; `None` if that is nothing. `lower` is the tree
    /// of the stage.
    ///
    /// # Errors
    /// [`BuildError::Run`] if its command fails, [`BuildError::Container`] if there was none.
    pub(super) fn run(
        self,
        store: &Store,
        tree: &dyn Fn(bool) -> Result<Arc<dyn Lower>, BuildError>,
        watch: &Watch<'_>,
    ) -> Result<Option<NewLayer>, BuildError> {
        let registry = Registry::new(store.root());
        let job = self.job(&registry)?;
        let id = job.state.id.clone();
        let container = Container {
            registry: &registry,
            id: &id,
        };
        let mut log = None;
        if self.quiet {
            let file = tempfile::tempfile_in(self.work);
            log = Some(file.map_err(BuildError::io("make a file in", self.work))?);
        }
        let child = self.start(store.root(), &job, log.as_ref())?;
        wait(child, watch)?;
        let (why, next) = match answer(&job.answer) {
            Some(Answer::Ended(0)) => {
                let held = container.hold()?;
                let state = State::load(&held.dir)?;
                let lower = tree(state.settings.single_id)?;
                return layer::commit(
                    store,
                    &lower,
                    &held.dir,
                    &state.mount_points,
                    self.times,
                    watch,
                );
            }
            Some(Answer::Ended(code)) => {
                show(log);
                return Err(BuildError::Run {
                    place: self.place.clone(),
                    command: cut(self.shown),
                    code,
                });
            }
            Some(Answer::Failed { why, next }) => (why, next),
            None => ("its process was killed".to_owned(), None),
        };
        show(log);
        Err(BuildError::Container {
            place: self.place.clone(),
            why,
            next,
        })
    }

    fn job(&self, registry: &Registry) -> Result<Job, BuildError> {
        let id = names::new_id();
        let request = Request {
            name: Some(format!("build-{}", names::short(&id))),
            // Removed by whoever finds it, should this build be killed.
            rm: true,
            env: self.env.clone(),
            entrypoint: Some(String::new()),
            network: self.network,
            tmpfs: self.tmpfs.clone(),
            ..Request::default()
        };
        let dir = registry.dir(&id);
        let (mut spec, settings) = spec::build(&id, &dir, self.config, &request, &self.command)?;
        let mut mounts = spec.mounts().clone().unwrap_or_default();
        let mut own = self.mounts.clone();
        own.sort_by_key(|m| m.destination().components().count());
        for mount in own {
            mounts.retain(|m| m.destination() != mount.destination());
            mounts.push(mount);
        }
        spec.set_mounts(Some(mounts));
        let mut state = State::new(id, request.name.unwrap_or_default(), settings);
        state.image = "build".to_owned();
        // No image is listed yet; what counts are the layers.
        state.image_id = Digest::of(b"").to_string();
        state.diff_ids = self.diff_ids.iter().map(ToString::to_string).collect();
        state.command.clone_from(&self.command);
        Ok(Job {
            state,
            spec,
            answer: self.work.join("answer"),
        })
    }

    fn start(&self, root: &Path, job: &Job, log: Option<&File>) -> Result<Child, BuildError> {
        let fail = BuildError::io("start", "/proc/self/exe");
        let started = || -> io::Result<Child> {
            let mut told = tempfile::tempfile_in(self.work)?;
            serde_json::to_writer(&mut told, job)?;
            told.flush()?;
            told.rewind()?;
            let (out, err): (Stdio, Stdio) = match log {
                Some(log) => (log.try_clone()?.into(), log.try_clone()?.into()),
                // Standard output is for the image's id.
                None => (
                    io::stderr().as_fd().try_clone_to_owned()?.into(),
                    Stdio::inherit(),
                ),
            };
            Command::new("/proc/self/exe")
                .arg("--root")
                .arg(root)
                .arg("__build-run")
                .stdin(told)
                .stdout(out)
                .stderr(err)
                .spawn()
        };
        started().map_err(fail)
    }
}

/// The container of a RUN, which goes with it.
struct Container<'a> {
    registry: &'a Registry,
    id: &'a str,
}

impl Container<'_> {
    fn hold(&self) -> Result<Held, ContainerError> {
        self.registry.hold(self.id)
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        if !self.registry.dir(self.id).is_dir() {
            return;
        }
        // Of a supervisor that was killed, the end may still be on its way.
        let gone = self.hold().and_then(|held| {
            let name = State::load(&held.dir).map(|s| s.name).ok();
            self.registry.remove(held, self.id, name.as_deref(), None)
        });
        if let Err(error) = gone {
            tracing::warn!(%error, "cannot remove the container of a build");
        }
    }
}

/// Waits for the end of `child`, which is asked to stop, and then made to, when the build is.
fn wait(mut child: Child, watch: &Watch<'_>) -> Result<(), BuildError> {
    let fail = |e: io::Error| BuildError::io("wait for", "the container's process")(e);
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| fail(io::ErrorKind::NotFound.into()))?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|e| fail(e.into()))?;
    let tick = Timespec {
        tv_sec: 0,
        tv_nsec: 100_000_000,
    };
    let mut kill_at: Option<Instant> = None;
    loop {
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        match poll(&mut fds, Some(&tick)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => {
                child.wait().map_err(fail)?;
                break;
            }
            Err(e) => return Err(fail(e.into())),
        }
        if !watch.cancel.is_cancelled() {
            continue;
        }
        match kill_at {
            None => {
                let _ = send_signal(pidfd.as_fd(), libc::SIGTERM);
                kill_at = Some(Instant::now() + GRACE);
            }
            Some(at) if Instant::now() > at => {
                let _ = send_signal(pidfd.as_fd(), libc::SIGKILL);
            }
            Some(_) => {}
        }
    }
    if watch.cancel.is_cancelled() {
        return Err(BuildError::Cancelled);
    }
    Ok(())
}

fn answer(path: &Path) -> Option<Answer> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Shows what was held back.
fn show(log: Option<File>) {
    if let Some(mut log) = log {
        let _ = log.rewind();
        let _ = io::copy(&mut log, &mut io::stderr().lock());
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((at, _)) => format!("{}...", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Writes a file that a container is to see, with this mode.
pub(super) fn file_for(path: &Path, bytes: &[u8], mode: u32) -> Result<(), BuildError> {
    File::create_new(path)
        .and_then(|mut f| {
            f.set_permissions(fs::Permissions::from_mode(mode))?;
            f.write_all(bytes)
        })
        .map_err(BuildError::io("write", path))
}
