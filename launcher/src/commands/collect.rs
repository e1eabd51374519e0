//! Removing from the store what nothing needs; shared by the commands that leave such behind.

use pellicle_store::{Collected, StoreError};

use crate::{
    CliError, Context,
    image::{Collection, ImageError},
};

/// Collects; `None` if the store is in use just now.
///
/// # Errors
/// Anything but the store being in use.
pub(super) fn try_collect(cx: &Context, dry_run: bool) -> Result<Option<Collected>, CliError> {
    let more = cx.container_stacks()?;
    try_collect_as(
        cx,
        &Collection {
            more,
            dry_run,
            ..Collection::default()
        },
    )
}

/// As [`try_collect`], what is said.
///
/// # Errors
/// As [`try_collect`].
pub(super) fn try_collect_as(
    cx: &Context,
    what: &Collection<'_>,
) -> Result<Option<Collected>, CliError> {
    match cx.images()?.collect(what) {
        Ok(collected) => Ok(Some(collected)),
        Err(ImageError::Store(StoreError::Busy { .. })) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// After an import failed that had got layers into the store: takes them out again, if nobody else
/// works there. What cannot be taken out now is unnamed and goes with the next collection.
pub(super) fn tidy_after_failure(cx: &Context, left_something: bool) {
    if left_something && let Err(e) = try_collect(cx, false) {
        tracing::warn!("could not tidy the store: {e:?}");
    }
}
