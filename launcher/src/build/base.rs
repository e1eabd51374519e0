//! The image that a stage begins with.

use std::{
    error::Error,
    path::{Path, PathBuf},
};

use pellicle_store::import::{Cancel, Progress};

use super::{BuildError, Options, Place};
use crate::image::{
    Image, ImageError, Images, Platform,
    load::{self, From, LoadError, LoadOptions},
};
use crate::registry::RegistryError;

/// Transports of images that are not in the store, as skopeo and podman write them.
const FILES: [&str; 3] = ["oci:", "oci-archive:", "docker-archive:"];

/// The image called `name`, for `platform`: of the store or a registry, or read from a layout or an
/// archive.
///
/// # Errors
/// If it cannot be had, or not for that platform.
pub(super) fn find(
    images: &Images,
    name: &str,
    platform: Option<&Platform>,
    place: &Place,
    options: &Options<'_>,
) -> Result<Image, BuildError> {
    let file = FILES.iter().find_map(|t| name.strip_prefix(t));
    let image = match file {
        Some(path) => from_file(images, path, platform, place, &options.cancel)?,
        None => (options.find)(name, platform).map_err(|e| not_found(e, name, place))?,
    };
    let machine = image.config.architecture().to_string();
    let variant = image.config.variant().as_deref();
    match platform {
        Some(wanted) if !wanted.takes(&machine, variant) => Err(BuildError::bad(
            place,
            format!("the image {name} is for {machine}, not for {wanted}"),
            "load the image for that platform, or take --platform out",
        )),
        _ => Ok(image),
    }
}

fn not_found(error: RegistryError, name: &str, place: &Place) -> BuildError {
    const NEXT: &str = "`pellicle images` lists those that are; add it with `pellicle pull`, `load` or `import`, or check the name if a stage is meant: a stage is known from its FROM on";
    match error {
        RegistryError::Cancelled => BuildError::Cancelled,
        RegistryError::Image(ImageError::NotFound(_)) => {
            let what = format!("the image {name} is not in the store");
            BuildError::bad(place, what, NEXT)
        }
        RegistryError::Image(ImageError::BadReference { text, why }) => BuildError::bad(
            place,
            format!("{text:?} is no image name: {why}"),
            "an image name is written NAME[:TAG][@DIGEST]",
        ),
        RegistryError::NotHere { source, .. } => {
            let mut what = format!("the image {name} is not in the store, and cannot be pulled");
            let mut cause: Option<&dyn Error> = Some(&*source);
            while let Some(error) = cause {
                what = format!("{what}: {error}");
                cause = error.source();
            }
            let next = source.hint().unwrap_or_else(|| NEXT.to_owned());
            BuildError::bad(place, what, next)
        }
        other => BuildError::Step {
            place: place.clone(),
            instruction: format!("FROM {name}"),
            source: Box::new(other),
        },
    }
}

/// An image of a layout or an archive; listed without a name, so that its layers stay.
fn from_file(
    images: &Images,
    text: &str,
    platform: Option<&Platform>,
    place: &Place,
    cancel: &Cancel,
) -> Result<Image, BuildError> {
    // PATH[:REFERENCE], where the path itself may have colons.
    let (path, wanted) = match text.rsplit_once(':') {
        Some((path, reference)) if !Path::new(text).exists() => {
            (PathBuf::from(path), Some(reference))
        }
        _ => (PathBuf::from(text), None),
    };
    let options = LoadOptions {
        platform: platform.cloned().unwrap_or_else(Platform::host),
        name: None,
        cancel: cancel.clone(),
    };
    let quiet = |_: &str, _: u64| -> Box<dyn Progress> { Box::new(()) };
    let mut loaded = load::read(images, &From::Path(&path), &options, &quiet).map_err(|e| {
        let what = format!("cannot read the image {}", path.display());
        match e {
            LoadError::Import(pellicle_store::import::ImportError::Cancelled) => {
                BuildError::Cancelled
            }
            e => BuildError::Step {
                place: place.clone(),
                instruction: format!("FROM: {what}"),
                source: Box::new(e),
            },
        }
    })?;
    if let Some(wanted) = wanted {
        loaded.retain(|image| {
            image.names.iter().any(|n| {
                let tagged = n.tagged().unwrap_or_default();
                n.familiar() == wanted || tagged.rsplit(':').next() == Some(wanted)
            })
        });
    }
    let count = loaded.len();
    match (loaded.pop(), count) {
        (Some(mut image), 1) => {
            image.names.clear();
            let id = image.id;
            images.add_once(image)?;
            Ok(images.resolve(&id.to_string())?)
        }
        (_, 0) => Err(BuildError::bad(
            place,
            format!(
                "{} has no image {}",
                path.display(),
                wanted.unwrap_or_default()
            ),
            "give the tag of one that it has behind a colon",
        )),
        _ => Err(BuildError::bad(
            place,
            format!("{} has {count} images", path.display()),
            "say which with its tag behind a colon, as oci:DIR:TAG",
        )),
    }
}
