//! Contents by their digest: [`Objects`] and [`Blobs`].

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    Digest, StoreError,
    pool::{Durability, Pool, Taking, Writer},
    temp::Temps,
};

/// File contents, each stored once over all layers and images: `objects/ab/cdef...`. Cloning is
/// cheap. They are durable once a tree that names them is published.
#[derive(Clone, Debug)]
pub struct Objects(pub(crate) Pool);

/// Blobs as registries know them (compressed layers, manifests, configurations):
/// `blobs/sha256/...`. Cloning is cheap. They are durable when their writer has finished.
#[derive(Clone, Debug)]
pub struct Blobs(pub(crate) Pool);

impl Objects {
    pub(crate) fn new(root: &Path, temps: Arc<Temps>) -> Self {
        let dir = root.join("objects");
        Self(Pool::new("object", dir, true, Durability::OnSync, temps))
    }
}

impl Objects {
    /// Makes an object of `file`, an open file of the host that nobody changes meanwhile. `each` hears
    /// how many bytes were read and says whether to go on; `None` if not.
    ///
    /// # Errors
    /// The host's; nothing is left then.
    pub fn take_in(
        &self,
        file: &File,
        how: Taking,
        each: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Option<Digest>, StoreError> {
        self.0.take_in(file, how, each)
    }
}

impl Blobs {
    pub(crate) fn new(root: &Path, temps: Arc<Temps>) -> Self {
        let dir = root.join("blobs/sha256");
        Self(Pool::new("blob", dir, false, Durability::AtOnce, temps))
    }

    /// Calls `each` with every blob that is there.
    ///
    /// # Errors
    /// The host's.
    pub fn each(&self, each: &mut dyn FnMut(Digest)) -> Result<(), StoreError> {
        self.0.each(&mut |id, _| {
            each(id);
            Ok(())
        })
    }

    /// Removes it, if it is there; whether it was.
    ///
    /// # Errors
    /// The host's.
    pub fn remove(&self, id: &Digest) -> Result<bool, StoreError> {
        self.0.remove(id)
    }
}

/// What both can do.
macro_rules! contents {
    ($name:ident) => {
        impl $name {
            /// Starts a new one. Any number may be written at once.
            ///
            /// # Errors
            /// None yet; those of the host come when it is written.
            pub fn writer(&self) -> Result<Writer, StoreError> {
                Ok(self.0.writer())
            }

            /// Stores `bytes`; the short way for a small one.
            ///
            /// # Errors
            /// The host's.
            pub fn put(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
                self.0.put(bytes)
            }

            /// Opens it for reading.
            ///
            /// # Errors
            /// [`StoreError::Missing`], and the host's.
            pub fn open(&self, id: &Digest) -> Result<File, StoreError> {
                self.0.open(id)
            }

            /// Whether it is there.
            #[must_use]
            pub fn contains(&self, id: &Digest) -> bool {
                self.0.path(id).is_file()
            }

            /// Its bytes; `None` if it is not there.
            ///
            /// # Errors
            /// The host's.
            pub fn size(&self, id: &Digest) -> Result<Option<u64>, StoreError> {
                self.0.size(id)
            }

            /// The host file it is, or would be, in; never to be written to.
            #[must_use]
            pub fn path(&self, id: &Digest) -> PathBuf {
                self.0.path(id)
            }
        }
    };
}

contents!(Objects);
contents!(Blobs);
