//! `pellicle history`: how an image was made.

use std::process::ExitCode;

use clap::Args;
use oci_spec::image::Descriptor;
use serde_json::{Value, json};

use crate::{
    CliError, Context,
    commands::{format::FormatArg, image_arg, images::since},
    image::short_id,
    output,
};

/// Show how an image was made
///
/// One line for each step, newest first. SIZE is the layer's as it travels, mostly compressed.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle history debian:12
  pellicle history --no-trunc --format '{{.Layer}} {{.CreatedBy}}' debian:12")]
pub struct HistoryArgs {
    /// Name or id of an image
    pub image: String,
    /// Ids only
    #[arg(short, long)]
    pub quiet: bool,
    /// Do not shorten commands and ids
    #[arg(long)]
    pub no_trunc: bool,
    /// How to print
    #[command(flatten)]
    pub format: FormatArg,
}

/// Runs the command.
///
/// # Errors
/// If there is no such image, or it is damaged.
pub fn run(cx: &Context, args: HistoryArgs) -> Result<ExitCode, CliError> {
    let format = args.format.parse()?;
    let images = cx.images()?;
    let image = image_arg::open(cx, &images, &args.image)?;
    let manifest = images.manifest(&image.manifest)?;
    let mut layers = manifest.layers().iter().zip(&image.diff_ids);
    let id = if args.no_trunc {
        image.id.to_string()
    } else {
        short_id(&image.id)
    };
    let row = |by: &str, created: &str, comment: &str, layer: Option<(&Descriptor, String)>| {
        json!({
            "Layer": layer.as_ref().map_or_else(|| "<none>".to_owned(), |l| shorten(&l.1, 19, args.no_trunc)),
            // The newest step is the image itself; of the others only their layers are here.
            "ID": "<missing>",
            "Created": created,
            "CreatedAt": created,
            "CreatedSince": since(created),
            "CreatedBy": shorten(by, 45, args.no_trunc),
            "Size": output::bytes(layer.map_or(0, |l| l.0.size())),
            "Comment": comment,
        })
    };
    let mut rows: Vec<Value> = Vec::new();
    for step in image.config.history().iter().flatten() {
        let layer = if step.empty_layer() == Some(true) {
            None
        } else {
            layers.next()
        };
        rows.push(row(
            step.created_by().as_deref().unwrap_or_default(),
            step.created().as_deref().unwrap_or_default(),
            step.comment().as_deref().unwrap_or_default(),
            layer.map(|(l, id)| (l, id.to_string())),
        ));
    }
    // Layers that the history does not tell of are still there.
    rows.extend(layers.map(|(l, id)| row("<missing>", "", "", Some((l, id.to_string())))));
    rows.reverse();
    if let Some(newest) = rows.first_mut().and_then(Value::as_object_mut) {
        newest.insert("ID".to_owned(), id.into());
    }
    if args.quiet {
        for id in rows.iter().filter_map(|r| r.get("ID")?.as_str()) {
            cx.out.line(id)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let columns = [
        ("LAYER", "Layer"),
        ("CREATED", "CreatedSince"),
        ("CREATED BY", "CreatedBy"),
        ("SIZE", "Size"),
        ("COMMENT", "Comment"),
    ];
    format.print(&cx.out, &columns, &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn shorten(text: &str, most: usize, whole: bool) -> String {
    let text = text.replace(['\n', '\t', '\r'], " ");
    if whole || text.chars().count() <= most {
        return text;
    }
    let cut: String = text.chars().take(most.saturating_sub(3)).collect();
    format!("{cut}...")
}
