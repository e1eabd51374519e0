//! What `pellicle inspect` tells about an image.

use serde_json::{Value, json};

use super::super::image_arg;
use crate::{
    CliError, Context,
    image::{ImageError, familiar},
    registry,
};

pub(super) fn is_missing(cx: &Context, name: &str) -> bool {
    let found = cx.images().map(|images| images.find(name));
    matches!(found, Ok(Err(ImageError::NotFound(_))))
}

pub(super) fn describe(cx: &Context, name: &str) -> Result<Value, CliError> {
    let images = cx.images()?;
    let image = image_arg::open(cx, &images, name)?;
    let manifest = images.manifest(&image.manifest)?;
    // From the bytes as they came: what docker adds to the specification stays visible.
    let raw: Value = serde_json::from_slice(&images.raw_config(&image.id)?)
        .map_err(|e| CliError::failed("the image's configuration is no JSON").because(e))?;
    let member = |key: &str| raw.get(key).cloned().unwrap_or(Value::Null);
    let names: Vec<String> = image.names.iter().map(|n| familiar(n)).collect();
    let digests = registry::pulled_names(images.store());
    let digests = digests.get(&image.manifest).into_iter().flatten();
    let digests: Vec<String> = digests.map(|n| familiar(n)).collect();
    let diff_ids: Vec<String> = image.diff_ids.iter().map(ToString::to_string).collect();
    let layers: Vec<Value> = manifest
        .layers()
        .iter()
        .zip(&diff_ids)
        .map(|(layer, diff_id)| {
            json!({
                "DiffId": diff_id, "Digest": layer.digest().to_string(),
                "MediaType": layer.media_type().to_string(), "Size": layer.size(),
            })
        })
        .collect();
    let mut referrers = Vec::new();
    for subject in images.subjects(&image.manifest) {
        let all = images.referrers(&subject)?.into_iter();
        referrers.extend(all.map(|r| {
            json!({
                "Digest": r.digest, "ArtifactType": r.artifact_type, "Size": r.size,
                "Subject": subject.to_string(), "Annotations": r.annotations,
            })
        }));
    }
    Ok(json!({
        "Id": image.id.to_string(),
        "RepoTags": names,
        "RepoDigests": digests,
        "Digest": image.manifest.to_string(),
        "Created": member("created"),
        "Author": member("author"),
        "Architecture": member("architecture"),
        "Variant": member("variant"),
        "Os": member("os"),
        "Size": image.size,
        "Config": member("config"),
        "RootFS": { "Type": "layers", "Layers": diff_ids },
        "Layers": layers,
        "Referrers": referrers,
        "History": member("history"),
    }))
}
