//! A tree being made, in memory.
//!
//! Nodes are kept in one vector and never freed, so a [`NodeId`] stays good for the life of its
//! builder; a node that no name leads to is left out when the tree is written. About 250 bytes per
//! entry. Names are checked when the tree is written, not when they are set.

use std::collections::BTreeMap;

use super::TreeError;
use crate::{Device, Digest, FileKind, Time};

/// Contents up to this many bytes belong into the tree ([`Content::Inline`]), larger ones into an
/// object. One page: such a content costs no host inode, no open file and no block of its own.
pub const INLINE_MAX: usize = 4096;

/// Once [`TreeBuilder::inline_bytes`] has reached this many bytes, small contents belong into
/// objects too, so that memory stays bounded whatever a layer holds.
pub const INLINE_TOTAL_MAX: u64 = 256 << 20;

/// A node of one [`TreeBuilder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(crate) u32);

impl NodeId {
    /// Its place among all nodes ever added, from 0: builders that are told the same give the same.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.0
    }
}

/// What a name in a directory leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Child {
    /// That node. A node that is no directory may have any number of names.
    Node(NodeId),
    /// Nothing, in this layer and those below (OCI image-spec layer.md, "Whiteouts").
    Whiteout,
}

/// What every kind of node has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits with set-id and sticky: `0..=0o7777`.
    pub perm: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last access.
    pub atime: Time,
    /// Last change of content.
    pub mtime: Time,
    /// Last change of the inode.
    pub ctime: Time,
    /// Extended attributes: full name (`user.x`) and value, each name once, in any order.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A directory; its names are set with [`TreeBuilder::set_child`].
    Directory,
    /// A regular file of `size` bytes.
    Regular {
        /// Bytes of content, holes included.
        size: u64,
        /// Where they are.
        content: Content,
    },
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
}

impl Body {
    /// The kind of node this makes.
    #[must_use]
    pub const fn kind(&self) -> FileKind {
        match self {
            Self::Directory => FileKind::Directory,
            Self::Regular { .. } => FileKind::Regular,
            Self::Symlink(_) => FileKind::Symlink,
            Self::CharDevice(_) => FileKind::CharDevice,
            Self::BlockDevice(_) => FileKind::BlockDevice,
            Self::Fifo => FileKind::Fifo,
            Self::Socket => FileKind::Socket,
        }
    }
}

/// A run of data in a sparse file; all else is hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where in the file it starts.
    pub offset: u64,
    /// How many bytes; never 0.
    pub len: u64,
}

/// The data of a sparse file: the bytes of its extents back to back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packed {
    /// In the tree.
    Inline(Vec<u8>),
    /// In that object.
    Object(Digest),
}

/// Where the content of a regular file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// All zeros, however large.
    Empty,
    /// In the tree; exactly the file's size.
    Inline(Vec<u8>),
    /// The whole file is that object.
    Object(Digest),
    /// Only these extents are data.
    Sparse {
        /// Ascending, disjoint, inside the file.
        extents: Vec<Extent>,
        /// Their bytes.
        data: Packed,
    },
    /// The bytes from `offset` of the archive that the tree stands for (archives mounted in place).
    Span {
        /// Where in the uncompressed archive.
        offset: u64,
    },
    /// Only these extents are data, and they lie back to back in the archive from `offset`.
    SparseSpan {
        /// Ascending, disjoint, inside the file.
        extents: Vec<Extent>,
        /// Where in the uncompressed archive.
        offset: u64,
    },
}

/// What a tree stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeKind {
    /// One layer, with its whiteouts and opaque marks.
    Layer,
    /// Layers flattened into one tree.
    Image,
}

/// What the head of a tree file says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeHeader {
    /// What it stands for.
    pub kind: TreeKind,
    /// Its name: a layer's diff id, an image's chain id, or a digest of what else it is made of.
    pub identity: Digest,
    /// Diff ids of its layers, lowest first.
    pub layers: Vec<Digest>,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) meta: Meta,
    pub(crate) body: Body,
    pub(crate) layer: u32,
    /// Index in [`TreeBuilder::dirs`] of a directory.
    pub(crate) dir: u32,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Dir {
    pub(crate) children: BTreeMap<Box<[u8]>, Child>,
    pub(crate) opaque: bool,
    pub(crate) implied: bool,
}

/// A tree in the making. Equal trees give equal files, whatever the order they were built in.
///
/// A [`NodeId`] of another builder leads to a node that is in no tree.
#[derive(Clone, Debug)]
pub struct TreeBuilder {
    pub(crate) nodes: Vec<Node>,
    pub(crate) dirs: Vec<Dir>,
    /// What ids that are none of ours lead to; never written.
    nowhere: Node,
    nowhere_dir: Dir,
    inline_bytes: u64,
}

impl Default for TreeBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl TreeBuilder {
    /// A tree of only the root: a directory 0755 of 0:0 with all times 0.
    #[must_use]
    pub fn new() -> Self {
        let nowhere = Node {
            meta: Meta::default(),
            body: Body::Fifo,
            layer: 0,
            dir: u32::MAX,
        };
        let mut tree = Self {
            nodes: Vec::new(),
            dirs: Vec::new(),
            nowhere,
            nowhere_dir: Dir::default(),
            inline_bytes: 0,
        };
        let root = Meta {
            perm: 0o755,
            ..Meta::default()
        };
        tree.add_node(root, Body::Directory);
        tree
    }

    /// The root directory.
    #[must_use]
    pub fn root(&self) -> NodeId {
        NodeId(0)
    }

    /// Adds a node that no name leads to yet; one that stays so is left out when the tree is
    /// written.
    pub fn add_node(&mut self, meta: Meta, body: Body) -> NodeId {
        let id = NodeId(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        let dir = if body == Body::Directory {
            self.dirs.push(Dir::default());
            u32::try_from(self.dirs.len() - 1).unwrap_or(u32::MAX)
        } else {
            u32::MAX
        };
        if let Body::Regular { content, .. } = &body {
            self.inline_bytes += inline_len(content);
        }
        self.nodes.push(Node {
            meta,
            body,
            layer: 0,
            dir,
        });
        id
    }

    /// Bytes of content that are in the tree itself, of all nodes ever added; see
    /// [`INLINE_TOTAL_MAX`].
    #[must_use]
    pub fn inline_bytes(&self) -> u64 {
        self.inline_bytes
    }

    /// How many nodes were ever added, the root included.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn node(&self, n: NodeId) -> &Node {
        self.nodes.get(n.0 as usize).unwrap_or(&self.nowhere)
    }

    fn node_mut(&mut self, n: NodeId) -> &mut Node {
        self.nodes
            .get_mut(n.0 as usize)
            .unwrap_or(&mut self.nowhere)
    }

    pub(crate) fn dir(&self, n: NodeId) -> &Dir {
        self.dirs
            .get(self.node(n).dir as usize)
            .unwrap_or(&self.nowhere_dir)
    }

    fn dir_mut(&mut self, n: NodeId) -> &mut Dir {
        let at = self.node(n).dir as usize;
        self.dirs.get_mut(at).unwrap_or(&mut self.nowhere_dir)
    }

    /// What every kind of node has.
    #[must_use]
    pub fn meta(&self, n: NodeId) -> &Meta {
        &self.node(n).meta
    }

    /// The same, to change it.
    pub fn meta_mut(&mut self, n: NodeId) -> &mut Meta {
        &mut self.node_mut(n).meta
    }

    /// What the node is.
    #[must_use]
    pub fn body(&self, n: NodeId) -> &Body {
        &self.node(n).body
    }

    /// The node's kind.
    #[must_use]
    pub fn kind(&self, n: NodeId) -> FileKind {
        self.node(n).body.kind()
    }

    /// Index (lowest 0) of the layer the node came from; 0 unless set.
    #[must_use]
    pub fn layer(&self, n: NodeId) -> u32 {
        self.node(n).layer
    }

    /// Sets that index.
    pub fn set_layer(&mut self, n: NodeId, layer: u32) {
        self.node_mut(n).layer = layer;
    }

    /// What `name` in `dir` leads to; `None` if there is no such name, or `dir` is no directory.
    #[must_use]
    pub fn child(&self, dir: NodeId, name: &[u8]) -> Option<Child> {
        self.dir(dir).children.get(name).copied()
    }

    /// The names of `dir`, sorted by their bytes.
    pub fn children(&self, dir: NodeId) -> impl Iterator<Item = (&[u8], Child)> {
        self.dir(dir).children.iter().map(|(n, c)| (&**n, *c))
    }

    /// Makes `name` in `dir` lead to `child`, in place of what it led to. Without effect if `dir`
    /// is no directory.
    pub fn set_child(&mut self, dir: NodeId, name: &[u8], child: Child) {
        let children = &mut self.dir_mut(dir).children;
        if let Some(old) = children.get_mut(name) {
            *old = child;
        } else {
            children.insert(name.into(), child);
        }
    }

    /// Takes `name` out of `dir`, if it is there.
    pub fn remove_child(&mut self, dir: NodeId, name: &[u8]) {
        self.dir_mut(dir).children.remove(name);
    }

    /// Takes all names out of `dir`.
    pub fn clear_children(&mut self, dir: NodeId) {
        self.dir_mut(dir).children.clear();
    }

    /// Marks `dir` opaque: it hides what the layers below have in it (OCI image-spec layer.md,
    /// "Opaque Whiteout").
    pub fn set_opaque(&mut self, dir: NodeId) {
        self.dir_mut(dir).opaque = true;
    }

    /// Whether `dir` is marked opaque.
    #[must_use]
    pub fn is_opaque(&self, dir: NodeId) -> bool {
        self.dir(dir).opaque
    }

    /// Says whether `dir` is only implied: the layer names something in it, but not the directory
    /// itself. Over layers that have it, its metadata is theirs (flattening must keep it: a layer of
    /// just `tmp/x` does not make `/tmp` 0755); where none has it, its own counts.
    pub fn set_implied(&mut self, dir: NodeId, implied: bool) {
        self.dir_mut(dir).implied = implied;
    }

    /// Whether `dir` is only implied.
    #[must_use]
    pub fn is_implied(&self, dir: NodeId) -> bool {
        self.dir(dir).implied
    }

    /// The tree file in memory. Prefer [`TreeBuilder::write`] where it may be large.
    ///
    /// # Errors
    /// As [`TreeBuilder::write`].
    pub fn finish(self, header: &TreeHeader) -> Result<Vec<u8>, TreeError> {
        let mut out = std::io::Cursor::new(Vec::new());
        self.write(header, &mut out, std::path::Path::new("a tree in memory"))?;
        Ok(out.into_inner())
    }
}

/// Bytes of `content` that are in the tree itself.
fn inline_len(content: &Content) -> u64 {
    match content {
        Content::Inline(bytes)
        | Content::Sparse {
            data: Packed::Inline(bytes),
            ..
        } => bytes.len() as u64,
        _ => 0,
    }
}
