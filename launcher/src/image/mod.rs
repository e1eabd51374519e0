//! Images of the store: names, manifests and configurations.

mod error;

use oci_spec::image::ImageConfiguration;
use pellicle_store::{Digest, Store};

pub use error::ImageError;

/// One image of the store.
#[derive(Clone, Debug)]
pub struct Image {
    /// The image's id: the digest of its configuration.
    pub id: Digest,
    /// The digest of its manifest.
    pub manifest: Digest,
    /// Its full names, `docker.io/library/debian:12`; none for an image that lost its last.
    pub names: Vec<String>,
    /// Its configuration. Extensions of docker's are not in it; [`Images::raw_config`] has them.
    pub config: ImageConfiguration,
    /// Its layers, lowest first.
    pub diff_ids: Vec<Digest>,
}

/// The images of a store. Cloning is cheap.
#[derive(Clone)]
pub struct Images {
    _store: Store,
}

impl Images {
    /// The images of `store`; reads nothing yet.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { _store: store }
    }

    /// The image that `name_or_id` names: a reference (`debian`, `debian:12`,
    /// `localhost/x@sha256:...`), an id or a unique start of one.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], [`ImageError::Ambiguous`], [`ImageError::BadReference`], or damage.
    pub fn resolve(&self, name_or_id: &str) -> Result<Image, ImageError> {
        Err(ImageError::NotFound(name_or_id.to_owned()))
    }

    /// All images, by name.
    ///
    /// # Errors
    /// Damage, or the host's errors.
    pub fn list(&self) -> Result<Vec<Image>, ImageError> {
        Ok(Vec::new())
    }
}
