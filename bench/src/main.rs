//! Measures Pellicle beside its peers: kernel overlayfs, a plain directory, bubblewrap, gzip.
//!
//! One run measures all drivers of a workload in interleaved rounds, so that what disturbs the
//! machine disturbs them alike; what is told is the median of the rounds, its spread, and the ratio
//! to the reference. A figure is worth no more than the machine it was taken on: the report names it
//! and says when it was busy.

mod cli;
mod drivers;
mod machine;
mod report;
mod setup;
mod stats;
mod tree;
mod workloads;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match cli::run(cli::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("pellicle-bench: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
