//! The one step of a batch that everybody sees: names.
//!
//! Each case is one call of the host that changes the merged tree (`rename`, `link`, `mknod` of a
//! whiteout, `unlink`), with preparations before and cleaning after that change nothing anyone sees.

use pellicle_store::Ino;
use rustix::fs::RenameFlags;

use super::{
    DirUpper,
    commit::Said,
    host::{At, work_name},
    state::State,
};
use crate::UpperError;

type Name = Box<[u8]>;

/// A name, and where it is to lead.
struct Lead<'a> {
    dir: Ino,
    name: &'a [u8],
    ino: Ino,
}

impl DirUpper {
    pub(super) fn change_names(&self, state: &mut State, said: &Said) -> Result<(), UpperError> {
        let lead = |(dir, name, ino): &'_ (Ino, Name, Ino)| (*dir, name.clone(), *ino);
        match (said.leads.as_slice(), said.ends.as_slice()) {
            ([to], [(from, from_name)]) if self.leads_to(state, *from, from_name) == Some(to.2) => {
                let (dir, name, ino) = lead(to);
                let to = Lead {
                    dir,
                    name: &name,
                    ino,
                };
                self.rename(state, said, *from, from_name, &to)
            }
            ([a, b], []) if self.is_exchange(state, a, b) => self.exchange(state, a, b),
            (leads, ends) => {
                for (dir, name) in ends {
                    self.take(state, said, *dir, name)?;
                }
                for (dir, name, ino) in leads {
                    let lead = Lead {
                        dir: *dir,
                        name,
                        ino: *ino,
                    };
                    self.put(state, &lead)?;
                }
                Ok(())
            }
        }
    }

    /// What the host or the lower tree has under `name`.
    fn leads_to(&self, state: &State, dir: Ino, name: &[u8]) -> Option<Ino> {
        let known = state.inodes.get(&dir);
        match known.and_then(|dir| dir.names.get(name)) {
            Some(to) => *to,
            None if known.is_some_and(|dir| !dir.merged) => None,
            None => self.lower_child(dir, name),
        }
    }

    fn lower_child(&self, dir: Ino, name: &[u8]) -> Option<Ino> {
        if !self.is_lower(dir) {
            return None;
        }
        self.lower
            .lookup(dir, name)
            .ok()
            .flatten()
            .map(|(ino, _)| ino)
    }

    fn is_exchange(&self, state: &State, a: &(Ino, Name, Ino), b: &(Ino, Name, Ino)) -> bool {
        self.leads_to(state, a.0, &a.1) == Some(b.2) && self.leads_to(state, b.0, &b.1) == Some(a.2)
    }

    /// Whether the lower tree would show through if the host had nothing under `name`.
    fn shows_through(&self, state: &State, dir: Ino, name: &[u8]) -> bool {
        state.inodes.get(&dir).is_some_and(|dir| dir.merged)
            && self.lower_child(dir, name).is_some()
    }

    fn host_has(&self, state: &State, dir: Ino, name: &[u8]) -> Option<Option<Ino>> {
        state.inodes.get(&dir)?.names.get(name).copied()
    }

    fn is_dir(&self, state: &State, ino: Ino) -> bool {
        state
            .inodes
            .get(&ino)
            .is_some_and(super::state::Inode::is_dir)
    }

    pub(super) fn staged_whiteout(&self, state: &mut State) -> Result<At, UpperError> {
        let at = self.temporary(state);
        at.unlink()?;
        at.whiteout()?;
        Ok(at)
    }

    /// A directory that is about to stand where the lower tree has something must not merge with it.
    fn close_off(&self, state: &mut State, to: &Lead<'_>) -> Result<(), UpperError> {
        let Some(inode) = state.inodes.get(&to.ino) else {
            return Ok(());
        };
        if inode.is_dir() && !inode.merged && self.shows_through(state, to.dir, to.name) {
            let at = self.place(state, to.ino)?;
            at.put_xattr(&self.rights.mark(b"opaque"), b"y")?;
        }
        Ok(())
    }

    /// A name more: of a new inode, or of one that has names.
    fn put(&self, state: &mut State, to: &Lead<'_>) -> Result<(), UpperError> {
        self.close_off(state, to)?;
        self.complete(state, to.ino)?;
        let at = self.at(state, to.dir, to.name)?;
        let there = self.host_has(state, to.dir, to.name);
        let from = self.place(state, to.ino)?;
        let in_work = state.inodes.get(&to.ino).is_some_and(|inode| inode.in_work);
        let is_dir = self.is_dir(state, to.ino);
        match there {
            None if in_work => from.rename_to(&at, RenameFlags::NOREPLACE)?,
            None => from.link_to(&at)?,
            Some(_) if in_work && !is_dir => from.rename_to(&at, RenameFlags::empty())?,
            Some(_) if in_work => {
                from.rename_to(&at, RenameFlags::EXCHANGE)?;
                from.unlink()?;
            }
            Some(_) => {
                let link = self.temporary(state);
                link.unlink()?;
                from.link_to(&link)?;
                link.rename_to(&at, RenameFlags::empty())?;
            }
        }
        if let Some(inode) = state.inodes.get_mut(&to.ino) {
            inode.in_work = false;
            inode.places.push((to.dir, to.name.into()));
        }
        self.set_name(state, to.dir, to.name, Some(to.ino));
        Ok(())
    }

    /// Takes the host's object from under a name to the work directory if it is to live on without.
    fn must_stay(&self, state: &State, said: &Said, ino: Ino) -> bool {
        let last = state
            .inodes
            .get(&ino)
            .is_some_and(|inode| inode.places.len() == 1 && !inode.is_dir());
        last && said.stays(ino)
    }

    /// A name less.
    fn take(
        &self,
        state: &mut State,
        said: &Said,
        dir: Ino,
        name: &[u8],
    ) -> Result<(), UpperError> {
        let hide = self.shows_through(state, dir, name);
        let Some(Some(ino)) = self.host_has(state, dir, name) else {
            let has_whiteout = self.host_has(state, dir, name).is_some();
            if hide && !has_whiteout {
                self.at(state, dir, name)?.whiteout()?;
                self.set_name(state, dir, name, None);
            }
            if let Some(lower) = self.lower_child(dir, name).filter(|_| hide) {
                self.note_removed(state, lower);
            }
            return Ok(());
        };
        let at = self.at(state, dir, name)?;
        let stays = self.must_stay(state, said, ino);
        let is_dir = self.is_dir(state, ino);
        let mut left = None;
        if hide {
            let whiteout = self.staged_whiteout(state)?;
            if is_dir || stays {
                whiteout.rename_to(&at, RenameFlags::EXCHANGE)?;
                left = Some(whiteout);
            } else {
                whiteout.rename_to(&at, RenameFlags::empty())?;
            }
            self.set_name(state, dir, name, None);
        } else {
            if is_dir || stays {
                let out = self.temporary(state);
                at.rename_to(&out, RenameFlags::empty())?;
                left = Some(out);
            } else {
                at.unlink()?;
            }
            self.drop_name(state, dir, name);
        }
        if let Some(left) = left {
            let cleaned = if stays {
                let to = self.work_at(&work_name(ino, ""));
                left.rename_to(&to, RenameFlags::empty())
            } else {
                left.remove_all()
            };
            if let Err(error) = cleaned {
                tracing::warn!(%error, "what was removed stays in the work directory");
            }
        }
        self.lose_place(state, ino, dir, name, stays);
        Ok(())
    }

    fn lose_place(&self, state: &mut State, ino: Ino, dir: Ino, name: &[u8], stays: bool) {
        if let Some(inode) = state.inodes.get_mut(&ino) {
            inode.places.retain(|(d, n)| *d != dir || **n != *name);
            inode.in_work |= stays;
            if inode.is_dir() {
                inode.names.clear();
            }
        }
        if self.is_dir(state, ino) {
            self.note_removed(state, ino);
        }
    }

    /// A directory that was removed shows nothing any more.
    fn note_removed(&self, state: &mut State, ino: Ino) {
        state.gone.insert(ino);
        state.dirs.pop(&ino);
    }

    /// Gets a directory ready to be moved: what the lower tree has in it must come along.
    fn detach(&self, state: &mut State, ino: Ino) -> Result<(), UpperError> {
        self.complete(state, ino)?;
        let Some(inode) = state.inodes.get(&ino) else {
            return Ok(());
        };
        if !inode.is_dir() || !inode.merged || inode.redirected {
            return Ok(());
        }
        if !self.redirects {
            return self.copy_tree(state, ino);
        }
        let path = self.lower_names.path(&*self.lower, ino)?;
        let at = self.place(state, ino)?;
        at.put_xattr(&self.rights.mark(b"redirect"), &path)?;
        if let Some(inode) = state.inodes.get_mut(&ino) {
            inode.redirected = true;
        }
        Ok(())
    }

    /// Copies up everything below `top`, and makes it and all directories in it the upper's alone.
    fn copy_tree(&self, state: &mut State, top: Ino) -> Result<(), UpperError> {
        let mut dirs = vec![top];
        let mut next = 0;
        while let Some(dir) = dirs.get(next).copied() {
            next += 1;
            self.ensure_dir(state, dir)?;
            let merged = state.inodes.get(&dir).is_some_and(|dir| dir.merged);
            let mut names: Vec<Ino> = Vec::new();
            let mut at = 0;
            while merged && let Some(entry) = self.lower.entry(dir, at)? {
                at += 1;
                if self.host_has(state, dir, entry.name).is_none() {
                    names.push(entry.ino);
                }
            }
            for ino in names {
                let node = self.lower_node(ino)?;
                if node.kind == pellicle_store::FileKind::Directory {
                    self.ensure_dir(state, ino)?;
                } else if !state.inodes.contains_key(&ino) {
                    self.lift(state, &node, &super::copy::Details::default())?;
                }
            }
            let held = state.inodes.get(&dir).map(|d| &d.names);
            let below: Vec<Ino> = held
                .into_iter()
                .flatten()
                .filter_map(|(_, to)| *to)
                .collect();
            for ino in &below {
                self.complete(state, *ino)?;
            }
            dirs.extend(below.into_iter().filter(|ino| self.is_dir(state, *ino)));
        }
        // The innermost first: until the top is closed off, nothing looks different.
        for dir in dirs.into_iter().rev() {
            self.close(state, dir)?;
        }
        Ok(())
    }

    /// Marks a directory opaque that holds everything itself, and drops its whiteouts.
    fn close(&self, state: &mut State, dir: Ino) -> Result<(), UpperError> {
        if !state.inodes.get(&dir).is_some_and(|dir| dir.merged) {
            return Ok(());
        }
        let at = self.place(state, dir)?;
        at.put_xattr(&self.rights.mark(b"opaque"), b"y")?;
        let mut whiteouts = Vec::new();
        if let Some(inode) = state.inodes.get_mut(&dir) {
            inode.merged = false;
            inode.names.retain(|name, to| {
                if to.is_none() {
                    whiteouts.push(name.clone());
                }
                to.is_some()
            });
        }
        for name in whiteouts {
            self.at(state, dir, &name)?.unlink()?;
        }
        self.restore_times(state, dir)
    }

    fn rename(
        &self,
        state: &mut State,
        said: &Said,
        from_dir: Ino,
        from_name: &[u8],
        to: &Lead<'_>,
    ) -> Result<(), UpperError> {
        if self.is_lower(to.ino) && !state.inodes.contains_key(&to.ino) {
            self.ensure_dir(state, to.ino)?;
        }
        self.detach(state, to.ino)?;
        self.close_off(state, to)?;
        let is_dir = self.is_dir(state, to.ino);
        let hide = self.shows_through(state, from_dir, from_name);
        let from = self.at(state, from_dir, from_name)?;
        let at = self.at(state, to.dir, to.name)?;
        let there = self.host_has(state, to.dir, to.name);
        let victim = there.flatten().filter(|victim| *victim != to.ino);
        let mut kept = false;
        if let Some(victim) = victim {
            if is_dir {
                self.make_empty(state, &at)?;
            } else if self.must_stay(state, said, victim) {
                let out = self.work_at(&work_name(victim, ""));
                out.remove_all()?;
                at.link_to(&out)?;
                kept = true;
            }
        } else if there.is_none()
            && let Some(lower) = self.lower_child(to.dir, to.name)
            && self.shows_through(state, to.dir, to.name)
        {
            self.note_replaced(state, lower);
        }
        let moved = if there == Some(None) && is_dir {
            // A directory cannot replace a whiteout, but change places with it.
            from.rename_to(&at, RenameFlags::EXCHANGE)
                .and_then(|()| if hide { Ok(()) } else { from.unlink() })
        } else if hide {
            from.rename_to(&at, RenameFlags::WHITEOUT)
        } else {
            from.rename_to(&at, RenameFlags::empty())
        };
        if let Err(error) = moved {
            if let Some(victim) = victim.filter(|_| kept) {
                let _ = self.work_at(&work_name(victim, "")).remove_all();
            }
            return Err(error);
        }
        if let Some(victim) = victim {
            self.lose_place(state, victim, to.dir, to.name, kept);
        }
        if hide {
            self.set_name(state, from_dir, from_name, None);
        } else {
            self.drop_name(state, from_dir, from_name);
        }
        self.set_name(state, to.dir, to.name, Some(to.ino));
        self.replace_place(state, to.ino, (from_dir, from_name), (to.dir, to.name));
        Ok(())
    }

    fn note_replaced(&self, state: &mut State, lower: Ino) {
        let is_dir = self
            .lower
            .attr(lower)
            .is_ok_and(|attr| attr.kind == pellicle_store::FileKind::Directory);
        if is_dir {
            self.note_removed(state, lower);
        }
    }

    /// The directory at `at` shows nothing, but may hold whiteouts: an empty one takes its place.
    fn make_empty(&self, state: &mut State, at: &At) -> Result<(), UpperError> {
        let empty = self.temporary(state);
        empty.remove_all()?;
        empty.mkdir()?;
        empty.put_xattr(&self.rights.mark(b"opaque"), b"y")?;
        empty.rename_to(at, RenameFlags::EXCHANGE)?;
        if let Err(error) = empty.remove_all() {
            tracing::warn!(%error, "what was replaced stays in the work directory");
        }
        Ok(())
    }

    fn replace_place(&self, state: &mut State, ino: Ino, from: (Ino, &[u8]), to: (Ino, &[u8])) {
        if let Some(inode) = state.inodes.get_mut(&ino) {
            inode
                .places
                .retain(|(dir, name)| (*dir, &**name) != from && (*dir, &**name) != to);
            inode.places.push((to.0, to.1.into()));
        }
    }

    fn exchange(
        &self,
        state: &mut State,
        a: &(Ino, Name, Ino),
        b: &(Ino, Name, Ino),
    ) -> Result<(), UpperError> {
        // `a` leads to what `b` led to until now, and the other way round.
        for (dir, name, ino) in [a, b] {
            if self.is_lower(*ino) && !state.inodes.contains_key(ino) {
                self.ensure_dir(state, *ino)?;
            }
            self.detach(state, *ino)?;
            let to = Lead {
                dir: *dir,
                name,
                ino: *ino,
            };
            self.close_off(state, &to)?;
        }
        let at_a = self.at(state, a.0, &a.1)?;
        let at_b = self.at(state, b.0, &b.1)?;
        at_a.rename_to(&at_b, RenameFlags::EXCHANGE)?;
        self.set_name(state, a.0, &a.1, Some(a.2));
        self.set_name(state, b.0, &b.1, Some(b.2));
        let (place_a, place_b) = ((a.0, &*a.1), (b.0, &*b.1));
        self.replace_place(state, a.2, place_b, place_a);
        self.replace_place(state, b.2, place_a, place_b);
        Ok(())
    }
}
