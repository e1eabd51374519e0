//! `pellicle start`: a stopped container again, with what it wrote.

use std::process::ExitCode;

use clap::Args;

use super::containers;
use crate::{
    CliError, Context,
    container::{
        background::{self, Side},
        begin::Begin,
        idmap::IdMaps,
        registry::{Held, Registry},
        spec,
        state::State,
        supervise::{self, Run},
    },
    transport::{Opens, Transport},
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
    /// Which way the kernel's requests for its files come, from now on [default: as it was run]
    #[arg(long, value_enum, value_name = "TRANSPORT")]
    pub transport: Option<Transport>,
    /// What it means to open a file in it, from now on [default: as it was run]
    #[arg(long, value_enum, value_name = "WAY")]
    pub opens: Option<Opens>,
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
        let (run, maps, held) = prepare(cx, &registry, name, &args)?;
        let begin = Begin {
            input: args.interactive,
            output: true,
            ..begin(&run)
        };
        let code =
            (begin.fork(&maps)).and_then(|begun| supervise::run(run, begun, |_, _| Ok(held)));
        return Ok(containers::exit_code(
            code.map_err(|e| CliError::from(e).or_code(125))?,
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
                let (mut run, maps, held) = prepare(cx, &registry, name, &args)?;
                run.on_executed = Box::new(|| ready.tell());
                let begun = begin(&run).fork(&maps)?;
                let code = supervise::run(run, begun, |_, _| Ok(held))?;
                return Ok(containers::exit_code(code));
            }
        }
    }
    Ok(code)
}

fn prepare<'a>(
    cx: &'a Context,
    registry: &'a Registry,
    name: &str,
    args: &StartArgs,
) -> Result<(Run<'a>, IdMaps, Held), CliError> {
    let store = cx.store()?;
    let lock = store.lock_shared()?;
    let id = registry.find(name)?;
    let held = registry.hold_to_run(&id)?;
    let mut state = State::load(&held.dir)?;
    state.exit_code = None;
    state.error = None;
    state.finished = None;
    let settings = &mut state.settings;
    settings.transport = args.transport.unwrap_or(settings.transport);
    settings.opens = args.opens.unwrap_or(settings.opens);
    let maps = IdMaps::for_this_user(state.settings.single_id)?;
    let run = Run {
        store,
        lock,
        spec: registry.spec(&id)?,
        registry,
        state,
        stats: false,
        is_new: false,
        keep: false,
        on_executed: Box::new(|| Ok(())),
    };
    Ok((run, maps, held))
}

/// In the background.
fn begin(run: &Run<'_>) -> Begin {
    Begin {
        namespaces: spec::namespaces_of(&run.spec),
        tty: spec::has_terminal(&run.spec),
        keep_open: run.state.settings.open_stdin,
        ..Begin::default()
    }
}
