//! `pellicle image ...` and `pellicle container ...`: docker's longer names of commands. Each is the
//! command itself, with its own arguments; nothing is defined twice.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{
    build, commit, diff, exec, export, history, images, import, inspect, kill, load, logs, mount,
    prune, ps, pull, push, rm, rmi, run, save, start, stop, tag, umount, wait,
};
use crate::{CliError, Context};

/// Commands about images, by docker's longer names
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle image ls
  pellicle image prune -a --dry-run")]
pub struct ImageArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ImageCommand,
}

/// What to do with images.
#[derive(Subcommand, Debug)]
#[command(subcommand_value_name = "COMMAND")]
pub enum ImageCommand {
    /// List images
    #[command(visible_alias = "list")]
    Ls(images::ImagesArgs),
    /// Remove images
    #[command(visible_alias = "remove")]
    Rm(rmi::RmiArgs),
    /// Remove images that nobody uses
    Prune(prune::ImagePruneArgs),
    /// Tell everything about images, as JSON
    Inspect(inspect::InspectArgs),
    /// Show how an image was made
    History(history::HistoryArgs),
    /// Give an image another name
    Tag(tag::TagArgs),
    /// Pull images from a registry, a layout or an archive
    Pull(pull::PullArgs),
    /// Push an image to a registry, a layout or an archive
    Push(push::PushArgs),
    /// Save images for other programs
    Save(save::SaveArgs),
    /// Load images from an OCI layout or a docker-archive
    Load(load::LoadArgs),
    /// Make an image of a tar archive or a directory
    Import(import::ImportArgs),
    /// Build an image from a Containerfile (Dockerfile)
    Build(Box<build::BuildArgs>),
    /// Mount an image, a layer or an archive, read-only
    Mount(mount::MountArgs),
    /// Unmount what `mount` mounted
    Umount(umount::UmountArgs),
}

/// Commands about containers, by docker's longer names
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle container ls -a
  pellicle container prune -f")]
pub struct ContainerArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ContainerCommand,
}

/// What to do with containers.
#[derive(Subcommand, Debug)]
#[command(subcommand_value_name = "COMMAND")]
pub enum ContainerCommand {
    /// List containers
    #[command(visible_aliases = ["list", "ps"])]
    Ls(ps::PsArgs),
    /// Run a command in a new container
    Run(Box<run::RunArgs>),
    /// Start stopped containers
    Start(start::StartArgs),
    /// Run a command in a running container
    Exec(exec::ExecArgs),
    /// Print a container's output
    Logs(logs::LogsArgs),
    /// Stop running containers
    Stop(stop::StopArgs),
    /// Send a signal to running containers
    Kill(kill::KillArgs),
    /// Wait until containers stop, and print their exit codes
    Wait(wait::WaitArgs),
    /// Remove containers
    #[command(visible_alias = "remove")]
    Rm(rm::RmArgs),
    /// Remove all containers that do not run
    Prune(prune::ContainerPruneArgs),
    /// Tell everything about containers, as JSON
    Inspect(inspect::InspectArgs),
    /// List what a container changed
    Diff(diff::DiffArgs),
    /// Make an image of a container and what it changed
    Commit(commit::CommitArgs),
    /// Write all files of a container as a tar archive
    Export(export::ExportArgs),
}

/// Runs `pellicle image`.
///
/// # Errors
/// As those of the command.
pub fn image(cx: &Context, args: ImageArgs) -> Result<ExitCode, CliError> {
    match args.command {
        ImageCommand::Ls(args) => images::run(cx, args),
        ImageCommand::Rm(args) => rmi::run(cx, args),
        ImageCommand::Prune(args) => prune::images(cx, &args),
        ImageCommand::Inspect(args) => inspect::run(cx, args.only(inspect::Kind::Image)),
        ImageCommand::History(args) => history::run(cx, args),
        ImageCommand::Tag(args) => tag::run(cx, args),
        ImageCommand::Pull(args) => pull::run(cx, args),
        ImageCommand::Push(args) => push::run(cx, args),
        ImageCommand::Save(args) => save::run(cx, args),
        ImageCommand::Load(args) => load::run(cx, args),
        ImageCommand::Import(args) => import::run(cx, args),
        ImageCommand::Build(args) => build::run(cx, *args),
        ImageCommand::Mount(args) => mount::run(cx, args),
        ImageCommand::Umount(args) => umount::run(cx, args),
    }
}

/// Runs `pellicle container`.
///
/// # Errors
/// As those of the command.
pub fn container(cx: &Context, args: ContainerArgs) -> Result<ExitCode, CliError> {
    match args.command {
        ContainerCommand::Ls(args) => ps::run(cx, args),
        ContainerCommand::Run(args) => run::run(cx, *args),
        ContainerCommand::Start(args) => start::run(cx, args),
        ContainerCommand::Exec(args) => exec::run(cx, args),
        ContainerCommand::Logs(args) => logs::run(cx, args),
        ContainerCommand::Stop(args) => stop::run(cx, args),
        ContainerCommand::Kill(args) => kill::run(cx, args),
        ContainerCommand::Wait(args) => wait::run(cx, args),
        ContainerCommand::Rm(args) => rm::run(cx, args),
        ContainerCommand::Prune(args) => prune::containers(cx, &args),
        ContainerCommand::Inspect(args) => inspect::run(cx, args.only(inspect::Kind::Container)),
        ContainerCommand::Diff(args) => diff::run(cx, args),
        ContainerCommand::Commit(args) => commit::run(cx, args),
        ContainerCommand::Export(args) => export::run(cx, args),
    }
}
