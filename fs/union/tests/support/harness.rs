//! Does each operation on the union and on the model, and compares.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::ControlFlow,
    sync::Arc,
};

use pellicle_union::{
    Attr, Caller, Error, FileKind, Ino, NewNode, RenameFlags, SetAttr, Time, Union,
};

use crate::{
    operation::{LENGTHS, MODES, NAMES, OFFSETS, Op, PERMS, XATTRS},
    reference::{Answer, Id, Model, ROOT},
    stand::{Pair, Stand},
    support::{content, lower::MemLower, real::Real, upper::MemUpper},
};

struct Listing {
    dir: Id,
    next: u64,
    seen: Vec<Vec<u8>>,
    /// There since the listing began.
    always: BTreeSet<Vec<u8>>,
    /// There at some time since.
    ever: BTreeSet<Vec<u8>>,
}

pub(crate) struct Harness {
    pub(crate) stand: Stand,
    /// `None` only while it is being opened anew.
    pub(crate) union: Option<Union>,
    pub(crate) model: Model,
    pub(crate) inos: HashMap<Id, Ino>,
    pub(crate) before: BTreeMap<Id, Attr>,
    listing: Option<Listing>,
    pub(crate) compacted: bool,
}

impl Harness {
    pub(crate) fn new(pair: Pair) -> Self {
        let mut lower = MemLower::new();
        let mut model = Model::new();
        lower.backed = matches!(pair, Pair::Memory { backed: true, .. });
        let mut inos = HashMap::from([(ROOT, Ino::ROOT)]);
        let mut add = |dir: Id, name: &[u8], kind, lower: &mut MemLower, content: &[u8]| {
            let at = inos[&dir];
            let text = std::str::from_utf8(name).unwrap();
            let (ino, perm) = match kind {
                FileKind::Directory => (lower.dir(at, text), 0o755),
                FileKind::Symlink => (lower.symlink(at, text, "over/there"), 0o777),
                _ => (lower.file(at, text, content), 0o644),
            };
            let id = model.add(kind, perm, dir);
            model.get(id).content = content.into();
            model.get(dir).children.insert(name.into(), id);
            if kind == FileKind::Symlink {
                model.get(id).target = b"over/there".to_vec();
            }
            inos.insert(id, ino);
            id
        };
        let (d, f, l) = (FileKind::Directory, FileKind::Regular, FileKind::Symlink);
        let a = add(ROOT, b"a", d, &mut lower, b"");
        let mut sparse = vec![0; 12_000];
        sparse[5000..5003].copy_from_slice(b"mid");
        let b = add(ROOT, b"b", f, &mut lower, &sparse);
        add(a, b"a", f, &mut lower, b"a lower file");
        add(a, b"b", l, &mut lower, b"");
        let c = add(a, b"c", d, &mut lower, b"");
        add(c, b"b", d, &mut lower, b"");
        add(c, b"c", f, &mut lower, &[b'x'; 9001]);
        let b_ino = inos[&b];
        let c_ino = inos[&c];
        lower.link(c_ino, "a", b_ino);
        model.get(c).children.insert(b"a".to_vec(), b);
        lower
            .node(b_ino)
            .xattrs
            .insert(b"user.x".to_vec(), b"lower".to_vec());
        model
            .get(b)
            .xattrs
            .insert(b"user.x".to_vec(), b"lower".to_vec());

        let stand = match pair {
            Pair::Memory { chunks, .. } => {
                let upper = MemUpper::new();
                upper.state.lock().chunks = chunks;
                Stand::Memory(Arc::new(lower), upper)
            }
            Pair::Real(upper) => Stand::Real(Real::new(&lower, upper)),
        };
        let union = stand.open();
        // Every tree numbers its inodes as it likes.
        let mut todo = vec![ROOT];
        while let Some(dir) = todo.pop() {
            for (name, id) in &model.thing(dir).children {
                let ino = union.lookup(inos[&dir], name).unwrap().ino;
                inos.insert(*id, ino);
                if model.is_dir(*id) {
                    todo.push(*id);
                }
            }
        }
        let mut harness = Self {
            stand,
            union: Some(union),
            model,
            inos,
            before: BTreeMap::new(),
            listing: None,
            compacted: false,
        };
        harness.compare();
        harness
    }

    pub(crate) fn union(&self) -> &Union {
        self.union.as_ref().unwrap()
    }

    fn node(&self, n: u8) -> Id {
        let ids: Vec<Id> = self.model.things.keys().copied().collect();
        ids[n as usize % ids.len()]
    }

    fn dir(&self, n: u8) -> Id {
        let things = self.model.things.iter();
        let dirs: Vec<Id> = things
            .filter(|(_, t)| t.kind == FileKind::Directory)
            .map(|(id, _)| *id)
            .collect();
        dirs[n as usize % dirs.len()]
    }

    fn ino(&self, id: Id) -> Ino {
        self.inos[&id]
    }

    pub(crate) fn step(&mut self, op: &Op) {
        self.model.begin_step();
        match op {
            Op::Full { after, op } => {
                self.stand.state().fail_after = Some(u32::from(*after));
                self.perform(op);
                self.stand.state().fail_after = None;
            }
            op => self.perform(op),
        }
        self.compare();
        self.watch_listing();
    }

    /// Holds the union's answer against the model's, unless the host was full.
    fn check<T: std::fmt::Debug>(
        &mut self,
        what: &Op,
        got: Result<T, Error>,
        model: impl FnOnce(&mut Model) -> Answer,
    ) -> Option<T> {
        let got = got.map_err(|e| e.errno());
        if let Err(libc::ENOSPC) = got {
            assert!(
                self.stand.state().fail_after.is_some(),
                "{what:?}: full for no reason"
            );
            self.after_full(what);
            return None;
        }
        let want = model(&mut self.model);
        assert_eq!(
            got.as_ref().err(),
            want.as_ref().err(),
            "{what:?} answered {got:?}"
        );
        got.ok()
    }

    /// A failed change of content may have changed bytes in its range and nothing else.
    fn after_full(&mut self, what: &Op) {
        let (node, offset, len) = match *what {
            Op::Write {
                node, offset, len, ..
            } => (node, offset, LENGTHS[len as usize]),
            Op::Allocate {
                node, offset, len, ..
            } => (node, offset, LENGTHS[len as usize]),
            Op::Copy { to, to_at, len, .. } => (to, to_at, LENGTHS[len as usize]),
            _ => return,
        };
        let id = self.node(node);
        let offset = OFFSETS[offset as usize];
        let now = content(self.union(), self.ino(id));
        let was = self.model.thing(id).content.clone();
        assert_eq!(now.len(), was.len(), "{what:?} failed and changed the size");
        for (at, byte) in was.iter().enumerate() {
            let inside = (offset..offset + len).contains(&at);
            assert!(
                inside || now[at] == *byte,
                "{what:?} failed and changed byte {at}"
            );
        }
        self.model.get(id).content = now;
    }

    #[allow(clippy::too_many_lines, reason = "one arm for each operation")]
    fn perform(&mut self, op: &Op) {
        match *op {
            Op::Make {
                dir,
                name,
                kind,
                perm,
            } => self.make(op, dir, name, kind, perm),
            Op::Link { node, dir, name } => {
                let (id, dir, name) = (self.node(node), self.dir(dir), NAMES[name as usize]);
                let got = self.union().link(self.ino(id), self.ino(dir), name);
                self.check(op, got, |m| m.link(id, dir, name));
            }
            Op::Unlink { dir, name } => {
                let (dir, name) = (self.dir(dir), NAMES[name as usize]);
                let got = self.union().unlink(self.ino(dir), name);
                self.check(op, got, |m| m.remove(dir, name, false));
            }
            Op::Rmdir { dir, name } => {
                let (dir, name) = (self.dir(dir), NAMES[name as usize]);
                let got = self.union().rmdir(self.ino(dir), name);
                self.check(op, got, |m| m.remove(dir, name, true));
            }
            Op::Rename {
                from,
                a,
                to,
                b,
                flags,
            } => {
                let (from, to) = (self.dir(from), self.dir(to));
                let (a, b) = (NAMES[a as usize], NAMES[b as usize]);
                let flags = RenameFlags {
                    no_replace: flags & 1 != 0,
                    exchange: flags & 2 != 0,
                };
                let got = self
                    .union()
                    .rename(self.ino(from), a, self.ino(to), b, flags);
                self.check(op, got, |m| {
                    m.rename(from, a, to, b, flags.no_replace, flags.exchange)
                });
            }
            Op::Write {
                node,
                offset,
                len,
                byte,
                kill,
            } => {
                let (id, offset) = (self.node(node), OFFSETS[offset as usize]);
                let data = vec![byte; LENGTHS[len as usize]];
                let got = self.union().write(self.ino(id), offset as u64, &data, kill);
                self.check(op, got, |m| m.write(id, offset, &data, kill));
            }
            Op::Truncate { node, size } => {
                let (id, size) = (self.node(node), OFFSETS[size as usize]);
                let set = SetAttr {
                    size: Some(size as u64),
                    ..SetAttr::default()
                };
                let got = self.union().set_attr(self.ino(id), set);
                self.check(op, got, |m| {
                    m.regular(id)?;
                    m.get(id).content.resize(size, 0);
                    m.content_changed(id);
                    Ok(())
                });
            }
            Op::Allocate {
                node,
                mode,
                offset,
                len,
            } => self.allocate(op, node, mode, offset, len),
            Op::Copy {
                from,
                at,
                to,
                to_at,
                len,
            } => self.copy(op, from, at, to, to_at, len),
            Op::Chmod { node, perm } => {
                let (id, perm) = (self.node(node), PERMS[perm as usize]);
                if self.is_spared(id, b"mode") {
                    return;
                }
                let set = SetAttr {
                    perm: Some(perm),
                    ..SetAttr::default()
                };
                let got = self.union().set_attr(self.ino(id), set);
                self.check(op, got, |m| {
                    m.get(id).perm = perm;
                    m.touch_change(id);
                    Ok(())
                });
            }
            Op::Chown { node, who } => {
                let (id, who) = (self.node(node), u32::from(who));
                let set = SetAttr {
                    uid: Some(who),
                    gid: (who > 0).then_some(who),
                    ..SetAttr::default()
                };
                let got = self.union().set_attr(self.ino(id), set);
                self.check(op, got, |m| {
                    m.get(id).uid = who;
                    if who > 0 {
                        m.get(id).gid = who;
                    }
                    m.clear_set_id(id);
                    if !m.is_dir(id) {
                        m.get(id).xattrs.remove(XATTRS[2]);
                    }
                    m.touch_change(id);
                    Ok(())
                });
            }
            Op::Utimens { node, time } => {
                let id = self.node(node);
                let time = Time {
                    sec: -5 + i64::from(time),
                    nsec: 999_999_999,
                };
                let set = SetAttr {
                    atime: Some(time),
                    mtime: Some(time),
                    ..SetAttr::default()
                };
                let got = self.union().set_attr(self.ino(id), set);
                // The host's links are read at a mount, which changes their access time.
                let keeps_atime = !self.is_spared(id, b"atime");
                self.check(op, got, |m| {
                    m.touch(id);
                    m.get(id).atime = keeps_atime.then_some(time);
                    m.get(id).mtime = Some(time);
                    Ok(())
                });
            }
            Op::SetXattr {
                node,
                name,
                value,
                flag,
            } => {
                let (id, name) = (self.node(node), XATTRS[name as usize]);
                if self.is_spared(id, name) {
                    return;
                }
                let mut value = vec![b'v'; value as usize * 3];
                if self.stand.is_dir_upper() && name == b"security.capability" {
                    // The host takes only what capabilities(7) describes: version 2, and two sets.
                    value = [&[0, 0, 0, 2], [value.len() as u8; 16].as_slice()].concat();
                }
                let (create, replace) = (flag == 1, flag == 2);
                let got = self
                    .union()
                    .set_xattr(self.ino(id), name, &value, create, replace);
                self.check(op, got, |m| {
                    let there = m.thing(id).xattrs.contains_key(name);
                    match (create, replace, there) {
                        (true, _, true) => return Err(libc::EEXIST),
                        (_, true, false) => return Err(libc::ENODATA),
                        _ => (),
                    }
                    m.get(id).xattrs.insert(name.into(), value);
                    m.touch_change(id);
                    Ok(())
                });
            }
            Op::RemoveXattr { node, name } => {
                let (id, name) = (self.node(node), XATTRS[name as usize]);
                let got = self.union().remove_xattr(self.ino(id), name);
                self.check(op, got, |m| {
                    m.get(id).xattrs.remove(name).ok_or(libc::ENODATA)?;
                    m.touch_change(id);
                    Ok(())
                });
            }
            Op::Hold { node } => {
                let id = self.node(node);
                self.union().remember(self.ino(id));
                self.model.get(id).held += 1;
            }
            Op::Release { node } => {
                let things = self.model.things.iter();
                let held: Vec<Id> = things
                    .filter(|(_, t)| t.held > 0)
                    .map(|(id, _)| *id)
                    .collect();
                if let Some(id) = held.get(node as usize % held.len().max(1)) {
                    self.union().forget(self.ino(*id), 1);
                    self.model.release(*id);
                }
            }
            Op::ListBegin { dir } => {
                let dir = self.dir(dir);
                let present: BTreeSet<_> = self.model.thing(dir).children.keys().cloned().collect();
                self.listing = Some(Listing {
                    dir,
                    next: 0,
                    seen: Vec::new(),
                    always: present.clone(),
                    ever: present,
                });
            }
            Op::ListMore { n } => self.list_more(n),
            Op::Remount { compact } => {
                self.listing = None;
                self.compacted |= compact;
                self.stand.state().compact_next = compact;
                self.union = None;
                self.union = Some(self.stand.open());
                self.model.remount();
                if self.stand.is_dir_upper() {
                    self.compacted = true;
                    self.forget_change_times();
                }
            }
            Op::Full { .. } => unreachable!("is never nested"),
        }
    }

    /// The kernel lets nobody ask for the mode of a link, nor for `user.` attributes there
    /// (`xattr(7)`), and no host keeps them.
    fn is_spared(&self, id: Id, what: &[u8]) -> bool {
        let is_link = self.model.thing(id).kind == FileKind::Symlink;
        self.stand.is_dir_upper()
            && is_link
            && (!what.contains(&b'.') || what.starts_with(b"user."))
    }

    fn forget_change_times(&mut self) {
        let mut before = std::mem::take(&mut self.before);
        for attr in before.values_mut() {
            if let Ok(now) = self.union().attr(attr.ino) {
                attr.ctime = now.ctime;
            }
        }
        self.before = before;
    }

    fn make(&mut self, op: &Op, dir: u8, name: u8, kind: u8, perm: u8) {
        let (dir, name) = (self.dir(dir), NAMES[name as usize]);
        let perm = PERMS[perm as usize];
        let who = Caller {
            uid: 5,
            gid: 5,
            umask: 0o022,
        };
        let what = match kind {
            0 | 1 => NewNode::Regular,
            2 => NewNode::Directory,
            _ => NewNode::Symlink(b"to"),
        };
        let got = self.union().make(self.ino(dir), name, what, perm, who);
        let mut made = None;
        let attr = self.check(op, got, |m| {
            let id = m.make(dir, name, what.kind(), perm, 0o022)?;
            if kind > 2 {
                m.get(id).target = b"to".to_vec();
            }
            made = Some(id);
            Ok(())
        });
        if let (Some(id), Some(attr)) = (made, attr) {
            let reused = self.inos.values().any(|ino| *ino == attr.ino);
            assert!(!reused, "{op:?} gave number {} a second time", attr.ino);
            self.inos.insert(id, attr.ino);
        }
    }

    fn allocate(&mut self, op: &Op, node: u8, mode: u8, offset: u8, len: u8) {
        let (id, mode) = (self.node(node), MODES[mode as usize]);
        let (offset, len) = (OFFSETS[offset as usize], LENGTHS[len as usize]);
        let got = self
            .union()
            .fallocate(self.ino(id), mode, offset as u64, len as u64, false);
        self.check(op, got, |m| {
            if mode & libc::FALLOC_FL_COLLAPSE_RANGE != 0 {
                return Err(libc::EOPNOTSUPP);
            }
            m.regular(id)?;
            if mode & (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE) != 0 {
                m.zero(id, offset, offset + len);
            }
            if mode & libc::FALLOC_FL_KEEP_SIZE == 0 {
                m.grow(id, offset + len);
            }
            m.content_changed(id);
            Ok(())
        });
    }

    fn copy(&mut self, op: &Op, from: u8, at: u8, to: u8, to_at: u8, len: u8) {
        let (from, to) = (self.node(from), self.node(to));
        let (at, to_at) = (OFFSETS[at as usize], OFFSETS[to_at as usize]);
        let len = LENGTHS[len as usize];
        let (a, b) = (self.ino(from), self.ino(to));
        let got = self
            .union()
            .copy_range(a, at as u64, b, to_at as u64, len as u64, false);
        let mut copied = 0;
        let n = self.check(op, got, |m| {
            m.regular(from)?;
            m.regular(to)?;
            if from == to && at < to_at + len && to_at < at + len {
                return Err(libc::EINVAL);
            }
            let source = m.thing(from).content.clone();
            let data = source.get(at..).unwrap_or_default();
            let data = &data[..data.len().min(len)];
            copied = data.len();
            m.write(to, to_at, data, false)
        });
        if let Some(n) = n {
            assert_eq!(n, copied as u64);
        }
    }

    fn list_more(&mut self, n: u8) {
        let Some(listing) = &mut self.listing else {
            return;
        };
        if !self.model.things.contains_key(&listing.dir) {
            self.listing = None;
            return;
        }
        let (mut left, mut ended) = (n, true);
        let (seen, next) = (&mut listing.seen, &mut listing.next);
        self.union
            .as_ref()
            .unwrap()
            .list(self.inos[&listing.dir], *next, &mut |e| {
                if left == 0 {
                    ended = false;
                    return ControlFlow::Break(());
                }
                left -= 1;
                seen.push(e.name.to_vec());
                *next = e.next;
                ControlFlow::Continue(())
            })
            .unwrap();
        if !ended {
            return;
        }
        let listing = self.listing.take().unwrap();
        for name in &listing.always {
            let times = listing.seen.iter().filter(|n| *n == name).count();
            assert_eq!(times, 1, "{name:?} was there all the time");
        }
        for name in &listing.seen {
            assert!(listing.ever.contains(name), "{name:?} was never there");
        }
    }

    fn watch_listing(&mut self) {
        let Some(listing) = &mut self.listing else {
            return;
        };
        let Some(dir) = self.model.things.get(&listing.dir) else {
            return;
        };
        listing
            .always
            .retain(|name| dir.children.contains_key(name));
        listing.ever.extend(dir.children.keys().cloned());
    }
}
