//! A second thread for a queue, made when there is a use for it.
//!
//! While one thread waits for the disk another answers. But to make one, with its io_uring and buffer,
//! takes longer than most of what a short-lived container asks for, and a machine with many CPUs has many
//! queues. So a queue gets its second thread when the first one has answered [`LATER`] requests, or
//! before it does what is known to take long.

use std::{sync::Arc, thread::JoinHandle};

use parking_lot::Mutex;

use super::{
    cpus::Share,
    worker::{self, Shared},
};

/// Requests that a queue's first thread answers alone.
const LATER: u32 = 256;

/// The threads that were made late.
#[derive(Debug, Default)]
pub(super) struct Reliefs(Mutex<Late>);

#[derive(Debug, Default)]
struct Late {
    threads: Vec<JoinHandle<()>>,
    /// No more are made.
    ended: bool,
}

impl Reliefs {
    /// No more are made from now on; those there are.
    pub(super) fn end(&self) -> Vec<JoinHandle<()>> {
        let mut late = self.0.lock();
        late.ended = true;
        std::mem::take(&mut late.threads)
    }

    fn add(&self, share: &Share, shared: &Shared) {
        let mut late = self.0.lock();
        if late.ended {
            return;
        }
        let (share, shared) = (share.clone(), shared.clone());
        let name = share
            .cpu
            .map_or("fuse-ring".to_owned(), |cpu| format!("fuse-ring-{cpu}b"));
        let made = std::thread::Builder::new()
            .name(name)
            .spawn(move || worker::relieve(&share, &shared));
        match made {
            Ok(thread) => late.threads.push(thread),
            Err(error) => tracing::info!(%error, "a queue of the ring keeps its one thread"),
        }
    }
}

/// Whether the thread that serves a queue has been given relief.
pub(super) struct Relief<'a> {
    share: &'a Share,
    shared: &'a Shared,
    answered: u32,
    there: bool,
}

impl<'a> Relief<'a> {
    /// For the first thread of a queue. The one for all other CPUs' queues needs none.
    pub(super) fn to_come(share: &'a Share, shared: &'a Shared) -> Self {
        Self {
            share,
            shared,
            answered: 0,
            there: share.cpu.is_none(),
        }
    }

    /// For one that is the relief.
    pub(super) fn there(share: &'a Share, shared: &'a Shared) -> Self {
        Self {
            there: true,
            ..Self::to_come(share, shared)
        }
    }

    /// A request is about to be answered, which `takes_long` or not.
    pub(super) fn before(&mut self, takes_long: bool) {
        if self.there {
            return;
        }
        self.answered = self.answered.saturating_add(1);
        if takes_long || self.answered > LATER {
            self.there = true;
            Arc::clone(&self.shared.reliefs).add(self.share, self.shared);
        }
    }
}
