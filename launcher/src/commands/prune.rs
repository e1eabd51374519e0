//! `pellicle image prune`, `container prune`, `builder prune` and `system prune`: what nobody uses any more.
//!
//! All of it works beside containers that run, imports and pulls: what they use is not taken away, and while
//! they are there room is not freed but left to the next collection.

mod builds;
mod filter;

use std::{
    collections::{BTreeSet, HashMap},
    io::{self, IsTerminal as _},
    process::ExitCode,
};

use clap::Args;
use filter::Filters;
use jiff::Timestamp;
use pellicle_store::Digest;

use super::{collect::try_collect_as, containers, registry_args::read_line, store::usage};
use crate::{
    CliError, Context,
    build::Pruned,
    container::{
        registry::{Listed, Registry},
        state::{State, Status},
    },
    events::{self, Event},
    image::{Collection, Images, Record, container_uses, familiar},
    output, registry,
};

/// What all of them take.
#[derive(Args, Debug, Default)]
pub struct PruneArgs {
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// Only say what would go
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

/// How what is pruned is chosen.
#[derive(Args, Debug, Default)]
pub struct FilterArg {
    /// Only what is older (until=24h, until=2026-01-31) or has or has not a label (label=KEY[=VALUE], label!=KEY)
    #[arg(long, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
}

/// Remove images that nobody uses
///
/// Those without a name, left behind when theirs was given to another; with -a all that no container stands
/// on. The layers that nothing else needs go with them.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle image prune
  pellicle image prune -a --filter until=720h --dry-run
  pellicle image prune -af --filter 'label!=keep'")]
pub struct ImagePruneArgs {
    /// Also those with names that no container stands on
    #[arg(short, long)]
    pub all: bool,
    /// Only what is older (until=24h, until=2026-01-31), has or has not a label (label=KEY[=VALUE], label!=KEY),
    /// or has no name (dangling=true); dangling=false is -a
    #[arg(long, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    /// How.
    #[command(flatten)]
    pub prune: PruneArgs,
}

/// Remove all containers that do not run
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle container prune
  pellicle container prune -f --filter until=24h")]
pub struct ContainerPruneArgs {
    /// Which of them.
    #[command(flatten)]
    pub filter: FilterArg,
    /// How.
    #[command(flatten)]
    pub prune: PruneArgs,
}

/// Remove what builds left for later builds
///
/// What no image was built with, and the contents of cache mounts (RUN --mount=type=cache); with -a all of it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle builder prune
  pellicle builder prune --dry-run --filter until=24h
  pellicle builder prune -af")]
pub struct BuilderPruneArgs {
    /// Also what images that are there were built with
    #[arg(short, long)]
    pub all: bool,
    /// Only what was not used since (until=24h, until=2026-01-31)
    #[arg(long, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    /// How.
    #[command(flatten)]
    pub prune: PruneArgs,
}

/// Remove what nobody uses: containers that do not run, images without a name, what builds left
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle system prune --dry-run
  pellicle system prune -af --filter until=240h")]
pub struct SystemPruneArgs {
    /// Also images with names that no container stands on
    #[arg(short, long)]
    pub all: bool,
    /// Accepted for docker's sake: there are no anonymous volumes
    #[arg(long, hide = true)]
    pub volumes: bool,
    /// Which of them.
    #[command(flatten)]
    pub filter: FilterArg,
    /// How.
    #[command(flatten)]
    pub prune: PruneArgs,
}

/// Runs `image prune`.
///
/// # Errors
/// If the list or the store cannot be changed, or nobody can be asked.
pub fn images(cx: &Context, args: &ImagePruneArgs) -> Result<ExitCode, CliError> {
    let filters = Filters::of_images(&args.filter, Timestamp::now())?;
    let all = match filters.dangling() {
        Some(true) if args.all => {
            return Err(CliError::usage(
                "-a is for images with names, too, and dangling=true for those without",
            )
            .with_hint("give one of them"));
        }
        dangling => args.all || dangling == Some(false),
    };
    let what = match all {
        true => "all images that no container stands on",
        false => "all images without a name",
    };
    args.prune.ask(what)?;
    let job = Job {
        images: Some(all),
        ..Job::default()
    };
    job.run(cx, &filters, args.prune.dry_run)
}

/// Runs `container prune`.
///
/// # Errors
/// If a container cannot be removed, or nobody can be asked.
pub fn containers(cx: &Context, args: &ContainerPruneArgs) -> Result<ExitCode, CliError> {
    let filters = Filters::parse(&args.filter.filter, Timestamp::now())?;
    args.prune.ask("all containers that do not run")?;
    let job = Job {
        containers: true,
        ..Job::default()
    };
    job.run(cx, &filters, args.prune.dry_run)
}

/// Runs `builder prune`.
///
/// # Errors
/// As [`images`].
pub fn builds(cx: &Context, args: &BuilderPruneArgs) -> Result<ExitCode, CliError> {
    let filters = Filters::parse(&args.filter, Timestamp::now())?;
    if filters.has_labels() {
        return Err(CliError::usage("what builds left has no labels")
            .with_hint("the filter of `pellicle builder prune` is until, as --filter until=24h"));
    }
    args.prune.ask(match args.all {
        true => "all that builds left",
        false => "what builds left and no image was built with",
    })?;
    let job = Job {
        builds: Some(args.all),
        ..Job::default()
    };
    job.run(cx, &filters, args.prune.dry_run)
}

/// Runs `system prune`.
///
/// # Errors
/// As [`images`] and [`containers`].
pub fn system(cx: &Context, args: &SystemPruneArgs) -> Result<ExitCode, CliError> {
    let filters = Filters::parse(&args.filter.filter, Timestamp::now())?;
    let images = match args.all {
        true => "all images that no container stands on",
        false => "all images without a name",
    };
    args.prune.ask(&format!(
        "all containers that do not run, {images}, and what builds left for later ones"
    ))?;
    let job = Job {
        containers: true,
        images: Some(args.all),
        builds: Some(args.all),
    };
    job.run(cx, &filters, args.prune.dry_run)
}

impl PruneArgs {
    fn ask(&self, what: &str) -> Result<(), CliError> {
        if self.force || self.dry_run {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            return Err(CliError::usage(format!(
                "this removes {what}, and there is nobody to ask"
            ))
            .with_hint("give -f to do it, or --dry-run to see what would go"));
        }
        eprint!("This removes {what}.\nAre you sure you want to continue? [y/N] ");
        match read_line(&mut io::stdin()) {
            Ok(answer) if matches!(answer.trim(), "y" | "Y" | "yes") => Ok(()),
            _ => Err(CliError::failed("nothing was removed")),
        }
    }
}

/// What is to be pruned.
#[derive(Clone, Copy, Debug, Default)]
struct Job {
    containers: bool,
    /// Also those with names?
    images: Option<bool>,
    /// Also what images were built with?
    builds: Option<bool>,
}

impl Job {
    fn run(self, cx: &Context, filters: &Filters, dry_run: bool) -> Result<ExitCode, CliError> {
        let images = cx.images()?;
        let mut gone: Vec<String> = Vec::new();
        let mut bytes = 0;
        if self.containers {
            let registry = containers::registry(cx)?;
            let removed = stopped(&registry, filters, dry_run)?;
            list(cx, "containers", removed.iter().map(|(id, _)| id), dry_run)?;
            bytes += removed.iter().map(|(_, bytes)| bytes).sum::<u64>();
            gone.extend(removed.into_iter().map(|(id, _)| id));
        }
        let left = Left::of(&images, &gone)?;
        let unused = |r: &Record| {
            self.images
                .is_some_and(|all| left.lets_go(&images, r, all, filters))
        };
        if self.images.is_some() {
            let records = images.prune(&unused, dry_run)?;
            let named = records.iter().flat_map(|r| {
                let names = r.names.iter().map(|n| format!("untagged: {}", familiar(n)));
                names.chain([format!("deleted: {}", r.id)])
            });
            list(cx, "images", named, dry_run)?;
        }
        let pruned = match self.builds {
            Some(all) => {
                let mut records = images.records()?;
                // Only in a dry run are they still listed.
                records.retain(|r| !unused(r));
                builds::prune(cx, &images, &records, all, filters, dry_run)?
            }
            None => None,
        };
        bytes += pruned.as_ref().map_or(0, Pruned::mount_bytes);
        if self.images.is_some() || self.builds.is_some() {
            let collected = try_collect_as(
                cx,
                &Collection {
                    more: left.stacks.clone(),
                    dry_run,
                    without: Some(&unused),
                    pruned: pruned.as_ref(),
                },
            )?;
            match collected {
                Some(collected) => bytes += collected.bytes,
                None => cx.out.note(
                    "the store is in use: `pellicle store gc` frees the space of images and builds later",
                ),
            }
        }
        let total = match dry_run {
            true => "Space that would be reclaimed",
            false => "Total reclaimed space",
        };
        cx.out
            .line(format_args!("{total}: {}", output::bytes(bytes)))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn list(
    cx: &Context,
    what: &str,
    lines: impl IntoIterator<Item = impl std::fmt::Display>,
    dry_run: bool,
) -> Result<(), CliError> {
    let mut lines = lines.into_iter().peekable();
    if lines.peek().is_none() {
        return Ok(());
    }
    let head = if dry_run { "Would delete" } else { "Deleted" };
    cx.out.line(format_args!("{head} {what}:"))?;
    for line in lines {
        cx.out.line(line)?;
    }
    cx.out.line("")
}

/// Removes the containers that do not run and `filters` take; their ids, and the bytes they took up.
fn stopped(
    registry: &Registry,
    filters: &Filters,
    dry_run: bool,
) -> Result<Vec<(String, u64)>, CliError> {
    let mut gone = Vec::new();
    for listed in registry.list()? {
        let Listed::Known(state) = listed else {
            continue;
        };
        let labels: HashMap<String, String> = state.settings.labels.clone().into_iter().collect();
        if state.status == Status::Running || !filters.take(Some(&state.created), &labels) {
            continue;
        }
        let bytes = usage(&registry.dir(&state.id)).1;
        if !dry_run && !remove(registry, &state)? {
            continue;
        }
        gone.push((state.id, bytes));
    }
    Ok(gone)
}

/// Removes a container, unless it was started, or removed, meanwhile.
fn remove(registry: &Registry, state: &State) -> Result<bool, CliError> {
    let Ok(held) = registry.hold(&state.id) else {
        return Ok(false);
    };
    if State::load(&held.dir).map_or(true, |now| now.status == Status::Running) {
        return Ok(false);
    }
    registry.remove(held, &state.id, Some(&state.name), None)?;
    events::note(registry.root(), &[Event::container("destroy", state)]);
    Ok(true)
}

/// What containers that stay need, and by what names images are known.
struct Left {
    stacks: Vec<Vec<Digest>>,
    used: BTreeSet<Digest>,
    pulled: BTreeSet<Digest>,
}

impl Left {
    fn of(images: &Images, gone: &[String]) -> Result<Self, CliError> {
        let mut uses = container_uses(images.store().root())?;
        uses.retain(|u| !gone.contains(&u.container));
        Ok(Self {
            used: uses.iter().map(|u| u.image).collect(),
            stacks: uses.into_iter().map(|u| u.diff_ids).collect(),
            pulled: registry::pulled_names(images.store()).into_keys().collect(),
        })
    }

    /// Whether an image may go: nobody uses it, and it has no name, or `all` may go.
    fn lets_go(&self, images: &Images, record: &Record, all: bool, filters: &Filters) -> bool {
        let named = !record.names.is_empty() || self.pulled.contains(&record.manifest);
        if self.used.contains(&record.id) || (named && !all) {
            return false;
        }
        // One that cannot be read is a case for `store verify`.
        let Ok(image) = images.open(record.clone()) else {
            return false;
        };
        let labels = image.config.config().as_ref();
        let labels = labels.and_then(|c| c.labels().clone()).unwrap_or_default();
        filters.take(image.config.created().as_deref(), &labels)
    }
}
