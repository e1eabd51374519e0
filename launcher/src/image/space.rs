//! How much of the store each image takes up: what it shares with others, and what would go with it.

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
};

use pellicle_store::Digest;

use super::{ImageError, Images, Record};

/// Bytes that an image takes up on the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Those that another image needs, too.
    pub shared: u64,
    /// Those that it alone needs.
    pub unique: u64,
}

/// What all images take up together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spaces {
    /// Of each image, in the order of the records.
    pub each: Vec<Space>,
    /// Bytes that they take up on the host.
    pub stored: u64,
    /// Bytes that they would take up if nothing was stored once for several.
    pub alone: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Thing {
    Object(Digest),
    Blob(Digest),
    Tree(Digest),
}

impl Images {
    /// Reckons what `records` take up. Images that cannot be read count as far as they can be.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn spaces(&self, records: &[Record]) -> Result<Spaces, ImageError> {
        let needs: Vec<HashSet<Thing>> = records.iter().map(|r| self.things(r)).collect();
        let mut users: HashMap<Thing, u32> = HashMap::new();
        for thing in needs.iter().flatten() {
            *users.entry(*thing).or_default() += 1;
        }
        let sizes: HashMap<Thing, u64> = users.keys().map(|t| (*t, self.allocated(t))).collect();
        let mut spaces = Spaces {
            stored: sizes.values().sum(),
            ..Spaces::default()
        };
        for things in &needs {
            let mut space = Space::default();
            for thing in things {
                let size = sizes.get(thing).copied().unwrap_or(0);
                match users.get(thing) {
                    Some(1) => space.unique += size,
                    _ => space.shared += size,
                }
            }
            spaces.alone += space.shared + space.unique;
            spaces.each.push(space);
        }
        Ok(spaces)
    }

    fn things(&self, record: &Record) -> HashSet<Thing> {
        let mut things = HashSet::from([Thing::Blob(record.manifest), Thing::Blob(record.id)]);
        let Ok(roots) = self.roots(std::slice::from_ref(record)) else {
            return things;
        };
        things.extend(roots.blobs.into_iter().map(Thing::Blob));
        for stack in roots.stacks {
            things.extend(Digest::chain(&stack).map(Thing::Tree));
            for layer in stack {
                // A layer that an image has twice is there once.
                if !things.insert(Thing::Tree(layer)) {
                    continue;
                }
                let Ok(tree) = self.store().tree(&layer) else {
                    continue;
                };
                let objects = (0..tree.object_count()).map_while(|at| tree.object(at).ok());
                things.extend(objects.map(Thing::Object));
            }
        }
        things
    }

    fn allocated(&self, thing: &Thing) -> u64 {
        let path: PathBuf = match thing {
            Thing::Object(id) => self.store().objects().path(id),
            Thing::Blob(id) => self.store().blobs().path(id),
            Thing::Tree(id) => self.store().tree_path(id),
        };
        fs::symlink_metadata(path).map_or(0, |m| m.blocks() * 512)
    }
}
