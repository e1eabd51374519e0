//! The serving side: threads that answer the kernel until the file system is unmounted.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc, OnceLock,
        mpsc::{self, TryRecvError},
    },
    thread::{self, JoinHandle},
};

use fuser::{Config, Session, SessionACL};
use pellicle_sys::heap;
use pellicle_union::Union;

use crate::{
    FuseError, Served, Stats, Transport, View,
    dev::Dev,
    init::Agreed,
    operations::Operations,
    passthrough::{self, OpenPolicy},
    ring::{self, Prepared, Running},
    transport::Serving,
    watch::Watch,
};

/// What opening a file means to the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Opens {
    /// Nothing: the kernel opens files by itself, keeps their pages and sends no message
    /// (`FUSE_NO_OPEN_SUPPORT`).
    #[default]
    Silent,
    /// OPEN and RELEASE are answered, pages kept. For comparison: it costs two messages.
    Answered,
    /// Hand the kernel the host files that hold whole contents, so that reads, writes and `mmap` of
    /// them never come here (Linux 6.9+, real root only; elsewhere it is [`Opens::Silent`], with a
    /// warning). What was written so is the union's from the close, `fsync` or `stat` on:
    /// see `fs/docs/TRANSPORT.md`.
    Passthrough,
}

/// The extended attribute that [`ServeOptions::tells`] is about.
pub const SERVER_XATTR: &[u8] = b"user.pellicle.server";

/// How a mount is served.
#[derive(Clone, Debug, Default)]
pub struct ServeOptions {
    /// Which way requests come.
    pub transport: Transport,
    /// How the mount shows what the union keeps.
    pub view: View,
    /// Serve root and the user who mounts, and refuse everyone else, although the mount lets all in
    /// ([`MountOptions::allow_other`](crate::MountOptions)). Takes [`Transport::Dev`].
    pub only_root_and_owner: bool,
    /// What opening a file means.
    pub opens: Opens,
    /// Threads that answer on `/dev/fuse`; `None`: as many as there are CPUs, at least 2 and at
    /// most 4. A ring has threads of its own.
    pub threads: Option<usize>,
    /// Give each thread a device descriptor of its own (`FUSE_DEV_IOC_CLONE`).
    pub clone_fd: bool,
    /// Let the kernel gather small writes (`FUSE_WRITEBACK_CACHE`). For experiments: each close
    /// then costs the next `stat` a message.
    pub write_back: bool,
    /// Ask for plain READDIR first and READDIRPLUS only where the kernel sees a use, instead of
    /// always. For experiments.
    pub adaptive_listing: bool,
    /// Answer the extended attribute [`SERVER_XATTR`] of the root directory with how the mount is
    /// served: a line that says which way requests come, then a table of those that came.
    pub tells: bool,
    /// Bytes of each buffer of a ring, a multiple of the page size; `None`: what the largest
    /// request needs. The kernel refuses a ring with smaller ones. For experiments.
    pub ring_payload: Option<u32>,
}

/// A mount being served. Dropping it leaves the threads serving; see [`Server::join`].
#[derive(Debug)]
pub struct Server {
    thread: JoinHandle<std::io::Result<()>>,
    stats: Arc<Stats>,
    serving: Serving,
}

/// Agrees with the kernel on how to talk over `fd` (from [`mount_here`](crate::mount_here) or
/// [`mount_with_helper`](crate::mount_with_helper)) and starts to answer.
///
/// Whoever passes the kernel's checks is served, the mount's options say who that is, unless
/// [`ServeOptions::only_root_and_owner`] narrows it.
///
/// # Errors
/// [`FuseError::Handshake`] if the mount is gone already or the kernel is too old, or
/// [`FuseError::Serve`] if no thread could be started.
pub fn serve(fd: OwnedFd, union: Arc<Union>, options: ServeOptions) -> Result<Server, FuseError> {
    // fuser has a buffer of 16 MiB for each of its threads.
    heap::map_large_blocks();
    let stats = Arc::new(Stats::default());
    // Who asks is checked where fuser reads, so there must be no other way in.
    let (wished, audience) = if options.only_root_and_owner {
        (Transport::Dev, SessionACL::RootAndOwner)
    } else {
        (options.transport, SessionACL::All)
    };
    let mut config = Config::default();
    config.acl = audience;
    let threads = options.threads.unwrap_or_else(default_threads).max(1);
    config.n_threads = Some(threads);
    config.clone_fd = options.clone_fd;
    let operations = Arc::new(Operations::new(union, options, Arc::clone(&stats), threads));

    let prepared = prepare(&fd, &operations, wished);
    let agreed = Arc::new(OnceLock::new());
    let device = fd.try_clone().ok().map(Arc::new);
    let (in_use, unused) = mpsc::channel();
    let dev = Dev {
        operations: Arc::clone(&operations),
        ring_ready: prepared.is_ok(),
        device: fd.try_clone().ok(),
        watch: Watch::new(threads),
        agreed: Arc::clone(&agreed),
        _in_use: in_use,
    };
    let session = Session::from_fd(dev, fd, audience, config)
        .map_err(|source| FuseError::Handshake { source })?;
    operations.set_notifier(session.notifier());
    let agreed = agreed.get();
    let passthrough = (operations.options.opens == Opens::Passthrough)
        .then(|| passes_through(agreed, device.as_ref()));
    let opens = match &passthrough {
        Some(Err(_)) => Opens::Silent,
        _ => operations.options.opens,
    };
    // Before the first request.
    let _ = operations.opens.set(OpenPolicy::of(opens));
    let (ring, served) = start(prepared, agreed.is_some_and(|agreed| agreed.ring));
    let serving = Serving {
        served,
        passthrough,
    };
    serving.log(wished);
    let _ = operations.serving.set(serving.clone());
    drop(operations);

    let thread = thread::Builder::new()
        .name("fuse-session".to_owned())
        .spawn(move || {
            let ended = still_served(session.run(), &unused);
            if let Some(ring) = ring {
                // Ended by an unmount it ends by itself. Otherwise its hold on the device goes
                // with it, so that no program waits for a server that is gone.
                ring.stop();
            }
            ended
        })
        .map_err(|source| FuseError::Serve { source })?;
    Ok(Server {
        thread,
        stats,
        serving,
    })
}

/// Whether passthrough, which was asked for, is to be had; else why not.
fn passes_through(agreed: Option<&Agreed>, device: Option<&Arc<OwnedFd>>) -> Result<(), String> {
    match (agreed, device) {
        (Some(agreed), Some(device)) if agreed.opens == Opens::Passthrough => {
            passthrough::probe(device)
        }
        _ => Err("this kernel does not offer it: that takes Linux 6.9".to_owned()),
    }
}

/// How serving ended, after fuser's threads came to `ran`.
///
/// If one of its threads cannot be made, fuser gives up, while those it has go on. They are enough: with
/// the ring gone, and the device still open, programs would wait for answers for ever.
fn still_served(ran: std::io::Result<()>, unused: &mpsc::Receiver<()>) -> std::io::Result<()> {
    let Err(error) = ran else { return Ok(()) };
    match unused.try_recv() {
        // Nobody serves.
        Err(TryRecvError::Disconnected) => Err(error),
        _ => {
            tracing::warn!(%error, "the file system is served by fewer threads than it should be");
            // Never sent to: it ends with the last of them.
            let _ = unused.recv();
            Ok(())
        }
    }
}

/// A ring ready to be registered, or why there is none.
fn prepare(
    fd: &OwnedFd,
    operations: &Arc<Operations>,
    wished: Transport,
) -> Result<Prepared, String> {
    if wished == Transport::Dev {
        return Err("as asked for".to_owned());
    }
    if ring::is_switched_off() {
        return Err(NOT_OFFERED.to_owned());
    }
    let device = fd
        .try_clone()
        .map_err(|e| format!("cannot duplicate the descriptor of /dev/fuse: {e}"))?;
    Prepared::new(Arc::new(device), Arc::clone(operations)).map_err(|e| e.to_string())
}

const NOT_OFFERED: &str = "this kernel does not offer io_uring: that takes Linux 6.14 and, as root, \
                           `echo Y > /sys/module/fuse/parameters/enable_uring`";

/// Registers the ring if INIT agreed on one.
fn start(prepared: Result<Prepared, String>, offered: bool) -> (Option<Running>, Served) {
    let why = match prepared {
        Err(why) => why,
        Ok(_) if !offered => NOT_OFFERED.to_owned(),
        Ok(prepared) => match prepared.start() {
            Ok(running) => {
                let threads = running.threads();
                return (Some(running), Served::Ring { threads });
            }
            Err(e) => e.to_string(),
        },
    };
    (None, Served::Dev { why })
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

    /// Which way requests come, and why.
    #[must_use]
    pub fn served(&self) -> &Served {
        &self.serving.served
    }

    /// All of how it is served, in a line: which way requests come and, where
    /// [`Opens::Passthrough`] was asked for, whether it is to be had.
    #[must_use]
    pub fn serving(&self) -> String {
        self.serving.to_string()
    }
}

fn default_threads() -> usize {
    // Not `available_parallelism`: it looks at quotas of cgroups too, in a dozen calls.
    rustix::thread::sched_getaffinity(None)
        .map_or(2, |cpus| usize::try_from(cpus.count()).unwrap_or(2))
        .clamp(2, 4)
}
