//! `pellicle manifest`: manifests at registries.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use serde_json::json;

use super::registry_args::{TransferArgs, clearly};
use crate::{
    CliError, Context,
    image::{Location, Reference, load},
    interrupt,
    registry::Client,
};

/// Look at manifests of a registry or a layout
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle manifest inspect debian:12")]
pub struct ManifestArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: ManifestAction,
}

/// What to do with a manifest.
#[derive(Subcommand, Debug)]
pub enum ManifestAction {
    /// Print a manifest, or the list of an image's platforms, as the registry has it
    Inspect(InspectArgs),
}

/// Print a manifest, or the list of an image's platforms, as the registry has it
///
/// Nothing is put into the store.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle manifest inspect debian:12
  pellicle manifest inspect oci:DIR:TAG
  pellicle manifest inspect --tls-verify=false registry.lan:5000/app | jq .layers")]
pub struct InspectArgs {
    /// Name of the image, also docker://NAME, oci:DIR:TAG or oci-archive:FILE:TAG
    #[arg(value_name = "NAME[:TAG][@DIGEST]")]
    pub name: String,
    /// What refers to it instead: signatures, lists of contents, attestations
    #[arg(long)]
    pub referrers: bool,
    /// How the registry is reached.
    #[command(flatten)]
    pub transfer: TransferArgs,
}

/// Runs the command.
///
/// # Errors
/// If the registry has no such manifest.
pub fn run(cx: &Context, args: ManifestArgs) -> Result<ExitCode, CliError> {
    let ManifestAction::Inspect(args) = args.action;
    let bytes = match Location::parse(&args.name)? {
        Location::File(_) if args.referrers => {
            return Err(CliError::usage("--referrers is for registries"));
        }
        Location::File(at) => {
            let cancel = interrupt::cancel_on_signals()?;
            // A compressed archive is unpacked there; no store is needed.
            load::document(&at, &std::env::temp_dir(), &cancel)?
        }
        Location::Name(name) => at_registry(&args, &name)?,
    };
    // Indented, but otherwise as it is.
    let text = match serde_json::from_slice::<serde_json::Value>(&bytes) {
        Ok(value) => format!("{value:#}"),
        Err(e) => {
            let what = format!("the manifest of {} is no JSON", args.name);
            return Err(CliError::failed(what).because(e));
        }
    };
    cx.out.line(text)?;
    Ok(ExitCode::SUCCESS)
}

fn at_registry(args: &InspectArgs, name: &str) -> Result<Vec<u8>, CliError> {
    let reference: Reference = name.parse()?;
    let access = args.transfer.access(interrupt::cancel_on_signals()?)?;
    let which = match reference.digest() {
        Some(digest) => digest.to_string(),
        None => reference.tag().unwrap_or("latest").to_owned(),
    };
    let place = access.registries.home(&reference, access.tls_verify);
    let client = place
        .and_then(|place| Client::connect(&access, place))
        .map_err(clearly)?;
    let document = client.manifest(&which).map_err(clearly)?;
    if !args.referrers {
        return Ok(document.bytes);
    }
    let referrers = client.referrers(&document.digest).map_err(clearly)?;
    Ok(serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": referrers,
    }))?)
}
