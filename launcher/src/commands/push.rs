//! `pellicle push`: images to registries.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use serde_json::json;

use super::{
    import::image_name,
    pull::PullFormat,
    registry_args::{Bars, TransferArgs, clearly},
};
use crate::{
    CliError, Context,
    image::Reference,
    interrupt,
    registry::{
        Compression, CompressionFormat, How,
        pull::find,
        push::{Pushed, push},
    },
};

/// Push an image to a registry
///
/// A blob that the repository has is not sent; one that another repository of the registry is known to
/// have is taken over there. Layers go as they came, so that an unchanged image keeps its digest; those
/// that were made here, or imported uncompressed, are compressed on the way. Prints the digest of the
/// manifest.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle push quay.io/user/tool:1.0
  pellicle push tool:1.0 registry.lan:5000/tool:1.0
  pellicle push --compression-format zstd --digestfile digest tool docker://localhost:5000/tool")]
pub struct PushArgs {
    /// How to compress layers that are not compressed
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub compression_format: CompressionFormat,
    /// How hard to try: 0 to 9 for gzip [default: 6], 1 to 22 for zstd [default: 3]
    #[arg(long, value_name = "LEVEL")]
    pub compression_level: Option<u32>,
    /// Also write the digest to a file
    #[arg(long, value_name = "FILE")]
    pub digestfile: Option<PathBuf>,
    /// Print nothing but the digest
    #[arg(short, long)]
    pub quiet: bool,
    /// How to print what was pushed
    #[arg(long, value_enum, default_value_t)]
    pub format: PullFormat,
    /// Name or id of the image
    pub image: String,
    /// Where to push it, if not under its own name
    #[arg(value_name = "DESTINATION")]
    pub destination: Option<String>,
    /// How the registry is reached.
    #[command(flatten)]
    pub transfer: TransferArgs,
}

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
    let plain = |name: &str| name.strip_prefix("docker://").unwrap_or(name).to_owned();
    let images = cx.images()?;
    let image = find(&images, &plain(&args.image))?;
    let to = match &args.destination {
        Some(name) => image_name(&plain(name))?,
        None => own_name(&plain(&args.image))?,
    };
    let access = args.transfer.access(interrupt::cancel_on_signals()?)?;
    let pushed = push(&images, &access, &image, &to, compression, &Bars::new(out))
        .map_err(|e| clearly(e).context(format!("cannot push {}", to.familiar())))?;
    if let Some(path) = &args.digestfile {
        std::fs::write(path, pushed.digest.to_string())
            .map_err(|e| CliError::failed(format!("cannot write {}", path.display())).because(e))?;
    }
    match args.format {
        PullFormat::Id => cx.out.line(pushed.digest)?,
        PullFormat::Json => cx.out.line(told(&to, &pushed))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The image's own name as a destination.
fn own_name(text: &str) -> Result<Reference, CliError> {
    let hint = "give the destination, too: pellicle push IMAGE REGISTRY/NAME:TAG";
    let bare_id = text.len() >= 12 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if bare_id || text.starts_with("sha256:") {
        return Err(
            CliError::usage(format!("{text} is an image's id, not a name")).with_hint(hint),
        );
    }
    image_name(text).map_err(|e| e.with_hint(hint))
}

fn told(to: &Reference, pushed: &Pushed) -> serde_json::Value {
    let blobs = pushed.blobs.iter().map(|blob| {
        json!({
            "Digest": blob.digest.to_string(),
            "Size": blob.size,
            "Sent": blob.how == How::Sent,
            "Mounted": blob.how == How::Mounted,
        })
    });
    json!({
        "Name": to.to_string(),
        "Digest": pushed.digest.to_string(),
        "Size": pushed.size,
        "Blobs": blobs.collect::<Vec<_>>(),
    })
}
