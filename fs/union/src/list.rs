//! Listing a directory while it changes.
//!
//! A cookie is a place (see [`crate::names`]): `index + 1` for a name that the lower directory
//! has, `(1 << 62) + (SEQ_END - seq)` for any other: those come newest first, so that a name which
//! is added lies behind a reader that has come to the added ones, and no reader can be kept going
//! for ever by its own additions. Places never move, so going on from a cookie needs no memory of
//! the listing and costs a logarithm.

use std::{ops::ControlFlow, sync::Arc};

use pellicle_store::{FileKind, Ino};

use crate::{Union, error::Error, inode::Inode, names::Target, request::Listed, table::Found};

const ADDED: u64 = 1 << 62;
/// Above every sequence number; leaves the adapter room for two positions of its own in an `i64`.
const SEQ_END: u64 = 1 << 61;
/// Names taken under one hold of the directory's state lock.
const BATCH: usize = 64;

enum Name<'a> {
    Lower(&'a [u8]),
    Added(Arc<[u8]>),
}

struct Item<'a> {
    name: Name<'a>,
    target: Target,
    cookie: u64,
}

impl Union {
    /// Lists `dir` from `from` (0, or a `next` of an earlier call) until `each` breaks. Without
    /// `.` and `..`. `each` is called without any lock held.
    ///
    /// A name that is there from the first call to the last is listed exactly once, whatever
    /// changes meanwhile, also when it is replaced.
    ///
    /// # Errors
    /// [`Error::NotDirectory`], [`Error::NotFound`], or damage.
    pub fn list(
        &self,
        dir: Ino,
        from: u64,
        each: &mut dyn FnMut(Listed<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        if self.kind(dir)? != FileKind::Directory {
            return Err(Error::NotDirectory);
        }
        let mut at = from;
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let end = self.fill(dir, &mut at, &mut batch)?;
            for item in batch.drain(..) {
                let name = match &item.name {
                    Name::Lower(name) => name,
                    Name::Added(name) => &**name,
                };
                let listed = Listed {
                    name,
                    ino: item.target.0,
                    kind: item.target.1,
                    next: item.cookie,
                };
                if each(listed).is_break() {
                    return Ok(());
                }
            }
            if end {
                return Ok(());
            }
        }
    }

    /// Takes the next names after cookie `at` and moves it on; true if there are no more.
    fn fill<'a>(
        &'a self,
        dir: Ino,
        at: &mut u64,
        batch: &mut Vec<Item<'a>>,
    ) -> Result<bool, Error> {
        let changed = match self.table.find(dir) {
            Found::Inode(inode) => Some(inode),
            Found::Untouched => None,
            Found::Absent => return Ok(true),
        };
        if *at < ADDED {
            if self.table.is_lower(dir) && self.fill_lower(dir, at, batch)? {
                if let Some(inode) = &changed {
                    apply_delta(inode, batch);
                }
                return Ok(false);
            }
            if let Some(inode) = &changed {
                apply_delta(inode, batch);
            }
            *at = ADDED;
            // What was read of the lower names goes out before the added ones.
            return Ok(changed.is_none());
        }
        let Some(inode) = changed else {
            return Ok(true);
        };
        let below = SEQ_END.saturating_sub(*at - ADDED);
        let state = inode.state.read();
        let Some(names) = &state.names else {
            return Ok(true);
        };
        for (seq, name, target) in names.added_before(below).take(BATCH) {
            *at = ADDED + (SEQ_END - seq);
            batch.push(Item {
                name: Name::Added(name.clone()),
                target,
                cookie: *at,
            });
        }
        Ok(batch.is_empty())
    }

    /// Reads a batch of lower names; false if they came to their end.
    fn fill_lower<'a>(
        &'a self,
        dir: Ino,
        at: &mut u64,
        batch: &mut Vec<Item<'a>>,
    ) -> Result<bool, Error> {
        for _ in 0..BATCH {
            let Some(entry) = self.lower.entry(dir, *at)? else {
                return Ok(false);
            };
            *at += 1;
            batch.push(Item {
                name: Name::Lower(entry.name),
                target: (entry.ino, entry.kind),
                cookie: *at,
            });
        }
        Ok(true)
    }

    /// How many names the lower directory has; counted once for a changed directory.
    fn lower_len(&self, dir: Ino) -> Result<u64, Error> {
        // Doubling, then halving: the lower tree answers any index at once.
        let (mut low, mut high) = (0, 1);
        while self.lower.entry(dir, high - 1)?.is_some() {
            low = high;
            high = high.saturating_mul(2);
        }
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            match self.lower.entry(dir, middle - 1)? {
                Some(_) => low = middle,
                None => high = middle,
            }
        }
        Ok(low)
    }

    /// Whether directory `dir` has no names. Does not look at whiteouts one by one.
    pub(crate) fn is_empty(&self, dir: &Inode) -> Result<bool, Error> {
        let is_lower = self.table.is_lower(dir.ino);
        let known = {
            let state = dir.state.read();
            match &state.names {
                None if is_lower => None,
                None => return Ok(true),
                Some(_) if !is_lower => Some(0),
                Some(names) => names.lower_len.get().copied(),
            }
        };
        let lower_len = match known {
            Some(len) => len,
            None => self.lower_len(dir.ino)?,
        };
        Ok(match &dir.state.read().names {
            None => lower_len == 0,
            Some(names) => names.live(*names.lower_len.get_or_init(|| lower_len)) == 0,
        })
    }
}

/// Puts in place of lower names what the union says of them.
fn apply_delta(inode: &Inode, batch: &mut Vec<Item<'_>>) {
    let state = inode.state.read();
    let Some(names) = &state.names else { return };
    batch.retain_mut(|item| {
        let Name::Lower(name) = item.name else {
            return true;
        };
        match names.get(name) {
            None => true,
            Some(Some(target)) => {
                item.target = target;
                true
            }
            Some(None) => false,
        }
    });
}
