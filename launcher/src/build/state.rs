//! What a stage is after the steps so far: layers, settings, history.

use std::collections::BTreeMap;

use pellicle_store::Digest;
use serde_json::{Map, Value, json};

use super::{BuildError, cache::Made};
use crate::image::{Blob, Image, ImageError, Images, Platform, Settings};

/// The shell of RUN, CMD and ENTRYPOINT unless SHELL says otherwise.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Members of a configuration that say how the image came about, which docker notes of the container
/// that it was made in, or which are made anew.
const DROPPED: [&str; 8] = [
    "container",
    "container_config",
    "docker_version",
    "id",
    "parent",
    "config",
    "history",
    "rootfs",
];

/// A stage as it is after some of its steps.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// Other members of the configuration.
    document: BTreeMap<String, Value>,
    /// Members of `config` that [`Settings`] does not speak of.
    extra: Map<String, Value>,
    pub(super) settings: Settings,
    /// Lowest first.
    pub(super) diff_ids: Vec<Digest>,
    /// Of the same layers.
    blobs: Vec<Blob>,
    /// Bytes of all file contents of all layers.
    size: u64,
    history: Vec<Value>,
    /// Layers that were there before the first step of this build.
    base_layers: usize,
    /// Bytes of their contents.
    base_size: u64,
    /// History that was there before.
    base_history: usize,
    /// When the last step was made, RFC 3339; empty if none was.
    created: String,
}

impl State {
    /// Nothing.
    pub(super) fn scratch(platform: &Platform) -> Self {
        let mut document = BTreeMap::new();
        document.insert("os".to_owned(), "linux".into());
        document.insert(
            "architecture".to_owned(),
            platform.architecture.clone().into(),
        );
        document.extend(
            platform
                .variant
                .clone()
                .map(|v| ("variant".to_owned(), v.into())),
        );
        Self {
            document,
            extra: Map::new(),
            settings: Settings::default(),
            diff_ids: Vec::new(),
            blobs: Vec::new(),
            size: 0,
            history: Vec::new(),
            base_layers: 0,
            base_size: 0,
            base_history: 0,
            created: String::new(),
        }
    }

    /// What `image` is.
    ///
    /// # Errors
    /// Damage of the image.
    pub(super) fn of(images: &Images, image: &Image) -> Result<Self, BuildError> {
        let damaged = |e: serde_json::Error| ImageError::Damaged {
            what: "configuration",
            id: image.id,
            detail: e.to_string(),
        };
        let raw = images.raw_config(&image.id)?;
        let mut document: BTreeMap<String, Value> =
            serde_json::from_slice(&raw).map_err(damaged)?;
        let settings = Settings::of(document.get("config").unwrap_or(&Value::Null));
        let settings = settings.map_err(damaged)?;
        let mut extra = match document.remove("config") {
            Some(Value::Object(extra)) => extra,
            _ => Map::new(),
        };
        let own = serde_json::to_value(&settings).map_err(damaged)?;
        extra.retain(|name, value| {
            own.get(name).is_none() && !Settings::has(name) && !value.is_null()
        });
        let history = match document.remove("history") {
            Some(Value::Array(history)) => history,
            _ => Vec::new(),
        };
        let created = document.remove("created");
        document.retain(|name, _| !DROPPED.contains(&name.as_str()));
        let blobs = images.blobs_of(image)?;
        Ok(Self {
            document,
            extra,
            settings,
            base_layers: image.diff_ids.len(),
            base_size: image.size,
            base_history: history.len(),
            diff_ids: image.diff_ids.clone(),
            blobs,
            size: image.size,
            history,
            created: created
                .and_then(|c| c.as_str().map(str::to_owned))
                .unwrap_or_default(),
        })
    }

    /// The same as what a stage on top of it begins with.
    pub(super) fn shell(&self) -> Vec<String> {
        let own = self.extra.get("Shell").and_then(Value::as_array);
        match own {
            Some(list) => list
                .iter()
                .filter_map(|v| v.as_str().map(str::to_owned))
                .collect(),
            None => SHELL.map(str::to_owned).to_vec(),
        }
    }

    /// Sets a member of docker's, such as `Healthcheck`; takes it away without a value.
    pub(super) fn set_extra(&mut self, name: &str, value: Option<Value>) {
        match value {
            Some(value) => {
                self.extra.insert(name.to_owned(), value);
            }
            None => {
                self.extra.remove(name);
            }
        }
    }

    /// Sets a member of the configuration beside `config`, such as `author`.
    pub(super) fn set_member(&mut self, name: &str, value: &str) {
        self.document.insert(name.to_owned(), value.into());
    }

    /// Adds what a build on top of it does first.
    pub(super) fn add_trigger(&mut self, text: &str) {
        match self.extra.get_mut("OnBuild").and_then(Value::as_array_mut) {
            Some(list) => list.push(text.into()),
            None => self.set_extra("OnBuild", Some(json!([text]))),
        }
    }

    /// What a build on top of it does first; it is no longer said of what is built.
    pub(super) fn take_triggers(&mut self) -> Vec<String> {
        let list = match self.extra.remove("OnBuild") {
            Some(Value::Array(list)) => list,
            _ => Vec::new(),
        };
        list.iter()
            .filter_map(|v| v.as_str().map(str::to_owned))
            .collect()
    }

    /// Everything that a step can depend on, hashed.
    ///
    /// # Errors
    /// None in practice.
    pub(super) fn digest(&self) -> Result<Digest, BuildError> {
        let ids: Vec<String> = self.diff_ids.iter().map(Digest::to_string).collect();
        let all = json!([ids, self.settings, self.extra, self.document]);
        let text = serde_json::to_vec(&all).map_err(encode)?;
        Ok(Digest::of(&text))
    }

    /// Adds a step that was made.
    pub(super) fn add(&mut self, text: &str, made: &Made) {
        let mut step =
            json!({"created": made.created, "created_by": text, "comment": "pellicle build"});
        match &made.layer {
            Some(layer) => {
                self.diff_ids.push(layer.diff_id);
                self.blobs
                    .push(Blob::plain(layer.diff_id, layer.archive_bytes));
                self.size = self.size.saturating_add(layer.content_bytes);
            }
            None => {
                if let Some(step) = step.as_object_mut() {
                    step.insert("empty_layer".to_owned(), true.into());
                }
            }
        }
        self.history.push(step);
        self.created.clone_from(&made.created);
    }

    /// The layers that this build added.
    pub(super) fn own_layers(&self) -> &[Digest] {
        self.diff_ids.get(self.base_layers..).unwrap_or_default()
    }

    /// The layers below those.
    pub(super) fn base_layers(&self) -> &[Digest] {
        self.diff_ids.get(..self.base_layers).unwrap_or_default()
    }

    /// Puts one layer in the place of all that this build added; what its steps were stays known.
    pub(super) fn squash(&mut self, text: &str, made: &Made) {
        self.diff_ids.truncate(self.base_layers);
        self.blobs.truncate(self.base_layers);
        self.size = self.base_size;
        for step in self.history.iter_mut().skip(self.base_history) {
            if let Some(step) = step.as_object_mut() {
                step.insert("empty_layer".to_owned(), true.into());
            }
        }
        self.add(text, made);
    }

    /// The configuration (OCI image-spec config.md).
    ///
    /// # Errors
    /// None in practice.
    pub(super) fn config(&self) -> Result<Vec<u8>, BuildError> {
        let mut config = self.document.clone();
        let mut inner = self.extra.clone();
        self.settings.put_into(&mut inner).map_err(encode)?;
        let diff_ids: Vec<String> = self.diff_ids.iter().map(Digest::to_string).collect();
        config.extend([
            ("config".to_owned(), Value::Object(inner)),
            ("history".to_owned(), Value::Array(self.history.clone())),
            (
                "rootfs".to_owned(),
                json!({"type": "layers", "diff_ids": diff_ids}),
            ),
        ]);
        if !self.created.is_empty() {
            config.insert("created".to_owned(), self.created.clone().into());
        }
        serde_json::to_vec(&config).map_err(encode)
    }

    /// The blobs of its layers, lowest first.
    pub(super) fn blobs(&self) -> &[Blob] {
        &self.blobs
    }

    /// Bytes of all file contents of all layers.
    pub(super) fn size(&self) -> u64 {
        self.size
    }
}

fn encode(error: serde_json::Error) -> BuildError {
    BuildError::Image(ImageError::Io {
        doing: "encode",
        path: "the image's description".into(),
        source: error.into(),
    })
}
