//! A plain directory: what the host's file system costs by itself.

use anyhow::Result;

use super::{Mounted, Place};
use crate::setup::{Setup, Stack, quiet, succeed};

/// The merged tree itself, or a copy if it is to be changed.
pub(super) fn mount(setup: &Setup, stack: &Stack, changes: bool) -> Result<Mounted> {
    if !changes {
        return Ok(Mounted::directory(stack.merged.clone(), None));
    }
    let place = Place::new(setup)?;
    let at = place.at.clone();
    let mounted = Mounted::directory(at.clone(), Some(place));
    succeed(quiet("cp").arg("-a").arg(stack.merged.join(".")).arg(&at))?;
    Ok(mounted)
}
