//! `pellicle export`: all files of a container or an image as one tar archive.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use clap::Args;
use pellicle_layer::TreeLower;
use pellicle_union::{Options, Union, Watch};

use super::{
    containers, image_arg,
    outfile::{OutFile, cancelled},
};
use crate::{
    CliError, Context,
    container::{
        ContainerError, pause,
        process::ProcessId,
        root::{self, Upper},
        state::State,
    },
    image::{ImageError, Location},
    interrupt, output,
};

/// Write all files of a container or an image as a tar archive
///
/// One flat archive: what the container sees as its root, without its volumes, or what a container of
/// the image would see at first. With owners, extended attributes, hard links and holes, and times to
/// the nanosecond (PAX). Sockets have no form in an archive and are left out. The container may be
/// running. Where a container and an image have the same name, the container is meant.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle export web >web.tar
  pellicle export -o debian.tar debian:12
  pellicle export web | tar t | less")]
pub struct ExportArgs {
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Print nothing
    #[arg(short, long)]
    pub quiet: bool,
    /// Name or id of a container or an image
    #[arg(value_name = "CONTAINER|IMAGE")]
    pub name: String,
}

/// Runs the command.
///
/// # Errors
/// If there is no such container or image, or it cannot be read or written.
pub fn run(cx: &Context, args: ExportArgs) -> Result<ExitCode, CliError> {
    let out = cx.out.quiet_if(args.quiet);
    let cancel = interrupt::cancel_on_signals()?;
    let _lock = cx.store()?.lock_shared()?;
    let union = open(cx, &args.name)?;
    let mut file = OutFile::new(args.output.as_deref(), "a tar archive")?;
    let step = out.step(format!("export {}", args.name), None);
    let watch = Watch {
        cancel,
        progress: &step,
    };
    let done = union
        .write_archive(None, &mut file, &watch)
        .map_err(cancelled)?;
    file.finish()?;
    let sockets = match done.sockets {
        0 => String::new(),
        n => format!(", {n} sockets left out"),
    };
    step.done(format_args!(
        "{} entries, {}{sockets}",
        done.entries,
        output::bytes(done.content_bytes)
    ));
    Ok(ExitCode::SUCCESS)
}

fn open(cx: &Context, name: &str) -> Result<Union, CliError> {
    let registry = containers::registry(cx)?;
    let store = cx.store()?;
    match registry.find(name) {
        Ok(id) => {
            let dir = registry.dir(&id);
            let state = State::load(&dir)?;
            if let Some(Err(error)) = state.process.as_ref().map(pause::flush) {
                tracing::debug!(%error, "mapped files of the container may not be written out");
            }
            let process = state.process.as_ref();
            let upper = match process.and_then(ProcessId::open) {
                Some(_) => Upper::Beside,
                None => Upper::Look,
            };
            Ok(root::open(store, &state, &dir, upper)?.0)
        }
        Err(ContainerError::NotFound(_) | ContainerError::Invalid { .. }) => {
            let images = cx.images()?;
            let image = match image_arg::location(&images, name)? {
                Location::File(_) => image_arg::open(cx, &images, name)?,
                Location::Name(name) => images.resolve(&name).map_err(|e| match e {
                    ImageError::NotFound(_) => {
                        CliError::failed(format!("no container and no image {name:?} in the store"))
                            .with_hint("`pellicle ps -a` and `pellicle images` list what there is")
                    }
                    other => other.into(),
                })?,
            };
            let tree = store.image_tree(&image.diff_ids)?;
            let lower = Arc::new(TreeLower::new(tree, store));
            Ok(Union::open(lower, None, Options { read_only: true })?.0)
        }
        Err(other) => Err(other.into()),
    }
}
