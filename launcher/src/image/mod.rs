//! Images of the store: names, manifests and configurations.
//!
//! Manifests and configurations are OCI blobs of the store, byte for byte as they came, so that a
//! push gives back the same digests. Which of them are images, and under which names, is in one
//! small list (`index`). An image is added only when all it needs is in the store, and an image that
//! lost its last name to another stays, nameless, until it is removed.
//!
//! Lock order: the store's lock before the list's lock. Collection is the exception: it takes the
//! list's lock first and then only *tries* the store's exclusive one, so that no image can be added
//! between reckoning what is still wanted and removing the rest.

mod assemble;
pub mod changes;
mod collect;
mod derive;
mod document;
mod error;
mod find;
mod index;
pub mod load;
mod location;
mod own_layers;
mod platform;
mod publish;
mod reference;
mod referrers;
mod remove;
mod salvage;
pub mod save;
pub mod space;
mod users;

use std::collections::BTreeSet;

use oci_spec::image::{ImageConfiguration, ImageManifest};
use pellicle_store::{Digest, Roots, Store};

pub use assemble::Blob;
pub use changes::{ChangeError, Settings};
pub use collect::Collection;
pub use derive::{Derivation, NewLayer};
pub use document::{CONFIG_MAX, MANIFEST_MAX, parse_config, parse_manifest};
pub use error::ImageError;
use find::find_pulled;
use index::Index;
pub use index::Record;
pub use location::{FileKind, FileLocation, Location, LocationError, Pick};
pub use platform::Platform;
pub(crate) use platform::choose_platform;
pub use publish::{Description, total_size};
pub use reference::{Reference, familiar, short_name, split_domain};
pub use referrers::Referrer;
pub use remove::Removed;
pub use salvage::Salvaged;
pub use users::{ContainerUse, container_uses};

use crate::events::{self, Event};

/// One image of the store, with its configuration read.
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
    /// Bytes of all file contents of all layers.
    pub size: u64,
}

impl Image {
    /// What people call it: its first name, else the start of its id.
    #[must_use]
    pub fn display_name(&self) -> String {
        self.names
            .first()
            .map_or_else(|| short_id(&self.id), |n| familiar(n))
    }
}

/// The first 12 digits of an id, as lists show it.
#[must_use]
pub fn short_id(id: &Digest) -> String {
    id.hex().chars().take(12).collect()
}

/// An image whose blobs and layers are all in the store, to be listed.
#[derive(Clone, Debug)]
pub struct NewImage {
    /// Digest of the manifest, which is in the store.
    pub manifest: Digest,
    /// Digest of the configuration, which is in the store.
    pub id: Digest,
    /// The names it gets; another image that has one loses it.
    pub names: Vec<Reference>,
    /// Bytes of all file contents of all layers.
    pub size: u64,
}

/// The images of a store. Cloning is cheap.
#[derive(Clone)]
pub struct Images {
    store: Store,
    index: Index,
}

impl Images {
    /// The images of `store`; reads nothing yet.
    #[must_use]
    pub fn new(store: Store) -> Self {
        let index = Index::new(store.root());
        Self { store, index }
    }

    /// The store they are in.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The image that `name_or_id` names: a reference (`debian`, `debian:12`,
    /// `localhost/x@sha256:...`), an id or a unique start of one. A name without a registry also
    /// finds an image of that name at `localhost`, if docker.io has none here. A digest may be that of
    /// the manifest or of the index that the image was pulled by.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], [`ImageError::Ambiguous`], [`ImageError::BadReference`], or damage.
    pub fn resolve(&self, name_or_id: &str) -> Result<Image, ImageError> {
        self.open(self.find(name_or_id)?)
    }

    /// The record of the image that `name_or_id` names, without reading the image.
    ///
    /// # Errors
    /// As [`Images::resolve`].
    pub fn find(&self, name_or_id: &str) -> Result<Record, ImageError> {
        let records = self.index.read()?;
        find_pulled(&records, self.store.root(), name_or_id).cloned()
    }

    /// Reads the configuration of a listed image.
    ///
    /// # Errors
    /// If it is missing or damaged.
    pub fn open(&self, record: Record) -> Result<Image, ImageError> {
        let (config, diff_ids) = document::config(&self.store, &record.id)?;
        Ok(Image {
            id: record.id,
            manifest: record.manifest,
            names: record.names,
            config,
            diff_ids,
            size: record.size,
        })
    }

    /// All images, newest last added first.
    ///
    /// # Errors
    /// The first damaged image, or the host's errors. [`Images::records`] lists damaged ones too.
    pub fn list(&self) -> Result<Vec<Image>, ImageError> {
        self.records()?.into_iter().map(|r| self.open(r)).collect()
    }

    /// The list as it stands, without reading the images, newest first.
    ///
    /// # Errors
    /// If the list cannot be read.
    pub fn records(&self) -> Result<Vec<Record>, ImageError> {
        let mut records = self.index.read()?;
        records.reverse();
        Ok(records)
    }

    /// Lists an image and gives it its names.
    ///
    /// # Errors
    /// If the list cannot be changed; then nothing is.
    pub fn add(&self, image: NewImage) -> Result<(), ImageError> {
        self.add_all(vec![image])
    }

    /// Lists all of `images` in one change: all or none.
    ///
    /// # Errors
    /// If the list cannot be changed; then nothing is.
    pub fn add_all(&self, images: Vec<NewImage>) -> Result<(), ImageError> {
        let lock = self.index.lock()?;
        let mut records = lock.read()?;
        for image in images {
            add_to(&mut records, image);
        }
        lock.write(records)
    }

    /// Gives the image that `name_or_id` names one more name; another image that has it loses it.
    ///
    /// # Errors
    /// As [`Images::resolve`], and if the list cannot be changed.
    pub fn tag(&self, name_or_id: &str, name: &Reference) -> Result<(), ImageError> {
        let lock = self.index.lock()?;
        let mut records = lock.read()?;
        let found = find_pulled(&records, self.store.root(), name_or_id)?.clone();
        add_to(
            &mut records,
            NewImage {
                manifest: found.manifest,
                id: found.id,
                names: vec![name.clone()],
                size: found.size,
            },
        );
        lock.write(records)?;
        let tagged = Event::image("tag", &found.id, name.tagged().as_deref());
        events::note(self.store.root(), &[tagged]);
        Ok(())
    }

    /// The manifest of an image.
    ///
    /// # Errors
    /// If it is missing or damaged.
    pub fn manifest(&self, manifest: &Digest) -> Result<ImageManifest, ImageError> {
        document::manifest(&self.store, manifest)
    }

    /// The manifest of an image as it came.
    ///
    /// # Errors
    /// If it is missing or damaged.
    pub fn raw_manifest(&self, manifest: &Digest) -> Result<Vec<u8>, ImageError> {
        document::read(&self.store, manifest, "manifest", MANIFEST_MAX)
    }

    /// The configuration of an image as it came, with all extensions.
    ///
    /// # Errors
    /// If it is missing or damaged.
    pub fn raw_config(&self, id: &Digest) -> Result<Vec<u8>, ImageError> {
        document::read(&self.store, id, "configuration", CONFIG_MAX)
    }

    /// Everything in the store that `records` need.
    ///
    /// # Errors
    /// If one is damaged: what it needs cannot be known then.
    pub fn roots(&self, records: &[Record]) -> Result<Roots, ImageError> {
        let mut roots = Roots::default();
        for record in records {
            let manifest = self.manifest(&record.manifest)?;
            let (_, diff_ids) = document::config(&self.store, &record.id)?;
            roots.blobs.extend([record.manifest, record.id]);
            // Digests of other algorithms name nothing in this store.
            let layers = manifest
                .layers()
                .iter()
                .filter_map(|l| l.digest().as_ref().parse::<Digest>().ok());
            roots.blobs.extend(layers);
            roots.stacks.push(diff_ids);
        }
        Ok(roots)
    }
}

/// Puts an image into the list, taking its names from whoever has them.
fn add_to(records: &mut Vec<Record>, image: NewImage) {
    let names: BTreeSet<String> = image.names.iter().filter_map(Reference::tagged).collect();
    for record in records.iter_mut() {
        record.names.retain(|n| !names.contains(n));
    }
    let old = records
        .iter()
        .position(|r| r.manifest == image.manifest)
        .map(|at| records.remove(at));
    let mut all = names;
    let mut size = image.size;
    if let Some(old) = old {
        all.extend(old.names);
        size = size.max(old.size);
    }
    // The same image under another manifest (other compression) that has no name left is this one.
    records.retain(|r| r.id != image.id || !r.names.is_empty());
    records.push(Record {
        manifest: image.manifest,
        id: image.id,
        names: all.into_iter().collect(),
        size,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn new(n: u8, names: &[&str]) -> NewImage {
        NewImage {
            manifest: Digest::of(&[n]),
            id: Digest::of(&[n, 0]),
            names: names.iter().map(|n| n.parse().unwrap()).collect(),
            size: 1,
        }
    }

    pub(super) fn records(images: Vec<NewImage>) -> Vec<Record> {
        let mut records = Vec::new();
        for image in images {
            add_to(&mut records, image);
        }
        records
    }

    #[test]
    fn a_name_moves_to_the_image_added_last_and_the_old_one_stays_nameless() {
        let list = records(vec![new(1, &["x"]), new(2, &["x", "y"])]);
        assert_eq!(list[0].names, Vec::<String>::new());
        assert_eq!(
            list[1].names,
            ["docker.io/library/x:latest", "docker.io/library/y:latest"]
        );
    }

    #[test]
    fn adding_an_image_again_adds_its_names() {
        let list = records(vec![new(1, &["x"]), new(1, &["y"])]);
        assert_eq!(list.len(), 1);
        assert_eq!(list[0].names.len(), 2);
    }
}
