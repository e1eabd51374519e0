//! Many layers into one tree, as the OCI image specification (layer.md) says.
//!
//! Layers are laid on from the lowest up. Within a layer an opaque directory first loses what
//! lower layers put into it, then whiteouts take names away, then the layer's own entries are set,
//! so that a layer's whiteouts never hide what the layer itself brings ("Whiteout files MUST only
//! apply to resources in lower/parent layers"). A directory over a directory merges with it and
//! brings its metadata, unless the layer only implies it; everything else replaces what was there.

use std::collections::HashMap;

use crate::{
    Child, Content, Device, FileKind, Ino, Meta, NodeId, Tree, TreeBuilder,
    tree::{Body, TreeError},
};

/// What becomes of whiteouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whiteouts {
    /// They hide what is below, and are not seen.
    Apply,
    /// They are seen as empty files `.wh.name` and `.wh..wh..opq` and hide nothing: for looking
    /// into one layer.
    Show,
}

/// Flattens `layers`, lowest first.
///
/// # Errors
/// Damage found in a layer.
pub fn flatten(layers: &[Tree], whiteouts: Whiteouts) -> Result<TreeBuilder, TreeError> {
    let mut out = TreeBuilder::new();
    for (index, tree) in layers.iter().enumerate() {
        Overlay {
            tree,
            layer: u32::try_from(index).unwrap_or(u32::MAX),
            whiteouts,
            links: HashMap::new(),
            names: 0,
            out: &mut out,
        }
        .apply()?;
    }
    Ok(out)
}

/// One layer being laid on.
struct Overlay<'a> {
    tree: &'a Tree,
    layer: u32,
    whiteouts: Whiteouts,
    /// What the layer's inodes with several names have become.
    links: HashMap<Ino, NodeId>,
    /// Names brought so far: a tree that was tampered with must not make this run for ever.
    names: u64,
    out: &'a mut TreeBuilder,
}

/// A directory of the layer that has a place in the tree.
struct Pair {
    from: Ino,
    to: NodeId,
}

impl Overlay<'_> {
    fn apply(&mut self) -> Result<(), TreeError> {
        let root = Pair {
            from: Ino::ROOT,
            to: self.out.root(),
        };
        let first = self.layer == 0;
        self.merge_directory(&root, first)?;
        let mut queue = vec![root];
        let mut directories = 0;
        while let Some(dir) = queue.pop() {
            directories += 1;
            if directories > self.tree.inode_count() {
                return Err(self
                    .tree
                    .contradiction("its directories contain each other"));
            }
            self.hide(&dir)?;
            self.bring(&dir, &mut queue)?;
        }
        Ok(())
    }

    /// What the layer says of a directory that is there already. `fresh`: it says the first word.
    fn merge_directory(&mut self, dir: &Pair, fresh: bool) -> Result<(), TreeError> {
        if fresh || !self.tree.is_implied(dir.from)? {
            *self.out.meta_mut(dir.to) = self.meta(dir.from)?;
            self.out.set_layer(dir.to, self.layer);
        }
        Ok(())
    }

    fn hide(&mut self, dir: &Pair) -> Result<(), TreeError> {
        let opaque = self.tree.is_opaque(dir.from)?;
        if opaque {
            match self.whiteouts {
                Whiteouts::Apply => self.out.clear_children(dir.to),
                Whiteouts::Show => self.show(dir, b".wh..opq"),
            }
        }
        let mut at = 0;
        while let Some(name) = self.tree.whiteout(dir.from, at)? {
            match self.whiteouts {
                Whiteouts::Apply => self.out.remove_child(dir.to, name),
                Whiteouts::Show => self.show(dir, name),
            }
            at += 1;
        }
        Ok(())
    }

    /// Puts an empty file `.wh.name` there.
    fn show(&mut self, dir: &Pair, name: &[u8]) {
        let body = Body::Regular {
            size: 0,
            content: Content::Empty,
        };
        let meta = Meta {
            perm: 0o644,
            ..Meta::default()
        };
        let node = self.out.add_node(meta, body);
        self.out.set_layer(node, self.layer);
        let shown = [b".wh.", name].concat();
        self.out.set_child(dir.to, &shown, Child::Node(node));
    }

    fn bring(&mut self, dir: &Pair, queue: &mut Vec<Pair>) -> Result<(), TreeError> {
        let mut at = 0;
        while let Some(entry) = self.tree.entry(dir.from, at)? {
            at += 1;
            self.names += 1;
            if self.names > self.tree.name_count() {
                return Err(self.tree.contradiction("its directories share their names"));
            }
            if entry.kind != FileKind::Directory {
                let node = self.node(entry.ino)?;
                self.out.set_child(dir.to, entry.name, Child::Node(node));
                continue;
            }
            let old = match self.out.child(dir.to, entry.name) {
                Some(Child::Node(n)) if self.out.kind(n) == FileKind::Directory => Some(n),
                _ => None,
            };
            let to = match old {
                Some(to) => to,
                None => {
                    let to = self.out.add_node(Meta::default(), Body::Directory);
                    self.out.set_child(dir.to, entry.name, Child::Node(to));
                    to
                }
            };
            let pair = Pair {
                from: entry.ino,
                to,
            };
            self.merge_directory(&pair, old.is_none())?;
            queue.push(pair);
        }
        Ok(())
    }

    /// The node for an inode that is no directory; one for all its names.
    fn node(&mut self, ino: Ino) -> Result<NodeId, TreeError> {
        if let Some(node) = self.links.get(&ino) {
            return Ok(*node);
        }
        let attr = self.tree.attr(ino)?;
        let body = self.body(ino, attr.kind, attr.rdev)?;
        let node = self.out.add_node(self.meta(ino)?, body);
        self.out.set_layer(node, self.layer);
        if attr.nlink > 1 {
            self.links.insert(ino, node);
        }
        Ok(node)
    }

    fn meta(&self, ino: Ino) -> Result<Meta, TreeError> {
        let attr = self.tree.attr(ino)?;
        let mut xattrs = Vec::new();
        self.tree.xattrs(ino, &mut |name, value| {
            xattrs.push((name.to_vec(), value.to_vec()));
        })?;
        Ok(Meta {
            perm: attr.perm,
            uid: attr.uid,
            gid: attr.gid,
            atime: attr.atime,
            mtime: attr.mtime,
            ctime: attr.ctime,
            xattrs,
        })
    }

    fn body(&self, ino: Ino, kind: FileKind, rdev: Device) -> Result<Body, TreeError> {
        Ok(match kind {
            FileKind::Directory => Body::Directory,
            FileKind::Regular => {
                let (content, size) = self.tree.content_and_size(ino)?;
                Body::Regular {
                    size,
                    content: content.to_content(),
                }
            }
            FileKind::Symlink => Body::Symlink(self.tree.readlink(ino)?.to_vec()),
            FileKind::CharDevice => Body::CharDevice(rdev),
            FileKind::BlockDevice => Body::BlockDevice(rdev),
            FileKind::Fifo => Body::Fifo,
            FileKind::Socket => Body::Socket,
        })
    }
}
