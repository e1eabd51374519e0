//! The names of one changed directory, as a delta over the lower directory's.
//!
//! Every name has a fixed *place* for as long as it is there: the index in the lower directory if
//! the lower directory has that name, else a sequence number after all those. A name that is
//! replaced keeps its place, which is why a listing in progress shows it exactly once.
//! Added names are listed newest first, so that a listing whose reader adds a name for each one it
//! sees comes to an end.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, OnceLock},
};

use pellicle_store::{FileKind, Ino};

/// Where a name leads.
pub(crate) type Target = (Ino, FileKind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Where the lower directory has it.
    Lower,
    /// After the lower names, by sequence number.
    Added(u64),
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    place: Place,
    /// `None` is a whiteout; only at [`Place::Lower`].
    target: Option<Target>,
}

#[derive(Debug, Default)]
pub(crate) struct Names {
    slots: HashMap<Arc<[u8]>, Slot>,
    added: BTreeMap<u64, Arc<[u8]>>,
    next: u64,
    /// Whiteouts.
    hidden: u64,
    /// Names of the lower directory, once counted.
    pub(crate) lower_len: OnceLock<u64>,
}

impl Names {
    /// What the delta says of `name`: `None` is nothing, `Some(None)` a whiteout.
    pub(crate) fn get(&self, name: &[u8]) -> Option<Option<Target>> {
        self.slots.get(name).map(|slot| slot.target)
    }

    /// Sets or removes `name`; `in_lower` says whether the lower directory has it.
    pub(crate) fn set(&mut self, name: &Arc<[u8]>, target: Option<Target>, in_lower: bool) {
        if let Some(slot) = self.slots.get_mut(name) {
            match slot.place {
                Place::Lower => {
                    match (slot.target.is_some(), target.is_some()) {
                        (true, false) => self.hidden += 1,
                        (false, true) => self.hidden = self.hidden.saturating_sub(1),
                        _ => (),
                    }
                    slot.target = target;
                }
                Place::Added(seq) => {
                    if target.is_some() {
                        slot.target = target;
                    } else {
                        self.added.remove(&seq);
                        self.slots.remove(name);
                    }
                }
            }
        } else if in_lower {
            self.hidden += u64::from(target.is_none());
            let place = Place::Lower;
            self.slots.insert(name.clone(), Slot { place, target });
        } else if target.is_some() {
            let place = Place::Added(self.next);
            self.added.insert(self.next, name.clone());
            self.next += 1;
            self.slots.insert(name.clone(), Slot { place, target });
        }
    }

    /// How many names there are, given the lower directory's number.
    pub(crate) fn live(&self, lower_len: u64) -> u64 {
        lower_len.saturating_sub(self.hidden) + self.added.len() as u64
    }

    /// How many names the delta speaks of.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Added names with a sequence number below `below`, the newest first.
    pub(crate) fn added_before(
        &self,
        below: u64,
    ) -> impl DoubleEndedIterator<Item = (u64, &Arc<[u8]>, Target)> + '_ {
        self.added.range(..below).rev().filter_map(|(seq, name)| {
            let target = self.slots.get(name)?.target?;
            Some((*seq, name, target))
        })
    }

    /// Every name the delta speaks of: first those of the lower directory, then the added ones in
    /// order, so that saying them again in this order gives the same places.
    pub(crate) fn each(&self) -> impl Iterator<Item = (&Arc<[u8]>, Option<Target>)> + '_ {
        let lower = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.place == Place::Lower)
            .map(|(name, slot)| (name, slot.target));
        let added = self.added_before(u64::MAX).rev();
        lower.chain(added.map(|(_, name, t)| (name, Some(t))))
    }
}
