//! What a file system is, as simply as it can be said: the model that the union is held against.
//!
//! Knows nothing of lower trees, records or locks. Times are kept as "set to this" or "changed in
//! this step"; the harness compares the rest with what it saw before the step.

use std::collections::{BTreeMap, BTreeSet};

use pellicle_union::{FileKind, Time};

pub(crate) type Id = u64;
pub(crate) type Answer = Result<(), i32>;

#[derive(Clone, Debug)]
pub(crate) struct Thing {
    pub(crate) kind: FileKind,
    pub(crate) perm: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) content: Vec<u8>,
    pub(crate) target: Vec<u8>,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) children: BTreeMap<Vec<u8>, Id>,
    pub(crate) parent: Id,
    pub(crate) held: u32,
    pub(crate) mtime: Option<Time>,
    pub(crate) atime: Option<Time>,
}

#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) things: BTreeMap<Id, Thing>,
    next: Id,
    /// What this step changed the modification time of.
    pub(crate) modified: BTreeSet<Id>,
    /// What this step changed the change time of.
    pub(crate) changed: BTreeSet<Id>,
}

pub(crate) const ROOT: Id = 1;

impl Model {
    pub(crate) fn new() -> Self {
        let mut model = Self {
            things: BTreeMap::new(),
            next: ROOT,
            modified: BTreeSet::new(),
            changed: BTreeSet::new(),
        };
        model.add(FileKind::Directory, 0o755, ROOT);
        model
    }

    pub(crate) fn add(&mut self, kind: FileKind, perm: u16, parent: Id) -> Id {
        let id = self.next;
        self.next += 1;
        self.things.insert(
            id,
            Thing {
                kind,
                perm,
                uid: 0,
                gid: 0,
                content: Vec::new(),
                target: Vec::new(),
                xattrs: BTreeMap::new(),
                children: BTreeMap::new(),
                parent,
                held: 0,
                mtime: None,
                atime: None,
            },
        );
        id
    }

    pub(crate) fn begin_step(&mut self) {
        self.modified.clear();
        self.changed.clear();
    }

    pub(crate) fn thing(&self, id: Id) -> &Thing {
        &self.things[&id]
    }

    pub(crate) fn get(&mut self, id: Id) -> &mut Thing {
        self.things.get_mut(&id).unwrap()
    }

    pub(crate) fn is_dir(&self, id: Id) -> bool {
        self.thing(id).kind == FileKind::Directory
    }

    fn named(&self, id: Id) -> u32 {
        let children = self.things.values().flat_map(|t| t.children.values());
        children.filter(|c| **c == id).count() as u32
    }

    pub(crate) fn nlink(&self, id: Id) -> u32 {
        let thing = self.thing(id);
        if thing.kind != FileKind::Directory {
            return self.named(id);
        }
        if id != ROOT && self.named(id) == 0 {
            return 0;
        }
        2 + thing.children.values().filter(|c| self.is_dir(**c)).count() as u32
    }

    pub(crate) fn touch(&mut self, id: Id) {
        self.modified.insert(id);
        self.changed.insert(id);
        self.get(id).mtime = None;
    }

    /// New content: whoever wrote it, file capabilities are gone.
    pub(crate) fn content_changed(&mut self, id: Id) {
        self.get(id).xattrs.remove(&b"security.capability"[..]);
        self.touch(id);
    }

    pub(crate) fn touch_change(&mut self, id: Id) {
        self.changed.insert(id);
    }

    fn drop_if_over(&mut self, id: Id) {
        if self.nlink(id) == 0 && self.thing(id).held == 0 {
            self.things.remove(&id);
        }
    }

    fn live_dir(&self, dir: Id) -> Answer {
        if self.nlink(dir) == 0 {
            Err(libc::ENOENT)
        } else {
            Ok(())
        }
    }

    pub(crate) fn child(&self, dir: Id, name: &[u8]) -> Option<Id> {
        self.thing(dir).children.get(name).copied()
    }

    pub(crate) fn make(
        &mut self,
        dir: Id,
        name: &[u8],
        kind: FileKind,
        perm: u16,
        umask: u16,
    ) -> Result<Id, i32> {
        self.live_dir(dir)?;
        if self.child(dir, name).is_some() {
            return Err(libc::EEXIST);
        }
        let above = self.thing(dir).clone();
        let mut perm = perm & !umask;
        let sets = above.perm & 0o2000 != 0;
        if sets && kind == FileKind::Directory {
            perm |= 0o2000;
        }
        if kind == FileKind::Symlink {
            perm = 0o777;
        }
        let id = self.add(kind, perm, dir);
        self.get(id).gid = if sets { above.gid } else { 5 };
        self.get(id).uid = 5;
        self.get(dir).children.insert(name.into(), id);
        self.touch(dir);
        Ok(id)
    }

    pub(crate) fn link(&mut self, id: Id, dir: Id, name: &[u8]) -> Answer {
        self.live_dir(dir)?;
        if self.is_dir(id) {
            return Err(libc::EPERM);
        }
        if self.child(dir, name).is_some() {
            return Err(libc::EEXIST);
        }
        self.get(dir).children.insert(name.into(), id);
        self.touch(dir);
        self.touch_change(id);
        Ok(())
    }

    pub(crate) fn remove(&mut self, dir: Id, name: &[u8], want_dir: bool) -> Answer {
        self.live_dir(dir)?;
        let id = self.child(dir, name).ok_or(libc::ENOENT)?;
        match (self.is_dir(id), want_dir) {
            (true, false) => return Err(libc::EISDIR),
            (false, true) => return Err(libc::ENOTDIR),
            _ => (),
        }
        if want_dir && !self.thing(id).children.is_empty() {
            return Err(libc::ENOTEMPTY);
        }
        self.get(dir).children.remove(name);
        self.touch(dir);
        self.touch_change(id);
        self.drop_if_over(id);
        Ok(())
    }

    fn within(&self, dir: Id, ancestor: Id) -> bool {
        let mut at = dir;
        loop {
            if at == ancestor {
                return true;
            }
            if at == ROOT {
                return false;
            }
            at = self.thing(at).parent;
        }
    }

    pub(crate) fn rename(
        &mut self,
        from: Id,
        a: &[u8],
        to: Id,
        b: &[u8],
        no_replace: bool,
        exchange: bool,
    ) -> Answer {
        if no_replace && exchange {
            return Err(libc::EINVAL);
        }
        self.live_dir(from)?;
        self.live_dir(to)?;
        let id = self.child(from, a).ok_or(libc::ENOENT)?;
        let there = self.child(to, b);
        if no_replace && there.is_some() {
            return Err(libc::EEXIST);
        }
        if self.is_dir(id) && self.within(to, id) {
            return Err(libc::EINVAL);
        }
        match there {
            None if exchange => return Err(libc::ENOENT),
            Some(other) if other == id => return Ok(()),
            Some(other) if exchange => {
                if self.is_dir(other) && self.within(from, other) {
                    return Err(libc::EINVAL);
                }
                self.get(from).children.insert(a.into(), other);
                self.get(to).children.insert(b.into(), id);
                self.get(other).parent = from;
                self.touch_change(other);
            }
            other => {
                if let Some(other) = other {
                    match (self.is_dir(id), self.is_dir(other)) {
                        (true, false) => return Err(libc::ENOTDIR),
                        (false, true) => return Err(libc::EISDIR),
                        _ => (),
                    }
                    if !self.thing(other).children.is_empty() {
                        return Err(libc::ENOTEMPTY);
                    }
                    self.touch_change(other);
                }
                self.get(from).children.remove(a);
                self.get(to).children.insert(b.into(), id);
                if let Some(other) = other {
                    self.drop_if_over(other);
                }
            }
        }
        self.get(id).parent = to;
        self.touch(from);
        self.touch(to);
        self.touch_change(id);
        Ok(())
    }

    pub(crate) fn regular(&self, id: Id) -> Answer {
        match self.thing(id).kind {
            FileKind::Regular => Ok(()),
            FileKind::Directory => Err(libc::EISDIR),
            _ => Err(libc::EINVAL),
        }
    }

    pub(crate) fn grow(&mut self, id: Id, size: usize) {
        let content = &mut self.get(id).content;
        if content.len() < size {
            content.resize(size, 0);
        }
    }

    pub(crate) fn write(&mut self, id: Id, offset: usize, data: &[u8], kill: bool) -> Answer {
        self.regular(id)?;
        if data.is_empty() {
            return Ok(());
        }
        self.grow(id, offset + data.len());
        self.get(id).content[offset..offset + data.len()].copy_from_slice(data);
        self.content_changed(id);
        if kill {
            self.clear_set_id(id);
        }
        Ok(())
    }

    pub(crate) fn zero(&mut self, id: Id, from: usize, to: usize) {
        let content = &mut self.get(id).content;
        let to = to.min(content.len());
        if from < to {
            content[from..to].fill(0);
        }
    }

    pub(crate) fn clear_set_id(&mut self, id: Id) {
        let thing = self.get(id);
        if thing.kind != FileKind::Directory {
            thing.perm &= !0o4000;
            if thing.perm & 0o010 != 0 {
                thing.perm &= !0o2000;
            }
        }
    }

    pub(crate) fn release(&mut self, id: Id) {
        self.get(id).held -= 1;
        self.drop_if_over(id);
    }

    /// Everything that was only held open goes.
    pub(crate) fn remount(&mut self) {
        let ids: Vec<Id> = self.things.keys().copied().collect();
        for id in ids {
            self.get(id).held = 0;
            self.drop_if_over(id);
        }
    }
}
