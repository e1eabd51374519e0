//! What `docker save` and `podman save` write (moby image/spec, "Combined Image JSON + Filesystem
//! Changeset Format"): `manifest.json` names each image's configuration, names and layers.

use pellicle_store::{Digest, import::ImportedLayer};
use serde::Deserialize;

use super::{IMAGES_MAX, LAYERS_MAX, LoadError, Loader, picked};
use crate::image::{CONFIG_MAX, MANIFEST_MAX, NewImage, Reference, parse_config};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

pub(super) fn load(loader: &Loader<'_>) -> Result<Vec<NewImage>, LoadError> {
    const WHAT: &str = "manifest.json";
    let text = loader.document(WHAT, "the list of images", MANIFEST_MAX)?;
    let mut list: Vec<Saved> =
        serde_json::from_slice(&text).map_err(|e| LoadError::invalid(WHAT, e.to_string()))?;
    if list.is_empty() {
        return Err(LoadError::invalid(WHAT, "it lists no image"));
    }
    if list.len() > IMAGES_MAX {
        return Err(LoadError::invalid(WHAT, "it lists more than 1000 images"));
    }
    if let Some(pick) = &loader.options.pick {
        let names: Vec<Vec<String>> = list
            .iter()
            .map(|saved| saved.repo_tags.clone().unwrap_or_default())
            .collect();
        let at = picked(&loader.source.name(), pick, &names)?;
        list = list.into_iter().skip(at).take(1).collect();
    }
    list.iter().map(|saved| load_one(loader, saved)).collect()
}

fn load_one(loader: &Loader<'_>, saved: &Saved) -> Result<NewImage, LoadError> {
    let names = saved
        .repo_tags
        .iter()
        .flatten()
        .map(|n| n.parse::<Reference>())
        .collect::<Result<Vec<_>, _>>()?;
    let what = format!("the configuration {}", saved.config);
    let config = loader.document(&saved.config, &what, CONFIG_MAX)?;
    // The member is named by its digest, as `<hex>.json` or `blobs/sha256/<hex>`.
    let stem = saved.config.rsplit('/').next().unwrap_or_default();
    let stem = stem.strip_suffix(".json").unwrap_or(stem);
    let id = Digest::of(&config);
    if let Ok(promised) = format!("sha256:{stem}").parse::<Digest>()
        && promised != id
    {
        return Err(LoadError::invalid(
            what,
            format!("its bytes have the digest {id}"),
        ));
    }
    let (_, diff_ids) = parse_config(&config).map_err(|why| LoadError::invalid(&what, why))?;
    if diff_ids.len() > LAYERS_MAX {
        let why = format!(
            "it has {} layers; {LAYERS_MAX} at most are taken",
            diff_ids.len()
        );
        return Err(LoadError::invalid(what, why));
    }
    if diff_ids.len() != saved.layers.len() {
        return Err(LoadError::invalid(
            what,
            format!(
                "it has {} layers, and manifest.json lists {}",
                diff_ids.len(),
                saved.layers.len()
            ),
        ));
    }
    let layers = saved
        .layers
        .iter()
        .zip(diff_ids)
        .map(|(member, diff_id)| loader.layer(member, diff_id, None))
        .collect::<Result<Vec<ImportedLayer>, _>>()?;
    loader.flatten(&layers)?;
    Ok(loader.images.publish(&config, &layers, names)?)
}
