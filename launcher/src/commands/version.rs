//! `pellicle version`

use std::process::ExitCode;

use clap::Args;

use crate::{CliError, Context};

/// Print the version
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle version
  pellicle version --format json")]
pub struct VersionArgs {
    /// text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    pub format: String,
}

/// Runs the command.
///
/// # Errors
/// If nothing can be written.
pub fn run(cx: &Context, args: VersionArgs) -> Result<ExitCode, CliError> {
    let version = env!("CARGO_PKG_VERSION");
    if args.format == "json" {
        cx.out.line(serde_json::json!({ "Version": version }))?;
    } else {
        cx.out.line(format_args!("pellicle {version}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
