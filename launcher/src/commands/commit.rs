//! `pellicle commit`: what a container changed becomes an image.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use oci_spec::runtime::Spec;
use pellicle_union::{CommittedLayer, Union, Watch};
use serde_json::Value;

use super::{collect::tidy_after_failure, containers, import::image_name, outfile::cancelled};
use crate::{
    CliError, Context, Output,
    container::{
        ContainerError, mount_points,
        pause::{self, Paused},
        registry::{Held, Registry},
        root::{self, Upper},
        spec,
        state::State,
    },
    events::{self, Event},
    image::{Derivation, Image, Images, NewLayer, Settings},
    interrupt,
};

/// Make an image of a container and what it changed
///
/// The new image is the container's with one more layer: what the container changed, told by its
/// journal. The files of a stopped container become part of the store as they are, without being
/// copied. Nothing is changed in the container, which can be started again. Volumes are not part of it.
///
/// A running container is paused meanwhile where it has a cgroup of its own (--memory, --cpus or
/// --pids-limit gives it one), and goes on after it.
///
/// The image runs what the container ran, with its variables, user and directory; -c changes that.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle commit web web:patched
  pellicle commit -m 'add curl' -a 'A. Admin <admin@example.com>' build tools:1.1
  pellicle commit -c 'CMD [\"nginx\"]' -c 'ENV MODE=production' build app
  pellicle commit --squash build app:small")]
pub struct CommitArgs {
    /// Who made it
    #[arg(short, long, value_name = "TEXT")]
    pub author: Option<String>,
    /// A setting of the image, as a line of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME or WORKDIR
    #[arg(short, long, value_name = "LINE")]
    pub change: Vec<String>,
    /// A remark in the image's history
    #[arg(short, long, value_name = "TEXT")]
    pub message: Option<String>,
    /// Pause a running container meanwhile
    #[arg(
        short,
        long,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = true,
        default_missing_value = "true",
        action = clap::ArgAction::Set,
        value_name = "BOOL"
    )]
    pub pause: bool,
    /// Put everything into one layer instead of on top of the image's
    #[arg(short, long)]
    pub squash: bool,
    /// Write the image's id to a file
    #[arg(long, value_name = "FILE")]
    pub iidfile: Option<PathBuf>,
    /// Print nothing but the image's id
    #[arg(short, long)]
    pub quiet: bool,
    /// Name or id of a container
    pub container: String,
    /// Name of the image; without one it can be used by the id that is printed
    #[arg(value_name = "NAME[:TAG]")]
    pub name: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// What the command could not do; then no image is made.
pub fn run(cx: &Context, args: CommitArgs) -> Result<ExitCode, CliError> {
    let out = cx.out.quiet_if(args.quiet);
    // Everything that can be refused without reading the container is refused first.
    let names = args.name.iter().map(|n| image_name(n));
    let names = names.collect::<Result<Vec<_>, _>>()?;
    let mut settings = Settings::default();
    for line in &args.change {
        settings.apply(line).map_err(not_a_change)?;
    }
    let registry = containers::registry(cx)?;
    let id = registry.find(&args.container)?;
    let images = cx.images()?;
    let cancel = interrupt::cancel_on_signals()?;
    let lock = images.store().lock_shared()?;
    let step = out.step(format!("commit {}", args.container), None);
    let watch = Watch {
        cancel,
        progress: &step,
    };
    let frozen = Frozen::new(&registry, &id, &args, &out)?;
    let parent = parent(&images, &frozen.state)?;
    let spec = registry.spec(&id)?;
    let settings = settings_of(&images, &parent, &spec, &frozen.state, &args.change)?;
    let (union, _) = root::open(
        images.store(),
        &frozen.state,
        &registry.dir(&id),
        frozen.upper(),
    )?;
    let layer = match make_layer(&union, &frozen.state, &images, args.squash, &watch) {
        Ok(layer) => layer,
        Err(error) => {
            drop((union, frozen, lock));
            tidy_after_failure(cx, true);
            return Err(error);
        }
    };
    drop(union);
    let state = frozen.state.clone();
    // Nothing more is read of the container.
    drop(frozen);

    let created = jiff::Timestamp::now().to_string();
    let derivation = Derivation {
        created: &created,
        author: args.author.as_deref(),
        comment: args.message.as_deref(),
        created_by: &state.command.join(" "),
        settings: &settings,
        squash: args.squash,
    };
    let new_layer = layer.map(|l| NewLayer {
        diff_id: l.diff_id,
        archive_bytes: l.archive_bytes,
        content_bytes: l.archived.content_bytes,
    });
    let image = images.derive(&parent, new_layer.as_ref(), &derivation, names)?;
    let image_id = image.id;
    images.add(image)?;
    let event = Event::container("commit", &state).with("imageID", image_id.to_string());
    events::note(images.store().root(), &[event]);
    if let Some(file) = &args.iidfile {
        std::fs::write(file, image_id.to_string())
            .map_err(|e| CliError::failed(format!("cannot write {}", file.display())).because(e))?;
    }
    step.done(told(layer.as_ref()));
    cx.out.line(image_id)?;
    Ok(ExitCode::SUCCESS)
}

/// The process that resumes a container if the one that paused it is killed
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle __resume /sys/fs/cgroup/pellicle-ID/cgroup.freeze")]
pub struct ResumeArgs {
    /// The cgroup's file
    pub file: PathBuf,
}

/// Runs that process.
///
/// # Errors
/// The host's.
pub fn resume(args: &ResumeArgs) -> Result<ExitCode, CliError> {
    pause::resume_later(&args.file)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn not_a_change(error: crate::image::ChangeError) -> CliError {
    CliError::usage(error.to_string()).with_hint("for example: --change 'CMD [\"/bin/bash\"]'")
}

fn told(layer: Option<&CommittedLayer>) -> String {
    let Some(layer) = layer else {
        return "nothing was changed, no layer added".to_owned();
    };
    let there = if layer.already_there {
        ", already in the store"
    } else {
        ""
    };
    let sockets = match layer.archived.sockets {
        0 => String::new(),
        n => format!(", {n} sockets left out"),
    };
    format!(
        "{} entries, {}{sockets}{there}",
        layer.archived.entries,
        crate::output::bytes(layer.archived.content_bytes)
    )
}

/// A container that does not change: it is stopped and held, or it was paused and flushed.
struct Frozen {
    state: State,
    held: Option<Held>,
    paused: Option<Paused>,
}

impl Frozen {
    fn new(
        registry: &Registry,
        id: &str,
        args: &CommitArgs,
        out: &Output,
    ) -> Result<Self, CliError> {
        let dir = registry.dir(id);
        let held = match registry.hold(id) {
            Ok(held) => Some(held),
            Err(ContainerError::Running(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let state = State::load(&dir)?;
        let mut paused = None;
        if held.is_none() {
            if args.pause {
                paused = Paused::pause(&state.cgroup)?;
                if paused.is_none() {
                    out.note(
                        "the container has no cgroup to be paused by: what it is just writing may be in the image in part",
                    );
                }
            }
            let flushed = state.process.as_ref().map(pause::flush);
            if let Some(Err(error)) = flushed {
                out.warn(format_args!(
                    "cannot have the container's mapped files written ({error}): what was written to them of late may be missing"
                ));
            }
        }
        Ok(Self {
            state,
            held,
            paused,
        })
    }

    fn upper(&self) -> Upper {
        match (&self.held, &self.paused) {
            (Some(_), _) => Upper::Hold,
            (None, Some(_)) => Upper::Look,
            (None, None) => Upper::Beside,
        }
    }
}

/// The image of a container.
fn parent(images: &Images, state: &State) -> Result<Image, CliError> {
    images.resolve(&state.image_id).map_err(|e| {
        CliError::failed("the image of the container cannot be had")
            .because(e)
            .with_hint(format!(
                "`pellicle export {} | pellicle import - NAME` makes an image of all its files",
                state.name
            ))
    })
}

/// The layer of what was changed, or of everything; `None` if nothing was changed.
fn make_layer(
    union: &Union,
    state: &State,
    images: &Images,
    squash: bool,
    watch: &Watch<'_>,
) -> Result<Option<CommittedLayer>, CliError> {
    let mut changes = if squash {
        union.layer_of_everything()?
    } else {
        union.layer_changes()?
    };
    mount_points::leave_out(&mut changes, union.differences()?, &state.mount_points);
    if changes.is_empty() {
        return Ok(None);
    }
    let layer = union.commit(&changes, images.store(), watch);
    layer.map(Some).map_err(cancelled)
}

/// How containers of the new image run: as this one did, by docker's rule, with the person's changes.
fn settings_of(
    images: &Images,
    parent: &Image,
    spec: &Spec,
    state: &State,
    changes: &[String],
) -> Result<Settings, CliError> {
    let raw: Value = serde_json::from_slice(&images.raw_config(&parent.id)?)?;
    let image = Settings::of(raw.get("config").unwrap_or(&Value::Null))?;
    let mut settings = image.clone();
    settings.labels = state.settings.labels.clone();
    settings.user.clone_from(&state.settings.user);
    if state.settings.stop_signal != "TERM" || !image.stop_signal.is_empty() {
        settings.stop_signal.clone_from(&state.settings.stop_signal);
    }
    if let Some(process) = spec.process() {
        settings.env = spec::own_environment(spec, &image.env);
        let directory = process.cwd().to_string_lossy();
        if directory != "/" || !image.working_dir.is_empty() {
            settings.working_dir = directory.into_owned();
        }
        let command = process.args().clone().unwrap_or_default();
        let entrypoint = image.entrypoint.clone().unwrap_or_default();
        match command.strip_prefix(entrypoint.as_slice()) {
            Some(rest) if !entrypoint.is_empty() => {
                settings.cmd = (!rest.is_empty()).then(|| rest.to_vec());
            }
            _ => {
                settings.entrypoint = None;
                settings.cmd = Some(command);
            }
        }
    }
    for line in changes {
        settings.apply(line).map_err(not_a_change)?;
    }
    Ok(settings)
}
