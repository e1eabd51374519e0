//! `pellicle import`: a tar archive or a directory becomes an image.

use std::{
    fs::File,
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, ValueEnum};
use pellicle_store::import::{self, ImportError, ImportOptions, ImportedLayer, Owners};

use crate::{
    CliError, Context,
    commands::{collect::tidy_after_failure, commit::not_a_change},
    events::{self, Event},
    image::{Description, Platform, Reference, Settings},
    interrupt,
};

/// Make an image of a tar archive or a directory
///
/// SOURCE is a tar archive (plain, or compressed with gzip or zstd, which is found out by looking), a
/// directory, or - for an archive on standard input. Each --layer adds one more layer on top of it,
/// in the order given; `.wh.` names in it hide what is below, as in any OCI layer.
///
/// Without a CMD or ENTRYPOINT among the changes, the image gets CMD ["/bin/sh"], so that `pellicle
/// run -it NAME` starts a shell. Files of a directory keep their owners when root imports them, and
/// become root's when another user does (--owners says otherwise).
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle import rootfs.tar.gz debian:12
  pellicle import -c 'CMD [\"python3\"]' -c 'ENV LANG=C.UTF-8' ./rootfs python:3
  pellicle import base.tar app:1 --layer app.tar.zst --layer ./config
  debootstrap-to-stdout | pellicle import - debian:13")]
pub struct ImportArgs {
    /// Tar archive, directory, or - for standard input
    pub source: PathBuf,
    /// Name of the image; without one it can be used by the id that is printed
    #[arg(value_name = "NAME[:TAG]")]
    pub name: Option<String>,
    /// One more layer, archive or directory, on top
    #[arg(long, value_name = "FILE|DIR")]
    pub layer: Vec<PathBuf>,
    /// A setting of the image, as a line of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME or WORKDIR
    #[arg(short, long, value_name = "LINE")]
    pub change: Vec<String>,
    /// A remark in the image's history
    #[arg(short, long, value_name = "TEXT")]
    pub message: Option<String>,
    /// The machine that the image is for [default: this one]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
    /// Owners of the files of a directory [default: keep for root, root for others]
    #[arg(long, value_enum)]
    pub owners: Option<OwnersArg>,
    /// Print nothing but the image's id
    #[arg(short, long)]
    pub quiet: bool,
}

/// Owners of imported directories.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum OwnersArg {
    /// As on the host
    Keep,
    /// Everything is root's
    Root,
}

/// Runs the command.
///
/// # Errors
/// What the command could not do; then no image is made.
pub fn run(cx: &Context, args: ImportArgs) -> Result<ExitCode, CliError> {
    let out = cx.out.quiet_if(args.quiet);
    // Everything that can be refused without reading the source is refused first.
    let names: Vec<Reference> = args
        .name
        .iter()
        .map(|n| image_name(n))
        .collect::<Result<_, _>>()?;
    let settings = settings(&args.change)?;
    let sources: Vec<&Path> = std::iter::once(&args.source)
        .chain(&args.layer)
        .map(PathBuf::as_path)
        .collect();
    check_sources(&sources)?;
    let images = cx.images()?;
    let cancel = interrupt::cancel_on_signals()?;
    let lock = images.store().lock_shared()?;
    let options = ImportOptions {
        cancel,
        owners: owners(args.owners),
        ..ImportOptions::default()
    };

    let mut layers: Vec<ImportedLayer> = Vec::new();
    for source in &sources {
        match import_one(&images, source, &options, &out) {
            Ok(layer) => layers.push(layer),
            Err(error) => {
                drop(lock);
                tidy_after_failure(cx, !layers.is_empty());
                return Err(error);
            }
        }
    }
    let now = jiff::Timestamp::now().to_string();
    let created_by: Vec<String> = sources
        .iter()
        .map(|s| format!("pellicle import {}", s.display()))
        .collect();
    let image = images.describe(
        &Description {
            created: &now,
            architecture: &args.platform.unwrap_or_else(Platform::host).architecture,
            settings: &settings,
            created_by: &created_by,
            comment: args.message.as_deref(),
        },
        &layers,
        names,
    )?;
    // Flattened now, so that the first container starts as fast as the next.
    let stack: Vec<_> = layers.iter().map(|l| l.diff_id).collect();
    images.store().image_tree(&stack)?;
    let id = image.id;
    let name = image.names.first().and_then(Reference::tagged);
    images.add(image)?;
    let event = Event::image("import", &id, name.as_deref());
    events::note(images.store().root(), &[event]);
    cx.out.line(id)?;
    Ok(ExitCode::SUCCESS)
}

/// A name for a new image: a tag, but no digest, which only the image itself has.
pub(super) fn image_name(text: &str) -> Result<Reference, CliError> {
    let reference: Reference = text.parse()?;
    if reference.digest().is_some() {
        return Err(CliError::usage(format!(
            "{text:?} has a digest, which cannot be given to an image"
        ))
        .with_hint("leave out the part from @ on"));
    }
    Ok(reference)
}

fn settings(changes: &[String]) -> Result<Settings, CliError> {
    let mut settings = Settings::default();
    for change in changes {
        settings.apply(change).map_err(not_a_change)?;
    }
    if settings.cmd.is_none() && settings.entrypoint.is_none() {
        settings.cmd = Some(vec!["/bin/sh".to_owned()]);
    }
    Ok(settings)
}

fn owners(given: Option<OwnersArg>) -> Owners {
    let root = Owners::All { uid: 0, gid: 0 };
    match given {
        Some(OwnersArg::Keep) => Owners::Keep,
        Some(OwnersArg::Root) => root,
        None if rustix::process::geteuid().is_root() => Owners::Keep,
        None => root,
    }
}

fn check_sources(sources: &[&Path]) -> Result<(), CliError> {
    let stdin = sources.iter().filter(|s| is_stdin(s)).count();
    if stdin > 1 {
        return Err(CliError::usage(
            "standard input can be only one of the sources",
        ));
    }
    if stdin == 1 && io::stdin().is_terminal() {
        return Err(
            CliError::usage("standard input is a terminal, not a tar archive")
                .with_hint("redirect it: pellicle import - NAME <rootfs.tar"),
        );
    }
    for source in sources.iter().filter(|s| !is_stdin(s)) {
        std::fs::metadata(source).map_err(|e| {
            CliError::failed(format!("cannot read {}", source.display())).because(e)
        })?;
    }
    Ok(())
}

fn is_stdin(source: &Path) -> bool {
    source == Path::new("-")
}

fn import_one(
    images: &crate::image::Images,
    source: &Path,
    options: &ImportOptions,
    out: &crate::Output,
) -> Result<ImportedLayer, CliError> {
    let store = images.store();
    let named = |name: String| ImportOptions {
        name,
        ..options.clone()
    };
    let (layer, step) = if is_stdin(source) {
        let step = out.step("standard input", None);
        let options = named("standard input".to_owned());
        (
            import::import_layer(store, io::stdin(), &options, &step),
            step,
        )
    } else if source.is_dir() {
        let step = out.step(source.display().to_string(), None);
        let options = named(source.display().to_string());
        (
            import::import_directory(store, source, &options, &step),
            step,
        )
    } else {
        let file = File::open(source).map_err(|e| {
            CliError::failed(format!("cannot open {}", source.display())).because(e)
        })?;
        let size = file
            .metadata()
            .ok()
            .filter(std::fs::Metadata::is_file)
            .map(|m| m.len());
        let step = out.step(source.display().to_string(), size);
        let options = named(source.display().to_string());
        (import::import_layer(store, file, &options, &step), step)
    };
    let layer = layer.map_err(cancelled)?;
    let there = if layer.already_there {
        ", already in the store"
    } else {
        ""
    };
    step.done(format!(
        "{} entries, {}{there}",
        layer.entries,
        crate::output::bytes(layer.content_bytes)
    ));
    Ok(layer)
}

/// An interrupted import exits as the signal would have ended it: 128 + SIGINT.
pub(super) fn cancelled(error: ImportError) -> CliError {
    let code = matches!(error, ImportError::Cancelled).then_some(130);
    let error = CliError::from(error);
    match code {
        Some(code) => error.with_code(code),
        None => error,
    }
}
