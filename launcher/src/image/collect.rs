//! Images off the list in bulk, and what nothing needs any more out of the store.

use pellicle_store::{Collected, Digest};

use super::{ImageError, Images, Record};
use crate::{
    build::{self, Pruned},
    events::{self, Event},
};

/// What is to be collected.
#[derive(Default)]
pub struct Collection<'a> {
    /// Stacks of layers that are needed besides those of images: containers'.
    pub more: Vec<Vec<Digest>>,
    /// Only count.
    pub dry_run: bool,
    /// With `dry_run`: images that count as gone already.
    pub without: Option<&'a dyn Fn(&Record) -> bool>,
    /// What of the cache of builds was pruned, or with `dry_run` counts as gone. All else of it stays then;
    /// otherwise only what listed images were built with.
    pub pruned: Option<&'a Pruned>,
}

impl Images {
    /// Takes the images that `which` picks off the list, with all their names. What they alone needed stays
    /// in the store until the next collection. With `dry_run` only tells which they are.
    ///
    /// # Errors
    /// If the list cannot be read or changed.
    pub fn prune(
        &self,
        which: &dyn Fn(&Record) -> bool,
        dry_run: bool,
    ) -> Result<Vec<Record>, ImageError> {
        if dry_run {
            let records = self.index.read()?;
            return Ok(records.into_iter().filter(|r| which(r)).collect());
        }
        let lock = self.index.lock()?;
        let (gone, left): (Vec<Record>, Vec<Record>) =
            lock.read()?.into_iter().partition(|r| which(r));
        if gone.is_empty() {
            return Ok(gone);
        }
        lock.write(left)?;
        let told = gone.iter().flat_map(|r| {
            let names = r.names.iter();
            let untagged = names.map(|name| Event::image("untag", &r.id, Some(name)));
            untagged.chain([Event::image("delete", &r.id, None)])
        });
        events::note(self.store().root(), &told.collect::<Vec<_>>());
        Ok(gone)
    }

    /// Removes from the store what neither a listed image nor anything else that `what` names needs.
    ///
    /// # Errors
    /// [`pellicle_store::StoreError::Busy`] while a container runs, something is mounted or an
    /// import is in flight, unless it only counts; damage of an image, since what it needs cannot be known.
    pub fn collect(&self, what: &Collection<'_>) -> Result<Collected, ImageError> {
        let lock = self.index.lock()?;
        let mut records = lock.read()?;
        if let (true, Some(without)) = (what.dry_run, what.without) {
            records.retain(|r| !without(r));
        }
        let mut roots = self.roots(&records)?;
        let (referring, subjects) = self.referring(&records)?;
        roots.blobs.extend(referring);
        roots.stacks.extend(what.more.iter().cloned());
        let root = self.store().root();
        roots.stacks.extend(match what.pruned {
            Some(pruned) => pruned.kept(root, &records),
            None => build::kept(root, &records),
        });
        // From before anything is removed: whoever builds holds it shared.
        let _held = match what.dry_run {
            true => None,
            false => Some(self.store().lock_exclusive()?),
        };
        let collected = self.store().collect(&roots, what.dry_run)?;
        if !what.dry_run {
            build::sweep(root, &records, what.pruned.is_some());
            crate::registry::sweep(self.store.root());
            self.sweep_referrers(&subjects);
        }
        Ok(collected)
    }
}
