//! A layer's tree out of what was told of it.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::Write as _,
    sync::Arc,
};

use pellicle_store::{
    Attr, Body, Child, Content, Digest, Extent, FileKind, INLINE_MAX, INLINE_TOTAL_MAX, Ino,
    NodeId, Packed, Store, StoreError, Taking, TreeBuilder,
};
use pellicle_upper::ContentSource;

use super::CommitError;
use crate::{
    Union, Watch,
    request::{LayerChange, LayerEntry},
    table::Found,
};

/// A file of which less than this part of its bytes is holes is one whole object all the same, so
/// that it can be moved; the object keeps its holes on the host.
const HOLES_COUNT_FROM: u64 = 8;

pub(super) struct Builder<'a> {
    union: &'a Union,
    store: &'a Store,
    watch: &'a Watch<'a>,
    tree: TreeBuilder,
    /// Directories of the layer, by path.
    dirs: BTreeMap<Vec<u8>, NodeId>,
    /// What inodes that are no directories have become.
    nodes: HashMap<Ino, NodeId>,
    moved: u64,
    sockets: u64,
}

impl<'a> Builder<'a> {
    pub(super) fn new(union: &'a Union, store: &'a Store, watch: &'a Watch<'a>) -> Self {
        let mut tree = TreeBuilder::new();
        let root = tree.root();
        tree.set_implied(root, true);
        Self {
            union,
            store,
            watch,
            tree,
            dirs: BTreeMap::from([(Vec::new(), root)]),
            nodes: HashMap::new(),
            moved: 0,
            sockets: 0,
        }
    }

    /// The tree, how many data files were moved, and how many sockets left out.
    pub(super) fn finish(self) -> (TreeBuilder, u64, u64) {
        (self.tree, self.moved, self.sockets)
    }

    /// Puts one path into the layer. Paths come in the order of their bytes.
    pub(super) fn add(&mut self, change: &LayerChange) -> Result<(), CommitError> {
        self.watch.check()?;
        let (ino, opaque) = match change.entry {
            LayerEntry::Node { ino, opaque } => (ino, opaque),
            LayerEntry::Whiteout => {
                let (dir, name) = self.place(&change.path);
                self.tree.set_child(dir, name, Child::Whiteout);
                return Ok(());
            }
        };
        let attr = self.union.attr(ino)?;
        if attr.kind == FileKind::Directory {
            return self.add_dir(&change.path, &attr, opaque);
        }
        if attr.kind == FileKind::Socket {
            // It has no form in an archive.
            self.sockets += 1;
            return Ok(());
        }
        let node = match self.nodes.get(&ino) {
            Some(node) => *node,
            None => {
                let meta = self.union.meta(&attr)?;
                let body = self.body(&attr)?;
                let node = self.tree.add_node(meta, body);
                self.nodes.insert(ino, node);
                node
            }
        };
        let (dir, name) = self.place(&change.path);
        self.tree.set_child(dir, name, Child::Node(node));
        Ok(())
    }

    fn add_dir(&mut self, path: &[u8], attr: &Attr, opaque: bool) -> Result<(), CommitError> {
        let meta = self.union.meta(attr)?;
        let node = if path.is_empty() {
            let root = self.tree.root();
            *self.tree.meta_mut(root) = meta;
            self.tree.set_implied(root, false);
            root
        } else {
            let node = self.tree.add_node(meta, Body::Directory);
            let (dir, name) = self.place(path);
            self.tree.set_child(dir, name, Child::Node(node));
            self.dirs.insert(path.to_vec(), node);
            node
        };
        if opaque {
            self.tree.set_opaque(node);
        }
        Ok(())
    }

    /// The directory that `path` is in, and its name there. A directory that was left out is implied.
    fn place<'p>(&mut self, path: &'p [u8]) -> (NodeId, &'p [u8]) {
        let slash = path.iter().rposition(|b| *b == b'/').unwrap_or(0);
        let (above, name) = path.split_at_checked(slash).unwrap_or((b"", path));
        let name = name.strip_prefix(b"/").unwrap_or(name);
        if let Some(dir) = self.dirs.get(above) {
            return (*dir, name);
        }
        let (over, dir_name) = self.place(above);
        let meta = pellicle_store::Meta {
            perm: 0o755,
            ..Default::default()
        };
        let dir = self.tree.add_node(meta, Body::Directory);
        self.tree.set_implied(dir, true);
        self.tree.set_child(over, dir_name, Child::Node(dir));
        self.dirs.insert(above.to_vec(), dir);
        (dir, name)
    }

    fn body(&mut self, attr: &Attr) -> Result<Body, CommitError> {
        Ok(match attr.kind {
            FileKind::Directory => Body::Directory,
            FileKind::Regular => Body::Regular {
                size: attr.size,
                content: self.content(attr.ino, attr.size)?,
            },
            FileKind::Symlink => Body::Symlink(self.union.readlink(attr.ino)?),
            FileKind::CharDevice => Body::CharDevice(attr.rdev),
            FileKind::BlockDevice => Body::BlockDevice(attr.rdev),
            FileKind::Fifo => Body::Fifo,
            FileKind::Socket => Body::Socket,
        })
    }

    fn content(&mut self, ino: Ino, size: u64) -> Result<Content, CommitError> {
        if size == 0 {
            return Ok(Content::Empty);
        }
        if let Some(content) = self.stored(ino, size)? {
            return Ok(content);
        }
        let extents = self.union.extents(ino, size)?;
        let data: u64 = extents.iter().map(|e| e.len).sum();
        if data == 0 {
            return Ok(Content::Empty);
        }
        if (size - data).saturating_mul(HOLES_COUNT_FROM) < size {
            let whole = [Extent {
                offset: 0,
                len: size,
            }];
            return Ok(match self.keep(ino, &whole, size)? {
                Packed::Inline(bytes) => Content::Inline(bytes),
                Packed::Object(id) => Content::Object(id),
            });
        }
        let data = self.keep(ino, &extents, data)?;
        Ok(Content::Sparse { extents, data })
    }

    /// The content as the lower tree has it, if the store has that and it is not changed.
    fn stored(&self, ino: Ino, size: u64) -> Result<Option<Content>, CommitError> {
        let union = self.union;
        let is_as_below = match union.table.find(ino) {
            Found::Untouched => true,
            Found::Absent => false,
            Found::Inode(inode) => inode.now()?.content == ContentSource::Lower,
        };
        if !is_as_below || union.lower.attr(ino).map_err(crate::Error::from)?.size != size {
            return Ok(None);
        }
        let content = union.lower.stored(ino).map_err(crate::Error::from)?;
        Ok(content.filter(|content| match content {
            Content::Object(id)
            | Content::Sparse {
                data: Packed::Object(id),
                ..
            } => self.store.objects().contains(id),
            Content::Empty | Content::Inline(_) | Content::Sparse { .. } => true,
            Content::Span { .. } | Content::SparseSpan { .. } => false,
        }))
    }

    /// Keeps the `len` bytes of `extents`: in the tree, or as an object.
    fn keep(&mut self, ino: Ino, extents: &[Extent], len: u64) -> Result<Packed, CommitError> {
        if len <= INLINE_MAX as u64 && self.tree.inline_bytes() < INLINE_TOTAL_MAX {
            let mut bytes = Vec::new();
            self.union
                .read_extents(ino, extents, self.watch, &mut |part| {
                    bytes.extend_from_slice(part);
                    Ok(())
                })?;
            return Ok(Packed::Inline(bytes));
        }
        let is_whole = matches!(extents, [only] if only.offset == 0);
        if is_whole && let Some(file) = self.whole_file(ino, len)? {
            return self.take_in(&file);
        }
        let mut writer = self.store.objects().writer()?;
        let root = self.store.root();
        self.union
            .read_extents(ino, extents, self.watch, &mut |part| {
                let written = writer.write_all(part).map_err(|source| StoreError::Io {
                    doing: "write an object to",
                    path: root.to_owned(),
                    source,
                });
                Ok(written?)
            })?;
        Ok(Packed::Object(writer.finish()?))
    }

    /// The data file that is the whole content.
    fn whole_file(&self, ino: Ino, size: u64) -> Result<Option<Arc<File>>, CommitError> {
        let Found::Inode(inode) = self.union.table.find(ino) else {
            return Ok(None);
        };
        if inode.now()?.content != ContentSource::Data {
            return Ok(None);
        }
        let file = self.union.backing(ino)?;
        Ok(file.filter(|file| file.metadata().is_ok_and(|m| m.len() == size)))
    }

    fn take_in(&mut self, file: &File) -> Result<Packed, CommitError> {
        let held = self.union.upper().is_ok_and(|upper| upper.is_held());
        let how = if held { Taking::Link } else { Taking::Copy };
        let watch = self.watch;
        let taken = self.store.objects().take_in(file, how, &mut |bytes| {
            watch.progress.bytes(bytes);
            !watch.cancel.is_cancelled()
        })?;
        let id: Digest = taken.ok_or(CommitError::Cancelled)?;
        self.moved += u64::from(held);
        Ok(Packed::Object(id))
    }
}
