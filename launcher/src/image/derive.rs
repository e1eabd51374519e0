//! An image made of another one: one layer more, or all in one, and other settings.

use std::collections::BTreeMap;

use pellicle_store::Digest;
use serde_json::{Map, Value, json};

use super::{
    Image, ImageError, Images, NewImage, Reference, Settings,
    publish::{
        CONFIG_TYPE, DescriptorDocument, LAYER_TYPE, MANIFEST_TYPE, ManifestDocument, to_json,
    },
};

/// A layer whose archive can be had from its tree, uncompressed.
#[derive(Clone, Copy, Debug)]
pub struct NewLayer {
    /// Digest of the archive, which is also that of the blob.
    pub diff_id: Digest,
    /// Bytes of the archive.
    pub archive_bytes: u64,
    /// Bytes of all file contents in it.
    pub content_bytes: u64,
}

/// What the new image is to say of itself.
#[derive(Clone, Debug)]
pub struct Derivation<'a> {
    /// When it was made, RFC 3339.
    pub created: &'a str,
    /// Who made it.
    pub author: Option<&'a str>,
    /// A remark on this step.
    pub comment: Option<&'a str>,
    /// How this step came about.
    pub created_by: &'a str,
    /// How containers run.
    pub settings: &'a Settings,
    /// Nothing of the layers and the history of the image it is made of is kept.
    pub squash: bool,
}

impl Images {
    /// Writes the configuration and the manifest of an image made of `parent` with `layer` on top
    /// (none if nothing was changed), and gives what [`Images::add`] wants; nothing is listed yet.
    ///
    /// What the parent's configuration says beyond the specification is kept, but for what docker
    /// notes of the container it was made in.
    ///
    /// # Errors
    /// If the parent is damaged or the store cannot be written.
    pub fn derive(
        &self,
        parent: &Image,
        layer: Option<&NewLayer>,
        how: &Derivation<'_>,
        names: Vec<Reference>,
    ) -> Result<NewImage, ImageError> {
        let config = to_json(&self.derived_config(parent, layer, how)?)?;
        let id = self.store().blobs().put(&config)?;
        let mut layers = Vec::new();
        if !how.squash {
            let manifest = self.manifest(&parent.manifest)?;
            layers.extend(manifest.layers().iter().map(|l| DescriptorDocument {
                media_type: oci_type(l.media_type().as_ref()),
                digest: l.digest().to_string(),
                size: l.size(),
            }));
        }
        layers.extend(layer.map(|l| DescriptorDocument {
            media_type: LAYER_TYPE.into(),
            digest: l.diff_id.to_string(),
            size: l.archive_bytes,
        }));
        let manifest = to_json(&ManifestDocument {
            schema_version: 2,
            media_type: MANIFEST_TYPE,
            config: DescriptorDocument {
                media_type: CONFIG_TYPE.into(),
                digest: id.to_string(),
                size: config.len() as u64,
            },
            layers,
        })?;
        let below = if how.squash { 0 } else { parent.size };
        Ok(NewImage {
            manifest: self.store().blobs().put(&manifest)?,
            id,
            names,
            size: below.saturating_add(layer.map_or(0, |l| l.content_bytes)),
        })
    }

    fn derived_config(
        &self,
        parent: &Image,
        layer: Option<&NewLayer>,
        how: &Derivation<'_>,
    ) -> Result<BTreeMap<String, Value>, ImageError> {
        let damaged = |e: serde_json::Error| ImageError::Damaged {
            what: "configuration",
            id: parent.id,
            detail: e.to_string(),
        };
        let raw = self.raw_config(&parent.id)?;
        let mut config: BTreeMap<String, Value> = serde_json::from_slice(&raw).map_err(damaged)?;
        for docker in [
            "container",
            "container_config",
            "docker_version",
            "id",
            "parent",
        ] {
            config.remove(docker);
        }
        config.insert("created".to_owned(), how.created.into());
        if let Some(author) = how.author {
            config.insert("author".to_owned(), author.into());
        }
        let mut inner = match config.remove("config") {
            Some(Value::Object(inner)) => inner,
            _ => Map::new(),
        };
        how.settings.put_into(&mut inner).map_err(damaged)?;
        config.insert("config".to_owned(), Value::Object(inner));
        let mut diff_ids: Vec<String> = Vec::new();
        let mut history = match config.remove("history") {
            Some(Value::Array(history)) if !how.squash => history,
            _ => Vec::new(),
        };
        if !how.squash {
            diff_ids.extend(parent.diff_ids.iter().map(Digest::to_string));
        }
        diff_ids.extend(layer.map(|l| l.diff_id.to_string()));
        history.push(step(how, layer.is_none()));
        config.insert("history".to_owned(), Value::Array(history));
        config.insert(
            "rootfs".to_owned(),
            json!({"type": "layers", "diff_ids": diff_ids}),
        );
        Ok(config)
    }
}

/// This step, for the history (OCI image-spec config.md).
fn step(how: &Derivation<'_>, is_empty: bool) -> Value {
    let mut step = json!({"created": how.created, "created_by": how.created_by});
    if let Some(step) = step.as_object_mut() {
        let texts = [("author", how.author), ("comment", how.comment)];
        for (name, text) in texts {
            step.extend(text.map(|text| (name.to_owned(), text.into())));
        }
        if is_empty {
            step.insert("empty_layer".to_owned(), true.into());
        }
    }
    step
}

/// An OCI manifest names docker's types of layers by its own names.
pub(super) fn oci_type(media_type: &str) -> String {
    match media_type {
        "application/vnd.docker.image.rootfs.diff.tar" => LAYER_TYPE.to_owned(),
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => format!("{LAYER_TYPE}+gzip"),
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => format!("{LAYER_TYPE}+zstd"),
        other => other.to_owned(),
    }
}
