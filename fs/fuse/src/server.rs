//! The serving side: threads that answer the kernel until the file system is unmounted.

use std::{
    os::fd::OwnedFd,
    sync::Arc,
    thread::{self, JoinHandle},
};

use fuser::{Config, Session, SessionACL};
use pellicle_union::Union;

use crate::{FuseError, Stats, adapter::Adapter};

/// How a mount is served.
#[derive(Clone, Debug, Default)]
pub struct ServeOptions {
    /// Hand the kernel the host files that hold whole contents, so that reads and `mmap` of them
    /// never come here (Linux 6.9+, real root only; elsewhere, and for a writable union, it is
    /// quietly not used: see `fs/docs/TRANSPORT.md`).
    pub passthrough: bool,
    /// Threads that answer; `None`: as many as there are CPUs, at least 2 and at most 4.
    pub threads: Option<usize>,
    /// Give each thread a device descriptor of its own (`FUSE_DEV_IOC_CLONE`).
    pub clone_fd: bool,
    /// Let the kernel gather small writes (`FUSE_WRITEBACK_CACHE`). For experiments: each close
    /// then costs the next `stat` a message.
    pub write_back: bool,
    /// Ask for plain READDIR first and READDIRPLUS only where the kernel sees a use, instead of
    /// always. For experiments.
    pub adaptive_listing: bool,
}

/// A mount being served. Dropping it leaves the threads serving; see [`Server::join`].
#[derive(Debug)]
pub struct Server {
    thread: JoinHandle<std::io::Result<()>>,
    stats: Arc<Stats>,
}

/// Agrees with the kernel on how to talk over `fd` (from [`mount_here`](crate::mount_here) or
/// [`mount_with_helper`](crate::mount_with_helper)) and starts to answer.
///
/// Whoever passes the kernel's checks is served: the mount's options say who that is.
///
/// # Errors
/// [`FuseError::Handshake`] if the mount is gone already or the kernel is too old, or
/// [`FuseError::Serve`] if no thread could be started.
pub fn serve(fd: OwnedFd, union: Arc<Union>, options: ServeOptions) -> Result<Server, FuseError> {
    let stats = Arc::new(Stats::default());
    let mut config = Config::default();
    config.acl = SessionACL::All;
    config.n_threads = Some(options.threads.unwrap_or_else(default_threads).max(1));
    config.clone_fd = options.clone_fd;
    let adapter = Adapter::new(union, options, Arc::clone(&stats));
    let session = Session::from_fd(adapter, fd, SessionACL::All, config)
        .map_err(|source| FuseError::Handshake { source })?;
    let thread = thread::Builder::new()
        .name("fuse-session".to_owned())
        .spawn(move || session.run())
        .map_err(|source| FuseError::Serve { source })?;
    Ok(Server { thread, stats })
}

impl Server {
    /// Waits until the file system is unmounted and every request answered.
    ///
    /// # Errors
    /// [`FuseError::Serve`] if serving ended otherwise.
    pub fn join(self) -> Result<(), FuseError> {
        match self.thread.join() {
            Ok(ended) => ended.map_err(|source| FuseError::Serve { source }),
            Err(_) => Err(FuseError::Serve {
                source: std::io::Error::other("a serving thread panicked"),
            }),
        }
    }

    /// Whether serving has ended, so that [`Server::join`] would not wait.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// The counts of the messages answered so far.
    #[must_use]
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }
}

fn default_threads() -> usize {
    thread::available_parallelism()
        .map_or(2, usize::from)
        .clamp(2, 4)
}
