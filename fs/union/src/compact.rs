//! The present state as records, for the upper to begin its log anew with.

use pellicle_store::{FileKind, Ino};
use pellicle_upper::Record;

use crate::{Union, error::Error, inode::Inode, table::Found};

/// Changes between two questions whether compaction is worth it.
pub(crate) const CHECK_EVERY: u32 = 1024;

impl Union {
    /// To be called without the change lock: others change the tree meanwhile.
    pub(crate) fn compact_if_worth_it(&self) {
        let Ok(upper) = self.upper() else { return };
        if !upper.wants_compaction(self.live_records()) {
            return;
        }
        // The old log stays if this fails, and nothing is lost.
        if let Err(error) = self.compact() {
            tracing::warn!(%error, "the log of changes could not be compacted");
        }
    }

    /// Replaces the upper's log by a shorter one that says the same. Comes by itself when it is
    /// worth it. Changes go on meanwhile; of two calls at once the second does nothing.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], and what the upper says; the old log then stays.
    pub fn compact(&self) -> Result<(), Error> {
        self.refuse_if_read_only()?;
        let Some(_one) = self.compacting.try_lock() else {
            return Ok(());
        };
        let upper = self.upper()?;
        // Between two changes, none of which is in the log and not yet in memory.
        let since = {
            let _held = self.changes.lock();
            upper.position()
        };
        Ok(upper.compact(since, &mut |say| self.snapshot(say))?)
    }

    /// Says every record of the state: all inodes first, then what is said of them. Each inode is
    /// as it is when its turn comes. What is said of one is said only if its node was, which a
    /// log needs to make sense at every point.
    fn snapshot(&self, say: &mut dyn FnMut(Record<'_>)) {
        // The highest number ever given, so that none is given twice over the years.
        let highest = Ino(self.ino_end().saturating_sub(1));
        if !self.table.is_lower(highest) && matches!(self.table.find(highest), Found::Absent) {
            say(Record::Gone { ino: highest });
        }
        let mut all = self.table.all();
        all.retain(|inode| inode.state.read().recorded);
        for inode in &all {
            say_node(inode, say);
        }
        for inode in &all {
            say_details(inode, say);
        }
    }
}

/// An inode and, of the same moment, which bytes of mixed content are in its data file.
fn say_node(inode: &Inode, say: &mut dyn FnMut(Record<'_>)) {
    let (now, own): (_, Vec<_>) = {
        let state = inode.state.read();
        let own = state.own.iter().flat_map(|own| own.each());
        (state.now, own.collect())
    };
    say(Record::Node(now));
    for range in own {
        say(Record::Own {
            ino: inode.ino,
            start: range.start,
            end: range.end,
        });
    }
}

fn say_details(inode: &Inode, say: &mut dyn FnMut(Record<'_>)) {
    let state = inode.state.read();
    let ino = inode.ino;
    if let Some(target) = &state.target {
        say(Record::Symlink { ino, target });
    }
    for (name, value) in &state.xattrs {
        match value {
            Some(value) => say(Record::Xattr { ino, name, value }),
            None => say(Record::NoXattr { ino, name }),
        }
    }
    if inode.kind != FileKind::Directory {
        return;
    }
    let names = state.names.iter().flat_map(|names| names.each());
    for (name, target) in names {
        let parent = ino;
        match target {
            Some((ino, kind)) => say(Record::Entry {
                parent,
                name,
                ino,
                kind,
            }),
            None => say(Record::NoEntry { parent, name }),
        }
    }
}
