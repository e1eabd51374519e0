//! Fetching the layers of an image, each imported while it arrives.

use std::{collections::BTreeSet, sync::atomic::AtomicBool};

use pellicle_store::{
    Digest, FileKind, Ino, Store,
    import::{self, Cancel, ImportError, ImportOptions},
    tree::ContentRef,
};

use super::{
    Client, RegistryError, at_once,
    content::Blob,
    partial::{Partial, Resumed},
    pull::{PulledLayer, Show},
};

/// A layer that an image needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wanted {
    pub(super) blob: Digest,
    pub(super) size: u64,
    pub(super) diff_id: Digest,
}

/// A layer that is in the store now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fetched {
    pub(super) layer: PulledLayer,
    pub(super) diff_id: Digest,
    /// Bytes of its contents; unknown if it was there before.
    pub(super) content_bytes: Option<u64>,
}

/// Brings all of `wanted` into the store; gives them in the same order.
pub(super) fn fetch(
    store: &Store,
    client: &Client,
    wanted: &[Wanted],
    cancel: &Cancel,
    show: &dyn Show,
) -> Result<Vec<Fetched>, RegistryError> {
    // A layer that is in the image twice is fetched once.
    let mut seen = BTreeSet::new();
    let different: Vec<Wanted> = wanted
        .iter()
        .filter(|w| seen.insert(**w))
        .copied()
        .collect();
    let fetched = at_once::each(&different, &|layer, stop| {
        one(store, client, layer, cancel, stop, show)
    })?;
    let missing = || RegistryError::invalid("the image", "not all of its layers came");
    let found = wanted.iter().map(|w| {
        let at = different.iter().position(|d| d == w);
        at.and_then(|at| fetched.get(at))
            .copied()
            .ok_or_else(missing)
    });
    found.collect()
}

fn one(
    store: &Store,
    client: &Client,
    wanted: &Wanted,
    cancel: &Cancel,
    stop: &AtomicBool,
    show: &dyn Show,
) -> Result<Fetched, RegistryError> {
    let layer = |fetched| PulledLayer {
        blob: wanted.blob,
        size: wanted.size,
        fetched,
    };
    let diff_id = wanted.diff_id;
    if store.has_tree(&diff_id) {
        show.skip(&wanted.blob, wanted.size, "already in the store");
        return Ok(Fetched {
            layer: layer(false),
            diff_id,
            content_bytes: None,
        });
    }
    let shown = show.begin(&wanted.blob, wanted.size);
    let mut partial = Partial::open(store, &wanted.blob, wanted.size);
    let import = |partial: Option<&mut Partial>| {
        let mut blob = Blob::new(client, wanted.blob, wanted.size, stop);
        let options = ImportOptions {
            name: format!("layer {}", wanted.blob),
            expect_blob: Some(wanted.blob),
            expect_diff_id: Some(diff_id),
            cancel: cancel.clone(),
            ..ImportOptions::default()
        };
        let from = Resumed::new(partial, &mut blob);
        let from = from.map_err(RegistryError::io("read what is kept in", store.root()))?;
        match import::import_layer(store, from, &options, &*shown) {
            Ok(imported) => Ok(imported),
            Err(ImportError::Cancelled) => Err(RegistryError::Cancelled),
            // What the network says is told as it is, not as a failure to read.
            Err(error) => Err(blob.failure.take().unwrap_or(RegistryError::Import(error))),
        }
    };
    let had = partial.as_ref().map_or(0, Partial::had);
    let mut done = import(partial.as_mut());
    if had > 0 && matches!(done, Err(RegistryError::Import(_))) {
        // What was kept may be what is wrong.
        if let Some(partial) = &mut partial {
            partial.forget();
        }
        done = import(partial.as_mut());
    }
    let goes_on = matches!(
        done,
        Err(RegistryError::Cancelled | RegistryError::Broken { .. })
    );
    if let Some(partial) = partial.filter(|_| !goes_on) {
        partial.remove();
    }
    let imported = done?;
    shown.done("pulled");
    Ok(Fetched {
        layer: layer(true),
        diff_id,
        content_bytes: Some(imported.content_bytes),
    })
}

/// Bytes of all file contents of a layer that is in the store, holes not counted.
pub(super) fn content_bytes(store: &Store, diff_id: &Digest) -> Result<u64, RegistryError> {
    let damaged = |e| RegistryError::Store(pellicle_store::StoreError::Tree(e));
    let tree = store.tree(diff_id)?;
    let mut sum = 0_u64;
    for ino in (1..=tree.inode_count()).map(Ino) {
        if tree.attr(ino).map_err(damaged)?.kind == FileKind::Regular {
            let (content, size) = tree.content_and_size(ino).map_err(damaged)?;
            sum = sum.saturating_add(match content {
                ContentRef::Sparse { extents, .. } | ContentRef::SparseSpan { extents, .. } => {
                    extents.packed_len()
                }
                _ => size,
            });
        }
    }
    Ok(sum)
}
