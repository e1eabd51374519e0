//! What every operation (`operations.rs`) shares: counting, errors, replies.
//!
//! Every method runs inside [`Adapter::answer`], which counts the message and turns a panic into
//! EIO for that one request: fuser sends it when the reply is dropped unsent. Nothing is locked
//! here. A node is remembered before its reply leaves, since the kernel may forget it right after.

use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use fuser::{Errno, Generation, INodeNo, ReplyEmpty, ReplyEntry, ReplyXattr};
use pellicle_union::{Attr, Error, Ino, Union};

use crate::{Message, ServeOptions, Stats, convert, passthrough::Backings};

/// How long the kernel keeps what it is told: 136 years. More seconds than 32 bits hold are not
/// safe on every kernel that runs on 32-bit machines.
pub(crate) const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// Inode numbers are never used again, so there is only one generation.
pub(crate) const GENERATION: Generation = Generation(0);

thread_local! {
    /// What READ reads into; grows to the largest read this thread has seen.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Gives `work` this thread's buffer of `size` bytes, with whatever was in it.
pub(crate) fn with_buffer<T>(size: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.len() < size {
            buffer.resize(size, 0);
        }
        work(buffer.get_mut(..size).unwrap_or_default())
    })
}

pub(crate) struct Adapter {
    pub(crate) union: Arc<Union>,
    pub(crate) options: ServeOptions,
    stats: Arc<Stats>,
    /// The host files handed to the kernel; `None` where every open costs no message.
    pub(crate) backings: Option<Backings>,
}

impl Adapter {
    pub(crate) fn new(union: Arc<Union>, options: ServeOptions, stats: Arc<Stats>) -> Self {
        Self {
            union,
            options,
            stats,
            backings: None,
        }
    }

    pub(crate) fn answer(&self, message: Message, ino: INodeNo, work: impl FnOnce()) {
        self.stats.count(message);
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            tracing::error!(
                message = message.name(),
                ino = ino.0,
                path = %self.path(ino),
                "a bug stopped this request; it failed with EIO, the mount goes on"
            );
        }
    }

    /// The errno for the kernel; what is not the asking program's own doing is logged.
    pub(crate) fn errno(&self, message: Message, ino: INodeNo, error: &Error) -> Errno {
        if let Error::Lower(_) | Error::Upper(_) = error {
            let cause = std::error::Error::source(error)
                .map(ToString::to_string)
                .unwrap_or_default();
            tracing::error!(
                message = message.name(), ino = ino.0, path = %self.path(ino), cause, "{error}"
            );
        }
        Errno::from_i32(error.errno())
    }

    fn path(&self, ino: INodeNo) -> String {
        // Reached from the panic handler as well: a second panic must not leave it.
        catch_unwind(AssertUnwindSafe(|| self.union.path_of(Ino(ino.0))))
            .ok()
            .flatten()
            .map_or_else(
                || "?".to_owned(),
                |p| String::from_utf8_lossy(&p).into_owned(),
            )
    }

    pub(crate) fn entry(
        &self,
        message: Message,
        dir: INodeNo,
        made: Result<Attr, Error>,
        reply: ReplyEntry,
    ) {
        match made {
            Ok(attr) => {
                self.union.remember(attr.ino);
                reply.entry(&FOREVER, &convert::attr(&attr), GENERATION);
            }
            Err(e) => reply.error(self.errno(message, dir, &e)),
        }
    }

    pub(crate) fn empty(
        &self,
        message: Message,
        ino: INodeNo,
        done: Result<(), Error>,
        reply: ReplyEmpty,
    ) {
        match done {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(self.errno(message, ino, &e)),
        }
    }

    pub(crate) fn xattr_bytes(
        &self,
        message: Message,
        ino: INodeNo,
        got: Result<Vec<u8>, Error>,
        size: u32,
        reply: ReplyXattr,
    ) {
        match got {
            Ok(bytes) => match u32::try_from(bytes.len()) {
                Ok(length) if size == 0 => reply.size(length),
                Ok(length) if length <= size => reply.data(&bytes),
                // What does not fit the caller's buffer, and what no caller's could hold.
                Ok(_) => reply.error(Errno::ERANGE),
                Err(_) => reply.error(Errno::E2BIG),
            },
            Err(e) => reply.error(self.errno(message, ino, &e)),
        }
    }
}
