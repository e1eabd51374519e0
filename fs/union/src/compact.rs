//! The present state as records, for the upper to begin its log anew with.

use pellicle_store::{FileKind, Ino};
use pellicle_upper::Record;

use crate::{Union, inode::Inode, table::Found};

/// Changes between two questions whether compaction is worth it.
pub(crate) const CHECK_EVERY: u32 = 1024;

impl Union {
    /// Called under the change lock, so that the snapshot is of one moment.
    pub(crate) fn compact_if_worth_it(&self) {
        let Ok(upper) = self.upper() else { return };
        if !upper.wants_compaction(self.live_records()) {
            return;
        }
        // The old log stays if this fails, and nothing is lost.
        if let Err(error) = upper.compact(&mut |say| self.snapshot(say)) {
            tracing::warn!(%error, "the log of changes could not be compacted");
        }
    }

    /// Says every record of the present state: all inodes first, then what is said of them.
    pub(crate) fn snapshot(&self, say: &mut dyn FnMut(Record<'_>)) {
        // The highest number ever given, so that none is given twice over the years.
        let highest = Ino(self.ino_end().saturating_sub(1));
        if !self.table.is_lower(highest) && matches!(self.table.find(highest), Found::Absent) {
            say(Record::Gone { ino: highest });
        }
        let mut all = self.table.all();
        all.retain(|inode| inode.state.read().recorded);
        for inode in &all {
            say(Record::Node(inode.state.read().now));
        }
        for inode in &all {
            say_details(inode, say);
        }
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
