//! What this store remembers of registries: `registry/known.json` in it.
//!
//! Nothing here is needed, it only saves work: which repositories are known to have a blob (so that a
//! registry can take it from one of its own), what blob a layer became when it was compressed (so that
//! the registry can be asked for it before it is compressed again), and which image an index stood for.
//! A damaged file is as good as none.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use pellicle_store::{Digest, Store};
use serde::{Deserialize, Serialize};

use super::RegistryError;

const VERSION: u32 = 1;
const DIR: &str = "registry";
const SIZE_MAX: u64 = 64 << 20;
/// Repositories remembered for one blob, the newest.
const ORIGINS_MAX: usize = 8;

/// A blob that was made of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Made {
    pub(super) digest: String,
    pub(super) size: u64,
}

/// All that is remembered.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Known {
    version: u32,
    /// By blob: `registry/repository`, newest last.
    #[serde(default)]
    origins: BTreeMap<String, Vec<String>>,
    /// By diff id and how it was compressed.
    #[serde(default)]
    made: BTreeMap<String, Made>,
    /// Blobs that the store does not have, though an image of it names them: the layer was there when the
    /// image was pulled, under another compression. By blob: the layer's diff id.
    #[serde(default)]
    elsewhere: BTreeMap<String, String>,
    /// By `registry/repository@digest` of an index or manifest: the digest of the image's manifest.
    #[serde(default)]
    pulled: BTreeMap<String, String>,
}

impl Known {
    /// What is remembered in `store`.
    pub(super) fn read(store: &Store) -> Self {
        Self::read_at(store.root())
    }

    /// What is remembered in the store at `root`.
    pub(super) fn read_at(root: &Path) -> Self {
        let path = root.join(DIR).join("known.json");
        match load(&path) {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "what was known of registries is forgotten");
                Self::default()
            }
        }
    }

    /// Changes what is remembered; of two who do so at once none is lost.
    pub(super) fn change(
        store: &Store,
        change: impl FnOnce(&mut Self),
    ) -> Result<(), RegistryError> {
        let dir = dir(store);
        fs::create_dir_all(&dir).map_err(RegistryError::io("make", &dir))?;
        let lock = dir.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock);
        let file = file.map_err(RegistryError::io("open", &lock))?;
        file.lock().map_err(RegistryError::io("lock", &lock))?;
        let mut known = Self::read(store);
        known.version = VERSION;
        change(&mut known);
        known.forget_what_is_gone(store);
        let path = dir.join("known.json");
        let fail = |e| RegistryError::io("write", &path)(e);
        let text = serde_json::to_vec(&known).map_err(|e| fail(e.into()))?;
        let mut new = tempfile::Builder::new()
            .prefix(".known-")
            .tempfile_in(&dir)
            .map_err(fail)?;
        new.write_all(&text).map_err(fail)?;
        new.persist(&path).map_err(|e| fail(e.error)).map(drop)
    }

    fn forget_what_is_gone(&mut self, store: &Store) {
        let digest = |text: &str| text.parse::<Digest>().ok();
        self.made.retain(|key, _| {
            let diff_id = key.split(' ').next().and_then(digest);
            diff_id.is_some_and(|id| store.tree_path(&id).exists())
        });
        self.elsewhere
            .retain(|_, diff_id| digest(diff_id).is_some_and(|id| store.tree_path(&id).exists()));
        let made: Vec<&str> = self.made.values().map(|m| m.digest.as_str()).collect();
        let elsewhere = &self.elsewhere;
        self.origins.retain(|blob, _| {
            made.contains(&blob.as_str())
                || elsewhere.contains_key(blob)
                || digest(blob).is_some_and(|id| store.blobs().contains(&id))
        });
        self.pulled
            .retain(|_, manifest| digest(manifest).is_some_and(|id| store.blobs().contains(&id)));
    }

    /// Notes that `repository` (with its registry) has these blobs.
    pub(super) fn add_origin(&mut self, blobs: impl IntoIterator<Item = Digest>, repository: &str) {
        for blob in blobs {
            let list = self.origins.entry(blob.to_string()).or_default();
            list.retain(|r| r != repository);
            list.push(repository.to_owned());
            let surplus = list.len().saturating_sub(ORIGINS_MAX);
            list.drain(..surplus);
        }
    }

    /// Repositories, with their registries, that are known to have the blob, newest first.
    pub(super) fn origins(&self, blob: &Digest) -> impl Iterator<Item = &str> {
        let list = self.origins.get(&blob.to_string());
        list.into_iter().flatten().rev().map(String::as_str)
    }

    /// Other repositories of `registry` that are known to have the blob, newest first.
    pub(super) fn siblings(&self, blob: &Digest, registry: &str, not: &str) -> Vec<String> {
        let list = self.origins.get(&blob.to_string());
        list.into_iter()
            .flatten()
            .rev()
            .filter_map(|r| r.strip_prefix(registry)?.strip_prefix('/'))
            .filter(|r| *r != not)
            .map(str::to_owned)
            .collect()
    }

    /// Notes that a layer's blob was left where it is.
    pub(super) fn add_elsewhere(&mut self, blob: &Digest, diff_id: &Digest) {
        self.elsewhere.insert(blob.to_string(), diff_id.to_string());
    }

    /// Whether that blob of that layer was left where it is.
    pub(super) fn is_elsewhere(&self, blob: &Digest, diff_id: &Digest) -> bool {
        self.elsewhere.get(&blob.to_string()) == Some(&diff_id.to_string())
    }

    /// Whether the blob was seen at any registry.
    pub(super) fn is_from_registry(&self, blob: &Digest) -> bool {
        self.origins.contains_key(&blob.to_string())
    }

    /// Notes what a layer became.
    pub(super) fn add_made(&mut self, diff_id: &Digest, how: &str, made: Made) {
        self.made.insert(format!("{diff_id} {how}"), made);
    }

    /// What a layer became when it was last compressed so.
    pub(super) fn made(&self, diff_id: &Digest, how: &str) -> Option<(Digest, u64)> {
        let made = self.made.get(&format!("{diff_id} {how}"))?;
        Some((made.digest.parse().ok()?, made.size))
    }

    /// Notes which image a name by digest stood for.
    pub(super) fn add_pulled(&mut self, name: String, manifest: &Digest) {
        self.pulled.insert(name, manifest.to_string());
    }

    /// The manifest of the image that a name by digest stood for.
    pub(super) fn pulled(&self, name: &str) -> Option<Digest> {
        self.pulled.get(name)?.parse().ok()
    }

    /// All names by digest, by the manifest that they stand for.
    pub(super) fn all_pulled(&self) -> BTreeMap<Digest, Vec<String>> {
        let mut all: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
        for (name, manifest) in &self.pulled {
            if let Ok(manifest) = manifest.parse() {
                all.entry(manifest).or_default().push(name.clone());
            }
        }
        all
    }

    /// A name by digest stands for nothing any more.
    pub(super) fn forget_pulled(&mut self, name: &str) {
        self.pulled.remove(name);
    }
}

fn dir(store: &Store) -> PathBuf {
    store.root().join(DIR)
}

fn load(path: &Path) -> io::Result<Known> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Known::default()),
        Err(e) => return Err(e),
    };
    let mut text = Vec::new();
    file.take(SIZE_MAX).read_to_end(&mut text)?;
    let known: Known = serde_json::from_slice(&text)?;
    if known.version != VERSION {
        return Err(io::Error::other(format!(
            "it is of version {}",
            known.version
        )));
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_found_again_until_its_blob_is_gone_and_damage_forgets_all() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let blob = store.blobs().put(b"blob").unwrap();
        let gone = Digest::of(b"gone");
        Known::change(&store, |k| {
            k.add_origin([blob, gone], "r.io/a");
            k.add_origin([blob], "r.io/b/c");
            k.add_origin([blob], "q.io/d");
            k.add_pulled("r.io/a@x".into(), &blob);
        })
        .unwrap();
        let known = Known::read(&store);
        assert_eq!(known.siblings(&blob, "r.io", "x"), ["b/c", "a"]);
        assert_eq!(known.siblings(&blob, "r.io", "a"), ["b/c"]);
        assert!(known.is_from_registry(&blob) && !known.is_from_registry(&gone));
        assert_eq!(known.pulled("r.io/a@x"), Some(blob));
        fs::write(dir.path().join("registry/known.json"), "{").unwrap();
        assert!(!Known::read(&store).is_from_registry(&blob));
        Known::change(&store, |k| k.add_origin([blob], "r.io/a")).unwrap();
        assert!(Known::read(&store).is_from_registry(&blob));
    }
}
