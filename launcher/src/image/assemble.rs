//! An image of a configuration and blobs that are known already.

use pellicle_store::Digest;

use super::{
    Image, ImageError, Images, NewImage, Reference,
    derive::oci_type,
    publish::{DescriptorDocument, LAYER_TYPE, manifest},
};

/// A layer as a manifest names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// OCI media type.
    pub media_type: String,
    /// Digest of the blob, of any algorithm.
    pub digest: String,
    /// Its bytes.
    pub size: u64,
}

impl Blob {
    /// A layer whose archive can be had from its tree, uncompressed.
    #[must_use]
    pub fn plain(diff_id: Digest, archive_bytes: u64) -> Self {
        Self {
            media_type: LAYER_TYPE.to_owned(),
            digest: diff_id.to_string(),
            size: archive_bytes,
        }
    }
}

impl Images {
    /// The layers of `image`, lowest first.
    ///
    /// # Errors
    /// If its manifest is damaged.
    pub fn blobs_of(&self, image: &Image) -> Result<Vec<Blob>, ImageError> {
        let manifest = self.manifest(&image.manifest)?;
        let layers = manifest.layers().iter().map(|l| Blob {
            media_type: oci_type(l.media_type().as_ref()),
            digest: l.digest().to_string(),
            size: l.size(),
        });
        Ok(layers.collect())
    }

    /// Writes `config` and a manifest of it and `blobs`, lowest first, and gives what
    /// [`Images::add`] wants; nothing is listed yet. What is there already is not written again.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub fn assemble(
        &self,
        config: &[u8],
        blobs: &[Blob],
        size: u64,
        names: Vec<Reference>,
    ) -> Result<NewImage, ImageError> {
        let id = self.put_once(config)?;
        let layers = blobs.iter().map(|b| DescriptorDocument {
            media_type: b.media_type.clone(),
            digest: b.digest.clone(),
            size: b.size,
        });
        let manifest = manifest(&id, config, layers)?;
        Ok(NewImage {
            manifest: self.put_once(&manifest)?,
            id,
            names,
            size,
        })
    }

    fn put_once(&self, bytes: &[u8]) -> Result<Digest, ImageError> {
        let id = Digest::of(bytes);
        if self.store().blobs().size(&id)? == Some(bytes.len() as u64) {
            return Ok(id);
        }
        Ok(self.store().blobs().put(bytes)?)
    }

    /// Lists `image`, unless it is listed and has all its names.
    ///
    /// # Errors
    /// As [`Images::add`].
    pub fn add_once(&self, image: NewImage) -> Result<(), ImageError> {
        let names: Vec<String> = image.names.iter().filter_map(Reference::tagged).collect();
        let records = self.records()?;
        let there = records.iter().any(|r| {
            r.manifest == image.manifest
                && r.id == image.id
                && names.iter().all(|n| r.names.contains(n))
        });
        if there { Ok(()) } else { self.add(image) }
    }
}
