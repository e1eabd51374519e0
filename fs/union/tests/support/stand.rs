//! What the union of a run stands on.

use std::sync::Arc;

use parking_lot::MutexGuard;
use pellicle_union::Union;

use crate::support::{
    lower::MemLower,
    open,
    real::Real,
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

    pub(crate) fn lower_count(&self) -> u64 {
        match self {
            Self::Memory(lower, _) => lower.nodes.len() as u64,
            Self::Real(real) => real.inode_count(),
        }
    }
}

/// Which lower tree and upper a run is over.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pair {
    /// Both in memory; `backed`: lower files are host files too.
    Memory { backed: bool },
    /// A tree of a store, and a journal.
    Real,
}
