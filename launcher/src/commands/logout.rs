//! `pellicle logout`: drop the credentials for a registry.

use std::process::ExitCode;

use clap::Args;

use super::{
    login::{file, registry},
    registry_args::RegistryArgs,
};
use crate::{CliError, Context, registry::login};

/// Log out of a registry
///
/// Drops the credentials that `pellicle login` (or podman's) keeps.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle logout quay.io
  pellicle logout --all")]
pub struct LogoutArgs {
    /// Drop the credentials for all registries
    #[arg(short, long, conflicts_with = "registry")]
    pub all: bool,
    /// File with credentials [default: $REGISTRY_AUTH_FILE, podman's auth.json]
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<std::path::PathBuf>,
    /// The registry [default: docker.io]
    #[arg(value_name = "REGISTRY")]
    pub registry: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// If nobody is logged in there, or the file cannot be changed.
pub fn run(cx: &Context, args: LogoutArgs) -> Result<ExitCode, CliError> {
    let file = file(&RegistryArgs {
        authfile: args.authfile,
        ..RegistryArgs::default()
    })?;
    if args.all {
        let count = login::drop_all(&file)?;
        cx.out.line(format_args!(
            "Removed login credentials for {count} registries"
        ))?;
        return Ok(ExitCode::SUCCESS);
    }
    let registry = registry(args.registry.as_deref())?;
    let name = registry.domain();
    if !login::drop_one(&file, name)? {
        return Err(CliError::failed(format!("not logged in to {name}"))
            .with_hint(format!("{} has no credentials for it", file.display())));
    }
    cx.out
        .line(format_args!("Removed login credentials for {name}"))?;
    Ok(ExitCode::SUCCESS)
}
