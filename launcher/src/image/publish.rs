//! Making an image of imported layers: its configuration and manifest.

use pellicle_store::{Digest, import::ImportedLayer};
use serde::Serialize;

use super::{ImageError, Images, NewImage, Reference, changes::Settings};

pub(super) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";

pub(super) const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image configuration as this program writes it (OCI image-spec config.md).
#[derive(Debug, Serialize)]
struct ConfigDocument<'a> {
    created: &'a str,
    architecture: &'a str,
    os: &'a str,
    config: &'a Settings,
    rootfs: RootFs,
    history: Vec<HistoryEntry<'a>>,
}

#[derive(Debug, Serialize)]
struct RootFs {
    r#type: &'static str,
    diff_ids: Vec<String>,
}

#[derive(Debug, Serialize)]
struct HistoryEntry<'a> {
    created: &'a str,
    created_by: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<&'a str>,
}

/// An image manifest (OCI image-spec manifest.md).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ManifestDocument {
    pub(super) schema_version: u32,
    pub(super) media_type: &'static str,
    pub(super) config: DescriptorDocument,
    pub(super) layers: Vec<DescriptorDocument>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DescriptorDocument {
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) size: u64,
}

/// What an image is to say of itself.
#[derive(Debug)]
pub struct Description<'a> {
    /// When it was made, RFC 3339.
    pub created: &'a str,
    /// Its machine, as Go calls it.
    pub architecture: &'a str,
    /// How containers run.
    pub settings: &'a Settings,
    /// Of each layer, lowest first: how it was made.
    pub created_by: &'a [String],
    /// A remark on the newest layer.
    pub comment: Option<&'a str>,
}

impl Images {
    /// Writes the configuration and the manifest of an image of `layers`, lowest first, and gives
    /// what [`Images::add`] wants; nothing is listed yet.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub fn describe(
        &self,
        description: &Description<'_>,
        layers: &[ImportedLayer],
        names: Vec<Reference>,
    ) -> Result<NewImage, ImageError> {
        let last = description.created_by.len().saturating_sub(1);
        let history = description
            .created_by
            .iter()
            .enumerate()
            .map(|(at, by)| HistoryEntry {
                created: description.created,
                created_by: by,
                comment: description.comment.filter(|_| at == last),
            });
        let config = to_json(&ConfigDocument {
            created: description.created,
            architecture: description.architecture,
            os: "linux",
            config: description.settings,
            rootfs: RootFs {
                r#type: "layers",
                diff_ids: layers.iter().map(|l| l.diff_id.to_string()).collect(),
            },
            history: history.collect(),
        })?;
        self.publish(&config, layers, names)
    }

    /// Writes `config` and a manifest of it and `layers`, as [`Images::describe`].
    ///
    /// # Errors
    /// If the store cannot be written.
    pub fn publish(
        &self,
        config: &[u8],
        layers: &[ImportedLayer],
        names: Vec<Reference>,
    ) -> Result<NewImage, ImageError> {
        let id = self.store().blobs().put(config)?;
        let described = layers.iter().map(|l| DescriptorDocument {
            media_type: l.media_type.to_owned(),
            digest: l.blob.to_string(),
            size: l.blob_size,
        });
        let manifest = manifest(&id, config, described)?;
        let manifest: Digest = self.store().blobs().put(&manifest)?;
        Ok(NewImage {
            manifest,
            id,
            names,
            size: total_size(layers),
        })
    }
}

/// Bytes of all file contents of `layers`.
#[must_use]
pub fn total_size(layers: &[ImportedLayer]) -> u64 {
    layers
        .iter()
        .fold(0u64, |sum, l| sum.saturating_add(l.content_bytes))
}

/// The manifest of an image with that configuration, whose digest is `id`, and those layers.
pub(super) fn manifest(
    id: &Digest,
    config: &[u8],
    layers: impl Iterator<Item = DescriptorDocument>,
) -> Result<Vec<u8>, ImageError> {
    to_json(&ManifestDocument {
        schema_version: 2,
        media_type: MANIFEST_TYPE,
        config: DescriptorDocument {
            media_type: CONFIG_TYPE.to_owned(),
            digest: id.to_string(),
            size: config.len() as u64,
        },
        layers: layers.collect(),
    })
}

pub(super) fn to_json(document: &impl Serialize) -> Result<Vec<u8>, ImageError> {
    serde_json::to_vec(document).map_err(|e| ImageError::Io {
        doing: "encode",
        path: "the image's description".into(),
        source: e.into(),
    })
}
