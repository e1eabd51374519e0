//! Images as arguments name them: of the store, or in a layout or an archive.

use pellicle_store::import::{Cancel, ImportError, Progress};

use super::collect::tidy_after_failure;
use crate::{
    CliError, Context,
    image::{
        FileLocation, Image, Images, Location, NewImage, Platform,
        load::{self, LoadError, LoadOptions},
    },
    interrupt,
};

/// What `text` means. A name that an image of the store has is that image, even if it looks like a
/// transport.
pub(super) fn location(images: &Images, text: &str) -> Result<Location, CliError> {
    match Location::parse(text) {
        Ok(Location::Name(name)) => Ok(Location::Name(name)),
        _ if images.find(text).is_ok() => Ok(Location::Name(text.to_owned())),
        other => Ok(other?),
    }
}

/// The image that `text` names. One in a layout or an archive is put into the store first, without the
/// names that it has there.
pub(super) fn open(cx: &Context, images: &Images, text: &str) -> Result<Image, CliError> {
    match location(images, text)? {
        Location::Name(name) => Ok(images.resolve(&name)?),
        Location::File(at) => {
            let read = read(
                cx,
                images,
                &at,
                Options::quiet(interrupt::cancel_on_signals()?),
            )?;
            Ok(images.resolve(&read.manifest.to_string())?)
        }
    }
}

/// How an image is read from a file.
pub(super) struct Options {
    /// It gets the names that it has there.
    pub(super) named: bool,
    /// The machine it is to be for.
    pub(super) platform: Platform,
    /// Layers are shown on their way.
    pub(super) shown: bool,
    pub(super) cancel: Cancel,
}

impl Options {
    fn quiet(cancel: Cancel) -> Self {
        Self {
            named: false,
            platform: Platform::host(),
            shown: false,
            cancel,
        }
    }
}

/// Puts the image at `at` into the store.
pub(super) fn read(
    cx: &Context,
    images: &Images,
    at: &FileLocation,
    options: Options,
) -> Result<NewImage, CliError> {
    let lock = images.store().lock_shared()?;
    let out = cx.out.quiet_if(!options.shown);
    let progress = |what: &str, size: u64| -> Box<dyn Progress> {
        Box::new(out.step(format!("layer {what}"), Some(size)))
    };
    let load = LoadOptions {
        platform: options.platform,
        name: None,
        pick: None,
        cancel: options.cancel,
    };
    load::from_file(images, at, options.named, load, &progress).map_err(|e| {
        drop(lock);
        failed(cx, e)
    })
}

/// After a load failed: takes out again what it had got into the store.
pub(super) fn failed(cx: &Context, error: LoadError) -> CliError {
    let left = matches!(error, LoadError::Import(_) | LoadError::Invalid { .. });
    tidy_after_failure(cx, left);
    let code = matches!(error, LoadError::Import(ImportError::Cancelled)).then_some(130);
    let e = CliError::from(error);
    code.into_iter().fold(e, CliError::with_code)
}
