//! The image that a stage begins with.

use std::error::Error;

use pellicle_store::import::{Cancel, Progress};

use super::{BuildError, Options, Place};
use crate::image::{
    FileLocation, Image, ImageError, Images, Location, Platform,
    load::{self, LoadError, LoadOptions},
};
use crate::registry::RegistryError;

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
    let image = match Location::parse(name) {
        Ok(Location::File(at)) => from_file(images, &at, platform, place, &options.cancel)?,
        Ok(Location::Name(name)) => {
            (options.find)(&name, platform).map_err(|e| not_found(e, &name, place))?
        }
        Err(e) => return Err(BuildError::bad(place, e.to_string(), e.hint())),
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
    at: &FileLocation,
    platform: Option<&Platform>,
    place: &Place,
    cancel: &Cancel,
) -> Result<Image, BuildError> {
    let options = LoadOptions {
        platform: platform.cloned().unwrap_or_else(Platform::host),
        name: None,
        pick: None,
        cancel: cancel.clone(),
    };
    let quiet = |_: &str, _: u64| -> Box<dyn Progress> { Box::new(()) };
    let loaded = load::from_file(images, at, false, options, &quiet).map_err(|e| match e {
        LoadError::Import(pellicle_store::import::ImportError::Cancelled) => BuildError::Cancelled,
        LoadError::Choice { .. } => BuildError::bad(
            place,
            e.to_string(),
            "say which with its tag behind a colon, as oci:DIR:TAG",
        ),
        e => BuildError::Step {
            place: place.clone(),
            instruction: format!("FROM: cannot read the image {at}"),
            source: Box::new(e),
        },
    })?;
    Ok(images.resolve(&loaded.id.to_string())?)
}
