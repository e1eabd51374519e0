//! Which inodes differ from the lower tree, and where their state is.
//!
//! An inode of the lower tree that was never touched costs nothing here but a bit in a zeroed,
//! lazily backed bitset, and is answered without a lock. A touched one, and every new one, is in
//! a map of shards. A lower inode that is gone keeps its bit and leaves the map. One of which
//! nothing was ever said (it was only locked, or a change of it failed) becomes untouched again once
//! the kernel forgets it.
//!
//! While inodes are served, bits change under the lock of the shard only, except that
//! [`Table::remove`] sets one a moment before.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use parking_lot::RwLock;
use pellicle_store::Ino;
use pellicle_sys::heap;

use crate::{error::Error, inode::Inode};

const SHARDS: usize = 64;

type Inodes = HashMap<Ino, Arc<Inode>>;
type Shard = RwLock<Inodes>;

/// A map is made smaller when it is less than an eighth full, and not below this.
const SMALL: usize = 1024;

pub(crate) enum Found {
    /// As the lower tree has it.
    Untouched,
    /// As the union has it.
    Inode(Arc<Inode>),
    /// No such inode, or no more.
    Absent,
}

/// Inodes that go between two trims of the heap: some MiB.
const TRIM_EVERY: u64 = 1 << 14;

pub(crate) struct Table {
    lower_count: u64,
    removed: AtomicU64,
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
            removed: AtomicU64::new(0),
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
        if self.is_untouched(ino) {
            return Found::Untouched;
        }
        let Some(shard) = self.shard(ino).map(|shard| shard.read()) else {
            return Found::Absent;
        };
        match shard.get(&ino) {
            Some(inode) => Found::Inode(inode.clone()),
            None if self.is_untouched(ino) => Found::Untouched,
            None => Found::Absent,
        }
    }

    fn is_untouched(&self, ino: Ino) -> bool {
        self.bit(ino)
            .is_some_and(|(word, bit)| word.load(Ordering::Acquire) & bit == 0)
    }

    /// Makes a lower inode untouched again if nothing was ever said of it and nobody has it.
    pub(crate) fn let_go(&self, ino: Ino) {
        let (Some((word, bit)), Some(shard)) = (self.bit(ino), self.shard(ino)) else {
            return;
        };
        let mut shard = shard.write();
        if let Entry::Occupied(there) = shard.entry(ino)
            // Whoever else has it got it from the map, which only we can look into now.
            && Arc::strong_count(there.get()) == 1
            && there.get().state.read().is_as_below()
        {
            there.remove();
            word.fetch_and(!bit, Ordering::AcqRel);
            shrink(&mut shard);
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
            let mut shard = shard.write();
            shard.remove(&ino);
            shrink(&mut shard);
        }
        if (self.removed.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(TRIM_EVERY) {
            heap::trim();
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

fn shrink(inodes: &mut Inodes) {
    if inodes.capacity() > SMALL && inodes.len() < inodes.capacity() / 8 {
        inodes.shrink_to(inodes.len() * 2);
    }
}
