//! What the union of a run stands on.

use std::sync::Arc;

use parking_lot::MutexGuard;
use pellicle_union::Union;
use pellicle_upper::Chunks;

use crate::support::{
    lower::MemLower,
    open,
    real::{Real, RealUpper},
    upper::{MemUpper, State},
};

/// What the union stands on.
pub(crate) enum Stand {
    Memory(Arc<MemLower>, MemUpper),
    Real(Real),
}

impl Stand {
    pub(crate) fn open(&self) -> Union {
        match self {
            Self::Memory(lower, upper) => open(lower, upper),
            Self::Real(real) => real.open(),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        match self {
            Self::Memory(_, upper) => upper.state.lock(),
            Self::Real(real) => real.state.lock(),
        }
    }

    /// The upper is a host directory: change times are the host's, and a name that is gone is not
    /// spoken of at the next mount.
    pub(crate) fn is_dir_upper(&self) -> bool {
        match self {
            Self::Memory(..) => false,
            Self::Real(real) => real.is_dir_upper(),
        }
    }

    pub(crate) fn lower_count(&self) -> u64 {
        match self {
            Self::Memory(lower, _) => lower.nodes.len() as u64,
            Self::Real(real) => real.inode_count(),
        }
    }
}

/// Which lower tree and upper a run is over.
#[derive(Clone, Debug)]
pub(crate) enum Pair {
    /// Both in memory; `backed`: lower files are host files too; `chunks`: those of the upper.
    Memory {
        backed: bool,
        chunks: Option<Chunks>,
    },
    /// A tree of a store, and that upper.
    Real(RealUpper),
}
