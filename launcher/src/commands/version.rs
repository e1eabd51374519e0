//! `pellicle version`

use std::process::ExitCode;

use clap::Args;

use super::format::FormatOneArg;
use crate::{CliError, Context, image::Platform};

/// Print the version
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle version
  pellicle version --format '{{.Client.Version}}'
  pellicle version --format json")]
pub struct VersionArgs {
    /// How to print.
    #[command(flatten)]
    pub format: FormatOneArg,
}

/// Runs the command.
///
/// # Errors
/// If nothing can be written.
pub fn run(cx: &Context, args: VersionArgs) -> Result<ExitCode, CliError> {
    let version = env!("CARGO_PKG_VERSION");
    let part = serde_json::json!({
        "Version": version,
        "Os": "linux",
        "Arch": Platform::host().architecture,
    });
    // There is no server; what asks for its version wants to know of this program.
    let all = serde_json::json!({ "Version": version, "Client": part, "Server": part });
    let format = args.format.parse()?;
    format.print_one(&cx.out, &all, || format!("pellicle {version}\n"))?;
    Ok(ExitCode::SUCCESS)
}
