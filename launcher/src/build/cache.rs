//! What steps came to before, so that a step whose input is the same is not done again.
//!
//! ```text
//! builds/steps/<key>      what the step with that key came to
//! builds/images/<id>      which steps, and which stacks of layers, image <id> was built with
//! builds/contexts/<id>    what the files of a context look like
//! builds/downloads/<id>   what a server said of the file at an address
//! builds/mounts/<id>/     contents of RUN --mount=type=cache
//! builds/work/            what a build in progress writes
//! ```
//!
//! A key is the digest of everything that a step depends on: the stage before it, the instruction with
//! its variables replaced, the contents that it takes. An entry holds as long as the layer it names is
//! in the store. Collection keeps the layers of what a listed image was built with, and drops the
//! entries of all others. Entries are replaced by rename and not synced: one that is torn or names
//! what is gone is no entry.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use pellicle_store::{Digest, Store};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::BuildError;
use crate::{
    image::{NewLayer, Record},
    registry::Download,
};

/// Part of every key: entries of another version are never found.
pub(super) const VERSION: &str = "pellicle build 1";
/// No file here is as large; a larger one is not read.
const FILE_MAX: u64 = 4 << 20;
/// What the names of files in the making begin with.
pub(super) const NEW: &str = ".new-";
/// The file in the directory of a cache mount that has its id.
pub(super) const MOUNT_ID: &str = "id";

/// What a step came to.
#[derive(Clone, Debug)]
pub(super) struct Made {
    /// When, RFC 3339.
    pub(super) created: String,
    /// The layer it added; none if it changed no file.
    pub(super) layer: Option<NewLayer>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StepDocument {
    created: String,
    layer: Option<LayerDocument>,
}

#[derive(Debug, Serialize, Deserialize)]
struct LayerDocument {
    diff_id: String,
    archive_bytes: u64,
    content_bytes: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct DownloadDocument {
    digest: String,
    etag: String,
    modified: Option<i64>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct ImageDocument {
    steps: Vec<String>,
    stacks: Vec<Vec<String>>,
}

/// The entries of a store.
#[derive(Debug)]
pub(super) struct Cache {
    dir: PathBuf,
    store: Store,
}

/// The directory of builds in the store at `root`.
pub(super) fn dir(root: &Path) -> PathBuf {
    root.join("builds")
}

impl Cache {
    /// The entries of `store`; makes their directories.
    ///
    /// # Errors
    /// The host's.
    pub(super) fn open(store: &Store) -> Result<Self, BuildError> {
        let cache = Self::of(store);
        for part in ["steps", "images", "downloads", "mounts", "work"] {
            let path = cache.dir.join(part);
            fs::create_dir_all(&path).map_err(BuildError::io("make", &path))?;
        }
        Ok(cache)
    }

    /// The entries of `store` as they are; to note one [`Self::open`] is needed.
    pub(super) fn of(store: &Store) -> Self {
        Self {
            dir: dir(store.root()),
            store: store.clone(),
        }
    }

    /// What the step with `key` came to, if its layer is still there.
    pub(super) fn find(&self, key: &Digest) -> Option<Made> {
        let document: StepDocument = read(&self.dir.join("steps").join(key.hex()))?;
        let layer = match document.layer {
            None => None,
            Some(layer) => {
                let diff_id: Digest = layer.diff_id.parse().ok()?;
                if !self.store.has_tree(&diff_id) {
                    return None;
                }
                Some(NewLayer {
                    diff_id,
                    archive_bytes: layer.archive_bytes,
                    content_bytes: layer.content_bytes,
                })
            }
        };
        Some(Made {
            created: document.created,
            layer,
        })
    }

    /// Notes what the step with `key` came to.
    ///
    /// # Errors
    /// The host's.
    pub(super) fn note(&self, key: &Digest, made: &Made) -> Result<(), BuildError> {
        let document = StepDocument {
            created: made.created.clone(),
            layer: made.layer.map(|l| LayerDocument {
                diff_id: l.diff_id.to_string(),
                archive_bytes: l.archive_bytes,
                content_bytes: l.content_bytes,
            }),
        };
        write(&self.dir.join("steps"), &key.hex(), &document)
    }

    /// Notes what image `id` was built with, so that it is kept as long as the image.
    ///
    /// # Errors
    /// The host's.
    pub(super) fn note_image(
        &self,
        id: &Digest,
        steps: &BTreeSet<Digest>,
        stacks: &[&[Digest]],
    ) -> Result<(), BuildError> {
        let document = ImageDocument {
            steps: steps.iter().map(Digest::hex).collect(),
            stacks: stacks
                .iter()
                .map(|s| s.iter().map(Digest::to_string).collect())
                .collect(),
        };
        write(&self.dir.join("images"), &id.hex(), &document)
    }
}

impl Cache {
    /// Where builds in progress write.
    pub(super) fn work(&self) -> PathBuf {
        self.dir.join("work")
    }

    /// What the server said of the file at `address` when it was last fetched.
    pub(super) fn download(&self, address: &str) -> Option<Download> {
        let name = Digest::of(address.as_bytes()).hex();
        let document: DownloadDocument = read(&self.dir.join("downloads").join(name))?;
        Some(Download {
            digest: document.digest.parse().ok()?,
            etag: Some(document.etag),
            modified: document.modified,
        })
    }

    /// Notes it; without a mark of the server's it is no use.
    ///
    /// # Errors
    /// The host's.
    pub(super) fn note_download(&self, address: &str, got: &Download) -> Result<(), BuildError> {
        let Some(etag) = &got.etag else {
            return Ok(());
        };
        let document = DownloadDocument {
            digest: got.digest.to_string(),
            etag: etag.clone(),
            modified: got.modified,
        };
        let name = Digest::of(address.as_bytes()).hex();
        write(&self.dir.join("downloads"), &name, &document)
    }
}

/// The stacks of layers that `records` were built with.
pub(crate) fn stacks(root: &Path, records: &[Record]) -> Vec<Vec<Digest>> {
    let dir = dir(root).join("images");
    let notes = records
        .iter()
        .filter_map(|r| read::<ImageDocument>(&dir.join(r.id.hex())));
    notes
        .flat_map(|note| note.stacks)
        .map(|stack| stack.iter().filter_map(|d| d.parse().ok()).collect())
        .collect()
}

/// The keys, in hexadecimal, of the steps that `records` were built with.
pub(super) fn steps_of(root: &Path, records: &[Record]) -> BTreeSet<String> {
    let dir = dir(root).join("images");
    let notes = records
        .iter()
        .filter_map(|r| read::<ImageDocument>(&dir.join(r.id.hex())));
    notes.flat_map(|note| note.steps).collect()
}

/// The ids, in hexadecimal, of the images of which it is noted that they were built with none but steps
/// that `left` lacks.
pub(super) fn images_without(root: &Path, left: &BTreeSet<String>) -> BTreeSet<String> {
    let dir = dir(root).join("images");
    let without = |name: &String| {
        read::<ImageDocument>(&dir.join(name))
            .is_some_and(|note| !note.steps.iter().any(|step| left.contains(step)))
    };
    names(&dir).into_iter().filter(without).collect()
}

/// The keys, in hexadecimal, of all steps there are.
pub(super) fn steps(root: &Path) -> BTreeSet<String> {
    let names = names(&dir(root).join("steps")).into_iter();
    // A build may just be writing one.
    names.filter(|name| !name.starts_with(NEW)).collect()
}

/// The layers that `steps` came to.
pub(super) fn layers_of<'s>(
    root: &Path,
    steps: impl IntoIterator<Item = &'s String>,
) -> BTreeSet<Digest> {
    let dir = dir(root).join("steps");
    let read = |step| read::<StepDocument>(&dir.join(step))?.layer;
    let layers = steps.into_iter().filter_map(read);
    layers.filter_map(|l| l.diff_id.parse().ok()).collect()
}

/// Drops what is noted of images other than `records`, and unless `keep_steps` the steps that none of
/// `records` was built with. What cannot be removed stays until the next time.
pub(crate) fn sweep(root: &Path, records: &[Record], keep_steps: bool) {
    let dir = dir(root);
    let listed: BTreeSet<String> = records.iter().map(|r| r.id.hex()).collect();
    let wanted = steps_of(root, records);
    for name in names(&dir.join("images")) {
        if !listed.contains(&name) {
            let _ = fs::remove_file(dir.join("images").join(name));
        }
    }
    if keep_steps {
        return;
    }
    if wanted.is_empty() {
        for part in ["contexts", "downloads"] {
            for name in names(&dir.join(part)) {
                let _ = fs::remove_file(dir.join(part).join(name));
            }
        }
    }
    for name in names(&dir.join("steps")) {
        if !wanted.contains(&name) {
            let _ = fs::remove_file(dir.join("steps").join(name));
        }
    }
}

/// The names in a directory of the cache.
pub(super) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|e| e.file_name().into_string().ok())
        .collect()
}

/// A file of ours; `None` if it is missing, torn or not ours.
fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let mut text = Vec::new();
    let file = File::open(path).ok()?;
    file.take(FILE_MAX).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

fn write(dir: &Path, name: &str, document: &impl Serialize) -> Result<(), BuildError> {
    let path = dir.join(name);
    let fail = |e: io::Error| BuildError::io("write", &path)(e);
    let text = serde_json::to_vec(document).map_err(|e| fail(e.into()))?;
    if fs::read(&path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let file = tempfile::Builder::new()
        .prefix(NEW)
        .tempfile_in(dir)
        .map_err(fail)?;
    fs::write(file.path(), text).map_err(fail)?;
    file.persist(&path).map_err(|e| fail(e.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_hold_as_long_as_their_image_and_their_layer() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let cache = Cache::open(&store).unwrap();
        let key = |n: u8| Digest::of(&[n]);
        let made = |layer| Made {
            created: "2001-01-01T00:00:00Z".to_owned(),
            layer,
        };
        let gone = NewLayer {
            diff_id: key(9),
            archive_bytes: 1,
            content_bytes: 1,
        };
        cache.note(&key(1), &made(None)).unwrap();
        cache.note(&key(2), &made(Some(gone))).unwrap();
        cache.note(&key(3), &made(None)).unwrap();
        assert!(cache.find(&key(1)).is_some_and(|m| m.layer.is_none()));
        assert!(cache.find(&key(2)).is_none(), "its layer is not there");
        let image = key(7);
        cache
            .note_image(&image, &[key(1)].into(), &[&[key(8)]])
            .unwrap();
        let record = Record {
            manifest: key(6),
            id: image,
            names: Vec::new(),
            size: 0,
        };
        assert_eq!(
            stacks(dir.path(), std::slice::from_ref(&record)),
            [vec![key(8)]]
        );
        sweep(dir.path(), std::slice::from_ref(&record), true);
        assert!(cache.find(&key(3)).is_some(), "steps are kept");
        sweep(dir.path(), &[record], false);
        assert!(cache.find(&key(1)).is_some());
        assert!(cache.find(&key(3)).is_none(), "no image was built with it");
        sweep(dir.path(), &[], false);
        assert!(cache.find(&key(1)).is_none());
        fs::write(dir.path().join("builds/steps").join(key(4).hex()), "{").unwrap();
        assert!(cache.find(&key(4)).is_none(), "torn");
    }
}
