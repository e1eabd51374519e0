//! `pellicle store`: looking after the store.

mod needs;
mod report;
mod verify;

use std::{fs, path::Path, process::ExitCode};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    CliError, Context,
    commands::{collect::try_collect, format::FormatArg},
    output,
};

/// Look after the store: verify, collect, sizes
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle store df
  pellicle store gc --dry-run
  pellicle store verify
  pellicle store verify --repair
  pellicle store verify --format '{{.Kind}} {{.Path}}: {{.Damage}}'")]
pub struct StoreArgs {
    /// What to do
    #[command(subcommand)]
    pub command: StoreCommand,
}

/// What to do with the store.
#[derive(Subcommand, Debug)]
pub enum StoreCommand {
    /// Read everything and compare it with its digests; exit code 1 if anything is damaged
    Verify(verify::VerifyArgs),
    /// Remove what no image and no container needs
    Gc {
        /// Only say what would be removed
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Show what takes how much room
    Df {
        /// How to print
        #[command(flatten)]
        format: FormatArg,
    },
}

/// Runs the command.
///
/// # Errors
/// If the store cannot be read or changed.
pub fn run(cx: &Context, args: StoreArgs) -> Result<ExitCode, CliError> {
    match args.command {
        StoreCommand::Verify(args) => verify::run(cx, &args),
        StoreCommand::Gc { dry_run } => gc(cx, dry_run),
        StoreCommand::Df { format } => df(cx, &format),
    }
}

fn gc(cx: &Context, dry_run: bool) -> Result<ExitCode, CliError> {
    let Some(collected) = try_collect(cx, dry_run)? else {
        return Err(CliError::failed("the store is in use").with_hint(
            "stop the containers (`pellicle ps`), unmount (`pellicle mount` lists mounts), wait for imports, and try again",
        ));
    };
    cx.out.line(format_args!(
        "{}: {} objects, {} blobs, {} trees; {}",
        if dry_run { "to be removed" } else { "removed" },
        collected.objects,
        collected.blobs,
        collected.trees,
        output::bytes(collected.bytes)
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn df(cx: &Context, format: &FormatArg) -> Result<ExitCode, CliError> {
    let format = format.parse()?;
    let root = cx.store()?.root();
    let mut rows: Vec<Value> = Vec::new();
    for (kind, dir) in [
        ("file contents", "objects"),
        ("blobs", "blobs"),
        ("trees", "trees"),
        ("containers", "containers"),
        ("set aside by repairs", "quarantine"),
    ] {
        let (files, bytes) = usage(&root.join(dir));
        rows.push(json!({
            "Type": kind, "Files": files, "Size": output::bytes(bytes), "SizeBytes": bytes,
        }));
    }
    format.print(
        &cx.out,
        &[("TYPE", "Type"), ("FILES", "Files"), ("SIZE", "Size")],
        &rows,
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Files below `dir`, and the bytes that they take up on the host. What cannot be read (another
/// user's container) counts as nothing.
pub(super) fn usage(dir: &Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt as _;

    let (mut files, mut bytes) = (0, 0);
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                left.push(entry.path());
            } else {
                files += 1;
                bytes += meta.blocks() * 512;
            }
        }
    }
    (files, bytes)
}
