//! `pellicle pull`: images from registries.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::registry_args::{Bars, TransferArgs, clearly};
use crate::{
    CliError, Context,
    image::{Platform, Reference},
    interrupt,
    registry::pull::{Pulled, pull},
};

/// Pull images from a registry
///
/// Layers arrive several at once and are unpacked on the way; one that is in the store is not fetched.
/// After a cut a layer goes on where it was. An image is listed when all of it is there and every digest
/// is right; after an interruption the same command goes on with the layers that are missing.
///
/// A name without a registry is one of docker.io: `debian` is docker.io/library/debian:latest.
/// registries.conf is followed (locations, mirrors, insecure registries), and so are HTTPS_PROXY,
/// HTTP_PROXY and NO_PROXY. A registry on this machine may speak plain HTTP.
/// PELLICLE_REGISTRY_TIMEOUT says how many seconds nothing may come before a connection counts as dead
/// (60).
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle pull debian:12
  pellicle pull --platform linux/arm64 quay.io/user/tool:1.0
  pellicle pull --tls-verify=false registry.lan:5000/app
  pellicle pull --format json -q debian@sha256:<64 digits>")]
pub struct PullArgs {
    /// The machine to choose an image for, where there is a choice [default: this one]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
    /// Print nothing but the images' ids
    #[arg(short, long)]
    pub quiet: bool,
    /// How to print what was pulled
    #[arg(long, value_enum, default_value_t)]
    pub format: PullFormat,
    /// Names of images, also as docker://NAME
    #[arg(required = true, value_name = "NAME[:TAG][@DIGEST]")]
    pub names: Vec<String>,
    /// How registries are reached.
    #[command(flatten)]
    pub transfer: TransferArgs,
}

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PullFormat {
    /// One id a line
    #[default]
    Id,
    /// One JSON object a line: the image and its layers
    Json,
}

/// Runs the command.
///
/// # Errors
/// The first image that could not be pulled; those before it are there.
pub fn run(cx: &Context, args: PullArgs) -> Result<ExitCode, CliError> {
    let out = cx.out.quiet_if(args.quiet);
    let references = args.names.iter().map(|n| reference(n));
    let references = references.collect::<Result<Vec<_>, _>>()?;
    let images = cx.images()?;
    let access = args.transfer.access(interrupt::cancel_on_signals()?)?;
    let platform = args.platform.unwrap_or_else(Platform::host);
    let show = Bars::new(out);
    for reference in &references {
        let pulled = pull(&images, &access, reference, &platform, &show)
            .map_err(|e| clearly(e).context(format!("cannot pull {}", reference.familiar())))?;
        match args.format {
            PullFormat::Id => cx.out.line(pulled.image.id)?,
            PullFormat::Json => cx.out.line(told(reference, &pulled))?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A name as it is given to registries' commands.
pub(super) fn reference(text: &str) -> Result<Reference, CliError> {
    Ok(text.strip_prefix("docker://").unwrap_or(text).parse()?)
}

fn told(reference: &Reference, pulled: &Pulled) -> serde_json::Value {
    let layers = pulled.layers.iter().map(|layer| {
        json!({
            "Digest": layer.blob.to_string(),
            "Size": layer.size,
            "Fetched": layer.fetched,
        })
    });
    json!({
        "Name": reference.to_string(),
        "Id": pulled.image.id.to_string(),
        "Digest": pulled.digest.to_string(),
        "Manifest": pulled.image.manifest.to_string(),
        "Size": pulled.image.size,
        "Layers": layers.collect::<Vec<_>>(),
    })
}
