//! `--size` of `pellicle ps`.

use std::collections::HashMap;

use serde::Serialize;

use super::super::store::usage;
use crate::{CliError, Context, container::registry::Registry, output};

/// Bytes of a container.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Size {
    /// What its writable layer takes up on the host.
    #[serde(rename = "size_rw")]
    pub(super) writable: u64,
    /// That, and all file contents of its image.
    #[serde(rename = "size_root_fs")]
    pub(super) whole: u64,
}

impl Size {
    /// As docker writes it.
    pub(super) fn shown(self) -> String {
        let (writable, whole) = (output::bytes(self.writable), output::bytes(self.whole));
        format!("{writable} (virtual {whole})")
    }
}

/// Tells the sizes of containers.
pub(super) struct Sizes<'a> {
    registry: &'a Registry,
    images: HashMap<String, u64>,
}

impl<'a> Sizes<'a> {
    /// Of the containers of `registry`.
    ///
    /// # Errors
    /// If the list of images cannot be read.
    pub(super) fn of(cx: &Context, registry: &'a Registry) -> Result<Self, CliError> {
        let records = cx.images()?.records()?;
        let images = records.iter().map(|r| (r.id.to_string(), r.size)).collect();
        Ok(Self { registry, images })
    }

    /// That of one container. An image that is no longer listed counts as nothing.
    pub(super) fn size(&self, id: &str, image_id: &str) -> Size {
        let writable = usage(&self.registry.upper(id)).1;
        let image = self.images.get(image_id).copied().unwrap_or(0);
        Size {
            writable,
            whole: image.saturating_add(writable),
        }
    }
}
