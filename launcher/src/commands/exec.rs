//! `pellicle exec`: another process in a running container.

use std::process::ExitCode;

use clap::Args;

use super::containers;
use crate::{
    CliError, Context,
    container::{
        background::{self, Side},
        join::{self, Exec},
        state::State,
    },
    events::{self, Event},
};

/// Run a command in a running container
///
/// It has the container's environment, user, capabilities and limits. The exit codes are those of
/// `run`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle exec -it web sh
  pellicle exec -u www-data -w /srv web ls")]
pub struct ExecArgs {
    /// Allocate a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Pass standard input on to it
    #[arg(short, long)]
    pub interactive: bool,
    /// Go to the background once it runs
    #[arg(short, long)]
    pub detach: bool,
    /// Set an environment variable; a NAME alone takes the caller's value
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Working directory in the container
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Run as this user (and group) of the container
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Name or id of a container
    pub container: String,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// If the container does not run, or the command cannot be executed.
pub fn run(cx: &Context, args: ExecArgs) -> Result<ExitCode, CliError> {
    let registry = containers::registry(cx)?;
    let id = registry.find(&args.container)?;
    let state = State::load(&registry.dir(&id))?;
    let spec = registry.spec(&id)?;
    let exec = Exec {
        command: args.command,
        env: args.env,
        workdir: args.workdir,
        user: args.user,
        tty: args.tty,
        input: args.interactive && !args.detach,
        output: !args.detach,
    };
    let root = registry.root();
    let command = exec.command.join(" ");
    let event = |action: &str| Event::container(action, &state).with("command", command.clone());
    let begun = || events::note(root, &[event("exec_start")]);
    let ended = |code: i32| {
        events::note(
            root,
            &[event("exec_die").with("exitCode", code.to_string())],
        );
    };
    if !args.detach {
        let code = join::run(&state, &spec, &exec, || {
            begun();
            Ok(())
        })?;
        ended(code);
        return Ok(containers::exit_code(code));
    }
    match background::split()? {
        Side::Started => Ok(ExitCode::SUCCESS),
        Side::Failed(code) => Ok(ExitCode::from(code)),
        Side::Supervisor(ready) => {
            let code = join::run(&state, &spec, &exec, || {
                begun();
                ready.tell()
            })?;
            ended(code);
            Ok(containers::exit_code(code))
        }
    }
}
