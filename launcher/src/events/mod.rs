//! What happens in a store, for scripts: one line for each event in `events/journal`.
//!
//! There is no daemon that could tell, so whoever does something appends a line. That must cost nothing
//! that a start would notice and never fail a command: of an event that cannot be written a
//! warning tells, once.

mod follow;
mod journal;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use pellicle_store::Digest;
use serde::{Deserialize, Serialize};

use crate::{container::state::State, image::familiar, output::Output};

pub use follow::{Follow, read};

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A container.
    Container,
    /// An image.
    Image,
}

impl Kind {
    /// As docker calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Image => "image",
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Nanoseconds since 1970.
    pub time: i64,
    /// What it is about.
    pub kind: Kind,
    /// Docker's word for it: `start`, `die`, `pull`.
    pub action: String,
    /// The container's id, or the image's id or name.
    pub id: String,
    /// Docker's names: `name`, `image`, `exitCode`, and a container's labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

impl Event {
    /// Something that happened to a container now.
    #[must_use]
    pub fn container(action: &str, state: &State) -> Self {
        let mut attributes = state.settings.labels.clone();
        attributes.insert("name".to_owned(), state.name.clone());
        attributes.insert("image".to_owned(), state.image.clone());
        Self {
            time: now(),
            kind: Kind::Container,
            action: action.to_owned(),
            id: state.id.clone(),
            attributes,
        }
    }

    /// Something that happened to an image now; `name` is a full name, if there is one.
    #[must_use]
    pub fn image(action: &str, id: &Digest, name: Option<&str>) -> Self {
        let id = id.to_string();
        let name = name.map_or_else(|| id.clone(), familiar);
        Self {
            time: now(),
            kind: Kind::Image,
            action: action.to_owned(),
            attributes: BTreeMap::from([("name".to_owned(), name)]),
            id,
        }
    }

    /// The same with one attribute more.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.attributes.insert(name.to_owned(), value.into());
        self
    }
}

fn now() -> i64 {
    let now = jiff::Timestamp::now().as_nanosecond();
    i64::try_from(now).unwrap_or(i64::MAX)
}

/// Writes events down, all of them or none, in the store at `root`.
pub fn note(root: &Path, events: &[Event]) {
    if events.is_empty() {
        return;
    }
    static TOLD: AtomicBool = AtomicBool::new(false);
    if let Err(error) = journal::append(root, events)
        && !TOLD.swap(true, Ordering::Relaxed)
    {
        let path = journal::file(root);
        Output::detect().warn(format_args!(
            "`pellicle events` will miss something: cannot write {}: {error}",
            path.display()
        ));
    }
}
