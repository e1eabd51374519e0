//! One image as a directory with its manifest and blobs beside each other (containers-transports(5), `dir:`).

use std::{collections::BTreeSet, path::Path};

use pellicle_store::Digest;
use pellicle_union::Watch;

use super::{
    super::{Image, Images, own_layers::with_own_layers, parse_manifest},
    InDirectory, Members as _, SaveError, damaged, refused, write_blob,
};
use crate::registry::ManifestFormat;

/// What the file `version` says.
const VERSION: &str = "Directory Transport Version: 1.1\n";

/// Writes an image into the empty directory `dir`, in containers-transports(5)'s form `dir:`, with a manifest of
/// docker's form.
///
/// # Errors
/// As [`save_archive`](super::save_archive); [`SaveError::Unfit`] if docker's form does not know its layers.
pub fn save_docker_directory(
    images: &Images,
    image: &Image,
    dir: &Path,
    watch: &Watch<'_>,
) -> Result<(), SaveError> {
    let (id, text) = with_own_layers(images, image, &watch.cancel)?;
    let unfit = |why| SaveError::Unfit { id, why };
    let text = ManifestFormat::V2s2.convert(&text).map_err(unfit)?;
    let manifest = parse_manifest(&text).map_err(|why| damaged(&image.manifest, &why))?;
    let mut members = InDirectory(dir);
    for (name, content) in [("version", VERSION.as_bytes()), ("manifest.json", &text)] {
        members.file(name, content.len() as u64, &mut |out| {
            out.write_all(content).map_err(refused)
        })?;
    }
    let mut written = BTreeSet::new();
    let config = std::iter::once(manifest.config());
    for blob in config.chain(manifest.layers()) {
        let id: Digest = blob.digest().as_ref().parse().map_err(|_| {
            let detail = format!("it names the blob {}", blob.digest());
            damaged(&image.manifest, &detail)
        })?;
        if written.insert(id) {
            let (store, size) = (images.store(), blob.size());
            write_blob(store, &id, size, &id.hex(), &mut members, watch)?;
        }
    }
    Ok(())
}
