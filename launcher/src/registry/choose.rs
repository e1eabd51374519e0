//! From a name to one image's manifest: indexes are followed to the platform that is wanted.

use std::collections::BTreeSet;

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use pellicle_store::Digest;

use super::{Client, RegistryError, content::Document, media_type};
use crate::image::{Platform, choose_platform, parse_manifest};

/// Indexes in indexes; real ones have one level.
const DEPTH_MAX: usize = 4;
/// More entries than an index of any image has.
const ENTRIES_MAX: usize = 1000;
/// More layers than any engine makes (docker stops at 127).
const LAYERS_MAX: usize = 1000;
/// What docker wrote before 2016.
const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1";

/// An image's manifest and what led there.
pub(super) struct Chosen {
    /// The digests that the name stands for: of each index on the way, then of the manifest.
    pub(super) way: Vec<Digest>,
    pub(super) document: Document,
    pub(super) manifest: ImageManifest,
}

/// The manifest for `platform` of what the repository has under `which`, a tag or a digest.
pub(super) fn choose(
    client: &Client,
    which: &str,
    platform: &Platform,
) -> Result<Chosen, RegistryError> {
    let mut document = client.manifest(which)?;
    let mut way = vec![document.digest];
    let mut seen = BTreeSet::from([document.digest]);
    loop {
        let what = format!("the manifest {}", document.digest);
        let kind = document.media_type.as_str();
        if media_type::MANIFESTS.contains(&kind) {
            let manifest = checked(&what, &document.bytes)?;
            return Ok(Chosen {
                way,
                document,
                manifest,
            });
        }
        if !media_type::INDEXES.contains(&kind) {
            return Err(RegistryError::invalid(what, why_not(kind)));
        }
        let next = best(&what, &document.bytes, platform)?;
        let digest = sha256(&next, &what)?;
        if !seen.insert(digest) {
            return Err(RegistryError::invalid(what, "its indexes lead in a circle"));
        }
        if way.len() == DEPTH_MAX {
            return Err(RegistryError::invalid(
                what,
                "its indexes nest deeper than 4",
            ));
        }
        document = client.manifest(&digest.to_string())?;
        if document.bytes.len() as u64 != next.size() {
            let (has, announced) = (document.bytes.len(), next.size());
            return Err(RegistryError::invalid(
                format!("the manifest {digest}"),
                format!("it has {has} bytes, and {announced} were announced"),
            ));
        }
        way.push(digest);
    }
}

fn best(what: &str, text: &[u8], platform: &Platform) -> Result<Descriptor, RegistryError> {
    let index: ImageIndex =
        serde_json::from_slice(text).map_err(|e| RegistryError::invalid(what, e.to_string()))?;
    if index.manifests().len() > ENTRIES_MAX {
        return Err(RegistryError::invalid(
            what,
            "it lists more than 1000 manifests",
        ));
    }
    choose_platform(&index, platform)
        .cloned()
        .map_err(|found| RegistryError::Platform {
            wanted: platform.to_string(),
            what: what.to_owned(),
            found,
        })
}

fn checked(what: &str, text: &[u8]) -> Result<ImageManifest, RegistryError> {
    let manifest = parse_manifest(text).map_err(|why| RegistryError::invalid(what, why))?;
    let kind = manifest.config().media_type().as_ref();
    if !media_type::CONFIGS.contains(&kind) {
        return Err(RegistryError::invalid(
            what,
            format!("it holds a {kind:?}, which is no image"),
        ));
    }
    if manifest.layers().len() > LAYERS_MAX {
        return Err(RegistryError::invalid(what, "it has more than 1000 layers"));
    }
    Ok(manifest)
}

fn why_not(kind: &str) -> String {
    if kind.starts_with(SCHEMA_1) {
        return "it is of docker's schema 1, which no tool has written since 2016; push the image again with a current one".to_owned();
    }
    let kind: String = kind.chars().take(100).collect();
    format!("it is a {kind:?}, not an image")
}

/// The digest of a descriptor.
pub(super) fn sha256(descriptor: &Descriptor, what: &str) -> Result<Digest, RegistryError> {
    descriptor.digest().as_ref().parse().map_err(|_| {
        let found = descriptor.digest();
        RegistryError::invalid(
            what,
            format!("only sha256 digests are supported, not {found}"),
        )
    })
}
