//! A bare `layer.tar`, `.tar.gz` or `.tar.zst` as a lower layer, without import and without a store.
//!
//! The tree is built in memory when the archive is opened. The contents of a plain tar are read
//! from it where they lie; those of a compressed one are unpacked once into a temporary file without
//! a name, which the kernel frees when the layer is dropped, however the process ends. (Decoding
//! from checkpoints instead would save that space, but makes each random read cost the decoding of
//! megabytes.) Whiteouts are seen as the `.wh.` files that they are in the archive.
//!
//! The archive is held open and must not be written to meanwhile, as with any mounted image: one
//! that is shortened gives [`LowerError::Corrupt`], never bytes of something else beyond its end.

use std::{
    env,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use pellicle_store::{
    Digest, Tree,
    import::{ImportError, ImportOptions, Progress, index_archive},
    tree::{ContentRef, TreeError, TreeHeader, TreeKind},
};

use crate::{LowerError, content::Files};

/// An archive mounted in place.
pub struct Archive {
    tree: Tree,
    /// What the tree's spans count in.
    file: Arc<File>,
    path: PathBuf,
}

/// Why an archive could not be opened as a layer.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file could not be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The archive.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// It is no archive that a layer can be made of.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// Its files make no tree.
    #[error("cannot make a tree of {}", path.display())]
    Tree {
        /// The archive.
        path: PathBuf,
        /// Why.
        source: TreeError,
    },
}

impl Archive {
    /// Opens the archive at `path`; `options` may carry a request to stop.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn open(
        path: &Path,
        options: &ImportOptions,
        progress: &dyn Progress,
    ) -> Result<Self, ArchiveError> {
        let file = File::open(path).map_err(|source| ArchiveError::Open {
            path: path.to_owned(),
            source,
        })?;
        let mut options = options.clone();
        if options.name.is_empty() {
            options.name = path.display().to_string();
        }
        let indexed = index_archive(file, &mut temporary, &options, progress)?;
        let header = TreeHeader {
            kind: TreeKind::Layer,
            identity: indexed.identity,
            layers: vec![indexed.identity],
        };
        let tree = indexed.tree.finish(&header).and_then(Tree::from_bytes);
        Ok(Self {
            tree: tree.map_err(|source| ArchiveError::Tree {
                path: path.to_owned(),
                source,
            })?,
            file: Arc::new(indexed.contents),
            path: path.to_owned(),
        })
    }

    /// The tree of the archive.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }
}

/// A file without a name in `$TMPDIR`, else in `/var/tmp`: `/tmp` is often memory.
fn temporary() -> io::Result<File> {
    let dir = env::var_os("TMPDIR").filter(|dir| !dir.is_empty());
    let dir = dir.map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    tempfile::tempfile_in(dir)
}

impl Files for Archive {
    fn tree(&self) -> &Tree {
        &self.tree
    }

    fn object(&self, id: &Digest) -> Result<Arc<File>, LowerError> {
        Err(LowerError::Corrupt {
            what: self.path.display().to_string(),
            detail: format!("its tree names the object {id}, but an archive has none"),
        })
    }

    fn archive(&self) -> Result<Arc<File>, LowerError> {
        Ok(Arc::clone(&self.file))
    }

    fn name(&self, _: &ContentRef<'_>) -> String {
        self.path.display().to_string()
    }
}

#[cfg(test)]
#[path = "archive/tests.rs"]
mod tests;
