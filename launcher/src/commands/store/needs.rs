//! What the images and containers of a store stand on.

use std::collections::BTreeSet;

use pellicle_store::{Damage, Digest, Sources, Store};

use crate::{
    container::health::Health,
    image::{Image, Images, Record, familiar, short_id},
    registry,
};

/// What an image or a container stands on.
pub(super) struct Needs {
    pub(super) name: String,
    blobs: BTreeSet<Digest>,
    /// Lowest first.
    layers: Vec<Digest>,
    trees: BTreeSet<Digest>,
    /// The blobs of its layers, in the same order, if that is known.
    layer_blobs: Vec<Digest>,
    /// Why something of it cannot be known, though the blob that says it is there.
    pub(super) unreadable: Option<String>,
}

impl Needs {
    pub(super) fn of_image(images: &Images, record: Record) -> Self {
        let name = record
            .names
            .first()
            .map_or_else(|| short_id(&record.id), |n| familiar(n));
        let mut needs = Self::new(name, Vec::new());
        needs.blobs.extend([record.manifest, record.id]);
        let there = |id: &Digest| images.store().blobs().contains(id);
        match images.manifest(&record.manifest) {
            // Digests of other algorithms name nothing in this store.
            Ok(manifest) => needs.layer_blobs.extend(
                manifest
                    .layers()
                    .iter()
                    .filter_map(|l| l.digest().as_ref().parse::<Digest>().ok()),
            ),
            Err(e) if there(&record.manifest) => needs.unreadable = Some(e.to_string()),
            Err(_) => {}
        }
        needs.blobs.extend(needs.layer_blobs.iter().copied());
        let id = record.id;
        match images.open(record) {
            Ok(Image { diff_ids, .. }) => needs.stand_on(diff_ids),
            Err(e) if there(&id) => needs.unreadable = Some(e.to_string()),
            Err(_) => {}
        }
        needs
    }

    pub(super) fn of_container(health: &Health) -> Self {
        Self::new(health.name.clone(), health.diff_ids.clone())
    }

    fn new(name: String, layers: Vec<Digest>) -> Self {
        let mut needs = Self {
            name,
            blobs: BTreeSet::new(),
            layers: Vec::new(),
            trees: BTreeSet::new(),
            layer_blobs: Vec::new(),
            unreadable: None,
        };
        needs.stand_on(layers);
        needs
    }

    fn stand_on(&mut self, layers: Vec<Digest>) {
        self.trees.extend(&layers);
        self.trees.extend(Digest::chain(&layers));
        self.layers = layers;
    }

    pub(super) fn touched_by(&self, damage: &Damage) -> bool {
        self.blobs.contains(&damage.id)
            || self.trees.contains(&damage.id)
            || damage.used_by.iter().any(|t| self.trees.contains(t))
    }

    /// Whether it is the blob of a layer that was there when the image was pulled.
    fn is_elsewhere(&self, id: &Digest, store: &Store) -> bool {
        self.layers.len() == self.layer_blobs.len()
            && !store.blobs().contains(id)
            && self
                .layers
                .iter()
                .zip(&self.layer_blobs)
                .any(|(layer, blob)| blob == id && registry::is_elsewhere(store, blob, layer))
    }

    /// What it needs and is not in the store at all.
    fn missing(&self, store: &Store) -> Vec<Damage> {
        let gone = |what, id: Digest, path| Damage {
            what,
            id,
            path,
            detail: "it is not there".to_owned(),
            used_by: Vec::new(),
        };
        // The archive of a committed layer is made of its tree when somebody wants it.
        let blobs = self.blobs.iter().filter(|id| !store.has_tree(id));
        let blobs = blobs.filter(|id| !self.is_elsewhere(id, store));
        let blobs = blobs.map(|id| (id, store.blobs().path(id)));
        let blobs = blobs.filter(|(_, path)| std::fs::symlink_metadata(path).is_err());
        let trees = self.layers.iter().map(|id| (id, store.tree_path(id)));
        let trees = trees.filter(|(_, path)| std::fs::symlink_metadata(path).is_err());
        blobs
            .map(|(id, path)| gone("blob", *id, path))
            .chain(trees.map(|(id, path)| gone("tree", *id, path)))
            .collect()
    }
}

/// Adds to `damaged` what `all` need and is not there.
pub(super) fn add_missing(damaged: &mut Vec<Damage>, all: &[&Needs], store: &Store) {
    for missing in all.iter().flat_map(|needs| needs.missing(store)) {
        let known = |d: &Damage| d.what == missing.what && d.id == missing.id;
        if !damaged.iter().any(known) {
            damaged.push(missing);
        }
    }
}

/// What a repair can make things of.
pub(super) fn sources(all: &[&Needs]) -> Sources {
    let mut sources = Sources::default();
    for needs in all {
        if !needs.layers.is_empty() {
            sources.stacks.push(needs.layers.clone());
        }
        if needs.layers.len() == needs.layer_blobs.len() {
            for (layer, blob) in needs.layers.iter().zip(&needs.layer_blobs) {
                sources.blobs.entry(*layer).or_default().insert(*blob);
            }
        }
    }
    sources
}
