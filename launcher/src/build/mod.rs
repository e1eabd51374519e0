//! Building images from Containerfiles.
//!
//! 1. `containerfile` reads the file, `plan` finds the stages that the wanted one needs.
//! 2. `builder` carries out each stage, those that do not need each other at the same time, on a `state`: what the stage is so far. A step that can change
//!    files has a key, the digest of all that it depends on; what a step with that key came to before is
//!    taken from the `cache`.
//! 3. COPY and ADD (`copy`, `place`, `unpack`) write into a union over the stage's tree, RUN (`run`) has a
//!    container over it. Either way a layer is made of what the journal says (`layer`).
//! 4. What comes out is listed as an image, or written out (`output`).
//!
//! No image is listed before the last step is done, so a build that fails leaves no image; what its
//! steps came to is kept for the next try until the store is collected.

mod agent;
mod base;
mod builder;
mod cache;
mod chmod;
mod containerfile;
mod context;
mod copy;
mod error;
mod ignore;
mod layer;
mod mounts;
mod output;
mod place;
mod plan;
mod prune;
mod remote;
mod run;
mod scope;
mod settings;
mod shown;
mod source;
mod squash;
mod statcache;
mod state;
mod steps;
mod tree;
mod unpack;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::PathBuf,
    sync::Arc,
};

use pellicle_store::{Digest, Store, import::Cancel};
use pellicle_union::Union;

pub use error::{BuildError, Place};
pub use layer::Times;
pub use prune::{CacheEntry, CacheKind, PruneOptions, Pruned, prune};
pub use run::{Job, serve};

pub(crate) use cache::{stacks as kept, sweep};
pub(crate) use ignore::matcher as go_pattern;

use crate::{
    container::{request::Network, root},
    image::{Image, Images, Platform, Reference},
    registry::{Download, RegistryError},
};
use state::State;

/// Where the value of a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// In a file.
    File(PathBuf),
    /// In a variable of this process.
    Variable(String),
}

/// Finds an image by name, for a platform if one is wanted.
pub type Find<'a> = dyn Fn(&str, Option<&Platform>) -> Result<Image, RegistryError> + Sync + 'a;

/// Writes what is at an address into a file, which is empty before; nothing comes if the server says that
/// it is still what it had given this mark (`ETag`).
pub type Fetch<'a> =
    dyn Fn(&str, Option<&str>, &mut File) -> Result<Option<Download>, RegistryError> + Sync + 'a;

/// What is to be built, and how.
pub struct Options<'a> {
    /// What messages call the Containerfile.
    pub file_name: String,
    /// The Containerfile.
    pub text: Vec<u8>,
    /// Its path, if it has one, for an ignore file beside it.
    pub file: Option<PathBuf>,
    /// The context directory.
    pub context: Option<PathBuf>,
    /// Values for `ARG`.
    pub build_args: BTreeMap<String, String>,
    /// What `RUN --mount=type=secret` shows, by id.
    pub secrets: BTreeMap<String, Secret>,
    /// Sockets of ssh agents that `RUN --mount=type=ssh` shows, by id.
    pub agents: BTreeMap<String, PathBuf>,
    /// The stage to be built, by name or number; the last one without.
    pub target: Option<String>,
    /// Labels on top of the file's.
    pub labels: Vec<(String, String)>,
    /// The machine to build for.
    pub platform: Option<Platform>,
    /// The network of RUN.
    pub network: Network,
    /// Nothing is taken from earlier builds.
    pub no_cache: bool,
    /// RUN shows nothing unless it fails.
    pub quiet: bool,
    /// One layer for all that the build adds.
    pub squash: bool,
    /// What becomes of times.
    pub times: Times,
    /// A request to stop.
    pub cancel: Cancel,
    /// Finds images by name, pulling those that are missing, if that is wanted.
    pub find: &'a Find<'a>,
    /// Fetches what ADD takes from addresses.
    pub fetch: &'a Fetch<'a>,
    /// Hears of each step.
    pub tell: &'a (dyn Fn(std::fmt::Arguments<'_>) + Sync),
}

/// What was built; not listed yet.
#[derive(Debug)]
pub struct Built {
    state: State,
    /// Keys of the steps it took.
    steps: BTreeSet<Digest>,
    /// Layers of its stages.
    stacks: Vec<Stack>,
    /// Names of build arguments that no ARG asked for.
    pub unused_args: Vec<String>,
}

/// Builds. The caller holds the store's shared lock, and has the image listed with [`Built::list`] before
/// it lets go of it.
///
/// # Errors
/// [`BuildError`].
pub fn build(images: &Images, options: &Options<'_>) -> Result<Built, BuildError> {
    builder::Builder::new(images, options)?.build()
}

/// The layers of a stage.
#[derive(Debug)]
struct Stack {
    /// Lowest first.
    layers: Vec<Digest>,
    /// How many of them its image brought.
    base: usize,
}

impl Built {
    /// Writes the image's description and lists it under `names`; its id.
    ///
    /// # Errors
    /// The store's.
    pub fn list(&self, images: &Images, names: Vec<Reference>) -> Result<Digest, BuildError> {
        let config = self.state.config()?;
        let image = images.assemble(&config, self.state.blobs(), self.state.size(), names)?;
        let id = image.id;
        // Before the image: what is listed then has all that it was built with.
        let cache = cache::Cache::open(images.store())?;
        let stacks: Vec<&[Digest]> = self.stacks.iter().map(|s| s.layers.as_slice()).collect();
        cache.note_image(&id, &self.steps, &stacks)?;
        // So that its first container starts as fast as the next.
        images.store().image_tree(&self.state.diff_ids)?;
        images.add_once(image)?;
        self.drop_trees(images.store());
        Ok(id)
    }

    /// Drops the flattened trees of what the stages were between two steps: they are large, and made again
    /// when a step is done on top of them once more.
    fn drop_trees(&self, store: &Store) {
        for Stack { layers, base } in &self.stacks {
            // One layer alone is no flattened tree but the layer itself.
            for n in (base + 1).max(2)..layers.len() {
                let part = layers.get(..n).unwrap_or_default();
                let is_needed =
                    |s: &Stack| s.layers == part || s.layers.get(..s.base) == Some(part);
                if !self.stacks.iter().any(is_needed)
                    && let Some(chain) = Digest::chain(part)
                {
                    let _ = std::fs::remove_file(store.tree_path(&chain));
                }
            }
        }
    }

    /// Its tree, to be read.
    ///
    /// # Errors
    /// Damage.
    pub fn tree(&self, images: &Images) -> Result<Union, BuildError> {
        let lower = root::tree(images.store(), &self.state.diff_ids, false)?;
        let options = pellicle_union::Options { read_only: true };
        Ok(Union::open(lower, None, options)?.0)
    }

    /// Writes its files into directory `to`, as the caller's own.
    ///
    /// # Errors
    /// The host's, and damage.
    pub fn write_files(
        &self,
        images: &Images,
        to: &std::path::Path,
        cancel: &Cancel,
    ) -> Result<(), BuildError> {
        let lower = root::tree(images.store(), &self.state.diff_ids, false)?;
        let tree = tree::TreeSource::new(Arc::clone(&lower), "the image".to_owned());
        output::write(&tree, std::path::Path::new(""), to, cancel)
    }
}
