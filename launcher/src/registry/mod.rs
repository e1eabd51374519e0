//! Images from and to registries (OCI distribution-spec 1.1).
//!
//! `reference` (in `image`) says what a name means; `config` where to look for it; `client` speaks to one
//! repository; `pull` and `push` move images, `credentials` and `login` say who asks. Whatever a registry
//! sends is hostile until its size and digest are right, and no error or log holds a credential.

mod at_once;
mod auth;
mod challenge;
mod choose;
mod client;
mod compress;
mod config;
mod content;
mod credentials;
mod download;
mod elsewhere;
mod error;
mod http;
mod known;
mod layers;
pub mod layout;
mod lists;
pub mod login;
mod manifest_format;
pub(crate) mod media_type;
mod pace;
mod partial;
mod proxy;
pub mod pull;
pub mod push;
mod referrers;
mod retry;
pub mod search;
mod short_names;
mod tls;
mod upload;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use pellicle_store::{Digest, Store};

use crate::image::Reference;

pub use client::{Access, Client};
pub use compress::{Compression, CompressionFormat};
pub use config::{Endpoint, Registries};
pub use content::{Blob, Document};
pub use credentials::{Credentials, Secret, Source, login_file};
pub use download::{Download, download};
pub use error::{RegistryError, TransportError};
pub use lists::Found;
pub use manifest_format::ManifestFormat;
pub use pace::TooSlow;
pub(crate) use partial::sweep;
pub use referrers::Carried;
pub use retry::Retry;
pub use short_names::{Ask, Meant};
pub use upload::How;

/// Whether `blob`, which an image of the store names for its layer `diff_id`, was left at the registry
/// that it was pulled from, because the layer was here already.
pub(crate) fn is_elsewhere(store: &Store, blob: &Digest, diff_id: &Digest) -> bool {
    store.has_tree(diff_id) && known::Known::read(store).is_elsewhere(blob, diff_id)
}

/// The manifest of the image that was pulled by a name with a digest, of its own or of an index, into the
/// store at `root`.
pub(crate) fn pulled_as(root: &Path, reference: &Reference) -> Option<Digest> {
    known::Known::read_at(root).pulled(&pulled_key(reference)?)
}

/// `REGISTRY/REPOSITORY@DIGEST` of a name with a digest.
pub(crate) fn pulled_key(reference: &Reference) -> Option<String> {
    Some(format!(
        "{}@{}",
        reference.repository(),
        reference.digest()?
    ))
}

/// The names that a short name stands for by `registries.conf`; none if that says nothing or makes no sense.
pub(crate) fn stand_for(short: &str) -> Vec<Reference> {
    let found = Registries::load().and_then(|registries| registries.candidates(short));
    found.unwrap_or_default()
}

/// By manifest, the names by digest that its image was pulled by.
pub(crate) fn pulled_names(store: &Store) -> BTreeMap<Digest, Vec<String>> {
    known::Known::read(store).all_pulled()
}

/// An image is no longer known by that name.
pub(crate) fn forget_pulled(store: &Store, name: &str) {
    if let Err(error) = known::Known::change(store, |known| known.forget_pulled(name)) {
        tracing::warn!(%error, "the name {name} is not forgotten");
    }
}

/// Where the user's settings are: `$XDG_CONFIG_HOME`, else `~/.config`.
fn config_home() -> Option<PathBuf> {
    let dir = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    dir("XDG_CONFIG_HOME").or_else(|| dir("HOME").map(|home| home.join(".config")))
}
