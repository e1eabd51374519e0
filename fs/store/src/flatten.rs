//! Many layers into one tree, as the OCI image specification (layer.md) says.

use crate::{Tree, TreeBuilder, tree::TreeError};

/// What becomes of whiteouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whiteouts {
    /// They hide what is below, and are not seen.
    Apply,
    /// They are seen as empty files `.wh.name` and `.wh..wh..opq` and hide nothing: for looking
    /// into one layer.
    Show,
}

/// Flattens `layers`, lowest first.
///
/// # Errors
/// Damage found in a layer.
pub fn flatten(_layers: &[Tree], _whiteouts: Whiteouts) -> Result<TreeBuilder, TreeError> {
    todo!()
}
