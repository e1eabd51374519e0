//! The choice between io_uring and `/dev/fuse`.

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

/// The option that chooses it.
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
