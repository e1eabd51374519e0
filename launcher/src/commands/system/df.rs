//! `pellicle system df`: what takes up how much, and what of it could go.

use std::{collections::BTreeMap, process::ExitCode};

use clap::Args;
use pellicle_store::Digest;
use serde_json::{Value, json};

use super::super::{
    containers,
    format::{Format, FormatArg},
    images::since,
    store::usage,
};
use crate::{
    CliError, Context,
    build::{self, PruneOptions},
    container::{
        names,
        registry::Listed,
        state::{State, Status},
    },
    image::{Images, Record, Reference, container_uses, short_id, space::Spaces},
    output,
};

/// Show what images, containers and builds take up, and what of it could go
///
/// SIZE is what they take up on the host, where everything is stored once. With -v each image is listed: what
/// it shares with others, what would go with it, and in the end what storing things once has saved.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle system df
  pellicle system df -v
  pellicle system df --format '{{.Type}} {{.Reclaimable}}'")]
pub struct DfArgs {
    /// Each image and container
    #[arg(short, long)]
    pub verbose: bool,
    /// How to print.
    #[command(flatten)]
    pub format: FormatArg,
}

/// Runs the command.
///
/// # Errors
/// If the store cannot be read.
pub(super) fn run(cx: &Context, args: &DfArgs) -> Result<ExitCode, CliError> {
    let format = args.format.parse()?;
    if args.verbose && format != Format::Table {
        return Err(CliError::usage("--verbose and --format cannot go together"));
    }
    let images = cx.images()?;
    let records = images.records()?;
    let spaces = images.spaces(&records)?;
    let mut uses: BTreeMap<Digest, u64> = BTreeMap::new();
    for one in container_uses(images.store().root())? {
        *uses.entry(one.image).or_default() += 1;
    }
    let containers = all_containers(cx)?;
    if args.verbose {
        return verbose(cx, &images, (&records, &spaces), &uses, &containers);
    }
    let rows = [
        of_images(&records, &spaces, &uses),
        of_containers(&containers),
        of_builds(&images, &records)?,
    ];
    let columns = [
        ("TYPE", "Type"),
        ("TOTAL", "TotalCount"),
        ("ACTIVE", "Active"),
        ("SIZE", "Size"),
        ("RECLAIMABLE", "Reclaimable"),
    ];
    format.print(&cx.out, &columns, &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn row(kind: &str, total: usize, active: usize, bytes: u64, free: u64) -> Value {
    let percent = match bytes {
        0 => 0,
        bytes => u128::from(free) * 100 / u128::from(bytes),
    };
    json!({
        "Type": kind,
        "TotalCount": total,
        "Active": active,
        "Size": output::bytes(bytes),
        "SizeBytes": bytes,
        "Reclaimable": format!("{} ({percent}%)", output::bytes(free)),
        "ReclaimableBytes": free,
    })
}

/// What would go with the images that no container stands on, each for itself.
fn of_images(records: &[Record], spaces: &Spaces, uses: &BTreeMap<Digest, u64>) -> Value {
    let active = records.iter().filter(|r| uses.contains_key(&r.id)).count();
    let unused = records
        .iter()
        .zip(&spaces.each)
        .filter(|(r, _)| !uses.contains_key(&r.id));
    let free = if active == 0 {
        spaces.stored
    } else {
        unused.map(|(_, space)| space.unique).sum()
    };
    row("Images", records.len(), active, spaces.stored, free)
}

fn of_containers(all: &[(State, u64)]) -> Value {
    let running = |s: &State| s.status == Status::Running;
    let active = all.iter().filter(|(s, _)| running(s)).count();
    let bytes = all.iter().map(|(_, bytes)| bytes).sum();
    let stopped = all.iter().filter(|(s, _)| !running(s));
    let free = stopped.map(|(_, bytes)| bytes).sum();
    row("Containers", all.len(), active, bytes, free)
}

fn of_builds(images: &Images, records: &[Record]) -> Result<Value, CliError> {
    let all = PruneOptions {
        all: true,
        unused_since: None,
        dry_run: true,
    };
    let cache = build::prune(images, records, &all)?;
    let (count, bytes) = (cache.removed.len(), cache.bytes());
    Ok(row("Build Cache", count, 0, bytes, bytes))
}

fn all_containers(cx: &Context) -> Result<Vec<(State, u64)>, CliError> {
    let registry = containers::registry(cx)?;
    let mut all = Vec::new();
    for listed in registry.list()? {
        if let Listed::Known(state) = listed {
            let bytes = usage(&registry.dir(&state.id)).1;
            all.push((*state, bytes));
        }
    }
    Ok(all)
}

fn verbose(
    cx: &Context,
    images: &Images,
    (records, spaces): (&[Record], &Spaces),
    uses: &BTreeMap<Digest, u64>,
    containers: &[(State, u64)],
) -> Result<ExitCode, CliError> {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (record, space) in records.iter().zip(&spaces.each) {
        let created = match images.open(record.clone()) {
            Ok(image) => since(image.config.created().as_deref().unwrap_or_default()),
            Err(_) => "damaged".to_owned(),
        };
        let names = record
            .names
            .iter()
            .filter_map(|n| n.parse::<Reference>().ok());
        let mut names: Vec<(String, String)> = names
            .map(|n| {
                (
                    n.familiar_repository(),
                    n.tag().unwrap_or_default().to_owned(),
                )
            })
            .collect();
        if names.is_empty() {
            names.push(("<none>".to_owned(), "<none>".to_owned()));
        }
        for (repository, tag) in names {
            rows.push(vec![
                repository,
                tag,
                short_id(&record.id),
                created.clone(),
                output::bytes(space.shared + space.unique),
                output::bytes(space.shared),
                output::bytes(space.unique),
                uses.get(&record.id).copied().unwrap_or(0).to_string(),
            ]);
        }
    }
    let head = [
        "REPOSITORY",
        "TAG",
        "IMAGE ID",
        "CREATED",
        "SIZE",
        "SHARED SIZE",
        "UNIQUE SIZE",
        "CONTAINERS",
    ];
    let mut text = format!("Images space usage:\n\n{}", output::table(&head, &rows));
    text.push_str(&format!(
        "\nstored: {}; without sharing: {}; saved: {}\n",
        output::bytes(spaces.stored),
        output::bytes(spaces.alone),
        output::bytes(spaces.alone.saturating_sub(spaces.stored)),
    ));
    let rows: Vec<Vec<String>> = containers
        .iter()
        .map(|(state, bytes)| {
            vec![
                names::short(&state.id).to_owned(),
                state.image.clone(),
                output::bytes(*bytes),
                since(&state.created),
                format!("{:?}", state.status),
                state.name.clone(),
            ]
        })
        .collect();
    let head = [
        "CONTAINER ID",
        "IMAGE",
        "SIZE",
        "CREATED",
        "STATUS",
        "NAMES",
    ];
    text.push_str(&format!(
        "\nContainers space usage:\n\n{}",
        output::table(&head, &rows)
    ));
    cx.out.write(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
