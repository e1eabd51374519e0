//! `pellicle push`: images to registries.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{
    image_arg,
    import::image_name,
    pull::carried,
    push_file,
    registry_args::{Bars, TransferArgs, clearly},
};
use crate::{
    CliError, Context,
    events::{self, Event},
    image::{FileKind, FileLocation, Location, Reference},
    interrupt,
    registry::{
        Compression, CompressionFormat, How, ManifestFormat,
        layout::Ship,
        push::{PushOptions, Pushed, push},
    },
};

/// Push an image to a registry, a layout or an archive
///
/// A blob that the repository has is not sent; one that another repository of the registry is known to
/// have is taken over there. Layers go as they came, so that an unchanged image keeps its digest; those
/// that were made here, or imported uncompressed, are compressed on the way. Prints the digest of the
/// manifest.
///
/// oci:DIR:TAG adds it to an OCI layout, which is made if it is not there; oci-archive:FILE:TAG and
/// docker-archive:FILE:NAME make an archive.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle push quay.io/user/tool:1.0
  pellicle push tool:1.0 oci:DIR:1.0              for skopeo, umoci and others
  pellicle push tool:1.0 registry.lan:5000/tool:1.0
  pellicle push --format v2s2 tool registry.lan:5000/tool    for what reads docker's manifests alone
  pellicle push --compression-format zstd --digestfile digest tool docker://localhost:5000/tool")]
pub struct PushArgs {
    /// How to compress layers that are not compressed
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub compression_format: CompressionFormat,
    /// How hard to try: 0 to 9 for gzip [default: 6], 1 to 22 for zstd [default: 3]
    #[arg(long, value_name = "LEVEL")]
    pub compression_level: Option<u32>,
    /// Also push what refers to the image and is in the store (`pull --referrers`): signatures, lists of contents
    #[arg(long, visible_alias = "all")]
    pub referrers: bool,
    /// Also write the digest to a file
    #[arg(long, value_name = "FILE")]
    pub digestfile: Option<PathBuf>,
    /// Print nothing but the digest
    #[arg(short, long)]
    pub quiet: bool,
    /// What the manifest is written as (oci, v2s2), if not as it is; or how to print what was pushed (id, json).
    /// May be given for both
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub format: Vec<PushFormat>,
    /// Name or id of the image
    pub image: String,
    /// Where to push it, if not under its own name: [docker://]NAME, oci:DIR:TAG, oci-archive:FILE:TAG or docker-archive:FILE:NAME
    #[arg(value_name = "DESTINATION")]
    pub destination: Option<String>,
    /// How the registry is reached.
    #[command(flatten)]
    pub transfer: TransferArgs,
}

/// What `--format` takes: podman's forms of manifests, and how to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PushFormat {
    /// Print the digest (the default)
    Id,
    /// Print one JSON object: the image and its blobs
    Json,
    /// A manifest of OCI's form
    Oci,
    /// A manifest of docker's form (version 2, schema 2)
    #[value(alias = "docker")]
    V2s2,
}

impl PushArgs {
    /// What the manifest is to be, if that was said.
    fn manifest(&self) -> Option<ManifestFormat> {
        self.format.iter().rev().find_map(|format| match format {
            PushFormat::Oci => Some(ManifestFormat::Oci),
            PushFormat::V2s2 => Some(ManifestFormat::V2s2),
            PushFormat::Id | PushFormat::Json => None,
        })
    }

    fn as_json(&self) -> bool {
        let printed = |f: &&PushFormat| matches!(f, PushFormat::Id | PushFormat::Json);
        self.format.iter().rfind(printed) == Some(&PushFormat::Json)
    }
}

const NAME_IT: &str = "give the destination, too: pellicle push IMAGE REGISTRY/NAME:TAG";

/// Runs the command.
///
/// # Errors
/// If there is no such image, or it cannot be pushed; then the registry's tag is as it was.
pub fn run(cx: &Context, args: PushArgs) -> Result<ExitCode, CliError> {
    let out = cx.out.quiet_if(args.quiet);
    let compression = Compression {
        format: args.compression_format,
        level: args.compression_level,
    };
    compression.check().map_err(CliError::usage)?;
    let images = cx.images()?;
    let to = match &args.destination {
        Some(text) => match Location::parse(text)? {
            Location::Name(name) => To::Registry(image_name(&name)?),
            Location::File(at) => To::File(at),
        },
        None => match image_arg::location(&images, &args.image)? {
            Location::Name(name) => To::Registry(own_name(&name)?),
            Location::File(_) => {
                return Err(CliError::usage("no destination given").with_hint(NAME_IT));
            }
        },
    };
    if args.referrers && matches!(to, To::File(_)) {
        return Err(CliError::usage("--referrers is for registries")
            .with_hint("`skopeo copy` or `oras copy` carry them from a registry into a layout"));
    }
    let format = args.manifest();
    check_format(&to, format, args.compression_format)?;
    let image = image_arg::open(cx, &images, &args.image)?;
    let access = args.transfer.access(interrupt::cancel_on_signals()?)?;
    let show = Bars::new(out);
    let pushed = match &to {
        To::Registry(to) => push(
            &images,
            &access,
            &image,
            to,
            PushOptions {
                compression,
                format,
                referrers: args.referrers,
            },
            &show,
        )
        .map_err(|e| clearly(e).context(format!("cannot push {}", to.familiar())))?,
        To::File(at) => push_file::push(
            &images,
            &image,
            at,
            &Ship {
                compression,
                format,
                tag: None,
                cancel: &access.cancel,
                show: &show,
            },
        )
        .map_err(|e| e.context(format!("cannot push {at}")))?,
    };
    if let To::File(at) = &to {
        let event = Event::image("push", &image.id, Some(&at.to_string()));
        events::note(images.store().root(), &[event]);
    }
    if let Some(path) = &args.digestfile {
        std::fs::write(path, pushed.digest.to_string())
            .map_err(|e| CliError::failed(format!("cannot write {}", path.display())).because(e))?;
    }
    match args.as_json() {
        false => cx.out.line(pushed.digest)?,
        true => cx.out.line(told(&to, &pushed))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Where an image goes.
enum To {
    Registry(Reference),
    File(FileLocation),
}

/// Refuses a form of manifest that cannot be where it is to go, or have such layers.
fn check_format(
    to: &To,
    format: Option<ManifestFormat>,
    compression: CompressionFormat,
) -> Result<(), CliError> {
    let kind = match to {
        To::Registry(_) => None,
        To::File(at) => Some(at.kind),
    };
    match (format, kind) {
        (Some(ManifestFormat::V2s2), Some(FileKind::Oci | FileKind::OciArchive)) => {
            Err(CliError::usage("an OCI layout has manifests of OCI's form")
                .with_hint("push to docker-archive:FILE, or `pellicle save --format docker-dir`"))
        }
        (Some(ManifestFormat::Oci), Some(FileKind::DockerArchive)) => Err(CliError::usage(
            "a docker-archive has a list of docker's, and no manifest of OCI's form",
        )
        .with_hint("push to oci:DIR or oci-archive:FILE")),
        (Some(ManifestFormat::V2s2), None) if compression == CompressionFormat::Zstd => {
            Err(CliError::usage("docker's manifests know no layers of zstd")
                .with_hint("take --compression-format zstd out, or push with --format oci"))
        }
        _ => Ok(()),
    }
}

/// The image's own name as a destination.
fn own_name(text: &str) -> Result<Reference, CliError> {
    let hint = NAME_IT;
    let bare_id = text.len() >= 12 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if bare_id || text.starts_with("sha256:") {
        return Err(
            CliError::usage(format!("{text} is an image's id, not a name")).with_hint(hint),
        );
    }
    image_name(text).map_err(|e| e.with_hint(hint))
}

fn told(to: &To, pushed: &Pushed) -> serde_json::Value {
    let blobs = pushed.blobs.iter().map(|blob| {
        json!({
            "Digest": blob.digest.to_string(),
            "Size": blob.size,
            "Sent": blob.how == How::Sent,
            "Mounted": blob.how == How::Mounted,
        })
    });
    json!({
        "Name": match to {
            To::Registry(to) => to.to_string(),
            To::File(at) => at.to_string(),
        },
        "Digest": pushed.digest.to_string(),
        "Size": pushed.size,
        "Blobs": blobs.collect::<Vec<_>>(),
        "Referrers": pushed.referrers.iter().map(carried).collect::<Vec<_>>(),
    })
}
