//! FUSE over io_uring: requests and answers without a read and a write each.
//!
//! INIT, forgets and interrupts stay on `/dev/fuse`, which fuser serves; once the kernel has a
//! queue for every possible CPU, everything else comes over rings, each served by a thread on that
//! CPU. `cpus.rs` says who serves what, `worker.rs` is a thread, `request.rs` and `answer.rs` are
//! the wire, `pellicle_sys::fuse_ring` is the io_uring itself.
//!
//! The order of things keeps the mount from hanging. A kernel that was promised a ring in INIT
//! answers no program before one is registered, or refused. So rings and threads are made first
//! ([`Prepared::new`]) and INIT promises a ring only if all that worked; after it the entries are
//! registered ([`Prepared::start`]). If the kernel refuses one it goes on with `/dev/fuse` by
//! itself, and if one cannot even be sent, the kernel is made to refuse another.

mod answer;
mod cpus;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod relief;
mod request;
mod wire;
mod worker;

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, JoinHandle},
};

use pellicle_sys::fuse_ring::FuseRing;
use rustix::event::EventfdFlags;

use self::{
    relief::Reliefs,
    worker::{Report, Shared},
};
use crate::{init::MAX_TRANSFER, operations::Operations};

/// A queue that no kernel has.
const NO_QUEUE: u16 = u16::MAX;

/// Why requests do not come over a ring.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RingError {
    #[error("cannot tell how many CPUs there can be: {0}")]
    Cpus(io::Error),
    #[error("{hint}: {0}", hint = making_hint(.0))]
    Make(io::Error),
    #[error("cannot start a thread for each CPU: {0}")]
    Thread(io::Error),
    #[error("the kernel refused to register rings: {0}")]
    Refused(io::Error),
    #[error("a ring's thread ended")]
    Gone,
}

fn making_hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::ENOSYS) => {
            "io_uring is switched off here (sysctl kernel.io_uring_disabled, or a seccomp filter)"
        }
        Some(libc::EMFILE | libc::ENFILE) => "too few file descriptors are allowed (ulimit -n)",
        Some(libc::ENOMEM) => "not enough memory may be used or locked (ulimit -l)",
        _ => "cannot make an io_uring",
    }
}

/// Whether the administrator keeps the kernel from offering rings, so that none need be made. What
/// counts is what INIT says: where the switch cannot be seen, that is asked.
pub(crate) fn is_switched_off() -> bool {
    std::fs::read("/sys/module/fuse/parameters/enable_uring")
        .is_ok_and(|said| matches!(said.first(), Some(b'N' | b'0')))
}

/// Rings that are ready to be registered, each with its thread.
pub(crate) struct Prepared {
    workers: Vec<Worker>,
    /// Those that need an entry before the kernel begins to use the ring.
    queues: BTreeSet<u16>,
    shared: Shared,
}

struct Worker {
    thread: JoinHandle<()>,
    begin: Sender<()>,
    reports: Receiver<Report>,
}

/// Rings that serve.
pub(crate) struct Running {
    threads: Vec<JoinHandle<()>>,
    waker: Arc<OwnedFd>,
    reliefs: Arc<Reliefs>,
}

impl Prepared {
    /// Makes threads and rings for the connection of `device`. Needs nothing of the kernel's FUSE
    /// driver yet.
    pub(crate) fn new(
        device: Arc<OwnedFd>,
        operations: Arc<Operations>,
    ) -> Result<Self, RingError> {
        let shares = cpus::shares().map_err(RingError::Cpus)?;
        let waker = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|e| RingError::Make(e.into()))?;
        let payload = operations.options.ring_payload.unwrap_or(MAX_TRANSFER);
        let shared = Shared {
            operations,
            device,
            waker: Arc::new(waker),
            payload: payload as usize,
            reliefs: Arc::default(),
        };
        let queues = shares.iter().flat_map(|s| s.entries.iter().copied());
        let queues = queues.collect();
        let mut workers = Vec::with_capacity(shares.len());
        for share in shares {
            let (report, reports) = mpsc::channel();
            let (begin, begun) = mpsc::channel();
            let shared = shared.clone();
            let name = share
                .cpu
                .map_or("fuse-ring".to_owned(), |cpu| format!("fuse-ring-{cpu}"));
            let thread = thread::Builder::new()
                .name(name)
                .spawn(move || worker::run(&share, &shared, &report, &begun))
                .map_err(RingError::Thread)?;
            workers.push(Worker {
                thread,
                begin,
                reports,
            });
        }
        for worker in &workers {
            match worker.reports.recv() {
                Ok(Report::Ready(Ok(()))) => (),
                Ok(Report::Ready(Err(e))) => return Err(RingError::Make(e)),
                Ok(Report::Registered { .. }) | Err(_) => return Err(RingError::Gone),
            }
        }
        Ok(Self {
            workers,
            queues,
            shared,
        })
    }

    /// Registers the rings, which INIT promised. If this fails the kernel sends everything to
    /// `/dev/fuse`; threads and rings go.
    pub(crate) fn start(self) -> Result<Running, RingError> {
        for worker in &self.workers {
            // One that is gone shows below.
            let _ = worker.begin.send(());
        }
        let mut missing = self.queues;
        let mut failed = None;
        let mut threads = Vec::with_capacity(self.workers.len());
        for worker in self.workers {
            match worker.reports.recv() {
                Ok(Report::Registered { queues, refused }) => {
                    for queue in queues {
                        missing.remove(&queue);
                    }
                    failed = refused.map(RingError::Refused).or(failed);
                }
                Ok(Report::Ready(_)) | Err(_) => failed = Some(RingError::Gone),
            }
            threads.push(worker.thread);
        }
        let running = Running {
            threads,
            waker: Arc::clone(&self.shared.waker),
            reliefs: Arc::clone(&self.shared.reliefs),
        };
        if missing.is_empty() {
            // With an entry in each queue the kernel uses the ring, whatever it refused besides.
            return Ok(running);
        }
        running.stop();
        give_up(&self.shared)?;
        Err(failed.unwrap_or(RingError::Gone))
    }
}

impl Running {
    pub(crate) fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Ends the threads, whether the file system is gone or not, and waits for them.
    pub(crate) fn stop(self) {
        // Fails only if it is readable already.
        let _ = rustix::io::write(&self.waker, &1u64.to_ne_bytes());
        let late = self.reliefs.end();
        for thread in self.threads.into_iter().chain(late) {
            if thread.join().is_err() {
                tracing::error!("a thread of the ring ended in a panic");
            }
        }
    }
}

/// Makes the kernel expect no ring any more. It does so when it has refused one; that it never
/// got to see one is what this is for.
fn give_up(shared: &Shared) -> Result<(), RingError> {
    let (device, waker) = (shared.device.as_fd(), shared.waker.as_fd());
    FuseRing::new(device, waker, &[NO_QUEUE], shared.payload)
        .and_then(|mut ring| ring.register())
        .map_err(RingError::Refused)
}
