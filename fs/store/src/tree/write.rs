//! From a [`TreeBuilder`] to a tree file.

use std::{
    io::{Seek, Write},
    path::Path,
};

use super::{TreeBuilder, TreeError, TreeHeader};

impl TreeBuilder {
    /// Writes the tree file to `out` from its beginning; `path` names it in errors.
    ///
    /// # Errors
    /// [`TreeError::Unstorable`] for a name or a node the format cannot hold, [`TreeError::TooMany`],
    /// [`TreeError::Io`].
    pub fn write(
        self,
        _header: &TreeHeader,
        _out: &mut (impl Write + Seek),
        _path: &Path,
    ) -> Result<(), TreeError> {
        todo!()
    }
}
