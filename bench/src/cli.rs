//! The command line.

use std::{
    io::{IsTerminal as _, stderr, stdout},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{machine::Machine, report::Report, setup::Setup, workloads::Workload};

/// Measure Pellicle beside kernel overlayfs, a plain directory, bubblewrap and gzip.
#[derive(Parser)]
#[command(
    version,
    max_term_width = 100,
    after_help = "Examples:
  pellicle-bench run                             all workloads, as a table
  pellicle-bench run walk-warm read-warm         two of them
  pellicle-bench run --rounds 9 --format json    for another program to read
  pellicle-bench list                            what can be measured

Kernel overlayfs is measured as root only. Build with --release before you believe a figure."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure
    Run(RunArgs),
    /// List the workloads
    List,
}

/// What `run` takes.
#[derive(Args)]
pub(crate) struct RunArgs {
    /// How often each driver is measured
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// The pellicle to measure [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    pellicle: Option<PathBuf>,
    /// The directory of tools/image's layers [default: what `tools/image full` makes]
    #[arg(long, value_name = "DIR")]
    image: Option<PathBuf>,
    /// Where large files are kept between runs
    #[arg(
        long,
        value_name = "DIR",
        env = "PELLICLE_CACHE",
        default_value = ".cache"
    )]
    cache: PathBuf,
    /// Fail if a figure misses its target
    #[arg(long)]
    check: bool,
    /// What to measure; all if none is named
    #[arg(value_enum, value_name = "WORKLOAD")]
    workloads: Vec<Workload>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// For people
    Table,
    /// For programs
    Json,
}

/// Does what the command line says.
pub(crate) fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::List => {
            for workload in Workload::value_variants() {
                println!("{:12} {}", workload.name(), workload.about());
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Run(args) => measure(&args),
    }
}

fn measure(args: &RunArgs) -> Result<ExitCode> {
    let workloads: Vec<Workload> = if args.workloads.is_empty() {
        Workload::value_variants().to_vec()
    } else {
        args.workloads.clone()
    };
    let machine = Machine::look()?;
    let mut warnings = machine.warnings();
    let pellicle = match &args.pellicle {
        Some(path) => path
            .canonicalize()
            .with_context(|| format!("no pellicle at {}", path.display()))?,
        None => beside_us()?,
    };
    if cfg!(debug_assertions) || pellicle.components().any(|c| c.as_os_str() == "debug") {
        warnings.push("a debug build is measured: the figures mean nothing".to_owned());
    }
    let bar = progress();
    let mut setup = Setup::new(pellicle, args.image.clone(), &args.cache, bar.clone())?;
    let mut results = Vec::new();
    let mut failed = false;
    for workload in workloads {
        bar.set_message(format!("{}: setting up", workload.name()));
        // The others are worth having even so.
        match workload.measure(&mut setup, args.rounds, &bar) {
            Ok(result) => results.push(result),
            Err(error) => {
                failed = true;
                warnings.push(format!("{} failed: {error:#}", workload.name()));
            }
        }
    }
    bar.finish_and_clear();
    let report = Report::new(machine, args.rounds, warnings, results);
    match args.format {
        Format::Table => report.print_table(stdout().is_terminal()),
        Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    let missed = failed || (args.check && report.missed());
    Ok(if missed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn beside_us() -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("pellicle");
    if !path.is_file() {
        bail!(
            "{} is missing: build it (cargo build --release -p pellicle), or give --pellicle FILE",
            path.display()
        );
    }
    Ok(path)
}

fn progress() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if !stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}
