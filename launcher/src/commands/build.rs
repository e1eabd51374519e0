//! `pellicle build`: an image from a Containerfile.

mod keys;
mod values;

use std::{
    fs::File,
    io::{self, IsTerminal as _, Read as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use pellicle_union::{CommitError, Watch};

use super::{
    import::image_name,
    outfile::{OutFile, cancelled},
    registry_args::{Bars, RegistryArgs},
};
use crate::{
    CliError, Context,
    build::{self, BuildError, Built, Job, Options},
    container::request::Network,
    events::{self, Event},
    image::{Images, Platform, Reference},
    interrupt,
    registry::{
        download,
        pull::{self, PullPolicy},
    },
};
use values::{agents, build_args, pair, secrets, times};

/// Names of the file in the context, the first that is there counts (podman's order).
const FILES: [&str; 2] = ["Containerfile", "Dockerfile"];
/// More than any Containerfile has.
const FILE_MAX: u64 = 2 << 20;

/// Build an image from a Containerfile (Dockerfile)
///
/// The context is the directory that COPY and ADD take files from; what its .containerignore or
/// .dockerignore lists is left out. Without -f its Containerfile or Dockerfile is read.
///
/// RUN has a container with the isolation of `run`, and like that no network unless --network host or
/// RUN --network=host gives it one. Base images come from the store, from registries where they are
/// missing, or from oci:DIR:TAG, oci-archive:FILE and docker-archive:FILE.
///
/// A step whose input is what it was in an earlier build is not done again. Nothing is listed or tagged
/// unless all steps succeed; the id of the image is all that goes to standard output.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle build -t app:1 .
  pellicle build -f docker/Dockerfile --build-arg VERSION=2 --target test .
  pellicle build --secret id=token,src=$HOME/.token --network host -t app .
  pellicle build --ssh default --network host -t app .    RUN --mount=type=ssh has the ssh agent
  pellicle build --ssh default=$HOME/.ssh/deploy_key --network host -t app .    or one with this key
  SOURCE_DATE_EPOCH=0 pellicle build -q -t app .          the same input gives the same digest
  pellicle build --output type=local,dest=out .           the files instead of an image
  pellicle build -t tools -f - . <Containerfile")]
pub struct BuildArgs {
    /// Name of the image; may be given more than once
    #[arg(short, long, value_name = "NAME[:TAG]")]
    pub tag: Vec<String>,
    /// The Containerfile; - is standard input
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// A value for ARG; a NAME alone takes the caller's value
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub build_arg: Vec<String>,
    /// A file (or variable) that RUN --mount=type=secret shows and no layer has
    #[arg(long, value_name = "id=NAME[,src=FILE|,env=VARIABLE]")]
    pub secret: Vec<String>,
    /// An ssh agent that RUN --mount=type=ssh leads to: that of $SSH_AUTH_SOCK, that of a socket, or one for the
    /// build alone with the keys of files (which needs OpenSSH's client)
    #[arg(long, value_name = "default|ID[=SOCKET|=KEY[,KEY]]")]
    pub ssh: Vec<String>,
    /// The stage to build, by name or number [default: the last]
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// The machine to build for [default: this one]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
    /// A label of the image
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// When to pull base images; alone it means always
    #[arg(
        long,
        value_enum,
        default_value_t,
        default_missing_value = "always",
        num_args = 0..=1,
        require_equals = true,
        value_name = "WHEN"
    )]
    pub pull: PullPolicy,
    /// The network of RUN
    #[arg(long, value_enum, default_value_t, value_name = "NETWORK")]
    pub network: Network,
    /// Do all steps, whatever earlier builds did
    #[arg(long)]
    pub no_cache: bool,
    /// Put all that the build adds into one layer
    #[arg(long)]
    pub squash: bool,
    /// Say that the image was made so many seconds after 1970, and give all files of its new layers that time; SOURCE_DATE_EPOCH does the same, but leaves earlier times of files
    #[arg(long, value_name = "SECONDS")]
    pub timestamp: Option<i64>,
    /// Write the image's id to a file
    #[arg(long, value_name = "FILE")]
    pub iidfile: Option<PathBuf>,
    /// Write the files out instead of making an image: type=local,dest=DIR or type=tar,dest=FILE (- is standard output)
    #[arg(short, long, value_name = "type=local|tar,dest=PATH")]
    pub output: Option<String>,
    /// Print nothing but the image's id, and what a RUN that fails printed
    #[arg(short, long)]
    pub quiet: bool,
    /// The context directory
    #[arg(value_name = "CONTEXT")]
    pub context: Option<PathBuf>,
    /// How a registry is reached.
    #[command(flatten)]
    pub registry: RegistryArgs,
}

/// Runs the command.
///
/// # Errors
/// What could not be built; then no image is listed or tagged.
pub fn run(cx: &Context, args: BuildArgs) -> Result<ExitCode, CliError> {
    let out = cx.out.quiet_if(args.quiet);
    // Everything that can be refused without reading anything is refused first.
    let names = args.tag.iter().map(|n| image_name(n));
    let names = names.collect::<Result<Vec<Reference>, _>>()?;
    let target = args.output.as_deref().map(Target::parse).transpose()?;
    if target.is_some() && !names.is_empty() {
        return Err(
            CliError::usage("--output makes no image that --tag could name")
                .with_hint("take one of them out"),
        );
    }
    let (file_name, file, text) = containerfile(&args)?;
    let tell = |text: std::fmt::Arguments<'_>| out.note(text);
    let cancel = interrupt::cancel_on_signals()?;
    let images = cx.images()?;
    let agents = agents(&args.ssh)?;
    let bars = Bars::new(out);
    let access = || args.registry.access(cancel.clone());
    let find = |name: &str, platform: Option<&Platform>| {
        pull::ensure(&images, name, args.pull, platform, &access, &bars)
    };
    let fetch =
        |address: &str, etag: Option<&str>, to: &mut File| download(&access()?, address, etag, to);
    let options = Options {
        file_name,
        text,
        file,
        // With - the Containerfile is all there is.
        context: args.context.clone().filter(|c| c != Path::new("-")),
        build_args: build_args(&args.build_arg)?,
        secrets: secrets(&args.secret)?,
        agents: agents.sockets.clone(),
        target: args.target.clone(),
        labels: args.label.iter().map(|l| pair(l)).collect(),
        platform: args.platform.clone(),
        network: args.network,
        no_cache: args.no_cache,
        quiet: args.quiet,
        squash: args.squash,
        times: times(args.timestamp)?,
        cancel: cancel.clone(),
        find: &find,
        fetch: &fetch,
        tell: &tell,
    };
    let _lock = images.store().lock_shared()?;
    let built = build::build(&images, &options).map_err(failed)?;
    for name in &built.unused_args {
        out.warn(format_args!("no ARG asks for --build-arg {name}"));
    }
    match target {
        Some(target) => target.write(&images, &built, &options)?,
        None => {
            let id = built.list(&images, names.clone()).map_err(failed)?;
            let name = names.first().and_then(Reference::tagged);
            let event = Event::image("build", &id, name.as_deref());
            events::note(images.store().root(), &[event]);
            if let Some(file) = &args.iidfile {
                std::fs::write(file, id.to_string()).map_err(|e| {
                    CliError::failed(format!("cannot write {}", file.display())).because(e)
                })?;
            }
            for name in &names {
                out.note(format_args!("tagged {}", name.familiar()));
            }
            cx.out.line(id)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn failed(error: BuildError) -> CliError {
    let code = matches!(error, BuildError::Cancelled).then_some(130);
    let error = CliError::from(error);
    code.into_iter().fold(error, CliError::with_code)
}

/// What messages call the Containerfile, its path, and its text.
fn containerfile(args: &BuildArgs) -> Result<(String, Option<PathBuf>, Vec<u8>), CliError> {
    let mut text = Vec::new();
    if args.file.as_deref() == Some(Path::new("-"))
        || args.context.as_deref() == Some(Path::new("-"))
    {
        if args.context.as_deref() == Some(Path::new("-")) && args.file.is_some() {
            return Err(
                CliError::usage("a context on standard input is not supported")
                    .with_hint("unpack it and give the directory"),
            );
        }
        if io::stdin().is_terminal() {
            return Err(
                CliError::usage("standard input is a terminal, not a Containerfile")
                    .with_hint("redirect it: pellicle build -f - . <Containerfile"),
            );
        }
        io::stdin()
            .take(FILE_MAX)
            .read_to_end(&mut text)
            .map_err(|e| CliError::failed("cannot read standard input").because(e))?;
        return Ok(("standard input".to_owned(), None, text));
    }
    let path = match (&args.file, &args.context) {
        (Some(file), _) => file.clone(),
        (None, Some(context)) => {
            let found = FILES.iter().map(|n| context.join(n)).find(|p| p.exists());
            found.ok_or_else(|| {
                CliError::failed(format!(
                    "there is no Containerfile or Dockerfile in {}",
                    context.display()
                ))
                .with_hint("give it with -f FILE")
            })?
        }
        (None, None) => {
            return Err(CliError::usage("no context given")
                .with_hint("give a directory, as `pellicle build .`"));
        }
    };
    File::open(&path)
        .and_then(|f| f.take(FILE_MAX).read_to_end(&mut text))
        .map_err(|e| CliError::failed(format!("cannot read {}", path.display())).because(e))?;
    Ok((path.display().to_string(), Some(path), text))
}

/// Where the files go instead of into an image.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Local(PathBuf),
    Tar(PathBuf),
}

impl Target {
    fn parse(text: &str) -> Result<Self, CliError> {
        let bad = |why: String| {
            CliError::usage(format!("--output {text:?}: {why}"))
                .with_hint("write type=local,dest=DIR or type=tar,dest=FILE")
        };
        let (mut kind, mut to) = (None, None);
        for field in text.split(',') {
            match field.split_once('=') {
                Some(("type", value)) => kind = Some(value),
                Some(("dest", value)) if !value.is_empty() => to = Some(value),
                // As docker and podman: a path alone is a directory, and - an archive.
                None if text == "-" => (kind, to) = (Some("tar"), Some("-")),
                None if text == field => (kind, to) = (Some("local"), Some(field)),
                _ => return Err(bad(format!("{field} is not known"))),
            }
        }
        let to = to.map(PathBuf::from);
        match (kind, to) {
            (Some("local"), Some(to)) => Ok(Self::Local(to)),
            (Some("tar"), to) => Ok(Self::Tar(to.unwrap_or_else(|| PathBuf::from("-")))),
            (Some("local"), None) => Err(bad("it has no dest".to_owned())),
            (Some(other), _) => Err(bad(format!("type={other} is not known"))),
            (None, _) => Err(bad("it has no type".to_owned())),
        }
    }

    fn write(&self, images: &Images, built: &Built, options: &Options<'_>) -> Result<(), CliError> {
        match self {
            Self::Local(dir) => built
                .write_files(images, dir, &options.cancel)
                .map_err(failed),
            Self::Tar(file) => {
                let mut out = OutFile::new(Some(file), "an archive")?;
                let watch = Watch {
                    cancel: options.cancel.clone(),
                    progress: &(),
                };
                let tree = built.tree(images).map_err(failed)?;
                tree.write_archive(None, &mut out, &watch)
                    .map_err(cancelled)?;
                out.flush()
                    .map_err(|source| cancelled(CommitError::Write { source }))?;
                out.finish()
            }
        }
    }
}

/// The process that runs the container of a RUN; `build` starts it
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle __build-run <JOB")]
pub struct BuildRunArgs {}

/// Runs that process.
///
/// # Errors
/// If nobody can be told what became of it.
pub fn run_one(cx: &Context, _args: &BuildRunArgs) -> Result<ExitCode, CliError> {
    let job: Job = serde_json::from_reader(io::stdin().lock())?;
    let code = build::serve(cx.root()?, job)?;
    Ok(super::containers::exit_code(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_directories_and_archives() {
        let ok = |t: &str| Target::parse(t).unwrap();
        assert_eq!(ok("type=local,dest=a"), Target::Local("a".into()));
        assert_eq!(ok("a/b"), Target::Local("a/b".into()));
        assert_eq!(ok("-"), Target::Tar("-".into()));
        assert_eq!(ok("type=tar"), Target::Tar("-".into()));
        assert_eq!(ok("type=tar,dest=x"), Target::Tar("x".into()));
        for bad in [
            "type=local",
            "type=oci,dest=a",
            "dest=a",
            "type=tar,x=1",
            "type=tar,y",
        ] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }
}
