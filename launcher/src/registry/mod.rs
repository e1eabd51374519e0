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
pub mod login;
pub(crate) mod media_type;
mod pace;
mod partial;
mod proxy;
pub mod pull;
pub mod push;
mod retry;
mod tls;
mod upload;

use std::path::PathBuf;

use pellicle_store::{Digest, Store};

pub use client::{Access, Client};
pub use compress::{Compression, CompressionFormat};
pub use config::{Endpoint, Registries};
pub use content::{Blob, Document};
pub use credentials::{Credentials, Secret, Source, login_file};
pub use download::{Download, download};
pub use error::{RegistryError, TransportError};
pub use pace::TooSlow;
pub(crate) use partial::sweep;
pub use retry::Retry;
pub use upload::How;

/// Whether `blob`, which an image of the store names for its layer `diff_id`, was left at the registry
/// that it was pulled from, because the layer was here already.
pub(crate) fn is_elsewhere(store: &Store, blob: &Digest, diff_id: &Digest) -> bool {
    store.has_tree(diff_id) && known::Known::read(store).is_elsewhere(blob, diff_id)
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
