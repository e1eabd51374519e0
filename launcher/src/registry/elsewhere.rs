//! Blobs that an image names and the store does not have: its layer was here already when the image was
//! pulled, so the blob stayed at the registry. To give the image to another registry as it is, the blob
//! is brought from where it is.

use std::{
    error::Error as _,
    io::{Read as _, Write as _},
    sync::atomic::AtomicBool,
};

use pellicle_store::{Digest, Store};

use super::{Access, Client, RegistryError, Source, content::Blob, known::Known, pull::Show};
use crate::image::Reference;

/// Bytes copied at a time.
const BUFFER: usize = 256 << 10;

/// Brings `blob` into the store from a repository that is known to have it; whether one did. A failure of
/// the network or a registry is told and no error: the layer can be made again.
///
/// # Errors
/// The store's, and a request to stop.
pub(super) fn bring(
    store: &Store,
    access: &Access,
    known: &Known,
    (blob, size): (&Digest, u64),
    stop: &AtomicBool,
    show: &dyn Show,
) -> Result<bool, RegistryError> {
    let mut why = "no registry is known that has it".to_owned();
    // What was given for the one that is pushed to is not for others.
    let access = Access {
        credentials: match &access.credentials {
            Source::Given(_) => Source::Usual,
            usual => usual.clone(),
        },
        tls_verify: None,
        cert_dir: None,
        ..access.clone()
    };
    for origin in known.origins(blob) {
        match from(store, &access, origin, blob, size, stop, show) {
            Ok(()) => return Ok(true),
            Err(
                error @ (RegistryError::Cancelled
                | RegistryError::Store(_)
                | RegistryError::Io { .. }),
            ) => return Err(error),
            Err(error) => why = told(&error),
        }
    }
    show.warn(&format!(
        "the layer {blob} is compressed anew, so the image may get another digest there: \
         it is not in the store as it came, and {why}"
    ));
    Ok(false)
}

fn told(error: &RegistryError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}

fn from(
    store: &Store,
    access: &Access,
    origin: &str,
    blob: &Digest,
    size: u64,
    stop: &AtomicBool,
    show: &dyn Show,
) -> Result<(), RegistryError> {
    let reference: Reference = origin
        .parse()
        .map_err(|_| RegistryError::invalid(origin, "it is no repository"))?;
    let endpoint = access.registries.home(&reference, None)?;
    let client = Client::connect(access, endpoint)?;
    let shown = show.begin(blob, size);
    let mut from = Blob::new(&client, *blob, size, stop);
    let mut writer = store.blobs().writer()?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) => {
                let broken = RegistryError::invalid(format!("the blob {blob}"), error.to_string());
                return Err(from.failure.take().unwrap_or(broken));
            }
        };
        let piece = buffer.get(..n).unwrap_or_default();
        writer
            .write_all(piece)
            .map_err(RegistryError::io("write into", store.root()))?;
        shown.bytes(n as u64);
    }
    if writer.digest() != *blob {
        return Err(RegistryError::invalid(
            format!("the blob {blob}"),
            format!("its bytes have the digest {}", writer.digest()),
        ));
    }
    writer.finish_as(blob)?;
    shown.done("brought");
    Ok(())
}
