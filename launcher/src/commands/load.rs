//! `pellicle load`: images that other tools saved.

use std::{
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use pellicle_store::import::Progress;

use crate::{
    CliError, Context,
    commands::{image_arg, import::image_name},
    image::{
        Location, Pick, Platform, Reference,
        load::{self, From, LoadOptions},
    },
    interrupt,
};

/// Load images from an OCI layout or a docker-archive
///
/// Reads what `docker save`, `podman save`, `skopeo copy`, `buildah push` and `umoci` write: an OCI
/// image layout (directory or archive), a docker-archive, plain or compressed, or a directory that skopeo and
/// podman call dir: or docker-dir (which has no name in it). Every digest is checked. All images of the source are loaded, or none.
///
/// Where a layout gives an image only a tag, its name is made of the file's or directory's.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  docker save debian:12 | pellicle load
  pellicle load -i debian.tar
  skopeo copy docker://debian:12 oci:debian:12 && pellicle load -i debian")]
pub struct LoadArgs {
    /// OCI layout (directory or archive) or docker-archive, also as oci:DIR:TAG, oci-archive:FILE:TAG or docker-archive:FILE:NAME for one image of it [default: standard input]
    #[arg(short, long, value_name = "FILE|DIR")]
    pub input: Option<PathBuf>,
    /// Name for the image, if the source holds one, instead of the names it has there
    #[arg(long, value_name = "NAME[:TAG]")]
    pub name: Option<String>,
    /// The machine to choose images for, where there is a choice [default: this one]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
    /// Print nothing but the names
    #[arg(short, long)]
    pub quiet: bool,
}

/// Runs the command.
///
/// # Errors
/// What the command could not do; then no image was loaded.
pub fn run(cx: &Context, args: LoadArgs) -> Result<ExitCode, CliError> {
    let out = cx.out.quiet_if(args.quiet);
    let name = args.name.as_deref().map(image_name).transpose()?;
    let given = args.input.as_deref().filter(|p| !p.exists());
    let located = match given
        .and_then(Path::to_str)
        .map(Location::parse)
        .transpose()?
    {
        Some(Location::File(at)) => Some(at),
        _ => None,
    };
    let pick = located.as_ref().and_then(|at| match &at.pick {
        Pick::Only => None,
        pick => Some(pick.clone()),
    });
    let input = located.as_ref().map(|at| at.path.as_path());
    let from = match input.or(args.input.as_deref()) {
        Some(path) if path != Path::new("-") => From::Path(path),
        _ if io::stdin().is_terminal() => {
            return Err(
                CliError::usage("standard input is a terminal, not an archive").with_hint(
                    "give a file with -i FILE, or redirect: docker save NAME | pellicle load",
                ),
            );
        }
        _ => From::Stdin,
    };
    if let From::Path(path) = from {
        std::fs::metadata(path)
            .map_err(|e| CliError::failed(format!("cannot read {}", path.display())).because(e))?;
    }
    let images = cx.images()?;
    let options = LoadOptions {
        platform: args.platform.unwrap_or_else(Platform::host),
        name,
        pick,
        cancel: interrupt::cancel_on_signals()?,
    };
    let lock = images.store().lock_shared()?;
    let progress = |what: &str, size: u64| -> Box<dyn Progress> {
        Box::new(out.step(format!("layer {what}"), Some(size)))
    };
    let loaded = load::load(&images, &from, &options, &progress).map_err(|e| {
        drop(lock);
        image_arg::failed(cx, e)
    })?;
    for image in &loaded {
        for name in &image.names {
            cx.out
                .line(format_args!("Loaded image: {}", Reference::familiar(name)))?;
        }
        if image.names.is_empty() {
            cx.out.line(format_args!("Loaded image ID: {}", image.id))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
