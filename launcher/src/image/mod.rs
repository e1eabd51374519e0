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
mod derive;
mod document;
mod error;
mod index;
pub mod load;
mod own_layers;
mod platform;
mod publish;
mod reference;
mod remove;
mod salvage;
pub mod save;
mod users;

use std::{collections::BTreeSet, path::Path};

use oci_spec::image::{ImageConfiguration, ImageManifest};
use pellicle_store::{Collected, Digest, Roots, Store};

pub use assemble::Blob;
pub use changes::{ChangeError, Settings};
pub use derive::{Derivation, NewLayer};
pub use document::{CONFIG_MAX, MANIFEST_MAX, parse_config, parse_manifest};
pub use error::ImageError;
use index::Index;
pub use index::Record;
pub use platform::Platform;
pub(crate) use platform::choose_platform;
pub use publish::{Description, total_size};
pub use reference::{Reference, familiar};
pub use remove::Removed;
pub use salvage::Salvaged;
pub use users::{ContainerUse, container_uses};

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
    /// finds an image of that name at `localhost`, if docker.io has none here.
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
        find_in(&self.index.read()?, name_or_id).cloned()
    }

    /// Whether the list of the store at `root` has an image that `name_or_id` names; reads nothing but
    /// the list, and makes nothing.
    ///
    /// # Errors
    /// As [`Images::resolve`], but for [`ImageError::NotFound`].
    pub fn is_listed(root: &Path, name_or_id: &str) -> Result<bool, ImageError> {
        match find_in(&Index::new(root).read()?, name_or_id) {
            Ok(_) => Ok(true),
            Err(ImageError::NotFound(_)) => Ok(false),
            Err(e) => Err(e),
        }
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
        let found = find_in(&records, name_or_id)?.clone();
        add_to(
            &mut records,
            NewImage {
                manifest: found.manifest,
                id: found.id,
                names: vec![name.clone()],
                size: found.size,
            },
        );
        lock.write(records)
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

    /// Removes from the store what neither a listed image nor one of the `more` stacks of layers
    /// (those of containers) needs.
    ///
    /// # Errors
    /// [`pellicle_store::StoreError::Busy`] while a container runs, something is mounted or an
    /// import is in flight; damage of an image, since what it needs cannot be known.
    pub fn collect(&self, more: Vec<Vec<Digest>>, dry_run: bool) -> Result<Collected, ImageError> {
        let lock = self.index.lock()?;
        let records = lock.read()?;
        let mut roots = self.roots(&records)?;
        roots.stacks.extend(more);
        roots
            .stacks
            .extend(crate::build::kept(self.store.root(), &records));
        let collected = self.store.collect(&roots, dry_run)?;
        if !dry_run {
            crate::build::sweep(self.store.root(), &records);
            crate::registry::sweep(self.store.root());
        }
        Ok(collected)
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

fn find_in<'a>(records: &'a [Record], text: &str) -> Result<&'a Record, ImageError> {
    let not_found = || ImageError::NotFound(text.to_owned());
    if let Ok(digest) = text.parse::<Digest>() {
        return records
            .iter()
            .rev()
            .find(|r| r.id == digest || r.manifest == digest)
            .ok_or_else(not_found);
    }
    let reference = text.parse::<Reference>();
    if let Ok(reference) = &reference
        && let Some(found) = find_reference(records, reference)
            .or_else(|| find_reference(records, &reference.at_localhost()?))
    {
        return Ok(found);
    }
    let prefix = text.strip_prefix("sha256:").unwrap_or(text);
    if prefix.is_empty()
        || !prefix
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    {
        // Not even the start of an id: then what is wrong with it as a name is worth telling.
        reference?;
        return Err(not_found());
    }
    let mut fitting: Vec<&Record> = records
        .iter()
        .rev()
        .filter(|r| r.id.hex().starts_with(prefix))
        .collect();
    // One image under two manifests is still one image.
    fitting.dedup_by_key(|r| r.id);
    match fitting.as_slice() {
        [] => Err(not_found()),
        [one] => Ok(one),
        more => Err(ImageError::Ambiguous {
            prefix: text.to_owned(),
            count: more.len(),
        }),
    }
}

fn find_reference<'a>(records: &'a [Record], reference: &Reference) -> Option<&'a Record> {
    let Some(digest) = reference.digest() else {
        let name = reference.tagged()?;
        return records.iter().find(|r| r.names.contains(&name));
    };
    // With a digest the tag is an ornament (distribution/reference): the repository counts.
    let repository = format!("{}:", reference.repository());
    records.iter().find(|r| {
        (r.manifest == *digest || r.id == *digest)
            && r.names.iter().any(|n| n.starts_with(&repository))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(n: u8, names: &[&str]) -> NewImage {
        NewImage {
            manifest: Digest::of(&[n]),
            id: Digest::of(&[n, 0]),
            names: names.iter().map(|n| n.parse().unwrap()).collect(),
            size: 1,
        }
    }

    fn records(images: Vec<NewImage>) -> Vec<Record> {
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

    #[test]
    fn images_are_found_by_name_digest_and_start_of_id() {
        let list = records(vec![new(1, &["x:1"]), new(2, &["localhost/y"])]);
        let find = |t: &str| find_in(&list, t).map(|r| r.manifest);
        let (one, two) = (Digest::of(&[1]), Digest::of(&[2]));
        assert_eq!(find("x:1").unwrap(), one);
        assert_eq!(
            find("y").unwrap(),
            two,
            "a local name is found without its registry"
        );
        assert_eq!(find(&format!("x@{one}")).unwrap(), one);
        assert_eq!(find(&Digest::of(&[1, 0]).to_string()).unwrap(), one);
        assert_eq!(find(&Digest::of(&[1, 0]).hex()).unwrap(), one);
        assert_eq!(find(&short_id(&Digest::of(&[2, 0]))).unwrap(), two);
        assert!(matches!(find("x"), Err(ImageError::NotFound(_))));
        assert!(matches!(
            find("sha256:"),
            Err(ImageError::BadReference { .. })
        ));
        assert!(matches!(
            find("No Name"),
            Err(ImageError::BadReference { .. })
        ));
        assert!(matches!(
            find(&format!("y@{one}")),
            Err(ImageError::NotFound(_))
        ));
    }

    #[test]
    fn a_start_of_two_ids_is_ambiguous() {
        let list = records((0..40).map(|n| new(n, &[])).collect());
        let hit = (0..=15u8).any(|d| {
            matches!(
                find_in(&list, &format!("{d:x}")),
                Err(ImageError::Ambiguous { .. })
            )
        });
        assert!(hit, "40 ids and 16 first digits");
    }
}
