//! `pellicle save`: images for other programs.

use std::{fs, path::PathBuf, process::ExitCode};

use clap::Args;
use pellicle_union::Watch;

use super::{
    image_arg,
    outfile::{OutFile, cancelled},
};
use crate::{
    CliError, Context,
    events::{self, Event},
    image::{
        Image, Images, Reference,
        save::{SaveError, SaveFormat, Saved, save_archive, save_directory, save_docker_directory},
    },
    interrupt,
};

/// Save images for other programs
///
/// Writes an archive that `docker load`, `podman load`, `skopeo`, `umoci` and `pellicle load` read, with
/// all layers of all images, each once. An image that is named by its id has no name in it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle save debian:12 | docker load
  pellicle save -o images.tar web:1 worker:1
  pellicle save --format oci-archive -o web.oci.tar web:1
  pellicle save --format docker-dir -o web web:1 && skopeo inspect dir:web
  pellicle save --format oci-dir -o web web:1 && skopeo copy oci:web docker://registry/web:1")]
pub struct SaveArgs {
    /// Write to a file (or directory) instead of standard output
    #[arg(short, long, value_name = "FILE|DIR")]
    pub output: Option<PathBuf>,
    /// What to make
    #[arg(long, value_enum, default_value_t)]
    pub format: SaveFormat,
    /// Print nothing
    #[arg(short, long)]
    pub quiet: bool,
    /// Accepted for podman's sake: several images go into one archive anyway
    #[arg(short, long, hide = true)]
    pub multi_image_archive: bool,
    /// Names or ids of images
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// If there is no such image, it is damaged, or it cannot be written; then nothing is left.
pub fn run(cx: &Context, args: SaveArgs) -> Result<ExitCode, CliError> {
    let out = cx.out.quiet_if(args.quiet);
    let images = cx.images()?;
    let cancel = interrupt::cancel_on_signals()?;
    let saved = chosen(cx, &images, &args.images)?;
    let _lock = images.store().lock_shared()?;
    let step = out.step("save", None);
    let watch = Watch {
        cancel,
        progress: &step,
    };
    if matches!(args.format, SaveFormat::OciDir | SaveFormat::DockerDir) {
        save_as_directory(&images, &saved, &args, &watch)?;
    } else {
        let mut file = OutFile::new(args.output.as_deref(), "an archive of images")?;
        save_archive(&images, &saved, args.format, &mut file, &watch).map_err(clearly)?;
        file.finish()?;
    }
    let event =
        |one: &Saved| Event::image("save", &one.image.id, one.names.first().map(String::as_str));
    let all: Vec<Event> = saved.iter().map(event).collect();
    events::note(images.store().root(), &all);
    let bytes = crate::output::bytes(step.bytes());
    step.done(format_args!("{} images, {bytes} of layers", saved.len()));
    Ok(ExitCode::SUCCESS)
}

fn clearly(error: SaveError) -> CliError {
    match error {
        SaveError::Layer(error) => cancelled(error),
        other => other.into(),
    }
}

/// A directory beside the one that is wanted, which gets its name when it is whole.
fn save_as_directory(
    images: &Images,
    saved: &[Saved],
    args: &SaveArgs,
    watch: &Watch<'_>,
) -> Result<(), CliError> {
    let Some(to) = &args.output else {
        return Err(
            CliError::usage("a directory cannot be written to standard output")
                .with_hint("give its name with -o DIR"),
        );
    };
    let one = match (args.format, saved) {
        (SaveFormat::DockerDir, [one]) => Some(one),
        (SaveFormat::DockerDir, _) => {
            return Err(CliError::usage("a docker-dir holds one image")
                .with_hint("save each into a directory of its own, or use --format oci-dir"));
        }
        _ => None,
    };
    let fail = |e| CliError::failed(format!("cannot make {}", to.display())).because(e);
    // An empty directory is taken the place of, as rename(2) does.
    if fs::symlink_metadata(to).is_ok_and(|m| !m.is_dir())
        || fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_some())
    {
        return Err(
            CliError::usage(format!("{} is there already", to.display()))
                .with_hint("give the name of a directory that is not there, or empty"),
        );
    }
    let parent = to.parent().filter(|p| !p.as_os_str().is_empty());
    let made = tempfile::Builder::new()
        .prefix(".pellicle-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777))
        .tempdir_in(parent.unwrap_or(std::path::Path::new(".")))
        .map_err(fail)?;
    match one {
        Some(one) => save_docker_directory(images, &one.image, made.path(), watch),
        None => save_directory(images, saved, made.path(), watch),
    }
    .map_err(clearly)?;
    fs::rename(made.path(), to).map_err(fail)?;
    // There is nothing left under the old name.
    let _ = made.keep();
    Ok(())
}

/// The images and the names they are saved under, each image once.
fn chosen(cx: &Context, images: &Images, names: &[String]) -> Result<Vec<Saved>, CliError> {
    let mut saved: Vec<Saved> = Vec::new();
    for text in names {
        let image = image_arg::open(cx, images, text)?;
        let name = name_of(&image, text);
        match saved
            .iter_mut()
            .find(|s| s.image.manifest == image.manifest)
        {
            Some(known) => known
                .names
                .extend(name.filter(|n| !known.names.contains(n))),
            None => saved.push(Saved {
                image,
                names: name.into_iter().collect(),
            }),
        }
    }
    Ok(saved)
}

/// The full name that `text` is for `image`, if it is one and not the start of an id.
fn name_of(image: &Image, text: &str) -> Option<String> {
    let reference: Reference = text.parse().ok()?;
    let local = reference.at_localhost().and_then(|r| r.tagged());
    let names = [reference.tagged(), local];
    names
        .into_iter()
        .flatten()
        .find(|n| image.names.contains(n))
}
