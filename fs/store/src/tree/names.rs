//! From an inode to the names that lead to it.
//!
//! Inodes are numbered in the order in which the directory entries first speak of them, so the entry
//! that does so for inode `n` is number `n - 2`, plus as many as there are *later names* before it
//! (names of inodes that were met before: hard links). Those are few, and listed twice: by their
//! places, to count the ones before an entry by halving, and by inode, to find the other names of one.
//! Which directory an entry is in is found by halving the list of directories, whose entries follow
//! one another. So names cost a few steps each, and the file 4 bytes per directory and 12 per
//! additional hard link.

use zerocopy::little_endian::U32;

use super::{
    Tree, TreeError,
    format::{EntryRecord, LaterNameRecord, Section},
};
use crate::{FileKind, Ino};

impl Tree {
    /// Calls `each` with every name that leads to `ino`: the directory and the name in it. The root
    /// has none. `false`, without a call, if the file is of the time before it led to names.
    ///
    /// # Errors
    /// [`TreeError::NoSuchNode`], or damage.
    pub fn names_of(&self, ino: Ino, each: &mut dyn FnMut(Ino, &[u8])) -> Result<bool, TreeError> {
        self.inode(ino)?;
        if !self.file.has_names {
            return Ok(false);
        }
        let Some(first) = ino.0.checked_sub(2) else {
            return Ok(true);
        };
        // Names that are first of their inodes and stand before the `at`-th later one.
        let before = self.partition(Section::LaterPlaces, |at| {
            let place: &U32 = self.file.record(Section::LaterPlaces, at)?;
            Ok(u64::from(place.get()).saturating_sub(at) <= first)
        })?;
        self.name_at(ino, first.saturating_add(before), each)?;
        let later = |at| {
            self.file
                .record::<LaterNameRecord>(Section::LaterNames, at)
                .map(|r| (u64::from(r.ino.get()), u64::from(r.entry.get())))
        };
        let from = self.partition(Section::LaterNames, |at| Ok(later(at)?.0 < ino.0))?;
        for at in from..self.file.count(Section::LaterNames) {
            let (of, entry) = later(at)?;
            if of != ino.0 {
                break;
            }
            self.name_at(ino, entry, each)?;
        }
        Ok(true)
    }

    /// Calls `each` with directory entry `index`, which leads to `ino`.
    fn name_at(
        &self,
        ino: Ino,
        index: u64,
        each: &mut dyn FnMut(Ino, &[u8]),
    ) -> Result<(), TreeError> {
        let astray = || {
            self.file.damaged(format!(
                "the names of inode {ino} are not where they should be"
            ))
        };
        let entry: &EntryRecord = self.file.record(Section::Entries, index)?;
        if u64::from(entry.ino.get()) != ino.0 {
            return Err(astray());
        }
        let nth = |at| {
            let dir: &U32 = self.file.record(Section::Directories, at)?;
            Ok::<_, TreeError>(Ino(dir.get().into()))
        };
        let after = self.partition(Section::Directories, |at| {
            Ok(self.directory(nth(at)?)?.a.get() <= index)
        })?;
        let dir = nth(after.checked_sub(1).ok_or_else(astray)?)?;
        let record = self.directory(dir)?;
        if index - record.a.get() >= u64::from(record.b.get()) {
            return Err(astray());
        }
        each(
            dir,
            self.name_of(entry.name_offset.get(), entry.name_len.get())?,
        );
        Ok(())
    }

    /// How many records of `section` come before the first that `is_before` does not hold for.
    fn partition(
        &self,
        section: Section,
        is_before: impl Fn(u64) -> Result<bool, TreeError>,
    ) -> Result<u64, TreeError> {
        let (mut low, mut high) = (0, self.file.count(section));
        while low < high {
            let middle = low + (high - low) / 2;
            if is_before(middle)? {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// Checks what [`Tree::names_of`] goes by: `later` are inode and entry of the later names, in
    /// the order of the entries.
    pub(super) fn check_names(&self, mut later: Vec<(u32, u32)>) -> Result<(), TreeError> {
        if !self.file.has_names {
            return Ok(());
        }
        let bad = || {
            self.file
                .damaged("its lists of names are not as they must be")
        };
        let mut at = 0;
        for ino in (1..=self.inode_count()).map(Ino) {
            if self.inode(ino)?.1 == FileKind::Directory {
                let dir: &U32 = self.file.record(Section::Directories, at)?;
                if u64::from(dir.get()) != ino.0 {
                    return Err(bad());
                }
                at += 1;
            }
        }
        let count = later.len() as u64;
        if at != self.file.count(Section::Directories)
            || count != self.file.count(Section::LaterPlaces)
            || count != self.file.count(Section::LaterNames)
        {
            return Err(bad());
        }
        for (at, (_, entry)) in (0..).zip(&later) {
            if self.file.record::<U32>(Section::LaterPlaces, at)?.get() != *entry {
                return Err(bad());
            }
        }
        later.sort_unstable();
        for (at, (ino, entry)) in (0..).zip(&later) {
            let r: &LaterNameRecord = self.file.record(Section::LaterNames, at)?;
            if (r.ino.get(), r.entry.get()) != (*ino, *entry) {
                return Err(bad());
            }
        }
        Ok(())
    }
}
