//! Which inodes differ from the lower tree, and where their state is.
//!
//! An inode of the lower tree that was never touched costs nothing here but a bit in a zeroed,
//! lazily backed bitset, and is answered without a lock. A touched one, and every new one, is in
//! a map of shards. A lower inode that is gone keeps its bit and leaves the map.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use parking_lot::RwLock;
use pellicle_store::Ino;

use crate::{error::Error, inode::Inode};

const SHARDS: usize = 64;

type Shard = RwLock<HashMap<Ino, Arc<Inode>>>;

pub(crate) enum Found {
    /// As the lower tree has it.
    Untouched,
    /// As the union has it.
    Inode(Arc<Inode>),
    /// No such inode, or no more.
    Absent,
}

pub(crate) struct Table {
    lower_count: u64,
    touched: Box<[AtomicU64]>,
    told: Box<[AtomicU32]>,
    shards: Box<[Shard]>,
}

impl Table {
    pub(crate) fn new(lower_count: u64) -> Result<Self, Error> {
        let no_memory = |()| Error::NoMemory {
            inodes: lower_count,
        };
        let inodes = usize::try_from(lower_count).map_err(|_| no_memory(()))?;
        Ok(Self {
            lower_count,
            touched: bytemuck::try_zeroed_slice_box(inodes.div_ceil(64)).map_err(no_memory)?,
            told: bytemuck::try_zeroed_slice_box(inodes).map_err(no_memory)?,
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
        })
    }

    pub(crate) fn is_lower(&self, ino: Ino) -> bool {
        (1..=self.lower_count).contains(&ino.0)
    }

    fn bit(&self, ino: Ino) -> Option<(&AtomicU64, u64)> {
        let at = ino.0.checked_sub(1)?;
        let word = self.touched.get(usize::try_from(at / 64).ok()?)?;
        self.is_lower(ino).then_some((word, 1 << (at % 64)))
    }

    fn shard(&self, ino: Ino) -> Option<&Shard> {
        // A remainder below SHARDS always fits and is always there.
        self.shards.get((ino.0 % SHARDS as u64) as usize)
    }

    pub(crate) fn find(&self, ino: Ino) -> Found {
        if let Some((word, bit)) = self.bit(ino)
            && word.load(Ordering::Acquire) & bit == 0
        {
            return Found::Untouched;
        }
        match self
            .shard(ino)
            .and_then(|shard| shard.read().get(&ino).cloned())
        {
            Some(inode) => Found::Inode(inode),
            None => Found::Absent,
        }
    }

    /// Puts in a new inode, or one of the lower tree that may have been touched or even gone
    /// meanwhile: gives what now stands for that number.
    pub(crate) fn adopt(&self, inode: Arc<Inode>) -> Option<Arc<Inode>> {
        let ino = inode.ino;
        let mut shard = self.shard(ino)?.write();
        match shard.entry(ino) {
            Entry::Occupied(there) => Some(there.get().clone()),
            Entry::Vacant(place) => {
                if let Some((word, bit)) = self.bit(ino)
                    && word.fetch_or(bit, Ordering::AcqRel) & bit != 0
                {
                    return None;
                }
                Some(place.insert(inode).clone())
            }
        }
    }

    /// Takes an inode out for good.
    pub(crate) fn remove(&self, ino: Ino) {
        if let Some((word, bit)) = self.bit(ino) {
            word.fetch_or(bit, Ordering::AcqRel);
        }
        if let Some(shard) = self.shard(ino) {
            shard.write().remove(&ino);
        }
    }

    /// Undoes [`Table::remove`] for a lower inode whose number a log speaks of again.
    pub(crate) fn revive(&self, ino: Ino) {
        if let Some((word, bit)) = self.bit(ino) {
            word.fetch_and(!bit, Ordering::AcqRel);
        }
    }

    /// Every inode in the maps, in order of number.
    pub(crate) fn all(&self) -> Vec<Arc<Inode>> {
        let mut all: Vec<_> = self
            .shards
            .iter()
            .flat_map(|shard| shard.read().values().cloned().collect::<Vec<_>>())
            .collect();
        all.sort_unstable_by_key(|inode| inode.ino);
        all
    }

    pub(crate) fn len(&self) -> u64 {
        self.shards
            .iter()
            .map(|shard| shard.read().len() as u64)
            .sum()
    }

    /// The kernel's count of lower inode `ino`.
    pub(crate) fn told(&self, ino: Ino) -> Option<&AtomicU32> {
        self.told.get(usize::try_from(ino.0.checked_sub(1)?).ok()?)
    }
}
