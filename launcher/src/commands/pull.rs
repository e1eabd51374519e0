//! `pellicle pull`: images from registries.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{
    image_arg,
    registry_args::{Bars, TransferArgs, clearly},
};
use crate::{
    CliError, Context,
    image::{FileLocation, Images, Location, NewImage, Platform, Reference},
    interrupt,
    registry::{
        Access, Carried,
        pull::{Pulled, Wanted, meant, pull_named, tags},
    },
};

/// Pull images from a registry, a layout or an archive
///
/// Layers arrive several at once and are unpacked on the way; one that is in the store is not fetched.
/// After a cut a layer goes on where it was. An image is listed when all of it is there and every digest
/// is right; after an interruption the same command goes on with the layers that are missing.
///
/// A name without a registry is one of docker.io: `debian` is docker.io/library/debian:latest.
/// registries.conf is followed (locations, mirrors, insecure registries, short names), and so are HTTPS_PROXY,
/// HTTP_PROXY and NO_PROXY. Where it has several registries for short names, a person at a terminal is asked
/// which is meant, and the answer is noted in ~/.cache/containers/short-name-aliases.conf, as podman does it;
/// short-name-mode says what happens without a terminal. A registry on this machine may speak plain HTTP.
/// PELLICLE_REGISTRY_TIMEOUT says how many seconds nothing may come before a connection counts as dead
/// (60).
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle pull debian:12
  pellicle pull --platform linux/arm64 quay.io/user/tool:1.0
  pellicle pull --tls-verify=false registry.lan:5000/app
  pellicle pull oci:DIR:TAG docker-archive:saved.tar
  pellicle pull --format json -q debian@sha256:<64 digits>")]
pub struct PullArgs {
    /// The machine to choose an image for, where there is a choice [default: this one]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
    /// All tags of the repositories
    #[arg(short, long)]
    pub all_tags: bool,
    /// Also what refers to the images: signatures, lists of contents, attestations
    #[arg(long, visible_alias = "all")]
    pub referrers: bool,
    /// Print nothing but the images' ids
    #[arg(short, long)]
    pub quiet: bool,
    /// How to print what was pulled
    #[arg(long, value_enum, default_value_t)]
    pub format: PullFormat,
    /// Names of images, also docker://NAME, oci:DIR:TAG, oci-archive:FILE:TAG or docker-archive:FILE:NAME
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
    let froms = args.names.iter().map(|n| From::parse(n));
    let froms = froms.collect::<Result<Vec<_>, _>>()?;
    let images = cx.images()?;
    let access = args.transfer.access(interrupt::cancel_on_signals()?)?;
    let platform = args.platform.unwrap_or_else(Platform::host);
    let show = Bars::new(out);
    let wanted = Wanted {
        platform: &platform,
        referrers: args.referrers,
    };
    let froms = match args.all_tags {
        true => all_tags(&access, froms, &show)?,
        false => froms,
    };
    for from in &froms {
        let (id, told) = match from {
            From::Registry(name) => {
                let (reference, pulled) = pull_named(&images, &access, name, &wanted, &show)
                    .map_err(|e| clearly(e).context(format!("cannot pull {name}")))?;
                (pulled.image.id, told(&reference, &pulled))
            }
            From::File(at) => {
                let options = image_arg::Options {
                    named: true,
                    platform: platform.clone(),
                    shown: !args.quiet,
                    cancel: access.cancel.clone(),
                };
                let read = image_arg::read(cx, &images, at, options)
                    .map_err(|e| e.context(format!("cannot pull {at}")))?;
                (read.id, told_of_file(&images, at, &read)?)
            }
        };
        match args.format {
            PullFormat::Id => cx.out.line(id)?,
            PullFormat::Json => cx.out.line(told)?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Where an image is pulled from.
enum From {
    Registry(String),
    File(FileLocation),
}

impl From {
    fn parse(text: &str) -> Result<Self, CliError> {
        Ok(match Location::parse(text)? {
            Location::Name(name) => {
                // What is no name is refused before anything is pulled.
                name.parse::<Reference>()?;
                Self::Registry(name)
            }
            Location::File(at) => Self::File(at),
        })
    }
}

/// A name for each tag of the repositories.
fn all_tags(access: &Access, froms: Vec<From>, show: &Bars) -> Result<Vec<From>, CliError> {
    let mut all = Vec::new();
    for from in froms {
        let From::Registry(name) = from else {
            return Err(CliError::usage("--all-tags is for registries"));
        };
        let bad = |e| clearly(e).context(format!("cannot list the tags of {name}"));
        let meant = meant(access, &name, show).map_err(bad)?;
        let Some(reference) = meant.all.first() else {
            continue;
        };
        if name.contains('@') || reference.tag() != Some("latest") || name.ends_with(":latest") {
            return Err(
                CliError::usage(format!("{name} is one tag, and --all-tags wants all")).with_hint(
                    format!("give the name alone: {}", reference.familiar_repository()),
                ),
            );
        }
        for tag in tags(access, reference).map_err(bad)? {
            let named = format!("{}:{tag}", reference.repository());
            // It is put together of what the registry says.
            named.parse::<Reference>()?;
            all.push(From::Registry(named));
        }
        meant.note().map_err(bad)?;
    }
    Ok(all)
}

/// What came or went along, as JSON has it.
pub(super) fn carried(one: &Carried) -> serde_json::Value {
    json!({
        "Digest": one.digest.to_string(),
        "Subject": one.subject.to_string(),
        "ArtifactType": one.artifact_type,
    })
}

fn told_of_file(
    images: &Images,
    at: &FileLocation,
    read: &NewImage,
) -> Result<serde_json::Value, CliError> {
    let manifest = images.manifest(&read.manifest)?;
    let layers = manifest
        .layers()
        .iter()
        .map(|l| json!({"Digest": l.digest().to_string(), "Size": l.size()}));
    Ok(json!({
        "Name": at.to_string(),
        "Id": read.id.to_string(),
        "Digest": read.manifest.to_string(),
        "Manifest": read.manifest.to_string(),
        "Size": read.size,
        "Layers": layers.collect::<Vec<_>>(),
    }))
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
        "Referrers": pulled.referrers.iter().map(carried).collect::<Vec<_>>(),
    })
}
