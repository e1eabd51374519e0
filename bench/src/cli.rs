//! The command line.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{
    commands::{compare, list, report, run},
    drivers::serve,
};

/// Measure Pellicle beside kernel overlayfs, fuse-overlayfs, a plain directory and container engines.
#[derive(Parser)]
#[command(
    version,
    max_term_width = 100,
    after_help = "Examples:
  pellicle-bench run --all --output today.json     everything; an hour or two
  pellicle-bench run walk-fresh untar              two workloads on the usual drivers
  pellicle-bench compare yesterday.json today.json
  pellicle-bench report today.json -o today.html   one file to look at
  pellicle-bench list                              what can be measured, and on what

Build with --release before you believe a figure.

Exit codes: 0 done, 1 something failed (or missed its floor, with --check), 2 wrong usage,
130 interrupted."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::RunArgs),
    Compare(compare::CompareArgs),
    Report(report::ReportArgs),
    List(list::ListArgs),
    #[command(name = "__serve", hide = true)]
    Serve(serve::ServeArgs),
}

/// Does what the command line says.
pub(crate) fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Report(args) => report::run(&args),
        Command::List(args) => list::run(&args),
        Command::Serve(args) => serve::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_every_command_has_examples() {
        let command = Cli::command();
        command.clone().debug_assert();
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            let help = sub.get_after_help().map(ToString::to_string);
            assert!(
                help.unwrap_or_default().contains("Examples:"),
                "{} has none",
                sub.get_name()
            );
        }
    }
}
