//! Which way requests come: `/dev/fuse` or a ring, and why; and who reads host files.

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

/// How a mount is served, to be shown: which way requests come and, where passthrough was asked for,
/// what came of it.
#[derive(Clone, Debug)]
pub(crate) struct Serving {
    pub(crate) served: Served,
    /// Whether it is to be had, or why not; `None` where it was not asked for.
    pub(crate) passthrough: Option<Result<(), String>>,
}

impl fmt::Display for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.served)?;
        match &self.passthrough {
            None => Ok(()),
            Some(Ok(())) => write!(f, "; passthrough"),
            Some(Err(why)) => write!(f, "; no passthrough: {why}"),
        }
    }
}

impl Serving {
    /// What was asked for and is not to be had.
    pub(crate) fn log(&self, wished: Transport) {
        self.served.log(wished);
        if let Some(Err(why)) = &self.passthrough {
            tracing::warn!("the kernel does not read host files by itself: {why}");
        }
    }
}

impl Served {
    /// The one line of the log.
    fn log(&self, wished: Transport) {
        match self {
            Self::Dev { why } if wished == Transport::Ring => {
                tracing::warn!("requests come over /dev/fuse, which is slower: {why}");
            }
            _ => tracing::info!("requests come over {self}"),
        }
    }
}
