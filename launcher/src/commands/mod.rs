//! The subcommands, one file each: its arguments, and `run`.

pub mod build;
mod collect;
pub mod commit;
pub mod completion;
mod containers;
pub mod diff;
pub mod docker_names;
pub mod events;
pub mod exec;
pub mod export;
mod filter;
mod format;
pub mod history;
mod image_arg;
pub mod images;
pub mod import;
pub mod info;
pub mod inspect;
pub mod kill;
pub mod load;
pub mod login;
pub mod logout;
pub mod logs;
pub mod man;
pub mod manifest;
mod moment;
pub mod mount;
mod outfile;
pub mod prune;
pub mod ps;
pub mod pull;
pub mod push;
mod push_file;
mod registry_args;
pub mod rm;
pub mod rmi;
pub mod run;
pub mod save;
pub mod search;
mod short_name;
pub mod start;
pub mod stop;
pub mod store;
pub mod system;
pub mod tag;
pub mod umount;
pub mod version;
pub mod wait;

use std::process::ExitCode;

use clap::Subcommand;

use crate::{CliError, Context};

/// What to do; one variant per subcommand, in the order of the help text.
#[derive(Subcommand, Debug)]
#[command(
    subcommand_value_name = "COMMAND",
    subcommand_help_heading = "Commands"
)]
pub enum Command {
    /// Run a command in a new container
    Run(Box<run::RunArgs>),
    /// Start stopped containers
    Start(start::StartArgs),
    /// Run a command in a running container
    Exec(exec::ExecArgs),
    /// List containers
    Ps(ps::PsArgs),
    /// Print a container's output
    Logs(logs::LogsArgs),
    /// Stop running containers
    Stop(stop::StopArgs),
    /// Send a signal to running containers
    Kill(kill::KillArgs),
    /// Wait until containers stop, and print their exit codes
    Wait(wait::WaitArgs),
    /// Remove containers
    Rm(rm::RmArgs),
    /// List what a container changed
    Diff(diff::DiffArgs),
    /// Make an image of a container and what it changed
    Commit(commit::CommitArgs),
    /// Write all files of a container or an image as a tar archive
    Export(export::ExportArgs),
    /// List images
    Images(images::ImagesArgs),
    /// Build an image from a Containerfile (Dockerfile)
    Build(Box<build::BuildArgs>),
    /// Make an image of a tar archive or a directory
    Import(import::ImportArgs),
    /// Pull images from a registry, a layout or an archive
    Pull(pull::PullArgs),
    /// Push an image to a registry, a layout or an archive
    Push(push::PushArgs),
    /// Search registries for images
    Search(search::SearchArgs),
    /// Log in to a registry
    Login(login::LoginArgs),
    /// Log out of a registry
    Logout(logout::LogoutArgs),
    /// Look at manifests of a registry or a layout
    Manifest(manifest::ManifestArgs),
    /// Load images from an OCI layout or a docker-archive
    Load(load::LoadArgs),
    /// Save images for other programs
    Save(save::SaveArgs),
    /// Give an image another name
    Tag(tag::TagArgs),
    /// Remove images
    Rmi(rmi::RmiArgs),
    /// Tell everything about images and containers, as JSON
    Inspect(inspect::InspectArgs),
    /// Show how an image was made
    History(history::HistoryArgs),
    /// Mount an image, a layer or an archive, read-only
    Mount(mount::MountArgs),
    /// Unmount what `mount` mounted
    Umount(umount::UmountArgs),
    /// Show what happens to containers and images
    Events(events::EventsArgs),
    /// Look after the store: verify, collect, sizes
    Store(store::StoreArgs),
    /// Commands about images, by docker's longer names
    Image(docker_names::ImageArgs),
    /// Commands about containers, by docker's longer names
    Container(docker_names::ContainerArgs),
    /// Look after the store, by docker's names: df, prune, info, events
    System(system::SystemArgs),
    /// Look after what builds left
    Builder(system::BuilderArgs),
    /// Tell versions, what the host offers, and where the store is
    Info(info::InfoArgs),
    /// Print a completion script for a shell
    Completion(completion::CompletionArgs),
    /// Write the manual pages
    Man(man::ManArgs),
    /// Serve a mount in the background; `mount` runs this
    #[command(name = "__serve-mount", hide = true)]
    ServeMount(mount::MountArgs),
    /// Run the container of a RUN; `build` runs this
    #[command(name = "__build-run", hide = true)]
    BuildRun(build::BuildRunArgs),
    /// Resume a container when standard input ends; `commit` runs this
    #[command(name = "__resume", hide = true)]
    Resume(commit::ResumeArgs),
    /// Print the version
    Version(version::VersionArgs),
}

/// Runs a command.
///
/// # Errors
/// Whatever the command could not do.
pub fn run(cx: &Context, command: Command) -> Result<ExitCode, CliError> {
    match command {
        Command::Run(args) => run::run(cx, *args),
        Command::Start(args) => start::run(cx, args),
        Command::Exec(args) => exec::run(cx, args),
        Command::Ps(args) => ps::run(cx, args),
        Command::Logs(args) => logs::run(cx, args),
        Command::Stop(args) => stop::run(cx, args),
        Command::Kill(args) => kill::run(cx, args),
        Command::Wait(args) => wait::run(cx, args),
        Command::Rm(args) => rm::run(cx, args),
        Command::Diff(args) => diff::run(cx, args),
        Command::Commit(args) => commit::run(cx, args),
        Command::Export(args) => export::run(cx, args),
        Command::Images(args) => images::run(cx, args),
        Command::Build(args) => build::run(cx, *args),
        Command::Import(args) => import::run(cx, args),
        Command::Pull(args) => pull::run(cx, args),
        Command::Push(args) => push::run(cx, args),
        Command::Search(args) => search::run(cx, args),
        Command::Login(args) => login::run(cx, args),
        Command::Logout(args) => logout::run(cx, args),
        Command::Manifest(args) => manifest::run(cx, args),
        Command::Load(args) => load::run(cx, args),
        Command::Save(args) => save::run(cx, args),
        Command::Tag(args) => tag::run(cx, args),
        Command::Rmi(args) => rmi::run(cx, args),
        Command::Inspect(args) => inspect::run(cx, args),
        Command::History(args) => history::run(cx, args),
        Command::Mount(args) => mount::run(cx, args),
        Command::Umount(args) => umount::run(cx, args),
        Command::Store(args) => store::run(cx, args),
        Command::Events(args) => events::run(cx, args),
        Command::Image(args) => docker_names::image(cx, args),
        Command::Container(args) => docker_names::container(cx, args),
        Command::System(args) => system::run(cx, args),
        Command::Builder(args) => system::builder(cx, args),
        Command::Info(args) => info::run(cx, args),
        Command::Completion(args) => completion::run(cx, args),
        Command::Man(args) => man::run(cx, args),
        Command::ServeMount(args) => mount::run_in_session(cx, args),
        Command::BuildRun(args) => build::run_one(cx, &args),
        Command::Resume(args) => commit::resume(&args),
        Command::Version(args) => version::run(cx, args),
    }
}
