//! Images whose blobs are not all here, told with what is.

use pellicle_store::{Digest, Hasher, import::Cancel};
use pellicle_union::{Watch, write_layer};
use serde_json::Value;

use super::{Image, ImageError, Images, publish::LAYER_TYPE, save::SaveError};
use crate::registry::{self, media_type};

/// The manifest of an image, and its digest: as it is, unless blobs of it were left at a registry.
pub(super) fn with_own_layers(
    images: &Images,
    image: &Image,
    cancel: &Cancel,
) -> Result<(Digest, Vec<u8>), SaveError> {
    let store = images.store();
    let text = images.raw_manifest(&image.manifest)?;
    let bad = |e: serde_json::Error| SaveError::Blob {
        id: image.manifest,
        detail: e.to_string(),
    };
    let mut manifest: Value = serde_json::from_slice(&text).map_err(bad)?;
    let docker =
        manifest.get("mediaType").and_then(Value::as_str) == Some(media_type::MANIFESTS[1]);
    let layers = manifest.get_mut("layers").and_then(Value::as_array_mut);
    let mut changed = false;
    for (layer, diff_id) in layers.into_iter().flatten().zip(&image.diff_ids) {
        let Some(layer) = layer.as_object_mut() else {
            continue;
        };
        let blob = layer.get("digest").and_then(Value::as_str);
        let blob = blob.and_then(|d| d.parse::<Digest>().ok());
        let elsewhere = blob.is_some_and(|blob| {
            !store.blobs().contains(&blob) && registry::is_elsewhere(store, &blob, diff_id)
        });
        if !elsewhere {
            continue;
        }
        let mut hash = Hasher::default();
        let tree = store.tree(diff_id).map_err(ImageError::from)?;
        let unseen = Watch {
            cancel: cancel.clone(),
            progress: &(),
        };
        write_layer(&tree, store, &mut hash, &unseen)?;
        let (_, size) = hash.finish();
        let media_type = if docker {
            "application/vnd.docker.image.rootfs.diff.tar"
        } else {
            LAYER_TYPE
        };
        layer.insert("mediaType".to_owned(), media_type.into());
        layer.insert("digest".to_owned(), diff_id.to_string().into());
        layer.insert("size".to_owned(), size.into());
        changed = true;
    }
    if !changed {
        return Ok((image.manifest, text));
    }
    let text = serde_json::to_vec(&manifest).map_err(bad)?;
    Ok((Digest::of(&text), text))
}
