//! What refers to images at registries (distribution-spec, "Listing Referrers"): the registry is asked, and
//! one that does not know of referrers has them listed under a tag made of the digest, which whoever pushes
//! keeps up to date ("Referrers Tag Schema").

use std::{collections::BTreeSet, io, sync::atomic::AtomicBool};

use oci_spec::image::ImageManifest;
use pellicle_store::{Digest, Store};
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::Method;

use super::{
    Client, RegistryError,
    choose::sha256,
    client::Call,
    content::Blob,
    media_type::{self, INDEXES},
    pull::Show,
    upload::{Along, Content},
};
use crate::image::{Images, Referrer, parse_manifest};

/// More than anything has.
const REFERRERS_MAX: usize = 1000;
/// Referrers of referrers, and so on.
const DEPTH_MAX: usize = 4;

/// What was carried along with an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// What it refers to.
    pub subject: Digest,
    /// The manifest that refers to it.
    pub digest: Digest,
    /// What it is.
    pub artifact_type: String,
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Referrer>,
}

impl Client {
    /// What refers to `subject` in the repository.
    ///
    /// # Errors
    /// If that cannot be found out.
    pub fn referrers(&self, subject: &Digest) -> Result<Vec<Referrer>, RegistryError> {
        let what = format!("the referrers of {subject}");
        let asked = self.send(Call {
            doing: &format!("list {what}"),
            method: Method::GET,
            url: self.url(&format!("referrers/{subject}"))?,
            headers: vec![("accept", INDEXES[0].to_owned())],
            body: None,
            scope: self.pull_scope(),
        });
        let index: Index = match asked {
            Ok(mut answer) => self.document(&what, &mut answer)?,
            Err(RegistryError::NotFound { .. } | RegistryError::Status { .. }) => {
                match self.manifest(&tag_of(subject)) {
                    Ok(document) => serde_json::from_slice(&document.bytes)
                        .map_err(|e| RegistryError::invalid(&what, e.to_string()))?,
                    Err(RegistryError::NotFound { .. }) => return Ok(Vec::new()),
                    Err(e) => return Err(e),
                }
            }
            Err(e) => return Err(e),
        };
        if index.manifests.len() > REFERRERS_MAX {
            let why = format!("there are more than {REFERRERS_MAX}");
            return Err(RegistryError::invalid(what, why));
        }
        Ok(index.manifests)
    }

    /// Lists a referrer under the tag, for a registry that does not do so by itself.
    fn note_referrer(&self, subject: &Digest, referrer: &Referrer) -> Result<(), RegistryError> {
        let tag = tag_of(subject);
        let mut all = match self.manifest(&tag) {
            Ok(document) => serde_json::from_slice::<Value>(&document.bytes)
                .map_err(|e| RegistryError::invalid(format!("the index {tag}"), e.to_string()))?,
            Err(RegistryError::NotFound { .. }) => json!({
                "schemaVersion": 2, "mediaType": INDEXES[0], "manifests": [],
            }),
            Err(e) => return Err(e),
        };
        let list = all.get_mut("manifests").and_then(Value::as_array_mut);
        let list = list.ok_or_else(|| {
            RegistryError::invalid(format!("the index {tag}"), "it lists nothing")
        })?;
        let digest = Some(referrer.digest.as_str());
        if list
            .iter()
            .any(|d| d.get("digest").and_then(Value::as_str) == digest)
        {
            return Ok(());
        }
        let bad = |e: serde_json::Error| RegistryError::invalid("a referrer", e.to_string());
        list.push(serde_json::to_value(referrer).map_err(bad)?);
        let bytes = serde_json::to_vec(&all).map_err(bad)?;
        self.put_manifest(&tag, INDEXES[0], &bytes).map(drop)
    }
}

/// `sha256-<hex>`
fn tag_of(subject: &Digest) -> String {
    format!("sha256-{}", subject.hex())
}

/// Puts what refers to `subjects` at the registry into the store.
pub(super) fn pull(
    images: &Images,
    client: &Client,
    subjects: &[Digest],
    show: &dyn Show,
) -> Result<Vec<Carried>, RegistryError> {
    let mut carried = Vec::new();
    let mut seen: BTreeSet<Digest> = subjects.iter().copied().collect();
    let mut left: Vec<(Digest, usize)> = subjects.iter().map(|s| (*s, 0)).collect();
    while let Some((subject, depth)) = left.pop() {
        let mut found = Vec::new();
        for referrer in client.referrers(&subject)? {
            let digest: Digest = referrer.digest.parse().map_err(|_| {
                let why = format!("only sha256 digests are supported, not {}", referrer.digest);
                RegistryError::invalid(format!("the referrers of {subject}"), why)
            })?;
            let (manifest, artifact_type) =
                pull_one(images.store(), client, &digest, &subject, show)?;
            found.push(Referrer {
                media_type: referrer.media_type,
                digest: digest.to_string(),
                size: manifest,
                artifact_type: Some(artifact_type.clone()),
                annotations: referrer.annotations,
            });
            carried.push(Carried {
                subject,
                digest,
                artifact_type,
            });
            if carried.len() > REFERRERS_MAX {
                let why = format!("there are more than {REFERRERS_MAX}");
                return Err(RegistryError::invalid("what refers to the image", why));
            }
            if depth + 1 < DEPTH_MAX && seen.insert(digest) {
                left.push((digest, depth + 1));
            }
        }
        if !found.is_empty() {
            images.add_referrers(&subject, found)?;
        }
    }
    Ok(carried)
}

/// One of them with its blobs; the bytes of its manifest, and what it is.
fn pull_one(
    store: &Store,
    client: &Client,
    digest: &Digest,
    subject: &Digest,
    show: &dyn Show,
) -> Result<(u64, String), RegistryError> {
    let document = client.manifest(&digest.to_string())?;
    let what = format!("the manifest {digest}");
    let manifest = refers(&what, &document.bytes, subject)?;
    let parts = manifest.layers().iter().chain([manifest.config()]);
    for part in parts {
        let blob = sha256(part, &what)?;
        if store.blobs().size(&blob)? == Some(part.size()) {
            continue;
        }
        let shown = show.begin(&blob, part.size());
        let never = AtomicBool::new(false);
        let mut from = Blob::new(client, blob, part.size(), &never);
        let mut to = store.blobs().writer()?;
        if let Err(e) = io::copy(&mut from, &mut to) {
            let broken = from.failure.take();
            return Err(broken.unwrap_or_else(|| RegistryError::io("write", store.root())(e)));
        }
        to.finish_as(&blob)?;
        shown.done("pulled");
    }
    store.blobs().put(&document.bytes)?;
    Ok((document.bytes.len() as u64, type_of(&manifest)))
}

/// A manifest that says that it refers to `subject`.
fn refers(what: &str, bytes: &[u8], subject: &Digest) -> Result<ImageManifest, RegistryError> {
    let manifest = parse_manifest(bytes).map_err(|why| RegistryError::invalid(what, why))?;
    let named = manifest.subject().as_ref().map(|s| s.digest().to_string());
    if named != Some(subject.to_string()) {
        let why = format!("it is listed as referring to {subject}, and does not");
        return Err(RegistryError::invalid(what, why));
    }
    Ok(manifest)
}

/// What an artifact is (image-spec manifest.md, `artifactType`).
fn type_of(manifest: &ImageManifest) -> String {
    match manifest.artifact_type() {
        Some(kind) => kind.to_string(),
        None => manifest.config().media_type().to_string(),
    }
}

/// Sends what refers to `subject` in the store after it.
pub(super) fn push(
    images: &Images,
    client: &Client,
    subject: &Digest,
    show: &dyn Show,
) -> Result<Vec<Carried>, RegistryError> {
    let mut carried = Vec::new();
    let mut seen = BTreeSet::from([*subject]);
    let mut left = vec![(*subject, 0)];
    while let Some((subject, depth)) = left.pop() {
        for referrer in images.referrers(&subject)? {
            let what = format!("the manifest {} of the store", referrer.digest);
            let digest: Digest = referrer
                .digest
                .parse()
                .map_err(|_| RegistryError::invalid(&what, "its digest is none"))?;
            let bytes = images.raw_manifest(&digest)?;
            let manifest = refers(&what, &bytes, &subject)?;
            for part in manifest.layers().iter().chain([manifest.config()]) {
                let blob = sha256(part, &what)?;
                push_blob(images.store(), client, &blob, part.size(), show)?;
            }
            let kind = media_type::of(&bytes).unwrap_or_else(|| referrer.media_type.clone());
            let known = client.put_manifest(&digest.to_string(), &kind, &bytes)?;
            if !known {
                client.note_referrer(&subject, &referrer)?;
            }
            carried.push(Carried {
                subject,
                digest,
                artifact_type: type_of(&manifest),
            });
            if depth + 1 < DEPTH_MAX && seen.insert(digest) {
                left.push((digest, depth + 1));
            }
        }
    }
    Ok(carried)
}

fn push_blob(
    store: &Store,
    client: &Client,
    blob: &Digest,
    size: u64,
    show: &dyn Show,
) -> Result<(), RegistryError> {
    if client.has_or_mounts(blob, &[])?.is_some() {
        return Ok(());
    }
    let shown = show.begin(blob, size);
    let never = AtomicBool::new(false);
    let along = Along {
        stop: &never,
        progress: &*shown,
    };
    client.upload(store, &Content::Kept(*blob, size), &along)?;
    shown.done("pushed");
    Ok(())
}
