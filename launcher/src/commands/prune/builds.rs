//! What builds left for later ones.

use super::{Filters, list};
use crate::{
    CliError, Context,
    build::{self, CacheEntry, CacheKind, PruneOptions, Pruned},
    image::{Images, Record},
    output,
};

/// Prunes the cache of builds, where `records` are the images that stay, and says what goes. `None` if the
/// filters take nothing of builds, which have no labels.
///
/// # Errors
/// If it cannot be looked at or removed.
pub(super) fn prune(
    cx: &Context,
    images: &Images,
    records: &[Record],
    all: bool,
    filters: &Filters,
    dry_run: bool,
) -> Result<Option<Pruned>, CliError> {
    if !filters.take_unlabelled() {
        return Ok(None);
    }
    let options = PruneOptions {
        all,
        unused_since: filters.until(),
        dry_run,
    };
    let pruned = build::prune(images, records, &options)?;
    let lines = pruned.removed.iter().map(line);
    list(cx, "build cache", lines, dry_run)?;
    for id in &pruned.in_use {
        cx.out.note(format_args!(
            "the cache mount {id} stays: a build uses it just now"
        ));
    }
    Ok(Some(pruned))
}

fn line(entry: &CacheEntry) -> String {
    let bytes = output::bytes(entry.bytes);
    match entry.kind {
        CacheKind::Step => {
            let short: String = entry.id.chars().take(12).collect();
            format!("step {short}: {bytes}")
        }
        CacheKind::Mount => format!("cache mount {}: {bytes}", entry.id),
    }
}
