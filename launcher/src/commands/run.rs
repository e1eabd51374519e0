//! `pellicle run`: a new container.

use std::{io::Write as _, process::ExitCode};

use clap::Args;

use super::containers;
use crate::{
    CliError, Context,
    container::{
        ContainerError,
        background::{self, Side},
        idmap::IdMaps,
        names,
        registry::Registry,
        request::Request,
        spec,
        state::State,
        supervise,
    },
};

/// Run a command in a new container
///
/// The command's exit code is this program's. 125 says that the container could not be made, 126 that
/// the command could not be executed, 127 that it does not exist.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle run -it --rm debian:12 bash
  pellicle run -d --name web -v ./site:/srv:ro -m 512m app:1
  pellicle run --rm -u 1000:1000 -w /tmp debian:12 sh -c 'id; pwd'")]
pub struct RunArgs {
    /// Go to the background once it runs, and print its id
    #[arg(short, long)]
    pub detach: bool,
    /// What the container is to be.
    #[command(flatten)]
    pub request: Request,
    /// Name or id of the image
    pub image: String,
    /// The command and its arguments [default: the image's]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// If the container cannot be made or its command not executed.
pub fn run(cx: &Context, mut args: RunArgs) -> Result<ExitCode, CliError> {
    let request = &mut args.request;
    if request.tty && request.interactive && !args.detach {
        check_terminal()?;
    }
    let registry = containers::registry(cx)?;
    let image = cx.images()?.resolve(&args.image)?;
    let maps = IdMaps::for_this_user(request.single_id)?;
    if let Some(why) = &maps.fell_back {
        cx.out.warn(format_args!(
            "{why}: one id only, every owner is shown as root (--single-id does the same without this message)"
        ));
        request.single_id = true;
    }
    let id = names::new_id();
    let dir = registry.dir(&id);
    let (spec, mut settings) = spec::build(&id, &dir, &image.config, request, &args.command)?;
    settings.detached = args.detach;
    let mut state = State::new(id, request.name.clone().unwrap_or_default(), settings);
    state.image = args.image.clone();
    state.image_id = image.id.to_string();
    state.diff_ids = image.diff_ids.iter().map(ToString::to_string).collect();
    let process = spec.process().as_ref();
    state.command = process.and_then(|p| p.args().clone()).unwrap_or_default();
    if let Some(name) = request.name.as_deref().filter(|n| n.is_empty()) {
        return Err(ContainerError::invalid("--name", name, "is empty").into());
    }
    // Before the fork: the other side must not be the only one that knows the file.
    write_id_file(request, &state.id)?;
    let side = if args.detach {
        background::split()?
    } else {
        return in_foreground(cx, &registry, (maps, state, spec), &args.request);
    };
    match side {
        Side::Started => {
            cx.out.line(&state.id)?;
            Ok(ExitCode::SUCCESS)
        }
        Side::Failed(code) => {
            remove_id_file(&args.request);
            Ok(ExitCode::from(code))
        }
        Side::Supervisor(ready) => {
            let run = make(cx, &registry, (maps, state, spec))?;
            let code = supervise::run(supervise::Run {
                on_executed: Box::new(|| ready.tell()),
                ..run
            })?;
            Ok(containers::exit_code(code))
        }
    }
}

type What = (IdMaps, State, oci_spec::runtime::Spec);

fn in_foreground(
    cx: &Context,
    registry: &Registry,
    what: What,
    request: &Request,
) -> Result<ExitCode, CliError> {
    let result = make(cx, registry, what).and_then(|run| {
        let run = supervise::Run {
            input: request.interactive,
            output: true,
            ..run
        };
        supervise::run(run).map_err(CliError::from)
    });
    if result.is_err() {
        remove_id_file(request);
    }
    result.map(containers::exit_code)
}

/// Makes the container, without its process. The store's lock keeps its layers from being collected
/// while it runs.
fn make<'a>(
    cx: &'a Context,
    registry: &'a Registry,
    (maps, mut state, spec): What,
) -> Result<supervise::Run<'a>, CliError> {
    let store = cx.store()?;
    let lock = store.lock_shared()?;
    let held = registry.create(&mut state, &spec)?;
    Ok(supervise::Run {
        store,
        lock,
        registry,
        held,
        maps,
        state,
        spec,
        input: false,
        output: false,
        is_new: true,
        on_executed: Box::new(|| Ok(())),
    })
}

fn check_terminal() -> Result<(), CliError> {
    if rustix::termios::isatty(std::io::stdin()) {
        return Ok(());
    }
    Err(
        CliError::failed("-t with -i needs a terminal on standard input")
            .with_hint("leave -t out when standard input is a pipe or a file")
            .with_code(125),
    )
}

fn write_id_file(request: &Request, id: &str) -> Result<(), CliError> {
    let Some(path) = &request.cidfile else {
        return Ok(());
    };
    std::fs::File::create_new(path)
        .and_then(|mut file| file.write_all(id.as_bytes()))
        .map_err(|e| CliError::failed(format!("cannot write {}", path.display())).because(e))
}

fn remove_id_file(request: &Request) {
    if let Some(path) = &request.cidfile {
        let _ = std::fs::remove_file(path);
    }
}
