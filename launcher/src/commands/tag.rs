//! `pellicle tag`: one more name for an image.

use std::process::ExitCode;

use clap::Args;

use crate::{CliError, Context, commands::import::image_name};

/// Give an image another name
///
/// If another image has that name, it loses it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle tag debian:12 registry.example.com/base/debian:12
  pellicle tag 3f2a9c debian:newest")]
pub struct TagArgs {
    /// Name or id of an image
    pub image: String,
    /// The new name
    #[arg(value_name = "NAME[:TAG]")]
    pub name: String,
}

/// Runs the command.
///
/// # Errors
/// If there is no such image, or the name is none.
pub fn run(cx: &Context, args: TagArgs) -> Result<ExitCode, CliError> {
    let name = image_name(&args.name)?;
    cx.images()?.tag(&args.image, &name)?;
    Ok(ExitCode::SUCCESS)
}
