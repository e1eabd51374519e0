//! What refers to images: signatures, lists of what is in them, attestations (image-spec manifest.md,
//! `subject`).
//!
//! `images/referrers/<digest>.json` in the store lists what refers to the manifest or index with that digest.
//! The manifests and their blobs are blobs of the store like those of images, and stay as long as what they
//! refer to.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Write as _},
    path::PathBuf,
};

use pellicle_store::Digest;
use serde::{Deserialize, Serialize};

use super::{ImageError, Images, Record, document::MANIFEST_MAX, parse_manifest};
use crate::registry;

/// Referrers of referrers, and so on: a signature of a list of contents is at 2.
const DEPTH_MAX: usize = 4;

/// A manifest that refers to another, as an index lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    /// What sort of manifest it is.
    pub media_type: String,
    /// Its digest.
    pub digest: String,
    /// Its bytes.
    pub size: u64,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// What its maker says of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Images {
    /// What is known here to refer to `subject`. A list that is damaged is as good as none: the registry has
    /// it.
    ///
    /// # Errors
    /// The host's.
    pub fn referrers(&self, subject: &Digest) -> Result<Vec<Referrer>, ImageError> {
        let path = self.referrers_file(subject);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(ImageError::io("read", &path)(e)),
        };
        Ok(serde_json::from_slice(&text).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "what refers to {subject} is forgotten");
            Vec::new()
        }))
    }

    /// Notes what refers to `subject`, besides what is known already. Their manifests and blobs are in the
    /// store.
    ///
    /// # Errors
    /// The host's.
    pub fn add_referrers(&self, subject: &Digest, new: Vec<Referrer>) -> Result<(), ImageError> {
        let _lock = self.index.lock()?;
        let mut all = self.referrers(subject)?;
        all.retain(|old| !new.iter().any(|n| n.digest == old.digest));
        all.extend(new);
        let path = self.referrers_file(subject);
        let dir = path.parent().unwrap_or(&path);
        fs::create_dir_all(dir).map_err(ImageError::io("make", dir))?;
        let fail = |e: io::Error| ImageError::io("write", &path)(e);
        let text = serde_json::to_vec(&all).map_err(|e| fail(e.into()))?;
        let mut file = tempfile::Builder::new()
            .prefix(".new-")
            .tempfile_in(dir)
            .map_err(fail)?;
        file.write_all(&text).map_err(fail)?;
        file.persist(&path).map(drop).map_err(|e| fail(e.error))
    }

    /// The digests by which others may refer to an image: its manifest's, and those of the indexes that it
    /// was pulled by.
    #[must_use]
    pub fn subjects(&self, manifest: &Digest) -> Vec<Digest> {
        let names = registry::pulled_names(self.store());
        let names = names.get(manifest).into_iter().flatten();
        let mut subjects = vec![*manifest];
        for digest in names.filter_map(|n| n.rsplit_once('@')?.1.parse().ok()) {
            if !subjects.contains(&digest) {
                subjects.push(digest);
            }
        }
        subjects
    }

    /// The blobs of all that refers to `records`, and the digests that are referred to.
    pub(super) fn referring(
        &self,
        records: &[Record],
    ) -> Result<(BTreeSet<Digest>, BTreeSet<Digest>), ImageError> {
        let names = registry::pulled_names(self.store());
        let mut subjects: BTreeSet<Digest> = BTreeSet::new();
        let mut blobs: BTreeSet<Digest> = BTreeSet::new();
        for record in records {
            subjects.insert(record.manifest);
            let pulled = names.get(&record.manifest).into_iter().flatten();
            subjects.extend(pulled.filter_map(|n| n.rsplit_once('@')?.1.parse::<Digest>().ok()));
        }
        let mut left: Vec<(Digest, usize)> = subjects.iter().map(|s| (*s, 0)).collect();
        while let Some((subject, depth)) = left.pop() {
            for referrer in self.referrers(&subject)? {
                let Ok(digest) = referrer.digest.parse::<Digest>() else {
                    continue;
                };
                blobs.insert(digest);
                blobs.extend(self.parts(&digest));
                if depth < DEPTH_MAX && subjects.insert(digest) {
                    left.push((digest, depth + 1));
                }
            }
        }
        Ok((blobs, subjects))
    }

    /// The blobs that a manifest of the store names; none if it cannot be read.
    fn parts(&self, manifest: &Digest) -> Vec<Digest> {
        let Ok(bytes) = super::document::read(self.store(), manifest, "manifest", MANIFEST_MAX)
        else {
            return Vec::new();
        };
        let Ok(manifest) = parse_manifest(&bytes) else {
            return Vec::new();
        };
        let all = manifest.layers().iter().chain([manifest.config()]);
        all.filter_map(|d| d.digest().as_ref().parse().ok())
            .collect()
    }

    /// Drops the lists of what is not in `subjects`. What cannot be removed stays until the next time.
    pub(super) fn sweep_referrers(&self, subjects: &BTreeSet<Digest>) {
        let dir = self.referrers_dir();
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let hex = name.to_str().and_then(|n| n.strip_suffix(".json"));
            let subject = hex.and_then(|hex| format!("sha256:{hex}").parse().ok());
            if subject.is_none_or(|s| !subjects.contains(&s)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn referrers_dir(&self) -> PathBuf {
        self.store().root().join("images/referrers")
    }

    fn referrers_file(&self, subject: &Digest) -> PathBuf {
        self.referrers_dir().join(format!("{}.json", subject.hex()))
    }
}
