//! Measures Pellicle beside its peers: kernel overlayfs, fuse-overlayfs, a plain directory,
//! bubblewrap, crun, podman and others.
//!
//! One run measures all drivers of a workload in interleaved rounds, so that what disturbs the
//! machine disturbs them alike (`measure`); what is told is the median of the rounds, its spread,
//! and the ratio to the reference with a confidence interval (`stats`). A figure is worth no more
//! than the machine it was taken on: the result names it and says when it was busy (`machine`).
//!
//! `drivers` are ways to lay a writable layer over a stack, `workloads` what is done in it, `setup`
//! what both need, `model` what a run leaves behind, `table` and `html` how people see it.

mod cli;
mod commands;
mod drivers;
mod html;
mod machine;
mod measure;
mod model;
mod processes;
mod setup;
mod stats;
mod table;
mod tree;
mod units;
mod workloads;

use std::process::ExitCode;

use clap::Parser as _;

/// As a shell has it for a program that SIGINT ended.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    match cli::run(cli::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("pellicle-bench: error: {error:#}");
            if error.is::<setup::Interrupted>() {
                ExitCode::from(INTERRUPTED)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}
