//! OCI image layouts (image-spec image-layout.md).

use std::collections::HashMap;

use oci_spec::image::{Descriptor, ImageIndex, OciLayout};
use pellicle_store::{Digest, import::ImportedLayer};

use super::{IMAGES_MAX, LAYERS_MAX, LoadError, Loader, Source, picked};
use crate::{
    image::{
        CONFIG_MAX, MANIFEST_MAX, NewImage, Pick, Reference, choose_platform, parse_config,
        parse_manifest, total_size,
    },
    registry::media_type::{CONFIGS, INDEXES, MANIFESTS},
};

/// What most tools give a tag, some a whole name (image-spec annotations.md).
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The full name, as containerd and docker have it.
pub(crate) const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// Indexes in indexes; real ones have one level (image, then platforms).
const DEPTH_MAX: usize = 4;

/// The name of the member that is a blob.
type At = fn(&Digest) -> String;

pub(super) fn load(loader: &Loader<'_>, stem: Option<&str>) -> Result<Vec<NewImage>, LoadError> {
    let mut index = top(loader.source)?;
    if let Some(pick) = &loader.options.pick {
        let names: Vec<Vec<String>> = index.manifests().iter().map(names_of).collect();
        let at = picked(&loader.source.name(), pick, &names)?;
        let one = index.manifests().get(at).cloned();
        index.set_manifests(one.into_iter().collect());
    }
    let mut loaded: Vec<NewImage> = Vec::new();
    // One image under several names has a descriptor for each.
    let mut known: HashMap<Digest, usize> = HashMap::new();
    for descriptor in index.manifests() {
        let name = name_of(descriptor, stem)?;
        let (digest, manifest) = choose(loader, descriptor)?;
        let at = match known.get(&digest) {
            Some(at) => *at,
            None => {
                loaded.push(load_one(loader, digest, &manifest, member_of)?);
                *known.entry(digest).or_insert(loaded.len() - 1)
            }
        };
        if let Some(image) = loaded.get_mut(at) {
            image
                .names
                .extend(name.filter(|n| !image.names.contains(n)));
        }
    }
    if loaded.is_empty() {
        let source_name = loader.source.name();
        return Err(LoadError::NoImages {
            source_name,
            why: "its index.json is empty".to_owned(),
        });
    }
    Ok(loaded)
}

/// The layout's own index.
fn top(source: &Source) -> Result<ImageIndex, LoadError> {
    if let Some(text) = source.small("oci-layout", 64 << 10)? {
        let layout: OciLayout = serde_json::from_slice(&text)
            .map_err(|e| LoadError::invalid("oci-layout", e.to_string()))?;
        if !layout.image_layout_version().starts_with("1.") {
            let why = format!("its version is {:?}, not 1", layout.image_layout_version());
            return Err(LoadError::invalid("oci-layout", why));
        }
    }
    let text = source
        .small("index.json", MANIFEST_MAX)?
        .ok_or_else(|| LoadError::Missing {
            what: "the list of images".to_owned(),
            member: "index.json".to_owned(),
        })?;
    parse_index("index.json", &text)
}

/// What an image is called in the layout.
fn names_of(descriptor: &Descriptor) -> Vec<String> {
    let annotations = descriptor.annotations().as_ref();
    let named = |key: &str| annotations.and_then(|a| a.get(key)).cloned();
    [REF_NAME, CONTAINERD_NAME]
        .into_iter()
        .filter_map(named)
        .filter(|n| !n.is_empty())
        .collect()
}

/// The manifest or index that the layout has for an image, as it is.
pub(super) fn document(source: &Source, pick: &Pick) -> Result<Vec<u8>, LoadError> {
    if source.member("index.json")?.is_none() {
        return Err(LoadError::NoImages {
            source_name: source.name(),
            why: "it is no OCI layout, and nothing else has manifests".to_owned(),
        });
    }
    let index = top(source)?;
    let names: Vec<Vec<String>> = index.manifests().iter().map(names_of).collect();
    let at = picked(&source.name(), pick, &names)?;
    let descriptor = index
        .manifests()
        .get(at)
        .ok_or_else(|| LoadError::invalid("index.json", "it lists nothing"))?;
    let what = format!("the manifest {}", descriptor.digest());
    Ok(blob(source, descriptor, &what, MANIFEST_MAX, member_of)?.1)
}

fn parse_index(what: &str, text: &[u8]) -> Result<ImageIndex, LoadError> {
    let index: ImageIndex =
        serde_json::from_slice(text).map_err(|e| LoadError::invalid(what, e.to_string()))?;
    if index.manifests().len() > IMAGES_MAX {
        return Err(LoadError::invalid(
            what,
            "it lists more than 1000 manifests",
        ));
    }
    Ok(index)
}

/// The name that a descriptor of the top index gives its image: containerd's full name, else
/// `org.opencontainers.image.ref.name`, which some tools fill with a whole name and some with a
/// tag only; the tag is then put to the source's own file name.
fn name_of(descriptor: &Descriptor, stem: Option<&str>) -> Result<Option<Reference>, LoadError> {
    let Some(annotations) = descriptor.annotations() else {
        return Ok(None);
    };
    if let Some(full) = annotations.get(CONTAINERD_NAME) {
        return Ok(Some(full.parse()?));
    }
    let Some(name) = annotations.get(REF_NAME).filter(|n| !n.is_empty()) else {
        return Ok(None);
    };
    if name.contains([':', '/']) {
        return Ok(Some(name.parse()?));
    }
    Ok(stem.and_then(|stem| format!("{stem}:{name}").parse().ok()))
}

/// Follows indexes down to the manifest for the wanted platform.
fn choose(loader: &Loader<'_>, start: &Descriptor) -> Result<(Digest, Vec<u8>), LoadError> {
    let mut descriptor = start.clone();
    for _ in 0..DEPTH_MAX {
        let media_type = descriptor.media_type().as_ref();
        let what = format!("the manifest {}", descriptor.digest());
        let is_index = INDEXES.contains(&media_type);
        if !is_index && !MANIFESTS.contains(&media_type) {
            return Err(LoadError::invalid(
                what,
                format!("it is a {media_type:?}, not an image"),
            ));
        }
        let (digest, text) = blob(loader.source, &descriptor, &what, MANIFEST_MAX, member_of)?;
        if !is_index {
            return Ok((digest, text));
        }
        descriptor = best(loader, &what, parse_index(&what, &text)?)?;
    }
    Err(LoadError::invalid(
        format!("the manifest {}", start.digest()),
        "its indexes nest deeper than 4",
    ))
}

fn best(loader: &Loader<'_>, what: &str, index: ImageIndex) -> Result<Descriptor, LoadError> {
    let wanted = &loader.options.platform;
    choose_platform(&index, wanted)
        .cloned()
        .map_err(|found| LoadError::Platform {
            wanted: wanted.to_string(),
            what: what.to_owned(),
            found,
        })
}

/// A small blob, checked against the size and digest of its descriptor.
fn blob(
    source: &Source,
    descriptor: &Descriptor,
    what: &str,
    max: u64,
    at: At,
) -> Result<(Digest, Vec<u8>), LoadError> {
    let digest = sha256(descriptor, what)?;
    if descriptor.size() > max {
        return Err(LoadError::invalid(
            what,
            format!("it claims more than {max} bytes"),
        ));
    }
    let member = at(&digest);
    let text = source
        .small(&member, max)?
        .ok_or_else(|| LoadError::Missing {
            what: what.to_owned(),
            member,
        })?;
    if text.len() as u64 != descriptor.size() {
        let why = format!(
            "it has {} bytes, and {} were announced",
            text.len(),
            descriptor.size()
        );
        return Err(LoadError::invalid(what, why));
    }
    let found = Digest::of(&text);
    if found != digest {
        return Err(LoadError::invalid(
            what,
            format!("its bytes have the digest {found}"),
        ));
    }
    Ok((digest, text))
}

fn sha256(descriptor: &Descriptor, what: &str) -> Result<Digest, LoadError> {
    descriptor.digest().as_ref().parse().map_err(|_| {
        LoadError::invalid(
            what,
            format!(
                "only sha256 digests are supported, not {}",
                descriptor.digest()
            ),
        )
    })
}

fn member_of(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Imports the image of the manifest `text`, whose blobs are where `at` says.
pub(super) fn load_one(
    loader: &Loader<'_>,
    digest: Digest,
    text: &[u8],
    at: At,
) -> Result<NewImage, LoadError> {
    let what = format!("the manifest {digest}");
    let manifest = parse_manifest(text).map_err(|why| LoadError::invalid(&what, why))?;
    let media_type = manifest.config().media_type().as_ref();
    if !CONFIGS.contains(&media_type) {
        return Err(LoadError::invalid(
            what,
            format!("it holds a {media_type:?}, which is no image"),
        ));
    }
    let config_what = format!("the configuration {}", manifest.config().digest());
    let (id, config) = blob(
        loader.source,
        manifest.config(),
        &config_what,
        CONFIG_MAX,
        at,
    )?;
    let (_, diff_ids) =
        parse_config(&config).map_err(|why| LoadError::invalid(&config_what, why))?;
    if diff_ids.len() > LAYERS_MAX {
        let why = format!(
            "it has {} layers; {LAYERS_MAX} at most are taken",
            diff_ids.len()
        );
        return Err(LoadError::invalid(what, why));
    }
    if diff_ids.len() != manifest.layers().len() {
        return Err(LoadError::invalid(
            what,
            format!(
                "it has {} layers, and its configuration {}",
                manifest.layers().len(),
                diff_ids.len()
            ),
        ));
    }
    let layers = manifest
        .layers()
        .iter()
        .zip(diff_ids)
        .map(|(layer, diff_id)| {
            let what = format!("layer {}", layer.digest());
            let blob = sha256(layer, &what)?;
            loader.layer(&at(&blob), diff_id, Some((blob, layer.size())))
        })
        .collect::<Result<Vec<ImportedLayer>, LoadError>>()?;
    loader.flatten(&layers)?;
    let blobs = loader.images.store().blobs();
    blobs.put(&config)?;
    blobs.put(text)?;
    Ok(NewImage {
        manifest: digest,
        id,
        names: Vec::new(),
        size: total_size(&layers),
    })
}
