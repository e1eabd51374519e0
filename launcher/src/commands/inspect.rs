//! `pellicle inspect`: everything about an image.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::{CliError, Context, image::familiar};

/// Tell everything about an image, as JSON
///
/// Prints a list with one object for each image, with docker's names of members.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle inspect debian:12
  pellicle inspect debian:12 | jq '.[0].Config.Env'")]
pub struct InspectArgs {
    /// Names or ids of images
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// If there is no such image, or it is damaged.
pub fn run(cx: &Context, args: InspectArgs) -> Result<ExitCode, CliError> {
    let all = args
        .images
        .iter()
        .map(|name| describe(cx, name))
        .collect::<Result<Vec<_>, _>>()?;
    let text = serde_json::to_string_pretty(&all)
        .map_err(|e| CliError::failed("cannot print as JSON").because(e))?;
    cx.out.line(text)?;
    Ok(ExitCode::SUCCESS)
}

fn describe(cx: &Context, name: &str) -> Result<Value, CliError> {
    let images = cx.images()?;
    let image = images.resolve(name)?;
    let manifest = images.manifest(&image.manifest)?;
    // From the bytes as they came: what docker adds to the specification stays visible.
    let raw: Value = serde_json::from_slice(&images.raw_config(&image.id)?)
        .map_err(|e| CliError::failed("the image's configuration is no JSON").because(e))?;
    let member = |key: &str| raw.get(key).cloned().unwrap_or(Value::Null);
    let names: Vec<String> = image.names.iter().map(|n| familiar(n)).collect();
    let layers: Vec<Value> = manifest
        .layers()
        .iter()
        .zip(&image.diff_ids)
        .map(|(layer, diff_id)| {
            json!({
                "DiffId": diff_id.to_string(), "Digest": layer.digest().to_string(),
                "MediaType": layer.media_type().to_string(), "Size": layer.size(),
            })
        })
        .collect();
    Ok(json!({
        "Id": image.id.to_string(),
        "RepoTags": names,
        "Digest": image.manifest.to_string(),
        "Created": member("created"),
        "Author": member("author"),
        "Architecture": member("architecture"),
        "Variant": member("variant"),
        "Os": member("os"),
        "Size": image.size,
        "Config": member("config"),
        "RootFS": { "Type": "layers", "Layers": image.diff_ids.iter().map(ToString::to_string).collect::<Vec<_>>() },
        "Layers": layers,
        "History": member("history"),
    }))
}
