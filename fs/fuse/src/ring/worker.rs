//! A thread that serves its share of the queues over an io_uring of its own.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{Receiver, Sender},
    },
    time::Duration,
};

use pellicle_sys::{
    fuse_backing::BackingFile,
    fuse_ring::{Event, FuseRing, Request},
};

use super::{
    cpus::{Seat, Share},
    relief::{Relief, Reliefs},
    request::{Context, dispatch, is_read, takes_long},
};
use crate::{operations::Operations, passthrough::Backing, spin::Spin};

/// What a worker needs, all of it shared with the others.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) operations: Arc<Operations>,
    pub(super) device: Arc<OwnedFd>,
    /// Becomes readable when serving is to end.
    pub(super) waker: Arc<OwnedFd>,
    /// Bytes of an entry's payload.
    pub(super) payload: usize,
    pub(super) reliefs: Arc<Reliefs>,
}

/// What the workers tell whoever starts them, in this order.
pub(super) enum Report {
    /// The ring is there (or why not); nothing is registered.
    Ready(io::Result<()>),
    /// Registered: the entries that the kernel took, by queue, and why it refused others.
    Registered {
        queues: Vec<u16>,
        refused: Option<io::Error>,
    },
}

/// Payloads beyond this are given back when nothing came for a while.
const KEPT: usize = 64 << 10;
const A_WHILE: Duration = Duration::from_secs(1);

/// Prepares a ring, says so, waits to be told to begin (or that it is not wanted: then `begin`
/// closes) and serves until the file system is gone or the waker wakes.
pub(super) fn run(share: &Share, shared: &Shared, report: &Sender<Report>, begin: &Receiver<()>) {
    let seat = Seat::take(share.cpu);
    let made = FuseRing::new(
        shared.device.as_fd(),
        shared.waker.as_fd(),
        &share.entries,
        shared.payload,
    );
    let mut ring = match made {
        Ok(ring) => {
            if report.send(Report::Ready(Ok(()))).is_err() {
                return;
            }
            ring
        }
        Err(e) => {
            // Whoever listens no more does not want to know.
            let _ = report.send(Report::Ready(Err(e)));
            return;
        }
    };
    if begin.recv().is_err() {
        return;
    }
    let worker = Worker::new(shared, seat, Relief::to_come(share, shared));
    worker.serve(&mut ring, share, |queues, refused| {
        // Nobody listens any more if another worker could not register: then the waker wakes.
        let _ = report.send(Report::Registered { queues, refused });
    });
}

/// Serves `share` beside the thread that does already, once there is a use for it.
pub(super) fn relieve(share: &Share, shared: &Shared) {
    let seat = Seat::take(share.cpu);
    let alone = |error| tracing::info!(%error, "a queue of the ring keeps its one thread");
    let made = FuseRing::new(
        shared.device.as_fd(),
        shared.waker.as_fd(),
        &share.entries,
        shared.payload,
    );
    match made {
        Ok(mut ring) => {
            let worker = Worker::new(shared, seat, Relief::there(share, shared));
            worker.serve(&mut ring, share, |_, refused| {
                refused.into_iter().for_each(alone);
            });
        }
        Err(error) => alone(error),
    }
}

struct Worker<'a> {
    shared: &'a Shared,
    seat: Seat,
    relief: Relief<'a>,
    spin: Spin,
    /// Entries that the kernel may still use.
    live: usize,
    /// Payloads hold more memory than is kept.
    grown: bool,
    woken: bool,
    /// Why the last entry that ended did.
    refused: Option<io::Error>,
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared, seat: Seat, relief: Relief<'a>) -> Self {
        Self {
            shared,
            seat,
            relief,
            spin: Spin::default(),
            live: 0,
            grown: false,
            woken: false,
            refused: None,
        }
    }

    /// Registers, says which entries the kernel took and why it refused others, and serves.
    fn serve(
        mut self,
        ring: &mut FuseRing,
        share: &Share,
        tell: impl FnOnce(Vec<u16>, Option<io::Error>),
    ) {
        self.live = share.entries.len();
        let mut queues = share.entries.clone();
        match register(ring) {
            // What the kernel refuses it has said by now.
            Ok(()) => self.handle(ring, |queue| {
                if let Some(at) = queues.iter().position(|&q| q == queue) {
                    queues.swap_remove(at);
                }
            }),
            Err(e) => {
                queues.clear();
                self.live = 0;
                self.refused = Some(e);
            }
        }
        tell(queues, self.refused.take());
        let mut complained = false;
        while self.live > 0 && !self.woken {
            match self.wait(ring) {
                Ok(true) => self.handle(ring, |_| ()),
                Ok(false) => {
                    self.grown = false;
                    if let Err(error) = ring.trim(KEPT) {
                        tracing::debug!(%error, "memory of a ring stays in use");
                    }
                }
                Err(error) => {
                    // No memory for the moment: requests wait, none is lost.
                    if !complained {
                        tracing::error!(%error, "io_uring fails; trying on");
                        complained = true;
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        }
    }

    fn wait(&mut self, ring: &mut FuseRing) -> io::Result<bool> {
        if self.spin.look(|| ring.look())? {
            return Ok(true);
        }
        let came = ring.wait(self.grown.then_some(A_WHILE))?;
        if came {
            self.spin.came();
        }
        Ok(came)
    }

    /// Everything that happened; tells `ended` the queue of each entry that the kernel gave up.
    fn handle(&mut self, ring: &mut FuseRing, mut ended: impl FnMut(u16)) {
        loop {
            let (index, error) = match ring.event() {
                None => return,
                Some(Event::Woken) => {
                    self.woken = true;
                    continue;
                }
                Some(Event::Request(request)) => {
                    self.answer(request);
                    continue;
                }
                Some(Event::Ended(index, error)) => (index, error),
            };
            self.live = self.live.saturating_sub(1);
            self.refused = Some(error);
            if let Some(queue) = ring.queue_of(index) {
                ended(queue);
            }
        }
    }

    fn answer(&mut self, mut request: Request<'_>) {
        let register = |file: &std::fs::File| {
            BackingFile::register(&self.shared.device, file).map(Backing::Ring)
        };
        let context = Context {
            operations: &self.shared.operations,
            register: &register,
        };
        let parts = request.parts();
        let reading = is_read(parts.header);
        self.relief.before(takes_long(parts.header));
        self.grown |= parts.length > KEPT;
        // The operations catch their own; a bug in decoding must not end a queue either.
        let answer = catch_unwind(AssertUnwindSafe(|| dispatch(&context, parts)));
        let (errno, length) = match answer {
            Ok(Ok(length)) => (0, length),
            Ok(Err(errno)) => (errno.code(), 0),
            Err(_) => (libc::EIO, 0),
        };
        self.grown |= length > KEPT;
        request.answer(errno, length);
        self.seat.answered(reading && length >= KEPT);
    }
}

/// Registers, with patience: the kernel waits for every queue.
fn register(ring: &mut FuseRing) -> io::Result<()> {
    let mut tries = 0;
    loop {
        match ring.register() {
            Err(_) if tries < 20 => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(50));
            }
            done => return done,
        }
    }
}
