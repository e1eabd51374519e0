//! `pellicle run`: a new container.

use std::{io::Write as _, process::ExitCode};

use clap::Args;
use oci_spec::runtime::Spec;
use pellicle_store::import::Cancel;

use super::{
    containers, image_arg,
    registry_args::{Bars, RegistryArgs},
};
use crate::{
    CliError, Context,
    container::{
        ContainerError,
        background::{self, Side},
        begin::{Begin, Begun},
        idmap::IdMaps,
        names,
        registry::Registry,
        request::Request,
        spec,
        state::State,
        supervise,
    },
    image::{Image, ImageError, Location},
    registry::{
        Access,
        pull::{self, PullPolicy},
    },
};

/// Run a command in a new container
///
/// The command's exit code is this program's. 125 says that the container could not be made, 126 that
/// the command could not be executed, 127 that it does not exist.
///
/// An image that is not in the store is pulled (see `pellicle pull`), unless --pull says otherwise.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle run -it --rm debian:12 bash
  pellicle run -d --name web -v ./site:/srv:ro -m 512m app:1
  pellicle run --rm --pull always quay.io/user/tool:1.0 --version
  pellicle run --rm -u 1000:1000 -w /tmp debian:12 sh -c 'id; pwd'")]
pub struct RunArgs {
    /// Go to the background once it runs, and print its id
    #[arg(short, long)]
    pub detach: bool,
    /// When to pull the image
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub pull: PullPolicy,
    /// What the container is to be.
    #[command(flatten)]
    pub request: Request,
    /// Name or id of the image, also docker://NAME, oci:DIR:TAG, oci-archive:FILE:TAG or docker-archive:FILE:NAME
    pub image: String,
    /// The command and its arguments [default: the image's]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
    /// How a registry is reached.
    #[command(flatten)]
    pub registry: RegistryArgs,
}

/// Runs the command.
///
/// # Errors
/// If the container cannot be made or its command not executed.
pub fn run(cx: &Context, mut args: RunArgs) -> Result<ExitCode, CliError> {
    if args.request.tty && args.request.interactive && !args.detach {
        check_terminal()?;
    }
    if let Ok(Location::Name(name)) = Location::parse(&args.image) {
        args.image = name;
    }
    let request = &mut args.request;
    let maps = IdMaps::for_this_user(request.single_id)?;
    if let Some(why) = &maps.fell_back {
        cx.out.warn(format_args!(
            "{why}: one id only, every owner is shown as root (--single-id does the same without this message)"
        ));
        request.single_id = true;
    }
    if args.detach {
        in_background(cx, &args, &maps)
    } else {
        in_foreground(cx, &args, &maps)
    }
}

fn in_foreground(cx: &Context, args: &RunArgs, maps: &IdMaps) -> Result<ExitCode, CliError> {
    let request = &args.request;
    let (begun, image) = fork_and_find(cx, args, maps)?;
    let registry = containers::registry(cx)?;
    let (state, spec) = describe(&registry, args, &image)?;
    write_id_file(request, &state.id)?;
    let result = make(cx, &registry, (state, spec)).and_then(|run| {
        let run = supervise::Run {
            stats: request.stats,
            ..run
        };
        let hold = |state: &mut State, spec: &Spec| registry.create(state, spec);
        supervise::run(run, begun, hold).map_err(CliError::from)
    });
    if result.is_err() {
        remove_id_file(request);
    }
    result.map(containers::exit_code)
}

/// Whether the image is named, not given as a layout or an archive.
fn is_name(args: &RunArgs) -> bool {
    matches!(Location::parse(&args.image), Ok(Location::Name(_)))
}

/// The container's process, and the image.
///
/// The process comes first: its id maps take longest. Where the image turns out to be missing, it is
/// given up, the image pulled as if nothing had been forked, so that Ctrl-C ends this program, and
/// another process forked.
fn fork_and_find(cx: &Context, args: &RunArgs, maps: &IdMaps) -> Result<(Begun, Image), CliError> {
    let begin = Begin {
        input: args.request.interactive,
        output: true,
        ..begin(&args.request)
    };
    if args.pull != PullPolicy::Always && is_name(args) {
        let begun = begin.fork(maps)?;
        match cx.images()?.resolve(&args.image) {
            Err(ImageError::NotFound(_)) if args.pull == PullPolicy::Missing => begun.give_up()?,
            found => return Ok((begun, found?)),
        }
    }
    let image = ensure(cx, args)?;
    Ok((begin.fork(maps)?, image))
}

/// The image: read from a layout or an archive if that is given, pulled if that is wanted.
fn ensure(cx: &Context, args: &RunArgs) -> Result<Image, CliError> {
    if !is_name(args) {
        return image_arg::open(cx, &cx.images()?, &args.image);
    }
    let access = || {
        let access = args.registry.access(Cancel::default())?;
        Ok(Access {
            watched: false,
            ..access
        })
    };
    let show = Bars::new(cx.out);
    let images = cx.images()?;
    Ok(pull::ensure(
        &images,
        &args.image,
        args.pull,
        None,
        &access,
        &show,
    )?)
}

fn in_background(cx: &Context, args: &RunArgs, maps: &IdMaps) -> Result<ExitCode, CliError> {
    let image = ensure(cx, args)?;
    let registry = containers::registry(cx)?;
    let (state, spec) = describe(&registry, args, &image)?;
    // Before the fork: the other side must not be the only one that knows the file.
    write_id_file(&args.request, &state.id)?;
    match background::split()? {
        Side::Started => {
            cx.out.line(&state.id)?;
            Ok(ExitCode::SUCCESS)
        }
        Side::Failed(code) => {
            remove_id_file(&args.request);
            Ok(ExitCode::from(code))
        }
        Side::Supervisor(ready) => {
            let begun = begin(&args.request).fork(maps)?;
            let run = make(cx, &registry, (state, spec))?;
            let run = supervise::Run {
                on_executed: Box::new(|| ready.tell()),
                ..run
            };
            let code = supervise::run(run, begun, |state, spec| registry.create(state, spec))?;
            Ok(containers::exit_code(code))
        }
    }
}

/// In the background.
fn begin(request: &Request) -> Begin {
    Begin {
        namespaces: spec::namespaces(request),
        tty: request.tty,
        keep_open: request.interactive,
        ..Begin::default()
    }
}

/// What the container is to be.
fn describe(registry: &Registry, args: &RunArgs, image: &Image) -> Result<(State, Spec), CliError> {
    let request = &args.request;
    let id = names::new_id();
    let dir = registry.dir(&id);
    let (spec, mut settings) = spec::build(&id, &dir, &image.config, request, &args.command)?;
    settings.detached = args.detach;
    let mut state = State::new(id, request.name.clone().unwrap_or_default(), settings);
    state.image = if is_name(args) {
        args.image.clone()
    } else {
        image.id.to_string()
    };
    state.image_id = image.id.to_string();
    state.diff_ids = image.diff_ids.iter().map(ToString::to_string).collect();
    let process = spec.process().as_ref();
    state.command = process.and_then(|p| p.args().clone()).unwrap_or_default();
    if let Some(name) = request.name.as_deref().filter(|n| n.is_empty()) {
        return Err(ContainerError::invalid("--name", name, "is empty").into());
    }
    Ok((state, spec))
}

/// What is to be run. The store's lock keeps its layers from being collected meanwhile.
fn make<'a>(
    cx: &'a Context,
    registry: &'a Registry,
    (state, spec): (State, Spec),
) -> Result<supervise::Run<'a>, CliError> {
    let store = cx.store()?;
    let lock = store.lock_shared()?;
    Ok(supervise::Run {
        store,
        lock,
        registry,
        state,
        spec,
        stats: false,
        is_new: true,
        keep: false,
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
