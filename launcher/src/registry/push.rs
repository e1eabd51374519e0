//! Images of the store to registries.
//!
//! A layer that came compressed goes as it came, so that an unchanged image keeps its manifest's digest.
//! One that is a plain archive and was never at a registry is compressed on the way, and the manifest
//! that is sent says so; what it became is remembered. A blob that was left at the registry that it was
//! pulled from is brought from there; only where that fails is its layer compressed anew, and that is told.

use pellicle_store::{Digest, Store, import::Cancel};
use serde_json::Value;

use super::{
    Access, Client, Compression, Endpoint, ManifestFormat, RegistryError, at_once, elsewhere,
    known::{Known, Made},
    media_type,
    pull::Show,
    referrers::{self, Carried},
    upload::{Along, Content, How},
};
use crate::events::{self, Event};
use crate::image::{Image, Images, Reference, parse_manifest};

/// How an image is pushed.
#[derive(Clone, Copy, Debug, Default)]
pub struct PushOptions {
    /// How layers are compressed that are not compressed.
    pub compression: Compression,
    /// What the manifest is written as, if not as it is.
    pub format: Option<ManifestFormat>,
    /// Also what refers to the image.
    pub referrers: bool,
}

/// What was pushed.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// The digest of the manifest at the registry.
    pub digest: Digest,
    /// Bytes of the manifest.
    pub size: u64,
    /// Layers, lowest first, then the configuration.
    pub blobs: Vec<PushedBlob>,
    /// What refers to it and went along.
    pub referrers: Vec<Carried>,
}

/// A blob of a pushed image.
#[derive(Clone, Copy, Debug)]
pub struct PushedBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// What became of it.
    pub how: How,
}

/// What is to be done for one blob.
#[derive(Clone, Copy, Debug)]
pub(super) enum Piece {
    /// It is in the store as it is to be.
    Kept(Digest, u64),
    /// It is the layer of that diff id, which is to be compressed.
    Made(Digest),
    /// The blob of that digest and size is not in the store, but its layer, of that diff id, is: the
    /// registry may have it.
    Elsewhere(Digest, u64, Digest),
}

impl Piece {
    /// The blobs, digest and size, one of which the other side may have for it already: itself, and what
    /// its layer is known to become by `compression`.
    pub(super) fn expected(&self, known: &Known, compression: Compression) -> Vec<(Digest, u64)> {
        let made = |diff_id| known.made(diff_id, &compression.key());
        match self {
            Self::Kept(digest, size) => vec![(*digest, *size)],
            Self::Made(diff_id) => made(diff_id).into_iter().collect(),
            Self::Elsewhere(digest, size, diff_id) => [(*digest, *size)]
                .into_iter()
                .chain(made(diff_id))
                .collect(),
        }
    }
}

/// Pushes `image` as `to`, which has a tag and no digest.
///
/// # Errors
/// [`RegistryError`]; blobs that were sent stay at the registry, so that the next try does not send them.
pub fn push(
    images: &Images,
    access: &Access,
    image: &Image,
    to: &Reference,
    options: PushOptions,
    show: &dyn Show,
) -> Result<Pushed, RegistryError> {
    let store = images.store();
    let _lock = store.lock_shared()?;
    let text = images.raw_manifest(&image.manifest)?;
    // Before anything is sent.
    written_as(&text, options.format)?;
    let compression = options.compression;
    let known = Known::read(store);
    let pieces = pieces(store, &known, image, &text)?;
    let endpoint = access.registries.home(to, access.tls_verify)?;
    let client = Client::connect(access, endpoint.clone())?;
    let work = Work {
        store,
        access,
        client: &client,
        endpoint: &endpoint,
        known: &known,
        compression,
        cancel: &access.cancel,
        show,
    };
    let blobs = at_once::each(&pieces, &|piece, stop| work.one(piece, stop))?;
    let kind = media_type::of(&text).unwrap_or_else(|| media_type::MANIFESTS[0].to_owned());
    let made: Vec<_> = pieces.iter().zip(&blobs).map(|(p, b)| (*p, *b)).collect();
    let sent = with_made(&text, &kind, &made, compression)?;
    let (sent, kind) = written_as(&sent, options.format)?;
    let tag = to.tag().unwrap_or("latest");
    client.put_manifest(tag, &kind, &sent)?;
    let noted = Known::change(store, |known| {
        for (piece, blob) in &made {
            let was_made = match piece {
                Piece::Kept(..) => None,
                Piece::Made(diff_id) => Some(diff_id),
                // As it was, or made anew.
                Piece::Elsewhere(was, _, diff_id) => Some(diff_id).filter(|_| blob.digest != *was),
            };
            if let Some(diff_id) = was_made.filter(|_| blob.how == How::Sent) {
                let made = Made {
                    digest: blob.digest.to_string(),
                    size: blob.size,
                };
                known.add_made(diff_id, &compression.key(), made);
            }
        }
        known.add_origin(blobs.iter().map(|b| b.digest), &endpoint.full());
    });
    // It only saves work.
    if let Err(error) = noted {
        tracing::warn!(%error, "what was pushed is not remembered");
    }
    let event = Event::image("push", &image.id, Some(&to.to_string()));
    events::note(store.root(), &[event]);
    let referrers = match options.referrers {
        true => carry(images, &client, image, &Digest::of(&sent), show)?,
        false => Vec::new(),
    };
    Ok(Pushed {
        referrers,
        digest: Digest::of(&sent),
        size: sent.len() as u64,
        blobs,
    })
}

/// A manifest in the form that was asked for, if one was, and its media type.
pub(super) fn written_as(
    text: &[u8],
    format: Option<ManifestFormat>,
) -> Result<(Vec<u8>, String), RegistryError> {
    let text = match format {
        Some(format) => format.convert(text).map_err(|why| {
            let why = format!("{why}; push it without --format, or with --format oci");
            RegistryError::invalid("the image's manifest in the form that was asked for", why)
        })?,
        None => text.to_vec(),
    };
    let kind = media_type::of(&text).unwrap_or_else(|| media_type::MANIFESTS[0].to_owned());
    Ok((text, kind))
}

/// Sends along what refers to the image, as far as it refers to what is there now.
fn carry(
    images: &Images,
    client: &Client,
    image: &Image,
    sent: &Digest,
    show: &dyn Show,
) -> Result<Vec<Carried>, RegistryError> {
    for subject in images.subjects(&image.manifest) {
        let others = images.referrers(&subject)?.len();
        if subject != *sent && others > 0 {
            show.warn(&format!(
                "{others} that refer to {subject} do not go along: it is not what was pushed"
            ));
        }
    }
    referrers::push(images, client, sent, show)
}

pub(super) fn pieces(
    store: &Store,
    known: &Known,
    image: &Image,
    text: &[u8],
) -> Result<Vec<Piece>, RegistryError> {
    let what = format!("the manifest {} of the store", image.manifest);
    let manifest = parse_manifest(text).map_err(|why| RegistryError::invalid(&what, why))?;
    if manifest.layers().len() != image.diff_ids.len() {
        return Err(RegistryError::invalid(
            what,
            "it has not the layers of its configuration",
        ));
    }
    let mut pieces = Vec::new();
    for (layer, diff_id) in manifest.layers().iter().zip(&image.diff_ids) {
        let blob = super::choose::sha256(layer, &what)?;
        let kept = store.blobs().size(&blob)? == Some(layer.size());
        let plain = layer.media_type().as_ref().ends_with(".tar");
        pieces.push(if kept && (!plain || known.is_from_registry(&blob)) {
            Piece::Kept(blob, layer.size())
        } else if known.is_elsewhere(&blob, diff_id) {
            Piece::Elsewhere(blob, layer.size(), *diff_id)
        } else {
            Piece::Made(*diff_id)
        });
    }
    pieces.push(Piece::Kept(image.id, manifest.config().size()));
    Ok(pieces)
}

struct Work<'a> {
    store: &'a Store,
    access: &'a Access,
    client: &'a Client,
    endpoint: &'a Endpoint,
    known: &'a Known,
    compression: Compression,
    cancel: &'a Cancel,
    show: &'a dyn Show,
}

impl Work<'_> {
    fn one(
        &self,
        piece: &Piece,
        stop: &std::sync::atomic::AtomicBool,
    ) -> Result<PushedBlob, RegistryError> {
        // What a layer became before is asked for before it is compressed again.
        for (digest, size) in piece.expected(self.known, self.compression) {
            let repository = &self.endpoint.repository;
            let siblings = self
                .known
                .siblings(&digest, &self.endpoint.name, repository);
            if let Some(how) = self.client.has_or_mounts(&digest, &siblings)? {
                let why = match how {
                    How::Mounted => "taken from another repository there",
                    _ => "already there",
                };
                self.show.skip(&digest, size, why);
                return Ok(PushedBlob { digest, size, how });
            }
        }
        let kept = match piece {
            Piece::Kept(digest, size) => Some((digest, *size)),
            Piece::Made(_) => None,
            Piece::Elsewhere(digest, size, _) => {
                let blob = (digest, *size);
                let (access, known) = (self.access, self.known);
                let brought = elsewhere::bring(self.store, access, known, blob, stop, self.show)?;
                Some(blob).filter(|_| brought)
            }
        };
        let (name, size, content) = match (piece, kept) {
            (_, Some((digest, size))) => (digest, size, Content::Kept(*digest, size)),
            (Piece::Kept(digest, size), None) => (digest, *size, Content::Kept(*digest, *size)),
            (Piece::Made(diff_id) | Piece::Elsewhere(_, _, diff_id), None) => (
                diff_id,
                0,
                Content::Layer(*diff_id, self.compression, self.cancel),
            ),
        };
        let shown = self.show.begin(name, size);
        let along = Along {
            stop,
            progress: &*shown,
        };
        let (digest, size) = self.client.upload(self.store, &content, &along)?;
        shown.done("pushed");
        Ok(PushedBlob {
            digest,
            size,
            how: How::Sent,
        })
    }
}

/// The manifest with what its layers became; as it is, to the byte, if none was made.
pub(super) fn with_made(
    text: &[u8],
    kind: &str,
    made: &[(Piece, PushedBlob)],
    compression: Compression,
) -> Result<Vec<u8>, RegistryError> {
    let other = |(piece, blob): &(Piece, PushedBlob)| match piece {
        Piece::Kept(..) => false,
        Piece::Made(_) => true,
        Piece::Elsewhere(digest, ..) => blob.digest != *digest,
    };
    if !made.iter().any(other) {
        return Ok(text.to_vec());
    }
    let bad = |why: String| RegistryError::invalid("the image's manifest in the store", why);
    let mut manifest: Value = serde_json::from_slice(text).map_err(|e| bad(e.to_string()))?;
    let layers = manifest.get_mut("layers").and_then(Value::as_array_mut);
    let layers = layers.ok_or_else(|| bad("it has no layers".to_owned()))?;
    for (layer, one) in layers.iter_mut().zip(made).filter(|(_, one)| other(one)) {
        if let Some(layer) = layer.as_object_mut() {
            let blob = one.1;
            let media_type = compression.media_type(kind == media_type::MANIFESTS[1]);
            layer.insert("mediaType".to_owned(), media_type.into());
            layer.insert("digest".to_owned(), blob.digest.to_string().into());
            layer.insert("size".to_owned(), blob.size.into());
        }
    }
    serde_json::to_vec(&manifest).map_err(|e| bad(e.to_string()))
}
