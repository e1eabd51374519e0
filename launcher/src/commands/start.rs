//! `pellicle start`: a stopped container again, with what it wrote.

use std::process::ExitCode;

use clap::Args;

use super::containers;
use crate::{
    CliError, Context,
    container::{
        background::{self, Side},
        idmap::IdMaps,
        registry::Registry,
        state::State,
        supervise::{self, Run},
    },
};

/// Start stopped containers
///
/// A container goes on with what it wrote before. It runs in the background, unless -a is given.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle start web
  pellicle start -ai shell          as it was with run -it")]
pub struct StartArgs {
    /// Print the container's output and exit with its exit code
    #[arg(short, long)]
    pub attach: bool,
    /// Pass standard input on to it
    #[arg(short, long)]
    pub interactive: bool,
    /// Names or ids of containers
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// The first container that could not be started.
pub fn run(cx: &Context, args: StartArgs) -> Result<ExitCode, CliError> {
    let registry = containers::registry(cx)?;
    let attach = args.attach || args.interactive;
    if let (true, [name]) = (attach, args.containers.as_slice()) {
        let mut run = prepare(cx, &registry, name)?;
        run.input = args.interactive;
        run.output = true;
        return Ok(containers::exit_code(
            supervise::run(run).map_err(|e| CliError::from(e).or_code(125))?,
        ));
    }
    if attach {
        return Err(CliError::usage("only one container can be attached to"));
    }
    let mut code = ExitCode::SUCCESS;
    for name in &args.containers {
        match background::split()? {
            Side::Started => cx.out.line(name)?,
            Side::Failed(_) => code = ExitCode::FAILURE,
            Side::Supervisor(ready) => {
                let mut run = prepare(cx, &registry, name)?;
                run.on_executed = Box::new(|| ready.tell());
                return Ok(containers::exit_code(supervise::run(run)?));
            }
        }
    }
    Ok(code)
}

fn prepare<'a>(cx: &'a Context, registry: &'a Registry, name: &str) -> Result<Run<'a>, CliError> {
    let store = cx.store()?;
    let lock = store.lock_shared()?;
    let id = registry.find(name)?;
    let held = registry.hold_to_run(&id)?;
    let mut state = State::load(&held.dir)?;
    state.exit_code = None;
    state.error = None;
    state.finished = None;
    Ok(Run {
        store,
        lock,
        spec: registry.spec(&id)?,
        registry,
        held,
        maps: IdMaps::for_this_user(state.settings.single_id)?,
        state,
        input: false,
        output: false,
        is_new: false,
        on_executed: Box::new(|| Ok(())),
    })
}
