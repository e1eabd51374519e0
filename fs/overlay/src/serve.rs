//! From a request to a mount that answers, and to its end.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use pellicle_fuse::{
    FuseError, MountOptions, ServeOptions, Transport, mount_here, mount_with_helper, serve, unmount,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::{
    check,
    daemon::Ready,
    error::OverlayError,
    layers,
    request::{Audience, Request},
};

/// Which way requests are to come, as `pellicle` has it: `auto`, `ring` or `dev`.
const TRANSPORT: &str = "PELLICLE_TRANSPORT";

/// Mounts, says so to `ready`, and serves until somebody unmounts.
///
/// # Errors
/// If it cannot be mounted; then nothing is mounted and nothing was changed.
pub(crate) fn run(request: &Request, ready: Ready) -> Result<(), OverlayError> {
    // Before anything is mounted, so that a signal never leaves a mount without a server.
    let signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(OverlayError::process("handle signals"))?;
    let transport = transport()?;
    raise_file_limit();
    // Modes come from the programs that make files, and were masked for them already.
    rustix::process::umask(rustix::fs::Mode::empty());

    let checked = check::check(request)?;
    let union = Arc::new(layers::open(request, &checked)?);
    let dir = std::path::absolute(&request.mountpoint)
        .map_err(OverlayError::process("find the current directory"))?;
    let fd = mount(&dir, &request.mount)?;
    let mounted = Mounted(dir.clone());
    let options = ServeOptions {
        transport,
        tells: true,
        view: request.view.clone(),
        only_root_and_owner: request.audience == Audience::OwnerAndRoot,
        threads: request.threads,
        clone_fd: request.clone_fd,
        opens: request.opens,
        ..ServeOptions::default()
    };
    let server = serve(fd, Arc::clone(&union), options)?;
    unmount_on_signal(signals, dir)?;
    ready.tell()?;
    mounted.goes_by_itself();
    let ended = server.join();
    // What is open there is closed in good order before the process ends.
    drop(union);
    Ok(ended?)
}

/// What [`TRANSPORT`] says.
fn transport() -> Result<Transport, OverlayError> {
    match std::env::var_os(TRANSPORT) {
        None => Ok(Transport::Auto),
        Some(word) => match word.as_encoded_bytes() {
            b"" | b"auto" => Ok(Transport::Auto),
            b"ring" => Ok(Transport::Ring),
            b"dev" => Ok(Transport::Dev),
            _ => Err(OverlayError::process("choose a transport")(
                std::io::Error::other(format!(
                    "{TRANSPORT} is {}; set it to auto, ring or dev",
                    word.to_string_lossy()
                )),
            )),
        },
    }
}

/// A mount that nobody would answer on if this were dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn goes_by_itself(self) {
        std::mem::forget(self);
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(&self.0, true);
    }
}

/// By mount(2) where that is allowed: as root, and in a user namespace with a mount namespace of
/// its own. Else through fusermount3.
fn mount(dir: &Path, options: &MountOptions) -> Result<std::os::fd::OwnedFd, FuseError> {
    match mount_here(dir, options) {
        Err(denied @ FuseError::MountDenied { .. }) => {
            // Root without the right to mount is root of nothing: the helper cannot do more.
            if rustix::process::geteuid().is_root() {
                return Err(denied);
            }
            mount_with_helper(dir, options)
        }
        done => done,
    }
}

/// The first signal unmounts, lazily, so that who is inside may finish; the second ends the
/// process, and with it the mount.
fn unmount_on_signal(mut signals: Signals, dir: PathBuf) -> Result<(), OverlayError> {
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            let mut came = signals.forever();
            if came.next().is_some() {
                if let Err(error) = unmount(&dir, true) {
                    tracing::warn!(%error, "cannot unmount");
                }
                if came.next().is_some() {
                    std::process::exit(1);
                }
            }
        })
        .map_err(OverlayError::process("start a thread"))?;
    Ok(())
}

/// A server holds a file open for each file that its clients have.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the number of open files");
    }
}
