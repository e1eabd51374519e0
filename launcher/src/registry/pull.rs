//! Images from registries into the store.

use pellicle_store::{
    Digest,
    import::{Cancel, Progress},
};

use super::{
    Access, Client, RegistryError, Source,
    choose::{Chosen, choose, sha256},
    known::Known,
    layers,
    referrers::{self, Carried},
    short_names::Meant,
};
use crate::events::{self, Event};
use crate::image::{
    CONFIG_MAX, Image, ImageError, Images, NewImage, Platform, Reference, parse_config,
};

/// Told what becomes of the layers; called from several threads.
pub trait Show: Sync {
    /// A blob of `size` bytes is about to be moved.
    fn begin(&self, blob: &Digest, size: u64) -> Box<dyn Shown + '_>;
    /// A blob need not be moved, and why.
    fn skip(&self, blob: &Digest, size: u64, why: &str);
    /// The work goes on elsewhere after a failure.
    fn warn(&self, text: &str);
    /// Asks which of the names `among` the short name `short` stands for; `None` if there is nobody to ask.
    ///
    /// # Errors
    /// If none is chosen, or `cancel` is raised.
    fn choose(
        &self,
        short: &str,
        among: &[Reference],
        cancel: &Cancel,
    ) -> Result<Option<Reference>, RegistryError>;
}

/// A blob on its way.
pub trait Shown: Progress {
    /// It is there.
    fn done(self: Box<Self>, what: &str);
}

/// When an image is pulled (`--pull`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum PullPolicy {
    /// Whenever it is asked for
    Always,
    /// If it is not in the store
    #[default]
    Missing,
    /// Not at all
    Never,
}

/// An image that was pulled.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The image as it is listed now.
    pub image: NewImage,
    /// The digest that its name stands for at the registry: of an index, or the manifest's.
    pub digest: Digest,
    /// Its layers, lowest first.
    pub layers: Vec<PulledLayer>,
    /// What refers to it and came along.
    pub referrers: Vec<Carried>,
}

/// What is to be pulled of a name.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The machine it is for.
    pub platform: &'a Platform,
    /// Also what refers to it: signatures, lists of contents.
    pub referrers: bool,
}

/// A layer of a pulled image.
#[derive(Clone, Copy, Debug)]
pub struct PulledLayer {
    /// Digest of its blob.
    pub blob: Digest,
    /// Bytes of its blob.
    pub size: u64,
    /// Whether it came from the registry now, and not from the store.
    pub fetched: bool,
}

/// The image called `name`, pulled if `policy` says so: what every command that starts from an image
/// calls. `access` is asked for only if a registry is. A platform that is given must be the image's.
///
/// # Errors
/// [`ImageError::NotFound`] if it may not be pulled; [`RegistryError::NotHere`] if it cannot.
pub fn ensure(
    images: &Images,
    name: &str,
    policy: PullPolicy,
    platform: Option<&Platform>,
    access: &dyn Fn() -> Result<Access, RegistryError>,
    show: &dyn Show,
) -> Result<Image, RegistryError> {
    let here = match images.resolve(name) {
        Ok(image) => Some(image).filter(|i| fits(i, platform)),
        Err(ImageError::NotFound(_)) => None,
        Err(e) => return Err(e.into()),
    };
    let may_pull = match (policy, &here) {
        (PullPolicy::Always, _) | (PullPolicy::Missing, None) => name.parse::<Reference>().is_ok(),
        _ => false,
    };
    if !may_pull {
        return here.ok_or_else(|| ImageError::NotFound(name.to_owned()).into());
    }
    let host = Platform::host();
    let wanted = Wanted {
        platform: platform.unwrap_or(&host),
        referrers: false,
    };
    let (_, pulled) = access()
        .and_then(|access| pull_named(images, &access, name, &wanted, show))
        .map_err(|source| match policy {
            PullPolicy::Always => source,
            _ => RegistryError::NotHere {
                name: name.to_owned(),
                source: Box::new(source),
            },
        })?;
    Ok(images.resolve(&pulled.image.manifest.to_string())?)
}

fn fits(image: &Image, platform: Option<&Platform>) -> bool {
    let architecture = image.config.architecture().to_string();
    let variant = image.config.variant().as_deref();
    platform.is_none_or(|p| p.takes(&architecture, variant))
}

/// What `text` stands for when it is to be pulled, after asking a person if there is one and it matters.
///
/// # Errors
/// As [`Registries::meant`](super::Registries::meant).
pub fn meant(access: &Access, text: &str, show: &dyn Show) -> Result<Meant, RegistryError> {
    let ask = |all: &[Reference]| show.choose(text, all, &access.cancel);
    access.registries.meant(text, &ask)
}

/// Pulls what `text` names, which may be a short name: the first of what it can stand for that is there.
///
/// # Errors
/// As [`pull`], for the last of them.
pub fn pull_named(
    images: &Images,
    access: &Access,
    text: &str,
    wanted: &Wanted<'_>,
    show: &dyn Show,
) -> Result<(Reference, Pulled), RegistryError> {
    let meant = meant(access, text, show)?;
    let mut candidates = meant.all.clone();
    let last = candidates.pop();
    for reference in candidates {
        match pull(images, access, &reference, wanted, show) {
            Ok(pulled) => return Ok((reference, pulled)),
            Err(RegistryError::Cancelled) => return Err(RegistryError::Cancelled),
            Err(error) => show.warn(&format!("{reference} is passed over: {error}")),
        }
    }
    let reference = match last {
        Some(reference) => reference,
        None => text.parse()?,
    };
    let pulled = pull(images, access, &reference, wanted, show)?;
    if let Err(error) = meant.note() {
        show.warn(&format!(
            "the choice of {reference} is not remembered: {error}"
        ));
    }
    Ok((reference, pulled))
}

/// All tags of the repository that `reference` names, at the first place that tells.
///
/// # Errors
/// If it cannot be asked.
pub fn tags(access: &Access, reference: &Reference) -> Result<Vec<String>, RegistryError> {
    let home = access.registries.home(reference, access.tls_verify)?;
    Client::connect(access, home)?.tags()
}

/// Pulls an image and lists it under its name.
///
/// # Errors
/// [`RegistryError`]; nothing is listed then. Layers that were complete stay in the store, so that the
/// next try need not fetch them.
pub fn pull(
    images: &Images,
    access: &Access,
    reference: &Reference,
    wanted: &Wanted<'_>,
    show: &dyn Show,
) -> Result<Pulled, RegistryError> {
    let platform = wanted.platform;
    // What is in the store already must stay until the image that needs it is listed.
    let _lock = images.store().lock_shared()?;
    let which = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    };
    let (client, chosen) = first(access, reference, &which, platform, show)?;
    let what = format!("the manifest {}", chosen.document.digest);
    let config = chosen.manifest.config();
    let id = sha256(config, &what)?;
    let named = format!("the configuration {id}");
    let text = match images.raw_config(&id) {
        Ok(text) => text,
        // Not there, or damaged.
        Err(_) => client.small_blob(&id, config.size(), CONFIG_MAX, &named)?,
    };
    let (settings, diff_ids) =
        parse_config(&text).map_err(|why| RegistryError::invalid(&named, why))?;
    let architecture = settings.architecture().to_string();
    if !platform.takes(&architecture, settings.variant().as_deref()) {
        show.warn(&format!(
            "{} is for linux/{architecture}, not {platform}",
            reference.familiar()
        ));
    }
    if diff_ids.len() != chosen.manifest.layers().len() {
        let (layers, promised) = (chosen.manifest.layers().len(), diff_ids.len());
        let why = format!("it has {layers} layers, and its configuration {promised}");
        return Err(RegistryError::invalid(what, why));
    }
    let layers = chosen
        .manifest
        .layers()
        .iter()
        .zip(&diff_ids)
        .map(|(layer, diff_id)| {
            Ok(layers::Wanted {
                blob: sha256(layer, &what)?,
                size: layer.size(),
                diff_id: *diff_id,
            })
        });
    let layers = layers.collect::<Result<Vec<_>, RegistryError>>()?;
    let fetched = layers::fetch(images.store(), &client, &layers, &access.cancel, show)?;
    let mut size = 0_u64;
    for one in &fetched {
        size = size.saturating_add(match one.content_bytes {
            Some(bytes) => bytes,
            None => layers::content_bytes(images.store(), &one.diff_id)?,
        });
    }
    // Flattened now, so that the first container starts as fast as the next.
    images.store().image_tree(&diff_ids)?;
    images.store().blobs().put(&text)?;
    images.store().blobs().put(&chosen.document.bytes)?;
    let image = NewImage {
        manifest: chosen.document.digest,
        id,
        names: vec![reference.clone()],
        size,
    };
    access
        .cancel
        .check()
        .map_err(|_| RegistryError::Cancelled)?;
    // Before it is listed: some of this says why blobs of it are not in the store.
    remember(images, reference, &client, &chosen, &layers, &id)?;
    images.add(image.clone())?;
    let pulled = Event::image("pull", &image.id, Some(&reference.to_string()));
    events::note(images.store().root(), &[pulled]);
    let referrers = match wanted.referrers {
        true => referrers::pull(images, &client, &chosen.way, show)?,
        false => Vec::new(),
    };
    Ok(Pulled {
        referrers,
        image,
        digest: chosen
            .way
            .first()
            .copied()
            .unwrap_or(chosen.document.digest),
        layers: fetched.iter().map(|f| f.layer).collect(),
    })
}

/// The manifest from the first place that has it.
fn first(
    access: &Access,
    reference: &Reference,
    which: &str,
    platform: &Platform,
    show: &dyn Show,
) -> Result<(Client, Chosen), RegistryError> {
    let mut places = access.registries.places(reference, access.tls_verify)?;
    let home = places.pop().ok_or_else(|| {
        RegistryError::invalid(
            reference.to_string(),
            "registries.conf names no place for it",
        )
    })?;
    let try_place = |access: &Access, endpoint| {
        let client = Client::connect(access, endpoint)?;
        let chosen = choose(&client, which, platform)?;
        Ok((client, chosen))
    };
    // What was given for the registry is not for its mirrors.
    let credentials = match &access.credentials {
        Source::Given(_) => Source::Usual,
        usual => usual.clone(),
    };
    let for_mirrors = Access {
        credentials,
        ..access.clone()
    };
    for mirror in places {
        let name = mirror.name.clone();
        match try_place(&for_mirrors, mirror) {
            Err(RegistryError::Cancelled) => return Err(RegistryError::Cancelled),
            Err(error) => show.warn(&format!("the mirror {name} is passed over: {error}")),
            found => return found,
        }
    }
    try_place(access, home)
}

fn remember(
    images: &Images,
    reference: &Reference,
    client: &Client,
    chosen: &Chosen,
    wanted: &[layers::Wanted],
    id: &Digest,
) -> Result<(), RegistryError> {
    let store = images.store();
    Known::change(store, |known| {
        for left in wanted.iter().filter(|w| !store.blobs().contains(&w.blob)) {
            known.add_elsewhere(&left.blob, &left.diff_id);
        }
        let blobs = wanted.iter().map(|w| w.blob).chain([*id]);
        known.add_origin(blobs, &client.endpoint.full());
        for digest in &chosen.way {
            let name = format!("{}@{digest}", reference.repository());
            known.add_pulled(name, &chosen.document.digest);
        }
    })
}
