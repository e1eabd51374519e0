//! What the kernel knows of, and inodes that live only because it does.
//!
//! An inode without names is reaped once its count is zero. Both `forget` and the removal of the
//! last name look at the other's side after having done their own, so that one of them sees it.

use std::sync::{Arc, atomic::Ordering};

use pellicle_store::Ino;

use crate::{Union, change::Change, inode::Inode, table::Found};

/// Forgotten inodes of the lower tree between two releases of its memory: a few MiB of a tree file
/// (each inode takes about 120 bytes there), and a system call that nobody notices.
const RELEASE_EVERY: u64 = 1 << 14;

impl Union {
    /// The kernel was told of `ino` once more (a lookup, an entry of READDIRPLUS, a new node).
    /// Takes no lock for inodes of the lower tree.
    pub fn remember(&self, ino: Ino) {
        if let Some(told) = self.table.told(ino) {
            // Once at its top a count stays there, and the inode until the next mount.
            let _ = told.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_add(1));
        } else if let Found::Inode(inode) = self.table.find(ino) {
            inode.told.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// The kernel forgot `count` tellings. An inode without names goes with the last.
    pub fn forget(&self, ino: Ino, count: u64) {
        if let Some(told) = self.table.told(ino) {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            let _ = told.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| {
                (n != u32::MAX).then(|| n.saturating_sub(count))
            });
            if (self.forgets.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(RELEASE_EVERY) {
                self.lower.release_memory();
            }
        }
        if let Found::Inode(inode) = self.table.find(ino) {
            if !self.table.is_lower(ino) {
                let _ = inode
                    .told
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| {
                        Some(n.saturating_sub(count))
                    });
            }
            self.reap(&inode);
            if !self.is_told(&inode) {
                drop(inode);
                self.table.let_go(ino);
            }
        }
    }

    /// Inodes without a name that live on because the kernel has not forgotten them: each may hold
    /// room of the host.
    #[must_use]
    pub fn unnamed(&self) -> u64 {
        self.unnamed.load(Ordering::Relaxed)
    }

    /// An inode that is there was without a name, and is.
    pub(crate) fn note_unnamed(&self, was: bool, is: bool) {
        match (was, is) {
            (false, true) => self.unnamed.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.unnamed.fetch_sub(1, Ordering::Relaxed),
            _ => return,
        };
    }

    pub(crate) fn is_told(&self, inode: &Inode) -> bool {
        match self.table.told(inode.ino) {
            Some(told) => told.load(Ordering::SeqCst) > 0,
            None => inode.told.load(Ordering::SeqCst) > 0,
        }
    }

    /// Lets go of `inode` if it has no name and the kernel does not know of it.
    pub(crate) fn reap(&self, inode: &Arc<Inode>) {
        let is_over = || {
            let state = inode.state.read();
            !state.gone && state.now.nlink == 0 && !self.is_told(inode)
        };
        if !is_over() {
            return;
        }
        let Ok(mut change) = Change::begin(self) else {
            return;
        };
        if is_over() {
            change.remove(inode);
            change.commit_or_forget();
        }
    }
}
