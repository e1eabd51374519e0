//! `pellicle images`: what there is.

mod filter;

use std::process::ExitCode;

use clap::Args;
use filter::Filters;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    CliError, Context,
    commands::format::{Format, FormatArg},
    image::{Image, Reference},
    output, registry,
};

/// List images
///
/// Images without a name, left behind when theirs was given to another, are listed too, as `<none>`.
/// SIZE is the sum of all file contents of all layers, wherever they are shared.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle images
  pellicle images -q debian                        ids only, of one repository
  pellicle images --filter dangling=true           those that lost their name
  pellicle images -f 'reference=web*' -f label=stage=test -f before=web:2
  pellicle images --format '{{.Repository}}:{{.Tag}} {{.Size}}'
  pellicle images --format json --no-trunc")]
pub struct ImagesArgs {
    /// Only images of this name: NAME or NAME:TAG
    pub name: Option<String>,
    /// Only those: dangling=BOOL, reference=PATTERN, label=KEY[=VALUE], label!=KEY, before=IMAGE, since=IMAGE,
    /// until=TIME; of several references any fits
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    /// Taken for docker's sake: all images are listed anyway
    #[arg(short, long)]
    pub all: bool,
    /// Ids only
    #[arg(short, long)]
    pub quiet: bool,
    /// Do not shorten ids
    #[arg(long)]
    pub no_trunc: bool,
    /// Show the digests of the manifests
    #[arg(long)]
    pub digests: bool,
    /// How to print
    #[command(flatten)]
    pub format: FormatArg,
}

/// Runs the command.
///
/// # Errors
/// If the list cannot be read, or a filter makes no sense; a damaged image is warned of and left out.
pub fn run(cx: &Context, args: ImagesArgs) -> Result<ExitCode, CliError> {
    let format = args.format.parse()?;
    let wanted: Option<Reference> = args.name.as_deref().map(str::parse).transpose()?;
    let with_tag = args
        .name
        .as_deref()
        .is_some_and(|n| n.rsplit('/').next().is_some_and(|l| l.contains(':')));
    let images = cx.images()?;
    let filters = Filters::parse(&args.filter, &images, Timestamp::now())?;
    let pulled = match args.filter.is_empty() {
        true => Default::default(),
        false => registry::pulled_names(images.store()),
    };
    let mut rows: Vec<Value> = Vec::new();
    for record in images.records()? {
        let id = record.id;
        let image = match images.open(record) {
            Ok(image) => image,
            Err(e) => {
                cx.out.warn(format_args!(
                    "image {id} cannot be read: {e}; `pellicle rmi -f {}` drops it",
                    crate::image::short_id(&id)
                ));
                continue;
            }
        };
        if filters.take(&image, pulled.contains_key(&image.manifest)) {
            rows.extend(rows_of(&image, &args, &filters, wanted.as_ref(), with_tag));
        }
    }
    if args.quiet {
        let mut seen = std::collections::BTreeSet::new();
        for id in rows.iter().filter_map(|r| r.get("ID")?.as_str()) {
            if seen.insert(id) {
                cx.out.line(id)?;
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    print(cx, &format, rows, args.digests)?;
    Ok(ExitCode::SUCCESS)
}

fn print(cx: &Context, format: &Format, rows: Vec<Value>, digests: bool) -> Result<(), CliError> {
    let mut columns = vec![("REPOSITORY", "Repository"), ("TAG", "Tag")];
    if digests {
        columns.push(("DIGEST", "Digest"));
    }
    columns.extend([
        ("IMAGE ID", "ID"),
        ("CREATED", "CreatedSince"),
        ("SIZE", "Size"),
    ]);
    format.print(&cx.out, &columns, &rows)
}

/// One row for each name, or one without.
fn rows_of(
    image: &Image,
    args: &ImagesArgs,
    filters: &Filters,
    wanted: Option<&Reference>,
    with_tag: bool,
) -> Vec<Value> {
    let id = if args.no_trunc {
        image.id.to_string()
    } else {
        crate::image::short_id(&image.id)
    };
    let created = image.config.created().clone().unwrap_or_default();
    let since = since(&created);
    let row = |repository: String, tag: String| {
        json!({
            "Repository": repository, "Tag": tag, "ID": id, "Id": image.id.to_string(), "Digest": image.manifest.to_string(),
            "CreatedAt": created, "CreatedSince": since, "Size": output::bytes(image.size),
            "SizeBytes": image.size,
        })
    };
    if image.names.is_empty() {
        return if wanted.is_some() || filters.by_name() {
            Vec::new()
        } else {
            vec![row("<none>".to_owned(), "<none>".to_owned())]
        };
    }
    image
        .names
        .iter()
        .filter_map(|name| name.parse::<Reference>().ok())
        .filter(|name| filters.take_name(name))
        .filter(|name| {
            wanted.is_none_or(|w| {
                let same = w.repository() == name.repository()
                    || w.at_localhost()
                        .is_some_and(|l| l.repository() == name.repository());
                same && (!with_tag || w.tag() == name.tag())
            })
        })
        .map(|name| {
            row(
                name.familiar_repository(),
                name.tag().unwrap_or_default().to_owned(),
            )
        })
        .collect()
}

/// How long ago an RFC 3339 time was; `N/A` if an image gives none or none that can be read.
pub(super) fn since(created: &str) -> String {
    created.parse::<jiff::Timestamp>().map_or_else(
        |_| "N/A".to_owned(),
        |t| output::ago(jiff::Timestamp::now().as_second() - t.as_second()),
    )
}
