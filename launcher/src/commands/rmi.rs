//! `pellicle rmi`: names and images go.

use std::process::ExitCode;

use clap::Args;

use crate::{
    CliError, Context,
    commands::collect::try_collect,
    image::{ImageError, container_uses, familiar},
};

/// Remove images
///
/// A name is taken away, and with its last name the image goes, together with the layers that nothing
/// else uses. While containers run or something is mounted the layers stay, and go with the next
/// `pellicle store gc`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle rmi debian:12
  pellicle rmi -f 3f2a9c          by id, with all its names, even if containers use it")]
pub struct RmiArgs {
    /// Names or ids of images
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
    /// Also if the image has several names or containers use it (they keep what they need)
    #[arg(short, long)]
    pub force: bool,
    /// Leave the layers in the store, for a later `pellicle store gc`
    #[arg(long)]
    pub no_prune: bool,
}

/// Runs the command.
///
/// # Errors
/// The first image that could not be removed; the others are.
pub fn run(cx: &Context, args: RmiArgs) -> Result<ExitCode, CliError> {
    let images = cx.images()?;
    let uses = container_uses(images.store().root())?;
    let mut failed: Option<CliError> = None;
    let mut deleted = false;
    for name in &args.images {
        let users = |id: &pellicle_store::Digest| {
            uses.iter()
                .filter(|u| u.image == *id)
                .map(|u| u.container.chars().take(12).collect())
                .collect()
        };
        match images.remove(name, args.force, &users) {
            Ok(removed) => {
                for name in &removed.untagged {
                    cx.out.line(format_args!("Untagged: {}", familiar(name)))?;
                }
                if let Some(id) = removed.deleted {
                    cx.out.line(format_args!("Deleted: {id}"))?;
                    deleted = true;
                }
            }
            // As docker: what is forced away may be gone already.
            Err(ImageError::NotFound(_)) if args.force => {}
            Err(e) => match &failed {
                None => failed = Some(e.into()),
                Some(_) => CliError::from(e).print(&cx.out),
            },
        }
    }
    if deleted && !args.no_prune {
        match try_collect(cx, false) {
            Ok(Some(_)) => {}
            Ok(None) => cx
                .out
                .note("the store is in use: `pellicle store gc` frees the space later"),
            // Another image that is damaged, as a rule: what that needs is not known.
            Err(error) => {
                tracing::info!("could not collect: {error:?}");
                cx.out.warn(
                    "it is off the list, but its space could not be freed; `pellicle store gc` \
                     tells why, and does it once nothing is damaged",
                );
            }
        }
    }
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}
