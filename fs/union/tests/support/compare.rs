//! Holds the whole tree of the union against the model's.

use std::collections::BTreeMap;

use pellicle_union::{Attr, Error, FileKind, Ino};

use crate::{
    harness::Harness,
    operation::NAMES,
    reference::Id,
    support::{content, names},
};

impl Harness {
    /// The whole tree, and what is open without a name.
    pub(crate) fn compare(&mut self) {
        let mut seen = BTreeMap::new();
        for (id, thing) in &self.model.things {
            let ino = self.inos[id];
            let attr = self
                .union()
                .attr(ino)
                .unwrap_or_else(|e| panic!("{ino}: {e}"));
            assert_eq!((attr.ino, attr.kind), (ino, thing.kind));
            assert_eq!(
                attr.perm, thing.perm,
                "mode of {ino}: {:o} {:o}",
                attr.perm, thing.perm
            );
            assert_eq!(
                (attr.uid, attr.gid),
                (thing.uid, thing.gid),
                "owner of {ino}"
            );
            assert_eq!(attr.nlink, self.model.nlink(*id), "links of {ino}");
            self.compare_times(*id, &attr);
            self.compare_xattrs(*id);
            match thing.kind {
                FileKind::Regular => {
                    assert!(
                        content(self.union(), ino) == thing.content,
                        "content of {ino}"
                    );
                    self.compare_holes(ino, &thing.content);
                }
                FileKind::Symlink => {
                    assert_eq!(self.union().readlink(ino).unwrap(), thing.target);
                    assert_eq!(attr.size, thing.target.len() as u64);
                }
                _ => self.compare_dir(*id),
            }
            seen.insert(*id, attr);
        }
        for (id, ino) in &self.inos {
            // A compacted log speaks no more of a lower inode whose names are all whited out.
            let unspoken = ino.0 <= self.stand.lower_count() && self.compacted;
            if !self.model.things.contains_key(id) && !unspoken {
                assert!(self.union().attr(*ino).is_err(), "{ino} should be gone");
            }
        }
        self.before = seen;
    }

    fn compare_dir(&self, id: Id) {
        let (ino, thing) = (self.inos[&id], self.model.thing(id));
        let listed = names(self.union(), ino);
        let found: BTreeMap<_, _> = listed
            .iter()
            .map(|(name, ino, _)| (name.clone(), *ino))
            .collect();
        let wanted: BTreeMap<_, _> = thing
            .children
            .iter()
            .map(|(n, c)| (n.clone(), self.inos[c]))
            .collect();
        assert_eq!(listed.len(), found.len(), "a name of {ino} is listed twice");
        assert_eq!(found, wanted, "names of {ino}");
        for (name, child, kind) in &listed {
            let attr = self.union().lookup(ino, name).unwrap();
            assert_eq!((attr.ino, attr.kind), (*child, *kind), "d_ino is st_ino");
        }
        for name in NAMES.iter().filter(|n| !thing.children.contains_key(**n)) {
            assert!(matches!(
                self.union().lookup(ino, name),
                Err(Error::NotFound)
            ));
        }
        if self.model.nlink(id) > 0 {
            assert_eq!(self.union().parent(ino).unwrap(), self.inos[&thing.parent]);
        }
    }

    fn compare_times(&self, id: Id, attr: &Attr) {
        let thing = self.model.thing(id);
        if let Some(mtime) = thing.mtime {
            assert_eq!(attr.mtime, mtime);
        }
        if let Some(atime) = thing.atime {
            assert_eq!(attr.atime, atime);
        }
        if let Some(before) = self.before.get(&id) {
            let (modified, changed) = (
                self.model.modified.contains(&id),
                self.model.changed.contains(&id),
            );
            assert!(
                modified || attr.mtime == before.mtime,
                "mtime of {} changed",
                attr.ino
            );
            assert!(!modified || thing.mtime.is_some() || attr.mtime > before.mtime);
            assert_eq!(changed, attr.ctime > before.ctime, "ctime of {}", attr.ino);
        }
    }

    fn compare_xattrs(&self, id: Id) {
        let (ino, thing) = (self.inos[&id], self.model.thing(id));
        let mut list = Vec::new();
        for (name, value) in &thing.xattrs {
            list.extend_from_slice(name);
            list.push(0);
            assert_eq!(self.union().xattr(ino, name).unwrap(), *value);
        }
        assert_eq!(
            self.union().xattr_names(ino).unwrap(),
            list,
            "xattrs of {ino}"
        );
    }

    /// What is said to be a hole is zeros, and seeking goes over the whole file.
    fn compare_holes(&self, ino: Ino, content: &[u8]) {
        let (size, mut at) = (content.len() as u64, 0);
        while at < size {
            let data = match self.union().seek(ino, at, true) {
                Ok(data) => data,
                Err(Error::NoSuchOffset) => size,
                Err(e) => panic!("seek in {ino}: {e}"),
            };
            assert!(
                content[at as usize..data as usize].iter().all(|b| *b == 0),
                "hole of {ino}"
            );
            at = data;
            if at < size {
                let hole = self.union().seek(ino, at, false).unwrap();
                assert!(hole > at && hole <= size);
                at = hole;
            }
        }
        assert!(matches!(
            self.union().seek(ino, size, false),
            Err(Error::NoSuchOffset)
        ));
    }
}
