//! `pellicle mount`: an image, a layer or an archive, to look into.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use clap::Args;
use pellicle_store::Digest;

use super::image_arg;
use crate::{
    CliError, Context,
    image::Image,
    mount::{self, What},
    output,
    transport::Way,
};

/// Mount an image, a layer or an archive, read-only
///
/// A tar archive (plain, or compressed with gzip or zstd) is mounted in place, without importing it.
/// With --layer one layer of an image is shown alone, its whiteouts as the `.wh.` files they are.
/// The command returns when the mount can be used; a process of its own serves it until `pellicle
/// umount DIR`. Without arguments the mounts are listed.
///
/// Without root this needs fusermount3 (Debian: fuse3), and only the user who mounts can look inside,
/// unless --allow-other is given and permitted by /etc/fuse.conf.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle mount debian:12 /mnt
  pellicle mount --layer 2 app:1 /mnt         the third layer from below
  pellicle mount layer.tar.gz /mnt
  pellicle mount --opens passthrough models:1 /mnt     large files, read as fast as on the host
  pellicle mount                              list mounts
  pellicle mount --stats                      what requests came to each
  pellicle umount /mnt")]
pub struct MountArgs {
    /// Name or id of an image, also oci:DIR:TAG, oci-archive:FILE:TAG or docker-archive:FILE:NAME, or a file
    #[arg(value_name = "IMAGE|FILE", requires = "dir")]
    pub source: Option<String>,
    /// Where to mount it
    pub dir: Option<PathBuf>,
    /// Only this layer: its number from 0, the lowest, or the start of its diff id
    #[arg(long, value_name = "N|DIFFID")]
    pub layer: Option<String>,
    /// Serve in this process, until it is unmounted or interrupted
    #[arg(short, long)]
    pub foreground: bool,
    /// How it is served.
    #[command(flatten)]
    pub way: Way,
    /// Of the mounts that are there: how many requests came, and how long they took
    #[arg(long, conflicts_with = "source")]
    pub stats: bool,
    /// Let other users in, as far as the permissions of the files go
    #[arg(long)]
    pub allow_other: bool,
    /// Say on standard output when the mount can be used: how the background process tells
    #[arg(long, hide = true, requires = "foreground")]
    pub tell_ready: bool,
}

/// Runs the command.
///
/// # Errors
/// If it cannot be mounted; then nothing is.
pub fn run(cx: &Context, args: MountArgs) -> Result<ExitCode, CliError> {
    let (Some(source), Some(dir)) = (&args.source, &args.dir) else {
        return if args.stats { stats(cx) } else { list(cx) };
    };
    let dir = mountpoint(dir)?;
    let what = what(cx, source, args.layer.as_deref())?;
    if args.foreground {
        serve(cx, &what, &dir, &args)
    } else {
        in_background(cx, &what, source, &dir, &args)
    }
}

fn list(cx: &Context) -> Result<ExitCode, CliError> {
    let rows: Vec<Vec<String>> = mount::list()?
        .into_iter()
        .map(|m| vec![m.source, m.dir.display().to_string()])
        .collect();
    cx.out
        .write(output::table(&["SOURCE", "DIRECTORY"], &rows).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// What came to each mount, as its server tells.
fn stats(cx: &Context) -> Result<ExitCode, CliError> {
    for m in mount::list()? {
        let said =
            mount::ask(&m.dir).unwrap_or_else(|e| format!("its server does not tell: {e}\n"));
        cx.out
            .write(format!("{} on {}\n{said}\n", m.source, m.dir.display()).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn mountpoint(dir: &Path) -> Result<PathBuf, CliError> {
    let fail = || CliError::failed(format!("cannot mount on {}", dir.display()));
    let meta = std::fs::metadata(dir).map_err(|e| match e.raw_os_error() {
        Some(libc::ENOENT) => fail()
            .because(e)
            .with_hint(format!("make it first: mkdir -p {}", dir.display())),
        Some(libc::ENOTCONN) => fail().because(e).with_hint(format!(
            "the server of an old mount is gone: pellicle umount {}",
            dir.display()
        )),
        _ => fail().because(e),
    })?;
    if !meta.is_dir() {
        return Err(fail().because(std::io::Error::from_raw_os_error(libc::ENOTDIR)));
    }
    dir.canonicalize().map_err(|e| fail().because(e))
}

/// An image if one has that name; else a file.
fn what(cx: &Context, source: &str, layer: Option<&str>) -> Result<What, CliError> {
    let path = Path::new(source);
    // A path that says so, or a file that is there and whose name no image has.
    let path_like = source.starts_with(['/', '.']);
    if !path_like {
        match image_arg::open(cx, &cx.images()?, source) {
            Ok(image) => {
                let layer = layer.map(|l| find_layer(&image, l)).transpose()?;
                return Ok(What::Image {
                    image: Box::new(image),
                    layer,
                });
            }
            Err(e) if !path.exists() => return Err(e),
            Err(_) => {}
        }
    }
    let fail = || CliError::failed(format!("cannot mount {source}"));
    let meta = std::fs::metadata(path).map_err(|e| fail().because(e))?;
    if meta.is_dir() {
        return Err(CliError::failed(format!("{source} is a directory, not a tar archive"))
            .with_hint("a directory becomes an image with `pellicle import`; an image is mounted by its name"));
    }
    if layer.is_some() {
        return Err(CliError::usage(
            "--layer is for images, and this is an archive",
        ));
    }
    Ok(What::Archive(
        path.canonicalize().map_err(|e| fail().because(e))?,
    ))
}

fn find_layer(image: &Image, wanted: &str) -> Result<usize, CliError> {
    let count = image.diff_ids.len();
    if let Ok(at) = wanted.parse::<usize>()
        && at < count
    {
        return Ok(at);
    }
    let prefix = wanted.strip_prefix("sha256:").unwrap_or(wanted);
    let fits = |d: &Digest| !prefix.is_empty() && d.hex().starts_with(prefix);
    let mut fitting = image
        .diff_ids
        .iter()
        .enumerate()
        .filter(|(_, d)| fits(d))
        .map(|(at, _)| at);
    match (fitting.next(), fitting.next()) {
        (Some(at), None) => Ok(at),
        (Some(_), Some(_)) => Err(
            CliError::usage(format!("{wanted:?} fits more than one layer"))
                .with_hint("give more digits"),
        ),
        (None, _) => Err(CliError::usage(format!(
            "{} has no layer {wanted:?}",
            image.display_name()
        ))
        .with_hint(format!(
            "it has {count} layers, counted from 0; `pellicle inspect` lists their diff ids"
        ))),
    }
}

fn serve(cx: &Context, what: &What, dir: &Path, args: &MountArgs) -> Result<ExitCode, CliError> {
    // Before anything is mounted, so that a signal never leaves a mount without a server.
    let mut signals = signal_hook::iterator::Signals::new([
        signal_hook::consts::SIGINT,
        signal_hook::consts::SIGTERM,
        signal_hook::consts::SIGHUP,
    ])
    .map_err(|e| CliError::failed("cannot handle signals").because(e))?;
    let served = mount::serve(mount::open(cx, what)?, dir, args.allow_other, args.way)?;
    let at = dir.to_owned();
    let spawned = std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            if signals.forever().next().is_some() {
                // Lazily: who is inside may finish, and the server ends when the last has left.
                let _ = mount::unmount(&at, true);
            }
        });
    spawned.map_err(|e| CliError::failed("cannot start a thread").because(e))?;
    if args.tell_ready {
        become_background(cx)?;
    } else {
        cx.out.note(format_args!(
            "mounted on {}; Ctrl-C unmounts",
            dir.display()
        ));
    }
    served.join()?;
    Ok(ExitCode::SUCCESS)
}

/// Tells the waiting parent, and lets go of everything that came from its terminal.
fn become_background(cx: &Context) -> Result<(), CliError> {
    cx.out.line("ready")?;
    let fail = |e: std::io::Error| CliError::failed("cannot leave the terminal").because(e);
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(fail)?;
    rustix::stdio::dup2_stdin(&null).map_err(|e| fail(e.into()))?;
    rustix::stdio::dup2_stdout(&null).map_err(|e| fail(e.into()))?;
    rustix::stdio::dup2_stderr(&null).map_err(|e| fail(e.into()))?;
    std::env::set_current_dir("/").map_err(fail)
}

/// Runs this program once more, which mounts and serves, and waits until it can be used. Its error
/// messages come out here, and its exit code is ours.
fn in_background(
    cx: &Context,
    what: &What,
    source: &str,
    dir: &Path,
    args: &MountArgs,
) -> Result<ExitCode, CliError> {
    let fail = |e| CliError::failed("cannot start the process that serves the mount").because(e);
    let mut command = Command::new("/proc/self/exe");
    command.arg("--root").arg(cx.root()?);
    if let Some(level) = cx.log_level() {
        command.arg("--log-level").arg(level);
    }
    command.args(["__serve-mount", "--foreground", "--tell-ready"]);
    command.args(["--transport", args.way.transport.word()]);
    command.args(["--opens", args.way.opens.word()]);
    if args.allow_other {
        command.arg("--allow-other");
    }
    match what {
        // By id: the name may go to another image meanwhile.
        What::Image { image, layer } => {
            if let Some(layer) = layer {
                command.arg("--layer").arg(layer.to_string());
            }
            command.arg("--").arg(image.id.to_string());
        }
        What::Archive(path) => {
            command.arg("--").arg(path);
        }
    }
    let mut child = command
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(fail)?;
    let mut said = String::new();
    if let Some(pipe) = child.stdout.take() {
        pipe.take(64).read_to_string(&mut said).map_err(fail)?;
    }
    if said == "ready\n" {
        tracing::debug!("{source} is served by process {}", child.id());
        return Ok(ExitCode::SUCCESS);
    }
    let status = child.wait().map_err(fail)?;
    match status.code() {
        // It has printed why.
        Some(code) if code != 0 => Ok(ExitCode::from(u8::try_from(code).unwrap_or(1))),
        _ => Err(CliError::failed(format!(
            "the process that serves the mount ended: {status}"
        ))),
    }
}

/// `__serve-mount`: the same, as the leader of its own session, so that no signal of the terminal
/// reaches it.
///
/// # Errors
/// As [`run`].
pub fn run_in_session(cx: &Context, args: MountArgs) -> Result<ExitCode, CliError> {
    rustix::process::setsid().map_err(|e| CliError::failed("cannot start a session").because(e))?;
    run(cx, args)
}
