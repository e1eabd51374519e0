//! What the documents of a registry are called (OCI image-spec media-types.md; docker's registry,
//! "Image Manifest Version 2, Schema 2").

use serde::Deserialize;

/// Indexes, OCI's and docker's.
pub(crate) const INDEXES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
/// Manifests of images, OCI's and docker's.
pub(crate) const MANIFESTS: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
/// Configurations of images, OCI's and docker's.
pub(crate) const CONFIGS: [&str; 2] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
];
/// All that is asked for.
pub(super) const ALL: [&str; 4] = [MANIFESTS[0], MANIFESTS[1], INDEXES[0], INDEXES[1]];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
}

/// What a document says it is, or by its members must be.
pub(super) fn of(bytes: &[u8]) -> Option<String> {
    let head: Head = serde_json::from_slice(bytes).ok()?;
    head.media_type.or(match (head.manifests, head.layers) {
        (Some(_), None) => Some(INDEXES[0].to_owned()),
        (None, Some(_)) => Some(MANIFESTS[0].to_owned()),
        _ => None,
    })
}
