//! Manifests and configurations: read with a bound on their size, checked against their digests.

use std::io::Read as _;

use oci_spec::image::{ImageConfiguration, ImageManifest};
use pellicle_store::{Digest, Store};

use super::ImageError;

/// Largest manifest or index taken (the limit that registries have: distribution-spec, "Pushing
/// Manifests").
pub const MANIFEST_MAX: u64 = 4 << 20;
/// Largest image configuration taken (containerd's and docker's own limit for what they hold in
/// memory).
pub const CONFIG_MAX: u64 = 8 << 20;

/// Reads blob `id` of at most `max` bytes.
pub(super) fn read(
    store: &Store,
    id: &Digest,
    what: &'static str,
    max: u64,
) -> Result<Vec<u8>, ImageError> {
    let damaged = |detail: String| ImageError::Damaged {
        what,
        id: *id,
        detail,
    };
    let mut bytes = Vec::new();
    store
        .blobs()
        .open(id)?
        .take(max + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| damaged(e.to_string()))?;
    if bytes.len() as u64 > max {
        return Err(damaged(format!("it has more than {max} bytes")));
    }
    let found = Digest::of(&bytes);
    if found != *id {
        return Err(damaged(format!("its bytes have the digest {found}")));
    }
    Ok(bytes)
}

pub(super) fn manifest(store: &Store, id: &Digest) -> Result<ImageManifest, ImageError> {
    let bytes = read(store, id, "manifest", MANIFEST_MAX)?;
    parse_manifest(&bytes).map_err(|detail| ImageError::Damaged {
        what: "manifest",
        id: *id,
        detail,
    })
}

pub(super) fn config(
    store: &Store,
    id: &Digest,
) -> Result<(ImageConfiguration, Vec<Digest>), ImageError> {
    let bytes = read(store, id, "configuration", CONFIG_MAX)?;
    parse_config(&bytes).map_err(|detail| ImageError::Damaged {
        what: "configuration",
        id: *id,
        detail,
    })
}

/// Parses an image manifest (OCI image-spec manifest.md, or docker's schema 2, which has the same
/// fields).
///
/// # Errors
/// What is wrong, for a person.
pub fn parse_manifest(bytes: &[u8]) -> Result<ImageManifest, String> {
    let manifest: ImageManifest = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    if manifest.schema_version() != 2 {
        return Err(format!(
            "it is of schema version {}, not 2",
            manifest.schema_version()
        ));
    }
    Ok(manifest)
}

/// Parses an image configuration (OCI image-spec config.md) and its layers' diff ids, lowest first.
///
/// # Errors
/// What is wrong, for a person.
pub fn parse_config(bytes: &[u8]) -> Result<(ImageConfiguration, Vec<Digest>), String> {
    let config: ImageConfiguration = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    if config.rootfs().typ() != "layers" {
        return Err(format!(
            "its root file system is of type {:?}, not layers",
            config.rootfs().typ()
        ));
    }
    let diff_ids = config
        .rootfs()
        .diff_ids()
        .iter()
        .map(|d| {
            d.parse()
                .map_err(|e: pellicle_store::digest::DigestError| e.to_string())
        })
        .collect::<Result<Vec<Digest>, String>>()?;
    Ok((config, diff_ids))
}
