//! What skopeo and podman call `dir:` (containers-transports(5)): the manifest of one image, of docker's form or
//! OCI's, with its blobs beside it.

use pellicle_store::Digest;

use super::{LoadError, Loader, Source, oci::load_one, picked};
use crate::image::{MANIFEST_MAX, NewImage};

const VERSION: &[u8] = b"Directory Transport Version: 1.1";

/// Whether that is what `source` is.
pub(super) fn is_one(source: &Source) -> Result<bool, LoadError> {
    let version = match source {
        Source::Directory(_) => source.small("version", MANIFEST_MAX)?,
        Source::Archive { .. } => None,
    };
    Ok(version.is_some_and(|text| text.starts_with(VERSION)))
}

/// Imports the image, which has no name there.
pub(super) fn load(loader: &Loader<'_>) -> Result<Vec<NewImage>, LoadError> {
    if let Some(pick) = &loader.options.pick {
        picked(&loader.source.name(), pick, &[Vec::new()])?;
    }
    let text = loader.document("manifest.json", "the manifest", MANIFEST_MAX)?;
    let image = load_one(loader, Digest::of(&text), &text, Digest::hex)?;
    Ok(vec![image])
}
