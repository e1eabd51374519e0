//! What a layer has to say so that the lower tree becomes this one.

use std::collections::BTreeMap;

use pellicle_store::{FileKind, Ino};

use super::{Differ, What};
use crate::{
    Union,
    error::Error,
    request::{LayerChange, LayerEntry},
};

impl Union {
    /// What a layer on top of the lower tree has to say, sorted by path; a change of the root itself
    /// has the empty path. Every directory on the way to a change is in it.
    ///
    /// A layer cannot give a file of the layers below one more name: a file that gained one is in it
    /// under all its names. A directory that took the place of another is opaque, and has in it
    /// everything that it has now.
    ///
    /// # Errors
    /// Damage found on the way.
    pub fn layer_changes(&self) -> Result<Vec<LayerChange>, Error> {
        let mut differ = Differ::new(self, true)?;
        let first = differ.ways.clone();
        differ.run()?;
        let links = differ.half_told_links()?;
        if !links.is_empty() {
            differ.ways = first;
            for ino in links {
                differ.changed.insert(ino);
                differ.mark_names((ino, self.kind(ino)?))?;
            }
            differ.run()?;
        }
        let entry = |(path, what)| LayerChange {
            path,
            entry: match what {
                What::Deleted => LayerEntry::Whiteout,
                What::Added(ino) | What::Changed(ino) => LayerEntry::Node { ino, opaque: false },
                What::Replaced(ino) => LayerEntry::Node { ino, opaque: true },
            },
        };
        Ok(differ.changes.into_iter().map(entry).collect())
    }

    /// Everything there is, as [`Union::layer_changes`] of a layer on top of nothing.
    ///
    /// # Errors
    /// Damage found on the way.
    pub fn layer_of_everything(&self) -> Result<Vec<LayerChange>, Error> {
        let mut differ = Differ::new(self, true)?;
        differ.add_names(b"", Ino::ROOT)?;
        while let Some(pair) = differ.todo.pop() {
            differ.compare(pair)?;
        }
        differ.changes.insert(Vec::new(), What::Changed(Ino::ROOT));
        let entry = |(path, what)| match what {
            What::Deleted => None,
            What::Added(ino) | What::Changed(ino) | What::Replaced(ino) => Some(LayerChange {
                path,
                entry: LayerEntry::Node { ino, opaque: false },
            }),
        };
        Ok(differ.changes.into_iter().filter_map(entry).collect())
    }
}

impl Differ<'_> {
    /// Lower inodes of which some names are among the changes and some are not.
    fn half_told_links(&self) -> Result<Vec<Ino>, Error> {
        let mut told: BTreeMap<Ino, u32> = BTreeMap::new();
        for what in self.changes.values() {
            if let What::Added(ino) | What::Changed(ino) = what
                && self.union.table.is_lower(*ino)
                && self.union.kind(*ino)? != FileKind::Directory
            {
                *told.entry(*ino).or_default() += 1;
            }
        }
        let mut half = Vec::new();
        for (ino, names) in told {
            if self.union.link_count(ino)? > names {
                half.push(ino);
            }
        }
        Ok(half)
    }
}
