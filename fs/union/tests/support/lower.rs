//! A read-only tree in memory.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs::File,
    io::Write,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use pellicle_layer::{Entry, Lower, LowerError};
use pellicle_union::{Attr, Device, FileKind, Ino, Time};

#[derive(Clone)]
pub(crate) struct LowerNode {
    pub(crate) attr: Attr,
    pub(crate) content: Vec<u8>,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) children: Vec<(Vec<u8>, Ino)>,
    pub(crate) parent: Ino,
    backing: OnceLock<Option<Arc<File>>>,
}

/// Built name by name, then only read.
pub(crate) struct MemLower {
    pub(crate) nodes: Vec<LowerNode>,
    /// Give regular files as host files too.
    pub(crate) backed: bool,
    /// Lead from inodes to their names.
    pub(crate) tells_names: bool,
    /// Questions about names and attributes so far.
    pub(crate) asked: AtomicU64,
}

pub(crate) const LONG_AGO: Time = Time {
    sec: 1_000,
    nsec: 7,
};

impl MemLower {
    pub(crate) fn new() -> Self {
        let mut lower = Self {
            nodes: Vec::new(),
            backed: false,
            tells_names: true,
            asked: AtomicU64::new(0),
        };
        lower.push(FileKind::Directory, 0o755, Vec::new(), Ino::ROOT);
        lower
    }

    fn push(&mut self, kind: FileKind, perm: u16, content: Vec<u8>, parent: Ino) -> Ino {
        let ino = Ino(self.nodes.len() as u64 + 1);
        let size = if kind == FileKind::Directory {
            4096
        } else {
            content.len() as u64
        };
        self.nodes.push(LowerNode {
            attr: Attr {
                ino,
                kind,
                perm,
                nlink: if kind == FileKind::Directory { 2 } else { 1 },
                uid: 0,
                gid: 0,
                rdev: Device::default(),
                size,
                blocks: size.div_ceil(512),
                atime: LONG_AGO,
                mtime: LONG_AGO,
                ctime: LONG_AGO,
            },
            content,
            xattrs: BTreeMap::new(),
            children: Vec::new(),
            parent,
            backing: OnceLock::new(),
        });
        ino
    }

    pub(crate) fn node(&mut self, ino: Ino) -> &mut LowerNode {
        &mut self.nodes[ino.0 as usize - 1]
    }

    fn name(&mut self, dir: Ino, name: &str, ino: Ino) {
        let children = &mut self.node(dir).children;
        children.push((name.into(), ino));
        children.sort();
    }

    pub(crate) fn dir(&mut self, dir: Ino, name: &str) -> Ino {
        let ino = self.push(FileKind::Directory, 0o755, Vec::new(), dir);
        self.name(dir, name, ino);
        self.node(dir).attr.nlink += 1;
        ino
    }

    pub(crate) fn file(&mut self, dir: Ino, name: &str, content: &[u8]) -> Ino {
        let ino = self.push(FileKind::Regular, 0o644, content.to_vec(), Ino::ROOT);
        self.name(dir, name, ino);
        ino
    }

    /// Empty files `000000`, `000001`, … in an empty directory.
    pub(crate) fn numbered_files(&mut self, dir: Ino, count: u32) {
        for n in 0..count {
            let ino = self.push(FileKind::Regular, 0o644, Vec::new(), Ino::ROOT);
            let name = format!("{n:06}").into_bytes();
            self.node(dir).children.push((name, ino));
        }
    }

    pub(crate) fn symlink(&mut self, dir: Ino, name: &str, target: &str) -> Ino {
        let ino = self.push(FileKind::Symlink, 0o777, target.into(), Ino::ROOT);
        self.name(dir, name, ino);
        ino
    }

    pub(crate) fn link(&mut self, dir: Ino, name: &str, ino: Ino) {
        self.node(ino).attr.nlink += 1;
        self.name(dir, name, ino);
    }

    fn get(&self, ino: Ino) -> Result<&LowerNode, LowerError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.nodes
            .get((ino.0 as usize).wrapping_sub(1))
            .ok_or(LowerError::NoSuchNode {
                ino,
                wanted: "node",
            })
    }

    fn of_kind(
        &self,
        ino: Ino,
        kind: FileKind,
        wanted: &'static str,
    ) -> Result<&LowerNode, LowerError> {
        let node = self.get(ino)?;
        if node.attr.kind != kind {
            return Err(LowerError::NoSuchNode { ino, wanted });
        }
        Ok(node)
    }

    fn a_dir(&self, ino: Ino) -> Result<&LowerNode, LowerError> {
        self.of_kind(ino, FileKind::Directory, "directory")
    }

    fn a_file(&self, ino: Ino) -> Result<&LowerNode, LowerError> {
        self.of_kind(ino, FileKind::Regular, "regular file")
    }
}

impl Lower for MemLower {
    fn inode_count(&self) -> u64 {
        self.nodes.len() as u64
    }

    fn identity(&self) -> [u8; 32] {
        [7; 32]
    }

    fn attr(&self, ino: Ino) -> Result<Attr, LowerError> {
        Ok(self.get(ino)?.attr)
    }

    fn lookup(&self, dir: Ino, name: &[u8]) -> Result<Option<(Ino, FileKind)>, LowerError> {
        let node = self.a_dir(dir)?;
        let found = node
            .children
            .binary_search_by(|(n, _)| n.as_slice().cmp(name));
        Ok(found.ok().map(|at| {
            let ino = node.children[at].1;
            (ino, self.get(ino).unwrap().attr.kind)
        }))
    }

    fn entry(&self, dir: Ino, at: u64) -> Result<Option<Entry<'_>>, LowerError> {
        let node = self.a_dir(dir)?;
        Ok(node.children.get(at as usize).map(|(name, ino)| Entry {
            name,
            ino: *ino,
            kind: self.get(*ino).unwrap().attr.kind,
        }))
    }

    fn parent(&self, dir: Ino) -> Result<Ino, LowerError> {
        Ok(self.a_dir(dir)?.parent)
    }

    fn readlink(&self, ino: Ino) -> Result<Cow<'_, [u8]>, LowerError> {
        let node = self.of_kind(ino, FileKind::Symlink, "symbolic link")?;
        Ok(Cow::Borrowed(&node.content))
    }

    fn has_xattrs(&self, ino: Ino) -> Result<bool, LowerError> {
        Ok(!self.get(ino)?.xattrs.is_empty())
    }

    fn xattrs(&self, ino: Ino, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), LowerError> {
        for (name, value) in &self.get(ino)?.xattrs {
            each(name, value);
        }
        Ok(())
    }

    fn read(&self, ino: Ino, offset: u64, buf: &mut [u8]) -> Result<usize, LowerError> {
        let content = &self.a_file(ino)?.content;
        let from = content.get(offset as usize..).unwrap_or_default();
        let n = from.len().min(buf.len());
        buf[..n].copy_from_slice(&from[..n]);
        Ok(n)
    }

    fn backing(&self, ino: Ino) -> Result<Option<Arc<File>>, LowerError> {
        let node = self.a_file(ino)?;
        let made = node.backing.get_or_init(|| {
            self.backed.then(|| {
                let mut file = tempfile::tempfile().unwrap();
                file.write_all(&node.content).unwrap();
                Arc::new(file)
            })
        });
        Ok(made.clone())
    }

    fn seek(&self, ino: Ino, offset: u64, data: bool) -> Result<Option<u64>, LowerError> {
        // Blocks of 4096 zeros are holes.
        let content = &self.a_file(ino)?.content;
        let mut at = offset as usize;
        while at < content.len() {
            let end = (at / 4096 + 1) * 4096;
            let block = &content[at / 4096 * 4096..end.min(content.len())];
            if block.iter().any(|b| *b != 0) == data {
                return Ok(Some(at as u64));
            }
            at = end;
        }
        Ok((!data && offset < content.len() as u64).then_some(content.len() as u64))
    }

    fn names_of(&self, ino: Ino, each: &mut dyn FnMut(Ino, &[u8])) -> Result<bool, LowerError> {
        self.get(ino)?;
        for (at, node) in (1..).zip(&self.nodes).filter(|_| self.tells_names) {
            let found = node.children.iter().filter(|(_, child)| *child == ino);
            found.for_each(|(name, _)| each(Ino(at), name));
        }
        Ok(self.tells_names)
    }

    fn layer_of(&self, _: Ino) -> Result<u32, LowerError> {
        Ok(0)
    }
}
