//! `pellicle-overlay`: overlays host directories over FUSE, wherever fuse-overlayfs is called.
//!
//! Takes its command line (`arguments`, `options`), opens the layers (`check`, `layers`), mounts
//! and serves them (`serve`), in the background unless told otherwise (`daemon`).

mod arguments;
mod check;
mod daemon;
mod error;
mod help;
mod layers;
mod mapping;
mod options;
mod request;
mod serve;
mod syntax;

use std::{
    fs::File,
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
    sync::Mutex,
};

use anyhow::Context as _;
use request::{Invocation, Request, Runner};
use tracing_subscriber::EnvFilter;

/// A file for the log of the process in the background, as fuse-overlayfs has it.
const LOG_FILE: &str = "FUSE_OVERLAYFS_DEBUG_LOG";
/// What is logged, as `pellicle` has it: `debug`, or `pellicle_fuse=trace`.
const LOG_LEVEL: &str = "PELLICLE_LOG";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    let runner = Runner {
        root: rustix::process::geteuid().is_root(),
        overflow: (overflow_id("uid"), overflow_id("gid")),
    };
    match arguments::parse(std::env::args_os().skip(1), runner)? {
        Invocation::Help => print(&help::help()),
        Invocation::Version => print(&help::version()),
        Invocation::Mount { request, ignored } => {
            for argument in ignored {
                eprintln!("unknown argument ignored: {argument}");
            }
            log(&request)?;
            if request.foreground {
                serve::run(&request, daemon::Ready::foreground())?;
                return Ok(ExitCode::SUCCESS);
            }
            Ok(daemon::in_background(|ready| {
                match serve::run(&request, ready) {
                    Ok(()) => 0,
                    Err(error) => {
                        complain(&error.into());
                        1
                    }
                }
            })?)
        }
    }
}

fn complain(error: &anyhow::Error) {
    eprintln!("{}: {error:#}", options::PROGRAM);
    if std::env::var_os(LOG_FILE).is_some() {
        tracing::error!("{error:#}");
    }
}

fn print(text: &str) -> anyhow::Result<ExitCode> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("cannot write to standard output")?;
    Ok(ExitCode::SUCCESS)
}

/// Starts the log: to a file if one is named, else to standard error for as long as that is held.
fn log(request: &Request) -> anyhow::Result<()> {
    let level = if request.debug { "debug" } else { "warn" };
    let filter = EnvFilter::try_from_env(LOG_LEVEL).unwrap_or_else(|_| EnvFilter::new(level));
    let log = tracing_subscriber::fmt().with_env_filter(filter);
    match std::env::var_os(LOG_FILE) {
        Some(path) => {
            let file = File::options().append(true).create(true).open(&path);
            let file = file.with_context(|| format!("cannot open the log {}", path.display()))?;
            log.with_ansi(false).with_writer(Mutex::new(file)).init();
        }
        None => log
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr)
            .init(),
    }
    Ok(())
}

/// What stands for ids that have no number.
fn overflow_id(of: &str) -> u32 {
    std::fs::read_to_string(format!("/proc/sys/kernel/overflow{of}"))
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(65_534)
}
