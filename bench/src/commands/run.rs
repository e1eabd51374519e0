//! `pellicle-bench run`.

mod prepare;

use std::{
    ffi::OsString,
    fs,
    io::{IsTerminal as _, stdout},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget};

use super::{namespace, signals};
use crate::{
    INTERRUPTED,
    drivers::{ring, unmount_all_under},
    machine::{Clock, Machine},
    model::{FORMAT, LeftOut, Measured, Report, derive},
    setup::{Interrupted, Places, Setup, Who, is_root},
    table,
    workloads::{Custom, Plan, Workload},
};
use prepare::{begin, chosen_drivers, chosen_workloads, program, progress};

/// Rounds where their number was not asked for.
const ROUNDS: u32 = 5;

/// Measure
///
/// As root, or with --rootless as an ordinary user in a user namespace. Everything is mounted in a
/// mount namespace of its own and removed at the end. As root the kernel's switch for FUSE over
/// io_uring is turned on for the run if it is off.
#[derive(Args, Clone)]
#[command(after_help = "Examples:
  pellicle-bench run --all --output today.json
  pellicle-bench run walk-fresh walk-warm --rounds 9
  pellicle-bench run depth first-byte --driver pellicle --driver fuse-overlayfs
  pellicle-bench run --all --rootless --output rootless.json
  pellicle-bench run untar --fuse-overlayfs .cache/cargo/bin/fuse-overlayfs
  pellicle-bench run pull pull-shared push-shared --image-size 100
  pellicle-bench run --workload bench/example.toml")]
pub(crate) struct RunArgs {
    /// What to measure: names, or series as `depth`, of `pellicle-bench list`
    #[arg(value_name = "WORKLOAD", required_unless_present_any = ["all", "workload"])]
    workloads: Vec<String>,
    /// Measure everything
    #[arg(long)]
    all: bool,
    /// A workload of your own (see bench/example.toml)
    #[arg(long, value_name = "FILE.toml")]
    workload: Vec<PathBuf>,
    /// What to compare: names, beginnings of names, or `all` [default: the reference, the peers, and
    /// Pellicle as it mounts by itself]
    #[arg(short, long, value_name = "DRIVER")]
    driver: Vec<String>,
    /// What ratios are to
    #[arg(long, default_value = "overlayfs", value_name = "DRIVER")]
    reference: String,
    /// A fuse-overlayfs to compare, beside the one on the path
    #[arg(long, value_name = "FILE")]
    fuse_overlayfs: Vec<PathBuf>,
    /// How often each driver is measured [default: 5; 3 where a round of all takes over a minute]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// As an ordinary user, in a user namespace; root becomes the user pellicle-test for it
    #[arg(long)]
    rootless: bool,
    /// Write everything to this file, as JSON, for `compare` and `report`
    #[arg(short, long, value_name = "FILE.json")]
    output: Option<PathBuf>,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// The pellicle to measure [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    pellicle: Option<PathBuf>,
    /// The pellicle-overlay to measure [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    overlay: Option<PathBuf>,
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
    /// Where the run works: on the file system that drivers are to stand on
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    work: PathBuf,
    /// The size in MB of the image that registries are measured with
    #[arg(long, default_value_t = 500, value_name = "MB", value_parser = clap::value_parser!(u64).range(1..=20_000))]
    image_size: u64,
    /// Fail if a floor is missed
    #[arg(long)]
    check: bool,
    /// This is the part in a user namespace.
    #[arg(long, hide = true)]
    inside: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Table,
    /// For programs
    Json,
}

/// Measures, prints, and writes the file.
pub(crate) fn run(args: &RunArgs) -> Result<ExitCode> {
    let who = match (args.inside, is_root()) {
        (true, _) => Who::InNamespace,
        (false, true) => Who::Root,
        (false, false) => Who::User,
    };
    if who == Who::Root {
        // While there is one thread.
        namespace::leave_mounts()?;
    }
    let stop = signals::raised_on_signals()?;
    if let Some(dir) = args.output.as_deref().and_then(Path::parent)
        && !dir.as_os_str().is_empty()
        && !dir.is_dir()
    {
        bail!("no directory {} to write the result to", dir.display());
    }
    let mut run = Run::new(args, who, stop)?;
    let interrupted = run.measure_all()?;
    let report = run.into_report();
    if let Some(path) = &args.output {
        report.write(path)?;
    }
    if !args.inside {
        match args.format {
            Format::Table => super::show(&table::run(&report, stdout().is_terminal()))?,
            Format::Json => super::show(&format!("{}\n", serde_json::to_string_pretty(&report)?))?,
        }
    }
    Ok(if interrupted {
        ExitCode::from(INTERRUPTED)
    } else if report.failed() || (args.check && report.missed()) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// A run under way.
struct Run<'a> {
    args: &'a RunArgs,
    setup: Setup,
    plan: Plan,
    workloads: Vec<Workload>,
    machine: Machine,
    clock: Option<Clock>,
    warnings: Vec<String>,
    results: Vec<Measured>,
    bar: ProgressBar,
    stop: Arc<AtomicBool>,
    _ring: Option<ring::SwitchedOn>,
}

impl<'a> Run<'a> {
    fn new(args: &'a RunArgs, who: Who, stop: Arc<AtomicBool>) -> Result<Self> {
        let workloads = chosen_workloads(args)?;
        let (work, ring, mut warnings) = begin(args, who)?;
        let plan = Plan {
            rounds: args.rounds.unwrap_or(ROUNDS),
            rootless: args.rootless || who != Who::Root,
            drivers: chosen_drivers(args)?,
            reference: args.reference.clone(),
            image_bytes: args.image_size * 1_000_000,
        };
        let places = Places {
            pellicle: program(args.pellicle.as_deref(), "pellicle")?,
            overlay: program(args.overlay.as_deref(), "pellicle-overlay")?,
            image: args.image.clone(),
            cache: args.cache.clone(),
        };
        let debug = |path: &Path| path.components().any(|c| c.as_os_str() == "debug");
        if cfg!(debug_assertions) || debug(&places.pellicle) || debug(&places.overlay) {
            warnings.push("a debug build is measured: the figures mean nothing".to_owned());
        }
        let bar = progress(&workloads, &plan);
        let machine = Machine::look(&args.work)?;
        if !args.inside {
            warnings.extend(machine.warnings());
        }
        let mut setup = Setup::new(who, &places, work, bar.clone(), Arc::clone(&stop))?;
        if args.rounds.is_none() {
            setup.shorten();
        }
        Ok(Self {
            args,
            setup,
            plan,
            workloads,
            machine,
            clock: Clock::now(),
            warnings,
            results: Vec::new(),
            bar,
            stop,
            _ring: ring,
        })
    }

    /// Measures everything that can be; whether somebody stopped it before the end.
    fn measure_all(&mut self) -> Result<bool> {
        let workloads = std::mem::take(&mut self.workloads);
        // Mounts without root are made in a user namespace, containers without root outside of it.
        let (apart, here): (Vec<_>, Vec<_>) = workloads.iter().partition(|workload| {
            let tree = matches!(workload, Workload::Tree(_));
            tree && self.plan.rootless && self.setup.who != Who::InNamespace
        });
        if !apart.is_empty()
            && let Err(error) = self.measure_in_namespace(&apart)
            && !error.is::<Interrupted>()
        {
            self.failed(&apart, &error);
        }
        for workload in here {
            if self.setup.go_on().is_err() {
                break;
            }
            self.measure(workload);
        }
        self.bar.finish_and_clear();
        let interrupted = self.setup.go_on().is_err();
        if interrupted {
            let note = "the run was interrupted: what was not measured by then is missing";
            self.warnings.push(note.to_owned());
        }
        Ok(interrupted)
    }

    fn measure(&mut self, workload: &Workload) {
        let measured = workload.measure(&mut self.setup, &self.plan);
        match measured {
            Ok(measured) => self.results.push(measured),
            Err(error) if error.is::<Interrupted>() => {}
            // The others are worth having even so.
            Err(error) => self.failed(&[workload], &error),
        }
        unmount_all_under(&self.setup.path(""));
    }

    fn failed(&mut self, workloads: &[&Workload], error: &anyhow::Error) {
        let results = workloads.iter().map(|workload| Measured {
            workload: workload.name(),
            about: workload.about(),
            reference: self.plan.reference.clone(),
            floor: None,
            point: None,
            rows: Vec::new(),
            left_out: vec![LeftOut {
                driver: "all".to_owned(),
                why: format!("{error:#}"),
                failed: true,
            }],
        });
        self.results.extend(results);
    }

    fn measure_in_namespace(&mut self, workloads: &[&Workload]) -> Result<()> {
        // The image is made here: in the namespace there is no network, and no cache that stays.
        let wanted = workloads.iter().any(|workload| workload.needs_image());
        let layers = wanted.then(|| self.setup.layer_files()).transpose()?;
        let dir = self.setup.users_directory("namespace")?;
        let output = dir.join("result.json");
        let mut arguments = ["run", "--inside", "--rootless"]
            .map(OsString::from)
            .to_vec();
        if let Some(rounds) = self.args.rounds {
            arguments.push("--rounds".into());
            arguments.push(rounds.to_string().into());
        }
        let mut option = |name: &str, value: &Path| {
            arguments.push(name.into());
            arguments.push(value.into());
        };
        option("--output", &output);
        option("--work", &dir);
        option("--cache", &dir.join("cache"));
        option("--pellicle", &self.setup.path("pellicle"));
        option("--overlay", &self.setup.path("pellicle-overlay"));
        option("--reference", Path::new(&self.args.reference));
        if layers.is_some() {
            option("--image", &self.setup.path(""));
        }
        for program in &self.args.fuse_overlayfs {
            option("--fuse-overlayfs", &program.canonicalize()?);
        }
        for driver in &self.plan.drivers {
            option("--driver", Path::new(&driver.name));
        }
        for file in &self.args.workload {
            let readable = self.setup.path("workload.toml");
            fs::copy(file, &readable).with_context(|| format!("cannot copy {}", file.display()))?;
            option("--workload", &readable);
        }
        for workload in workloads {
            let custom = self
                .args
                .workload
                .iter()
                .any(|file| Custom::read(file).is_ok_and(|tree| tree.name == workload.name()));
            if !custom {
                arguments.push(workload.name().into());
            }
        }
        self.bar.set_draw_target(ProgressDrawTarget::hidden());
        let bench = self.setup.bench().to_path_buf();
        let part = namespace::run_in_user_namespace(&bench, &arguments, &output, &self.stop)?;
        self.results.extend(part.results);
        let known = std::mem::take(&mut self.warnings);
        let new = part.warnings.into_iter().filter(|w| !known.contains(w));
        let new: Vec<String> = new.collect();
        self.warnings = known.into_iter().chain(new).collect();
        Ok(())
    }

    fn into_report(self) -> Report {
        let mut machine = self.machine;
        for driver in &self.plan.drivers {
            if let Some(version) = driver.name.strip_prefix("fuse-overlayfs-") {
                let name = driver.name.clone();
                machine.versions.insert(name, version.to_owned());
            }
        }
        let mut warnings = self.warnings;
        warnings.extend(self.clock.and_then(Clock::warning));
        // Of the part in a namespace, the whole run tells it.
        let results = if self.args.inside {
            &[]
        } else {
            self.results.as_slice()
        };
        warnings.extend(results.iter().filter_map(noise));
        let mut report = Report {
            format: FORMAT,
            machine,
            rounds: self.plan.rounds,
            rootless: self.plan.rootless,
            reference: self.plan.reference,
            warnings,
            results: self.results,
            figures: Vec::new(),
        };
        report.figures = derive(&report);
        report
    }
}

/// Which drivers' rounds differed too much.
fn noise(result: &Measured) -> Option<String> {
    let noisy = result.rows.iter().filter(|row| row.summary.is_noisy());
    let told: Vec<String> = noisy
        .map(|row| {
            let part = 100.0 * row.summary.spread / row.summary.median;
            format!("{} ({part:.0} %)", row.driver)
        })
        .collect();
    (!told.is_empty()).then(|| {
        format!(
            "{} is noisy, the middle half of the rounds is this wide: {}",
            result.workload,
            told.join(", ")
        )
    })
}
