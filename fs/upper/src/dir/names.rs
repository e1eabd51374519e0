//! Where the lower tree has its inodes: the union speaks of numbers, the host of paths.

use std::{collections::HashMap, sync::OnceLock};

use pellicle_layer::{Lower, LowerError};
use pellicle_store::{FileKind, Ino};

/// A name of the lower tree.
pub(super) type Name = (Ino, Box<[u8]>);

/// All names of the lower tree by inode; built when first asked for, for a mount that only reads
/// never asks.
#[derive(Debug, Default)]
pub(super) struct LowerNames(OnceLock<Index>);

#[derive(Debug, Default)]
struct Index {
    /// Directory and place in it of each inode's first name.
    first: Vec<(u32, u32)>,
    /// Further names.
    more: HashMap<Ino, Vec<(u32, u32)>>,
}

impl LowerNames {
    fn index(&self, lower: &dyn Lower) -> Result<&Index, LowerError> {
        if let Some(index) = self.0.get() {
            return Ok(index);
        }
        let built = Index::build(lower)?;
        Ok(self.0.get_or_init(|| built))
    }

    /// Every name that the lower tree has for `ino`.
    pub(super) fn of(&self, lower: &dyn Lower, ino: Ino) -> Result<Vec<Name>, LowerError> {
        let index = self.index(lower)?;
        let at = usize::try_from(ino.0).unwrap_or(usize::MAX);
        let first = index.first.get(at).filter(|(dir, _)| *dir != 0);
        let more = index.more.get(&ino).into_iter().flatten();
        let mut names = Vec::new();
        for (dir, place) in first.into_iter().chain(more) {
            let dir = Ino((*dir).into());
            if let Some(entry) = lower.entry(dir, (*place).into())? {
                names.push((dir, entry.name.into()));
            }
        }
        Ok(names)
    }

    /// The path of directory `ino` in the lower tree, `/` first.
    pub(super) fn path(&self, lower: &dyn Lower, mut ino: Ino) -> Result<Vec<u8>, LowerError> {
        let mut parts: Vec<Box<[u8]>> = Vec::new();
        while ino != Ino::ROOT {
            let Some((parent, name)) = self.of(lower, ino)?.into_iter().next() else {
                break;
            };
            parts.push(name);
            ino = parent;
        }
        let mut path = Vec::new();
        for part in parts.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(part);
        }
        Ok(path)
    }
}

impl Index {
    fn build(lower: &dyn Lower) -> Result<Self, LowerError> {
        let count = usize::try_from(lower.inode_count()).unwrap_or(usize::MAX);
        let mut index = Self {
            first: vec![(0, 0); count.saturating_add(1)],
            more: HashMap::new(),
        };
        let mut todo = vec![Ino::ROOT];
        while let Some(dir) = todo.pop() {
            let number = u32::try_from(dir.0).unwrap_or(u32::MAX);
            let mut at = 0_u32;
            loop {
                let entry = match lower.entry(dir, at.into()) {
                    Ok(entry) => entry,
                    // A directory that this process may not list has no names for it.
                    Err(LowerError::Io { .. }) => None,
                    Err(other) => return Err(other),
                };
                let Some(entry) = entry else { break };
                let place = (number, at);
                at += 1;
                let slot = usize::try_from(entry.ino.0).unwrap_or(usize::MAX);
                match index.first.get_mut(slot) {
                    Some(slot) if slot.0 == 0 => *slot = place,
                    Some(_) => index.more.entry(entry.ino).or_default().push(place),
                    None => {}
                }
                if entry.kind == FileKind::Directory {
                    todo.push(entry.ino);
                }
            }
        }
        Ok(index)
    }
}
