//! `pellicle man`: the manual pages, for packagers.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use crate::{CliError, Context, cli};

/// Write the manual pages
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle man ~/.local/share/man/man1")]
pub struct ManArgs {
    /// Directory to write them to, which is made if need be
    pub dir: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// If a page cannot be written.
pub fn run(cx: &Context, args: ManArgs) -> Result<ExitCode, CliError> {
    let fail = |e| {
        CliError::failed(format!(
            "cannot write manual pages to {}",
            args.dir.display()
        ))
        .because(e)
    };
    std::fs::create_dir_all(&args.dir).map_err(fail)?;
    clap_mangen::generate_to(cli::command(), &args.dir).map_err(fail)?;
    cx.out.note(format_args!(
        "wrote the manual pages to {}",
        args.dir.display()
    ));
    Ok(ExitCode::SUCCESS)
}
