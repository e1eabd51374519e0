//! The list of images: `images/index.json` in the store.
//!
//! One small file for all images, replaced as a whole: readers take no lock and see either the old
//! list or the new one; who changes it holds `images/lock` from reading to publishing, so that of
//! two at once none is lost. The new file is synced before it takes the old one's name, and the
//! directory after, so that a crash leaves one of the two.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use pellicle_store::Digest;
use serde::{Deserialize, Serialize};

use super::ImageError;

const VERSION: u32 = 1;
/// More than any real list (a record has some 300 bytes); bounds what a damaged file can cost.
const SIZE_MAX: u64 = 256 << 20;

/// One image of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Digest of the manifest.
    #[serde(with = "digest_text")]
    pub manifest: Digest,
    /// Digest of the configuration: the image's id, here so that looking one up reads no manifest.
    #[serde(with = "digest_text")]
    pub id: Digest,
    /// Full names, sorted.
    pub names: Vec<String>,
    /// Bytes of all file contents of all layers.
    #[serde(default)]
    pub size: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Document {
    version: u32,
    images: Vec<Record>,
}

/// The place of the list.
#[derive(Clone, Debug)]
pub(super) struct Index {
    dir: PathBuf,
}

impl Index {
    pub(super) fn new(store_root: &Path) -> Self {
        Self {
            dir: store_root.join("images"),
        }
    }

    pub(super) fn file(&self) -> PathBuf {
        self.dir.join("index.json")
    }

    /// The list as it is now.
    pub(super) fn read(&self) -> Result<Vec<Record>, ImageError> {
        let path = self.file();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(ImageError::io("open", &path)(e)),
        };
        let mut text = Vec::new();
        file.take(SIZE_MAX)
            .read_to_end(&mut text)
            .map_err(ImageError::io("read", &path))?;
        let document: Document = serde_json::from_slice(&text).map_err(|e| ImageError::Index {
            path: path.clone(),
            detail: e.to_string(),
        })?;
        if document.version != VERSION {
            return Err(ImageError::Index {
                path,
                detail: format!(
                    "it is of version {}, and this program knows version {VERSION}",
                    document.version
                ),
            });
        }
        Ok(document.images)
    }

    /// Holds off every other change of the list until the guard is dropped.
    pub(super) fn lock(&self) -> Result<IndexLock<'_>, ImageError> {
        fs::create_dir_all(&self.dir).map_err(ImageError::io("make", &self.dir))?;
        let path = self.dir.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(ImageError::io("open", &path))?;
        file.lock().map_err(ImageError::io("lock", &path))?;
        Ok(IndexLock {
            index: self,
            _file: file,
        })
    }
}

/// The right to change the list.
pub(super) struct IndexLock<'a> {
    index: &'a Index,
    _file: File,
}

impl IndexLock<'_> {
    pub(super) fn read(&self) -> Result<Vec<Record>, ImageError> {
        self.index.read()
    }

    /// Publishes a new list, durably.
    pub(super) fn write(&self, images: Vec<Record>) -> Result<(), ImageError> {
        let dir = &self.index.dir;
        let text = serde_json::to_vec_pretty(&Document {
            version: VERSION,
            images,
        })
        .map_err(|e| ImageError::Io {
            doing: "write",
            path: self.index.file(),
            source: e.into(),
        })?;
        let mut new = tempfile::Builder::new()
            .prefix(".index-")
            .tempfile_in(dir)
            .map_err(ImageError::io("write to", dir))?;
        new.write_all(&text)
            .and_then(|()| new.as_file().sync_all())
            .map_err(ImageError::io("write", new.path()))?;
        new.persist(self.index.file())
            .map_err(|e| ImageError::io("replace", &self.index.file())(e.error))?;
        File::open(dir)
            .and_then(|d| d.sync_all())
            .map_err(ImageError::io("sync", dir))
    }
}

mod digest_text {
    use pellicle_store::Digest;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(d: &Digest, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(d)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Digest, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(n: u8) -> Record {
        let names = vec![format!("docker.io/library/x:{n}")];
        Record {
            manifest: Digest::of(&[n]),
            id: Digest::of(&[n, n]),
            names,
            size: 7,
        }
    }

    #[test]
    fn a_list_is_read_back_as_written_and_an_absent_one_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::new(dir.path());
        assert_eq!(index.read().unwrap(), []);
        index
            .lock()
            .unwrap()
            .write(vec![record(1), record(2)])
            .unwrap();
        assert_eq!(index.read().unwrap(), [record(1), record(2)]);
        let left: Vec<_> = fs::read_dir(dir.path().join("images")).unwrap().collect();
        assert_eq!(left.len(), 2, "only the list and the lock: {left:?}");
    }

    #[test]
    fn changes_made_at_once_are_all_kept() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|s| {
            for n in 0..16 {
                let index = Index::new(dir.path());
                s.spawn(move || {
                    let lock = index.lock().unwrap();
                    let mut images = lock.read().unwrap();
                    images.push(record(n));
                    lock.write(images).unwrap();
                });
            }
        });
        assert_eq!(Index::new(dir.path()).read().unwrap().len(), 16);
    }

    #[test]
    fn a_damaged_or_newer_list_is_refused_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::new(dir.path());
        drop(index.lock().unwrap());
        for text in [
            "",
            "{",
            "[]",
            r#"{"version":2,"images":[]}"#,
            r#"{"version":1,"images":[{}]}"#,
        ] {
            fs::write(index.file(), text).unwrap();
            let e = index.read().unwrap_err();
            assert!(
                matches!(&e, ImageError::Index { path, .. } if *path == index.file()),
                "{e}"
            );
        }
    }
}
