//! The choice between io_uring and `/dev/fuse`, and what opening a file means.

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

/// Which way the kernel's requests come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Over io_uring where the kernel offers it, else over /dev/fuse
    #[default]
    Auto,
    /// The same, with a warning when it cannot be io_uring
    Ring,
    /// Over /dev/fuse
    Dev,
}

/// What opening a file means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Opens {
    /// The kernel opens files by itself, without asking
    #[default]
    Silent,
    /// Each open is a request; for comparison
    Answered,
    /// The kernel reads and writes the host's file by itself: what a container wrote, and what a read-only
    /// mount shows. Takes root; faster for large files, slower for small ones
    Passthrough,
}

/// The options that choose both.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Way {
    /// Which way the kernel's requests for files come
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "TRANSPORT",
        env = "PELLICLE_TRANSPORT"
    )]
    pub transport: Transport,
    /// What it means to open a file
    #[arg(long, value_enum, default_value_t, value_name = "WAY")]
    pub opens: Opens,
}

impl From<Transport> for pellicle_fuse::Transport {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Auto => Self::Auto,
            Transport::Ring => Self::Ring,
            Transport::Dev => Self::Dev,
        }
    }
}

impl From<Opens> for pellicle_fuse::Opens {
    fn from(opens: Opens) -> Self {
        match opens {
            Opens::Silent => Self::Silent,
            Opens::Answered => Self::Answered,
            Opens::Passthrough => Self::Passthrough,
        }
    }
}

impl Opens {
    /// The word for it on the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Answered => "answered",
            Self::Passthrough => "passthrough",
        }
    }
}

impl Transport {
    /// The word for it on the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Ring => "ring",
            Self::Dev => "dev",
        }
    }
}
