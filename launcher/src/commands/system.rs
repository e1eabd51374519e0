//! `pellicle system`: docker's names for looking after the store.

mod df;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{events, info, prune};
use crate::{CliError, Context};

/// Look after the store, by docker's names: df, prune, info, events
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle system df -v
  pellicle system prune --dry-run")]
pub struct SystemArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: SystemCommand,
}

/// What to do with the system.
#[derive(Subcommand, Debug)]
pub enum SystemCommand {
    /// Show what images, containers and builds take up, and what of it could go
    Df(df::DfArgs),
    /// Remove what nobody uses
    Prune(prune::SystemPruneArgs),
    /// Tell versions, what the host offers, and where the store is
    Info(info::InfoArgs),
    /// Show what happens to containers and images
    Events(events::EventsArgs),
}

/// Look after what builds left
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle builder prune -f")]
pub struct BuilderArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: BuilderCommand,
}

/// What to do with what builds left.
#[derive(Subcommand, Debug)]
pub enum BuilderCommand {
    /// Remove what builds left for later builds
    Prune(prune::BuilderPruneArgs),
    /// Build an image from a Containerfile (Dockerfile)
    Build(Box<super::build::BuildArgs>),
}

/// Runs the command.
///
/// # Errors
/// As those of the command.
pub fn run(cx: &Context, args: SystemArgs) -> Result<ExitCode, CliError> {
    match args.command {
        SystemCommand::Df(args) => df::run(cx, &args),
        SystemCommand::Prune(args) => prune::system(cx, &args),
        SystemCommand::Info(args) => info::run(cx, args),
        SystemCommand::Events(args) => events::run(cx, args),
    }
}

/// Runs `pellicle builder`.
///
/// # Errors
/// As those of the command.
pub fn builder(cx: &Context, args: BuilderArgs) -> Result<ExitCode, CliError> {
    match args.command {
        BuilderCommand::Prune(args) => prune::builds(cx, &args),
        BuilderCommand::Build(args) => super::build::run(cx, *args),
    }
}
