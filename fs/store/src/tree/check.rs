//! The full check of a tree file.
//!
//! Reading needs none of this to be safe: whatever a file says is checked against the file when it
//! is used. This is what import, `store verify` and the tests run to know that a file is exactly
//! one that the writer makes: numbered breadth first, every record used once and in order.

use super::{
    ContentRef, Extents, PackedRef, Tree, TreeError,
    format::{
        CONTENT_EMPTY, EntryRecord, FLAG_IMPLIED, FLAG_OPAQUE, InodeRecord, Section,
        WhiteoutRecord, XattrSetRecord, name_fault,
    },
    number::{target_fault, xattr_fault},
};
use crate::{FileKind, Ino};

/// What has been seen so far of a tree that is walked in the order of its numbers.
struct Walk {
    /// The number that the next new inode must have.
    next: u64,
    /// Where the next directory's entries and whiteouts must start.
    entries: u64,
    whiteouts: u64,
    /// Where the next file's extents and the next symlink's target must start.
    extents: u64,
    targets: u64,
    inline: u64,
    /// Links counted, per inode.
    links: Vec<u32>,
    /// Parent, per directory.
    parents: Vec<u32>,
    /// Inode and entry of each name that is not the first of its inode.
    later: Vec<(u32, u32)>,
}

impl Tree {
    /// Verifies every block and that the whole file is one the writer could have made. Takes time
    /// and memory in proportion to the number of inodes.
    ///
    /// # Errors
    /// [`TreeError::Damaged`] with the first thing that is wrong.
    pub fn check(&self) -> Result<(), TreeError> {
        self.file.verify_all()?;
        let count = self.inode_count();
        let mut walk = Walk {
            next: 2,
            entries: 0,
            whiteouts: 0,
            extents: 0,
            targets: 0,
            inline: 0,
            links: vec![0; usize::try_from(count).unwrap_or(0) + 1],
            parents: vec![0; usize::try_from(count).unwrap_or(0) + 1],
            later: Vec::new(),
        };
        if count == 0 || self.inode(Ino::ROOT)?.1 != FileKind::Directory {
            return Err(self.file.damaged("it has no root directory"));
        }
        set(&mut walk.parents, 1, 1);
        for ino in 1..=count {
            if ino >= walk.next {
                return Err(self.wrong(ino, "is in no directory"));
            }
            self.check_inode(ino, &mut walk)?;
        }
        self.check_totals(&walk)?;
        for ino in 1..=count {
            if walk.links.get(ino as usize) != Some(&self.inode(Ino(ino))?.0.nlink.get()) {
                return Err(self.wrong(ino, "has another number of links than it says"));
            }
        }
        self.check_names(walk.later)?;
        self.check_xattrs()
    }

    #[cold]
    fn wrong(&self, ino: u64, what: &str) -> TreeError {
        self.file.damaged(format!("inode #{ino} {what}"))
    }

    fn check_totals(&self, walk: &Walk) -> Result<(), TreeError> {
        let totals = [
            (Section::Inodes, walk.next - 1),
            (Section::Entries, walk.entries),
            (Section::Whiteouts, walk.whiteouts),
            (Section::Extents, walk.extents),
            (Section::Targets, walk.targets),
            (Section::Inline, walk.inline),
        ];
        match totals.iter().find(|(s, n)| self.file.count(*s) != *n) {
            None => Ok(()),
            Some((section, _)) => {
                let detail = format!("its {} section holds more than is used", section.name());
                Err(self.file.damaged(detail))
            }
        }
    }

    fn check_inode(&self, ino: u64, walk: &mut Walk) -> Result<(), TreeError> {
        let (r, kind) = self.inode(Ino(ino))?;
        let nsec_ok = |n: u32| n < 1_000_000_000;
        if r.mode.get() != kind.mode_bits() | (r.mode.get() & 0o7777)
            || !nsec_ok(r.atime_nsec.get())
            || !nsec_ok(r.mtime_nsec.get())
            || !nsec_ok(r.ctime_nsec.get())
        {
            return Err(self.wrong(ino, "has a mode or a time that cannot be"));
        }
        let layers = self.layers().len().max(1);
        if r.layer.get() as usize >= layers {
            return Err(self.wrong(ino, "comes from a layer that is not there"));
        }
        if u64::from(r.xattrs.get()) > self.file.count(Section::XattrSets) {
            return Err(self.wrong(ino, "has extended attributes that are not there"));
        }
        let is_dir = kind == FileKind::Directory;
        if r.reserved.get() != 0
            || r.flags
                & !(if is_dir {
                    FLAG_OPAQUE | FLAG_IMPLIED
                } else {
                    0
                })
                != 0
            || (kind != FileKind::Regular && r.content != CONTENT_EMPTY)
            || i64::try_from(r.size.get()).is_err()
        {
            return Err(self.wrong(ino, "has flags or a size that cannot be"));
        }
        match kind {
            FileKind::Directory => self.check_directory(ino, r, walk),
            FileKind::Regular => self.check_content(ino, r, walk),
            FileKind::Symlink => {
                let target = self.readlink(Ino(ino))?;
                if r.a.get() != walk.targets || target_fault(target).is_some() {
                    return Err(self.wrong(ino, "has a target that cannot be"));
                }
                walk.targets += target.len() as u64;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn check_directory(&self, ino: u64, r: &InodeRecord, walk: &mut Walk) -> Result<(), TreeError> {
        let (entries, whiteouts) = (u64::from(r.b.get()), u64::from(r.e.get()));
        if r.a.get() != walk.entries
            || u64::from(r.d.get()) != walk.whiteouts
            || walk.parents.get(ino as usize) != Some(&r.c.get())
        {
            return Err(self.wrong(ino, "is a directory whose entries or parent are misplaced"));
        }
        add(&mut walk.links, ino, 2);
        let mut last: &[u8] = &[];
        for at in 0..entries {
            let index = walk.entries + at;
            let e: &EntryRecord = self.file.record(Section::Entries, index)?;
            last = self.check_name(ino, last, e.name_offset.get(), e.name_len.get())?;
            self.check_entry(ino, e, index, walk)?;
        }
        walk.entries += entries;
        last = &[];
        for at in 0..whiteouts {
            let index = walk.whiteouts + at;
            let w: &WhiteoutRecord = self.file.record(Section::Whiteouts, index)?;
            last = self.check_name(ino, last, w.name_offset.get(), w.name_len.get())?;
            if w.reserved != [0; 6] || self.lookup(Ino(ino), last)?.is_some() {
                return Err(self.wrong(ino, "has a name that is also whited out"));
            }
        }
        walk.whiteouts += whiteouts;
        Ok(())
    }

    fn check_name(&self, dir: u64, last: &[u8], offset: u64, len: u16) -> Result<&[u8], TreeError> {
        let name = self.file.bytes(Section::Names, offset, len.into())?;
        if name_fault(name).is_some() || name <= last {
            return Err(self.wrong(dir, "has names that cannot be or are not in order"));
        }
        Ok(name)
    }

    fn check_entry(
        &self,
        dir: u64,
        e: &EntryRecord,
        index: u64,
        walk: &mut Walk,
    ) -> Result<(), TreeError> {
        let ino = u64::from(e.ino.get());
        let (_, kind) = self.inode(Ino(ino))?;
        let is_dir = kind == FileKind::Directory;
        if u32::from(e.kind) << 12 != kind.mode_bits() || e.reserved != 0 {
            return Err(self.wrong(ino, "is of another kind than its directory says"));
        }
        if ino == walk.next {
            walk.next += 1;
        } else if is_dir || ino > walk.next {
            return Err(self.wrong(ino, "is a directory with two names, or out of order"));
        } else {
            let entry = u32::try_from(index).unwrap_or(u32::MAX);
            walk.later.push((e.ino.get(), entry));
        }
        if is_dir {
            set(&mut walk.parents, ino, u32::try_from(dir).unwrap_or(0));
            add(&mut walk.links, dir, 1);
        } else {
            add(&mut walk.links, ino, 1);
        }
        Ok(())
    }

    fn check_content(&self, ino: u64, r: &InodeRecord, walk: &mut Walk) -> Result<(), TreeError> {
        let size = r.size.get();
        let content = self.content(Ino(ino))?;
        let good = match &content {
            ContentRef::Empty | ContentRef::Object(_) => true,
            ContentRef::Inline(bytes) => follows(&mut walk.inline, r.a.get(), bytes.len() as u64),
            ContentRef::Sparse { extents, data } => {
                follows(&mut walk.extents, r.d.get().into(), r.e.get().into())
                    && are_in_order(extents, size)
                    && match data {
                        PackedRef::Object(_) => true,
                        PackedRef::Inline(bytes) => {
                            follows(&mut walk.inline, r.a.get(), bytes.len() as u64)
                        }
                    }
            }
            ContentRef::Span { offset } => offset.checked_add(size).is_some(),
            ContentRef::SparseSpan { extents, offset } => {
                follows(&mut walk.extents, r.d.get().into(), r.e.get().into())
                    && are_in_order(extents, size)
                    && offset.checked_add(extents.packed_len()).is_some()
            }
        };
        if good {
            Ok(())
        } else {
            Err(self.wrong(ino, "has a content that cannot be"))
        }
    }

    fn check_xattrs(&self) -> Result<(), TreeError> {
        let bad = || {
            self.file
                .damaged("a set of extended attributes is not as it must be")
        };
        let (mut next, mut data) = (0, 0);
        for set in 0..self.file.count(Section::XattrSets) {
            let set: &XattrSetRecord = self.file.record(Section::XattrSets, set)?;
            if !follows(&mut next, set.first.get().into(), set.count.get().into()) {
                return Err(bad());
            }
            let mut last: &[u8] = &[];
            for i in next - u64::from(set.count.get())..next {
                let (name, value) = self.xattr(i)?;
                if xattr_fault(name, value).is_some() || name <= last {
                    return Err(bad());
                }
                last = name;
                data += (name.len() + value.len()) as u64;
            }
        }
        if next != self.file.count(Section::Xattrs) || data != self.file.count(Section::XattrData) {
            return Err(bad());
        }
        Ok(())
    }
}

/// Whether something starts where the one before it ended; moves on to its end.
fn follows(next: &mut u64, start: u64, len: u64) -> bool {
    let good = *next == start;
    *next = start.saturating_add(len);
    good
}

fn are_in_order(extents: &Extents<'_>, size: u64) -> bool {
    let (mut end, mut packed) = (0, 0);
    (0..extents.len())
        .filter_map(|i| extents.get(i))
        .all(|(e, at)| {
            let good = e.len > 0 && e.offset >= end && at == packed;
            end = e.offset.saturating_add(e.len);
            packed = at.saturating_add(e.len);
            good && end <= size
        })
}

fn add(counts: &mut [u32], at: u64, n: u32) {
    if let Some(count) = counts.get_mut(at as usize) {
        *count = count.saturating_add(n);
    }
}

fn set(values: &mut [u32], at: u64, value: u32) {
    if let Some(slot) = values.get_mut(at as usize) {
        *slot = value;
    }
}
