//! `pellicle completion`: what a shell needs to complete our commands.

use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;

use crate::{CliError, Context, cli};

/// Print a completion script for a shell
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle completion bash >~/.local/share/bash-completion/completions/pellicle
  pellicle completion zsh >~/.zfunc/_pellicle
  pellicle completion fish >~/.config/fish/completions/pellicle.fish")]
pub struct CompletionArgs {
    /// Which shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Runs the command.
///
/// # Errors
/// If nothing can be written.
pub fn run(cx: &Context, args: CompletionArgs) -> Result<ExitCode, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut cli::command(), "pellicle", &mut script);
    cx.out.write(&script)?;
    Ok(ExitCode::SUCCESS)
}
