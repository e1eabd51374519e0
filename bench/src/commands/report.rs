//! `pellicle-bench report`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;

use crate::{
    html,
    model::{Report, write_whole},
};

/// Make a page with plots of a result
///
/// One file, without anything from elsewhere: it can be opened, mailed, or put on a server.
#[derive(Args)]
#[command(after_help = "Examples:
  pellicle-bench report today.json -o today.html
  pellicle-bench report today.json -o - >today.html")]
pub(crate) struct ReportArgs {
    /// What `run --output` wrote
    #[arg(value_name = "FILE.json")]
    result: PathBuf,
    /// Where the page goes; `-` is standard output
    #[arg(short, long, value_name = "FILE.html")]
    output: PathBuf,
}

/// Writes it.
pub(crate) fn run(args: &ReportArgs) -> Result<ExitCode> {
    let page = html::page(&Report::read(&args.result)?);
    if args.output.as_os_str() == "-" {
        super::show(&page)?;
    } else {
        write_whole(&args.output, &page)?;
    }
    Ok(ExitCode::SUCCESS)
}
