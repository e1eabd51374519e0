//! `pellicle store`: looking after the store.

use std::{collections::BTreeSet, fs, path::Path, process::ExitCode};

use clap::{Args, Subcommand};
use pellicle_store::{Damage, Digest};
use serde_json::{Value, json};

use crate::{
    CliError, Context,
    commands::{collect::try_collect, format::FormatArg},
    image::{Images, Record, familiar, short_id},
    output,
};

/// Look after the store: verify, collect, sizes
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle store df
  pellicle store gc --dry-run
  pellicle store verify")]
pub struct StoreArgs {
    /// What to do
    #[command(subcommand)]
    pub command: StoreCommand,
}

/// What to do with the store.
#[derive(Subcommand, Debug)]
pub enum StoreCommand {
    /// Read everything and compare it with its digests; exit code 1 if anything is damaged
    Verify,
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
        StoreCommand::Verify => verify(cx),
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

fn verify(cx: &Context) -> Result<ExitCode, CliError> {
    let images = cx.images()?;
    let step = cx.out.step("verify", None);
    let report = images.store().verify(&mut |_, bytes| step.advance(bytes))?;
    step.done(format_args!(
        "{} objects, {} blobs, {} trees, {} read",
        report.objects,
        report.blobs,
        report.trees,
        output::bytes(report.bytes)
    ));
    let needs = images
        .records()?
        .into_iter()
        .map(|r| Needs::of(&images, r))
        .collect::<Vec<_>>();
    let mut bad = false;
    for damage in &report.damaged {
        bad = true;
        cx.out.line(format_args!(
            "damaged {} {}: {}",
            damage.what, damage.id, damage.detail
        ))?;
        cx.out
            .line(format_args!("  file: {}", damage.path.display()))?;
        let touched: Vec<&str> = needs
            .iter()
            .filter(|n| n.touched_by(damage))
            .map(|n| n.name.as_str())
            .collect();
        if !touched.is_empty() {
            cx.out
                .line(format_args!("  images: {}", touched.join(", ")))?;
        }
    }
    for need in &needs {
        for missing in need.missing(&images) {
            bad = true;
            cx.out
                .line(format_args!("missing {missing}\n  images: {}", need.name))?;
        }
    }
    if bad {
        return Err(CliError::failed("the store is damaged").with_hint(
            "remove the images named (`pellicle rmi -f`), collect (`pellicle store gc`), and import them again",
        ));
    }
    cx.out.line("no damage found")?;
    Ok(ExitCode::SUCCESS)
}

/// What an image stands on.
struct Needs {
    name: String,
    blobs: BTreeSet<Digest>,
    trees: BTreeSet<Digest>,
    layers: Vec<Digest>,
    /// Why it cannot be known, if so.
    unreadable: Option<String>,
}

impl Needs {
    fn of(images: &Images, record: Record) -> Self {
        let name = record
            .names
            .first()
            .map_or_else(|| short_id(&record.id), |n| familiar(n));
        let mut needs = Self {
            name,
            blobs: BTreeSet::from([record.manifest, record.id]),
            trees: BTreeSet::new(),
            layers: Vec::new(),
            unreadable: None,
        };
        match images.roots(std::slice::from_ref(&record)) {
            Ok(roots) => {
                needs.blobs.extend(roots.blobs);
                needs.layers = roots.stacks.into_iter().flatten().collect();
                needs.trees.extend(&needs.layers);
                needs.trees.extend(Digest::chain(&needs.layers));
            }
            Err(e) => needs.unreadable = Some(e.to_string()),
        }
        needs
    }

    fn touched_by(&self, damage: &Damage) -> bool {
        self.blobs.contains(&damage.id)
            || self.trees.contains(&damage.id)
            || damage.used_by.iter().any(|t| self.trees.contains(t))
    }

    fn missing(&self, images: &Images) -> Vec<String> {
        let store = images.store();
        let blobs = self
            .blobs
            .iter()
            .filter(|b| !store.blobs().contains(b))
            .map(|b| format!("blob {b}"));
        let layers = self
            .layers
            .iter()
            .filter(|l| !store.has_tree(l))
            .map(|l| format!("layer {l}"));
        blobs.chain(layers).chain(self.unreadable.clone()).collect()
    }
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
