//! A read-only tree in memory.

use std::{borrow::Cow, collections::BTreeMap, fs::File, sync::Arc, time::Duration};

use pellicle_layer::{Entry, Lower, LowerError};
use pellicle_store::{Attr, Device, FileKind, Ino, Time};

struct Node {
    attr: Attr,
    parent: Ino,
    entries: Vec<(Vec<u8>, Ino)>,
    content: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    file: Option<Arc<File>>,
    trouble: Option<Trouble>,
}

/// What reading a file runs into.
#[derive(Clone, Copy)]
pub(crate) enum Trouble {
    Bug,
    Damage,
    /// It takes this long.
    Slow(Duration),
}

pub(crate) struct MemoryLower {
    nodes: Vec<Node>,
}

/// 2020-01-01 and some nanoseconds.
pub(crate) const LONG_AGO: Time = Time {
    sec: 1_577_836_800,
    nsec: 123_456_789,
};

impl MemoryLower {
    pub(crate) fn new() -> Self {
        let mut this = Self { nodes: Vec::new() };
        this.push(FileKind::Directory, 0o755, Ino::ROOT);
        this
    }

    fn push(&mut self, kind: FileKind, perm: u16, parent: Ino) -> Ino {
        let ino = Ino(self.nodes.len() as u64 + 1);
        let attr = Attr {
            ino,
            kind,
            perm,
            nlink: if kind == FileKind::Directory { 2 } else { 0 },
            // Whoever runs the test owns the tree.
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            rdev: Device::default(),
            size: 0,
            blocks: 0,
            atime: LONG_AGO,
            mtime: LONG_AGO,
            ctime: LONG_AGO,
        };
        self.nodes.push(Node {
            attr,
            parent,
            entries: Vec::new(),
            content: Vec::new(),
            xattrs: BTreeMap::new(),
            file: None,
            trouble: None,
        });
        ino
    }

    pub(crate) fn node(&mut self, dir: Ino, name: &str, kind: FileKind, perm: u16) -> Ino {
        let ino = self.push(kind, perm, dir);
        self.link(dir, name, ino);
        if kind == FileKind::Directory {
            self.at(dir).attr.nlink += 1;
        }
        ino
    }

    pub(crate) fn link(&mut self, dir: Ino, name: &str, ino: Ino) {
        if self.at(ino).attr.kind != FileKind::Directory {
            self.at(ino).attr.nlink += 1;
        }
        let entries = &mut self.at(dir).entries;
        entries.push((name.as_bytes().to_vec(), ino));
        entries.sort();
    }

    pub(crate) fn dir(&mut self, dir: Ino, name: &str) -> Ino {
        self.node(dir, name, FileKind::Directory, 0o755)
    }

    pub(crate) fn file(&mut self, dir: Ino, name: &str, content: &[u8]) -> Ino {
        let ino = self.node(dir, name, FileKind::Regular, 0o644);
        let node = self.at(ino);
        node.content = content.to_vec();
        node.attr.size = content.len() as u64;
        node.attr.blocks = (content.len() as u64).div_ceil(512);
        ino
    }

    /// Puts the content into a host file as well, for passthrough.
    pub(crate) fn back(&mut self, ino: Ino) {
        use std::io::Write;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&self.at(ino).content).unwrap();
        self.at(ino).file = Some(Arc::new(file));
    }

    pub(crate) fn symlink(&mut self, dir: Ino, name: &str, target: &str) -> Ino {
        let ino = self.node(dir, name, FileKind::Symlink, 0o777);
        let node = self.at(ino);
        node.content = target.as_bytes().to_vec();
        node.attr.size = target.len() as u64;
        ino
    }

    pub(crate) fn xattr(&mut self, ino: Ino, name: &str, value: &[u8]) {
        self.at(ino)
            .xattrs
            .insert(name.as_bytes().to_vec(), value.to_vec());
    }

    pub(crate) fn trouble(&mut self, ino: Ino, what: Trouble) {
        self.at(ino).trouble = Some(what);
    }

    pub(crate) fn attr_mut(&mut self, ino: Ino) -> &mut Attr {
        &mut self.at(ino).attr
    }

    fn at(&mut self, ino: Ino) -> &mut Node {
        &mut self.nodes[ino.0 as usize - 1]
    }

    fn get(&self, ino: Ino, wanted: &'static str) -> Result<&Node, LowerError> {
        (ino.0 as usize)
            .checked_sub(1)
            .and_then(|i| self.nodes.get(i))
            .ok_or(LowerError::NoSuchNode { ino, wanted })
    }
}

impl Lower for MemoryLower {
    fn inode_count(&self) -> u64 {
        self.nodes.len() as u64
    }

    fn identity(&self) -> [u8; 32] {
        [7; 32]
    }

    fn attr(&self, ino: Ino) -> Result<Attr, LowerError> {
        Ok(self.get(ino, "node")?.attr)
    }

    fn lookup(&self, dir: Ino, name: &[u8]) -> Result<Option<(Ino, FileKind)>, LowerError> {
        let node = self.get(dir, "directory")?;
        Ok(node
            .entries
            .iter()
            .find(|(n, _)| n == name)
            .map(|&(_, ino)| (ino, self.nodes[ino.0 as usize - 1].attr.kind)))
    }

    fn entry(&self, dir: Ino, at: u64) -> Result<Option<Entry<'_>>, LowerError> {
        let node = self.get(dir, "directory")?;
        Ok(node.entries.get(at as usize).map(|(name, ino)| Entry {
            name,
            ino: *ino,
            kind: self.nodes[ino.0 as usize - 1].attr.kind,
        }))
    }

    fn parent(&self, dir: Ino) -> Result<Ino, LowerError> {
        Ok(self.get(dir, "directory")?.parent)
    }

    fn readlink(&self, ino: Ino) -> Result<Cow<'_, [u8]>, LowerError> {
        Ok(Cow::Borrowed(&self.get(ino, "symbolic link")?.content))
    }

    fn has_xattrs(&self, ino: Ino) -> Result<bool, LowerError> {
        Ok(!self.get(ino, "node")?.xattrs.is_empty())
    }

    fn xattrs(&self, ino: Ino, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), LowerError> {
        self.get(ino, "node")?
            .xattrs
            .iter()
            .for_each(|(n, v)| each(n, v));
        Ok(())
    }

    fn read(&self, ino: Ino, offset: u64, buf: &mut [u8]) -> Result<usize, LowerError> {
        let node = self.get(ino, "regular file")?;
        match node.trouble {
            None => {}
            Some(Trouble::Bug) => panic!("a bug made for the test"),
            Some(Trouble::Slow(time)) => std::thread::sleep(time),
            Some(Trouble::Damage) => {
                return Err(LowerError::Corrupt {
                    what: "an object".into(),
                    detail: "bad".into(),
                });
            }
        }
        let content = &node.content;
        let rest = content.get(offset as usize..).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn backing(&self, ino: Ino) -> Result<Option<Arc<File>>, LowerError> {
        Ok(self.get(ino, "regular file")?.file.clone())
    }

    fn seek(&self, ino: Ino, offset: u64, data: bool) -> Result<Option<u64>, LowerError> {
        let size = self.get(ino, "regular file")?.attr.size;
        Ok((offset < size).then_some(if data { offset } else { size }))
    }

    fn layer_of(&self, _ino: Ino) -> Result<u32, LowerError> {
        Ok(0)
    }
}
