//! Restoring contents and trees from the blobs of layers, and image trees from those of layers.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use super::{Outcome, Repair};
use crate::{
    Digest, StoreError, Tree, TreeHeader, TreeKind, Whiteouts,
    error::with_causes,
    flatten,
    import::{Progress, restore_layer},
    verify::content_fault,
};

/// Adds up what was read, for whoever may only be told on this thread.
#[derive(Default)]
struct Counted(AtomicU64);

impl Progress for Counted {
    fn bytes(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }
}

impl Repair<'_> {
    /// Goes through the blobs of the layers in which something is damaged.
    pub(super) fn use_blobs(&mut self) {
        for layer in self.layers_in_need() {
            let tree = self.open_ids("tree").contains(&layer);
            if !tree && !self.lacks_objects_of(&layer) {
                continue;
            }
            let Some(blobs) = self.sources.blobs.get(&layer) else {
                continue;
            };
            for blob in blobs {
                match self.use_blob(&layer, blob, tree) {
                    Ok(()) => {
                        self.note_restored(&layer, blob, tree);
                        break;
                    }
                    Err(why) => self.note_tried(&layer, &why),
                }
            }
        }
    }

    /// Damaged layers, and those whose contents are.
    fn layers_in_need(&self) -> BTreeSet<Digest> {
        let open = self.items.iter().filter(|i| i.outcome.is_none());
        open.flat_map(|item| match item.damage.what {
            "tree" => vec![item.damage.id],
            "object" => item.damage.used_by.clone(),
            _ => Vec::new(),
        })
        .filter(|id| self.sources.blobs.contains_key(id))
        .collect()
    }

    fn lacks_objects_of(&self, layer: &Digest) -> bool {
        let mut open = self.items.iter().filter(|i| i.outcome.is_none());
        open.any(|i| i.damage.what == "object" && i.damage.used_by.contains(layer))
    }

    fn use_blob(&self, layer: &Digest, blob: &Digest, tree: bool) -> Result<(), String> {
        match content_fault(*blob, &self.store.blobs().path(blob)) {
            None => return Err(format!("its blob {blob} is not there")),
            Some((Some(fault), _)) => return Err(format!("its blob {blob}: {fault}")),
            Some((None, _)) => {}
        }
        let read = Counted::default();
        let done = restore_layer(self.store, blob, layer, tree, &read);
        (self.progress)(read.0.load(Relaxed));
        done.map_err(|e| format!("its blob {blob}: {}", with_causes(&e)))
    }

    fn note_restored(&mut self, layer: &Digest, blob: &Digest, tree: bool) {
        let objects = &self.store.objects().0;
        for item in self.items.iter_mut().filter(|i| i.outcome.is_none()) {
            let id = &item.damage.id;
            let restored = match item.damage.what {
                "tree" => tree && id == layer,
                "object" => !objects.is_distrusted(id),
                _ => false,
            };
            if restored {
                item.outcome = Some(Outcome::Restored(format!("the blob {blob}")));
            }
        }
    }

    fn note_tried(&mut self, layer: &Digest, why: &str) {
        for item in self.items.iter_mut().filter(|i| i.outcome.is_none()) {
            if item.damage.id == *layer || item.damage.used_by.contains(layer) {
                item.tried = Some(why.to_owned());
            }
        }
    }

    /// Makes image trees again whose layers are all there.
    pub(super) fn use_layers(&mut self) {
        for at in 0..self.items.len() {
            let Some(item) = self.items.get(at).filter(|i| i.outcome.is_none()) else {
                continue;
            };
            if item.damage.what != "tree" {
                continue;
            }
            let Some(stack) = self.stack_of(&item.damage.id) else {
                continue;
            };
            let made = self.image_tree(&item.damage.id, stack);
            if let Some(item) = self.items.get_mut(at) {
                match made {
                    Ok(()) => item.outcome = Some(Outcome::Restored("its layers".into())),
                    Err(error) => item.tried = Some(with_causes(&error)),
                }
            }
        }
    }

    /// The layers of the image tree `id`, of which there are two or more.
    fn stack_of(&self, id: &Digest) -> Option<Vec<Digest>> {
        let is_it = |stack: &[Digest]| stack.len() > 1 && Digest::chain(stack) == Some(*id);
        let known = self.sources.stacks.iter().find(|s| is_it(s)).cloned();
        known.or_else(|| {
            let tree = self.store.tree(id).ok()?;
            Some(tree.layers().to_vec()).filter(|s| is_it(s))
        })
    }

    fn image_tree(&self, id: &Digest, layers: Vec<Digest>) -> Result<(), StoreError> {
        let trees: Vec<Tree> = layers
            .iter()
            .map(|layer| self.store.check_tree(layer))
            .collect::<Result<_, _>>()?;
        let header = TreeHeader {
            kind: TreeKind::Image,
            identity: *id,
            layers,
        };
        let tree = flatten(&trees, Whiteouts::Apply)?;
        self.store.write_tree(&header, tree).map(drop)
    }
}
