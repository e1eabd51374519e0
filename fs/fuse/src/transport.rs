//! Which way requests come: `/dev/fuse` or a ring, and why.

use std::fmt;

/// Which way requests are to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Over io_uring where the kernel offers it and a ring can be had, else over `/dev/fuse`.
    #[default]
    Auto,
    /// As [`Transport::Auto`], but that it did not come to a ring is worth a warning.
    Ring,
    /// Over `/dev/fuse`, which every kernel has.
    Dev,
}

/// Which way requests do come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Served {
    /// Over io_uring, with this many threads to begin with.
    Ring {
        /// Threads, each with an io_uring of its own.
        threads: usize,
    },
    /// Over `/dev/fuse`.
    Dev {
        /// Why not over io_uring.
        why: String,
    },
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring { threads } => write!(f, "io_uring, {threads} threads"),
            Self::Dev { why } => write!(f, "/dev/fuse: {why}"),
        }
    }
}

impl Served {
    /// The one line of the log.
    pub(crate) fn log(&self, wished: Transport) {
        match self {
            Self::Dev { why } if wished == Transport::Ring => {
                tracing::warn!("requests come over /dev/fuse, which is slower: {why}");
            }
            _ => tracing::info!("requests come over {self}"),
        }
    }
}
