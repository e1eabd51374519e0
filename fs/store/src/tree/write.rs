//! From a [`TreeBuilder`] to a tree file.
//!
//! First the nodes are numbered, breadth first and names in order, so that equal trees give equal
//! files and the inodes of a directory lie side by side. Then each section is written from its
//! beginning to its end in that order; offsets into later sections are counted along. Beside the
//! builder itself this takes about 20 bytes per entry and one block of 64 KiB.

use std::{
    collections::HashMap,
    io::{self, Seek, SeekFrom, Write},
    path::Path,
};

use zerocopy::{FromZeros as _, Immutable, IntoBytes, little_endian::U32};

use super::{
    Body, Child, Content, Extent, Meta, NodeId, Packed, TreeBuilder, TreeError, TreeHeader,
    TreeKind,
    build::Node,
    format::{
        ALL_SECTIONS, BLOCK_LEN, COMPAT_NAMES, CONTENT_EMPTY, CONTENT_INLINE, CONTENT_OBJECT,
        CONTENT_SPAN, CONTENT_SPARSE_INLINE, CONTENT_SPARSE_OBJECT, CONTENT_SPARSE_SPAN,
        DigestRecord, EntryRecord, ExtentRecord, FLAG_IMPLIED, FLAG_OPAQUE, HEADER_LEN, Header,
        InodeRecord, KIND_IMAGE, KIND_LAYER, LaterNameRecord, MAGIC, MAX_COUNT, Range, SECTIONS,
        Section, VERSION, WhiteoutRecord, XattrRecord, XattrSetRecord, hash,
    },
    number::{Numbers, number},
};
use crate::{Device, Digest, Time};

type Xattrs = [(Vec<u8>, Vec<u8>)];

impl TreeBuilder {
    /// Writes the tree file to `out`, from its beginning; `path` names it in errors.
    ///
    /// # Errors
    /// [`TreeError::Unstorable`] for a name or a node that the format cannot hold,
    /// [`TreeError::TooMany`], [`TreeError::Io`]. What was written by then is no tree file.
    pub fn write(
        mut self,
        header: &TreeHeader,
        out: &mut (impl Write + Seek),
        path: &Path,
    ) -> Result<(), TreeError> {
        let numbers = number(&mut self)?;
        let io = |source| TreeError::Io {
            doing: "write tree",
            path: path.to_owned(),
            source,
        };
        out.seek(SeekFrom::Start(HEADER_LEN as u64)).map_err(io)?;
        let mut w = TreeWriter {
            tree: &self,
            numbers: &numbers,
            out: Blocks::new(out),
            sections: [Range::default(); ALL_SECTIONS],
            later: Vec::new(),
            objects: Table::default(),
            sets: Vec::new(),
        };
        w.body(header).map_err(io)?;
        w.finish(header).map_err(io)
    }
}

struct TreeWriter<'a, W> {
    tree: &'a TreeBuilder,
    numbers: &'a Numbers,
    out: Blocks<'a, W>,
    sections: [Range; ALL_SECTIONS],
    /// Inode and entry of every name that is not the first of its inode, by entry.
    later: Vec<(u32, u32)>,
    objects: Table,
    /// One node of each distinct set of extended attributes.
    sets: Vec<NodeId>,
}

/// Digests, each once, in the order of their first use.
#[derive(Default)]
struct Table {
    index: HashMap<Digest, u32>,
    list: Vec<Digest>,
}

impl Table {
    fn index_of(&mut self, digest: &Digest) -> u64 {
        let next = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        let list = &mut self.list;
        let index = self.index.entry(*digest).or_insert_with(|| {
            list.push(*digest);
            next
        });
        u64::from(*index)
    }
}

/// Where the next inode's things will lie.
#[derive(Default)]
struct Cursors {
    entries: u64,
    whiteouts: u32,
    targets: u64,
    extents: u32,
    inline: u64,
}

impl<'a, W: Write + Seek> TreeWriter<'a, W> {
    fn body(&mut self, header: &TreeHeader) -> io::Result<()> {
        self.section(Section::Inodes, Self::inodes)?;
        self.section(Section::Entries, Self::entries)?;
        self.section(Section::Names, Self::names)?;
        self.section(Section::Whiteouts, Self::whiteouts)?;
        self.section(Section::Targets, |w| {
            w.each_node(|w, node| match &node.body {
                Body::Symlink(target) => w.out.put(target),
                _ => Ok(()),
            })
        })?;
        self.section(Section::XattrSets, Self::xattr_sets)?;
        self.section(Section::Xattrs, Self::xattrs)?;
        self.section(Section::XattrData, |w| {
            for (name, value) in w.xattr_pairs() {
                w.out.put(name)?;
                w.out.put(value)?;
            }
            Ok(())
        })?;
        self.section(Section::Objects, |w| {
            for Digest(sha256) in std::mem::take(&mut w.objects.list) {
                w.out.record(&DigestRecord { sha256 })?;
            }
            Ok(())
        })?;
        self.section(Section::Extents, Self::extents)?;
        self.section(Section::Layers, |w| {
            for Digest(sha256) in header.layers.iter().copied() {
                w.out.record(&DigestRecord { sha256 })?;
            }
            Ok(())
        })?;
        self.section(Section::Inline, |w| {
            w.each_node(|w, node| match &node.body {
                Body::Regular { content, .. } => w.out.put(inline_of(content)),
                _ => Ok(()),
            })
        })?;
        self.section(Section::Directories, Self::directories)?;
        self.section(Section::LaterPlaces, |w| {
            for (_, entry) in w.later.clone() {
                w.out.record(&U32::new(entry))?;
            }
            Ok(())
        })?;
        self.section(Section::LaterNames, |w| {
            w.later.sort_unstable();
            for (ino, entry) in std::mem::take(&mut w.later) {
                w.out.record(&LaterNameRecord {
                    ino: ino.into(),
                    entry: entry.into(),
                })?;
            }
            Ok(())
        })
    }

    fn section(
        &mut self,
        section: Section,
        fill: impl FnOnce(&mut Self) -> io::Result<()>,
    ) -> io::Result<()> {
        let odd = self.out.len % 8;
        if odd != 0 {
            let padding = [0; 8];
            self.out
                .put(padding.get(odd as usize..).unwrap_or_default())?;
        }
        let start = self.out.len;
        fill(self)?;
        let range = Range {
            offset: (HEADER_LEN as u64 + start).into(),
            len: (self.out.len - start).into(),
        };
        if let Some(slot) = self.sections.get_mut(section as usize) {
            *slot = range;
        }
        Ok(())
    }

    fn each_node(
        &mut self,
        mut each: impl FnMut(&mut Self, &'a Node) -> io::Result<()>,
    ) -> io::Result<()> {
        let tree = self.tree;
        for id in &self.numbers.order {
            each(self, tree.node(*id))?;
        }
        Ok(())
    }

    fn inodes(&mut self) -> io::Result<()> {
        let (tree, numbers) = (self.tree, self.numbers);
        let mut at = Cursors::default();
        let mut sets: HashMap<&Xattrs, u32> = HashMap::new();
        for id in &numbers.order {
            let node = tree.node(*id);
            let mut r = InodeRecord::new_zeroed();
            set_meta(&mut r, node, numbers.nlink(*id));
            if !node.meta.xattrs.is_empty() {
                let next = self.sets.len() as u32 + 1;
                let set = *sets.entry(&node.meta.xattrs).or_insert_with(|| {
                    self.sets.push(*id);
                    next
                });
                r.xattrs = set.into();
            }
            match &node.body {
                Body::Directory => {
                    let dir = tree.dir(*id);
                    let whiteouts = whiteouts_in(tree, *id);
                    let entries = dir.children.len() as u32 - whiteouts;
                    r.a = at.entries.into();
                    r.b = entries.into();
                    r.c = numbers.parent(*id).into();
                    r.d = at.whiteouts.into();
                    r.e = whiteouts.into();
                    r.flags = if dir.opaque { FLAG_OPAQUE } else { 0 }
                        | if dir.implied { FLAG_IMPLIED } else { 0 };
                    at.entries += u64::from(entries);
                    at.whiteouts += whiteouts;
                }
                Body::Symlink(target) => {
                    r.size = (target.len() as u64).into();
                    r.a = at.targets.into();
                    at.targets += target.len() as u64;
                }
                Body::CharDevice(Device { major, minor })
                | Body::BlockDevice(Device { major, minor }) => {
                    r.b = (*major).into();
                    r.c = (*minor).into();
                }
                Body::Regular { size, content } => {
                    r.size = (*size).into();
                    set_content(&mut r, content, &mut at, &mut self.objects);
                }
                Body::Fifo | Body::Socket => {}
            }
            self.out.record(&r)?;
        }
        Ok(())
    }

    /// Calls `each` with every name of every directory, and where that name lies.
    fn each_child(
        &mut self,
        mut each: impl FnMut(&mut Self, &'a [u8], Child, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let (tree, numbers) = (self.tree, self.numbers);
        let mut offset = 0;
        for dir in &numbers.order {
            for (name, child) in tree.children(*dir) {
                each(self, name, child, offset)?;
                offset += name.len() as u64;
            }
        }
        Ok(())
    }

    fn entries(&mut self) -> io::Result<()> {
        let (mut next, mut entry) = (2, 0);
        self.each_child(|w, name, child, offset| {
            let Child::Node(id) = child else {
                return Ok(());
            };
            let ino = w.numbers.ino(id);
            if ino == next {
                next += 1;
            } else {
                w.later.push((ino, entry));
            }
            entry += 1;
            w.out.record(&EntryRecord {
                name_offset: offset.into(),
                ino: ino.into(),
                name_len: (name.len() as u16).into(),
                kind: (w.tree.kind(id).mode_bits() >> 12) as u8,
                reserved: 0,
            })
        })
    }

    fn directories(&mut self) -> io::Result<()> {
        let (tree, numbers) = (self.tree, self.numbers);
        let is_dir = |id: &&NodeId| *tree.body(**id) == Body::Directory;
        for id in numbers.order.iter().filter(is_dir) {
            self.out.record(&U32::new(numbers.ino(*id)))?;
        }
        Ok(())
    }

    fn names(&mut self) -> io::Result<()> {
        self.each_child(|w, name, _, _| w.out.put(name))
    }

    fn whiteouts(&mut self) -> io::Result<()> {
        self.each_child(|w, name, child, offset| match child {
            Child::Node(_) => Ok(()),
            Child::Whiteout => w.out.record(&WhiteoutRecord {
                name_offset: offset.into(),
                name_len: (name.len() as u16).into(),
                reserved: [0; 6],
            }),
        })
    }

    fn xattr_sets(&mut self) -> io::Result<()> {
        let mut first = 0;
        for id in std::mem::take(&mut self.sets) {
            let count = self.tree.meta(id).xattrs.len() as u32;
            self.out.record(&XattrSetRecord {
                first: first.into(),
                count: count.into(),
            })?;
            first += count;
            self.sets.push(id);
        }
        Ok(())
    }

    fn xattr_pairs(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a, W> {
        let tree = self.tree;
        self.sets
            .clone()
            .into_iter()
            .flat_map(move |id| &tree.meta(id).xattrs)
            .map(|(name, value)| (&**name, &**value))
    }

    fn xattrs(&mut self) -> io::Result<()> {
        let mut offset = 0;
        for (name, value) in self.xattr_pairs() {
            let value_offset = offset + name.len() as u64;
            self.out.record(&XattrRecord {
                name_offset: offset.into(),
                value_offset: value_offset.into(),
                name_len: (name.len() as u32).into(),
                value_len: (value.len() as u32).into(),
            })?;
            offset = value_offset + value.len() as u64;
        }
        Ok(())
    }

    fn extents(&mut self) -> io::Result<()> {
        self.each_node(|w, node| {
            let Body::Regular { content, .. } = &node.body else {
                return Ok(());
            };
            let mut packed = 0;
            for Extent { offset, len } in extents_of(content) {
                w.out.record(&ExtentRecord {
                    offset: (*offset).into(),
                    len: (*len).into(),
                    packed: packed.into(),
                })?;
                packed += len;
            }
            Ok(())
        })
    }

    fn finish(self, header: &TreeHeader) -> io::Result<()> {
        let body = self.out.len;
        let (out, sums) = self.out.finish()?;
        let sums: Vec<u8> = sums.iter().flat_map(|s| s.to_le_bytes()).collect();
        out.write_all(&sums)?;
        let mut h = Header::new_zeroed();
        h.magic = MAGIC;
        h.version = VERSION.into();
        h.header_len = (HEADER_LEN as u32).into();
        h.kind = match header.kind {
            TreeKind::Layer => KIND_LAYER,
            TreeKind::Image => KIND_IMAGE,
        }
        .into();
        h.section_count = (SECTIONS as u32).into();
        h.identity = header.identity.0;
        h.block_len = (BLOCK_LEN as u32).into();
        let sums_at = HEADER_LEN as u64 + body;
        h.file_len = (sums_at + sums.len() as u64).into();
        h.body = Range {
            offset: (HEADER_LEN as u64).into(),
            len: body.into(),
        };
        h.checksums = Range {
            offset: sums_at.into(),
            len: (sums.len() as u64).into(),
        };
        h.checksums_hash = hash(&sums).into();
        h.compat = COMPAT_NAMES.into();
        let mut ranges = self.sections.into_iter();
        for slot in h.sections.iter_mut().chain(&mut h.more) {
            *slot = ranges.next().unwrap_or_default();
        }
        let covered = h.as_bytes().get(..HEADER_LEN - 8).unwrap_or_default();
        h.checksum = hash(covered).into();
        out.seek(SeekFrom::Start(0))?;
        out.write_all(h.as_bytes())?;
        out.flush()
    }
}

fn set_meta(r: &mut InodeRecord, node: &Node, nlink: u32) {
    let Meta {
        perm,
        uid,
        gid,
        atime,
        mtime,
        ctime,
        xattrs: _,
    } = &node.meta;
    let nsec = |t: &Time| t.nsec.into();
    r.mode = (node.body.kind().mode_bits() | u32::from(*perm)).into();
    r.nlink = nlink.into();
    r.uid = (*uid).into();
    r.gid = (*gid).into();
    (r.atime, r.atime_nsec) = (atime.sec.into(), nsec(atime));
    (r.mtime, r.mtime_nsec) = (mtime.sec.into(), nsec(mtime));
    (r.ctime, r.ctime_nsec) = (ctime.sec.into(), nsec(ctime));
    r.layer = node.layer.into();
}

fn set_content(r: &mut InodeRecord, content: &Content, at: &mut Cursors, objects: &mut Table) {
    let (kind, a) = match content {
        Content::Empty => (CONTENT_EMPTY, 0),
        Content::Inline(_) => (CONTENT_INLINE, at.inline),
        Content::Object(id) => (CONTENT_OBJECT, objects.index_of(id)),
        Content::Sparse { data, .. } => match data {
            Packed::Inline(_) => (CONTENT_SPARSE_INLINE, at.inline),
            Packed::Object(id) => (CONTENT_SPARSE_OBJECT, objects.index_of(id)),
        },
        Content::Span { offset } => (CONTENT_SPAN, *offset),
        Content::SparseSpan { offset, .. } => (CONTENT_SPARSE_SPAN, *offset),
    };
    r.content = kind;
    r.a = a.into();
    if matches!(content, Content::Sparse { .. } | Content::SparseSpan { .. }) {
        let extents = extents_of(content).len() as u32;
        r.d = at.extents.into();
        r.e = extents.into();
        at.extents += extents;
    }
    at.inline += inline_of(content).len() as u64;
}

fn whiteouts_in(tree: &TreeBuilder, dir: NodeId) -> u32 {
    let is_whiteout = |(_, child): &(_, Child)| *child == Child::Whiteout;
    tree.children(dir).filter(is_whiteout).count() as u32
}

pub(super) fn extents_of(content: &Content) -> &[Extent] {
    match content {
        Content::Sparse { extents, .. } | Content::SparseSpan { extents, .. } => extents,
        _ => &[],
    }
}

pub(super) fn inline_of(content: &Content) -> &[u8] {
    match content {
        Content::Inline(bytes)
        | Content::Sparse {
            data: Packed::Inline(bytes),
            ..
        } => bytes,
        _ => &[],
    }
}

/// Writes a body and hashes it, block by block.
struct Blocks<'a, W> {
    out: &'a mut W,
    block: Vec<u8>,
    sums: Vec<u64>,
    len: u64,
}

impl<'a, W: Write> Blocks<'a, W> {
    fn new(out: &'a mut W) -> Self {
        Self {
            out,
            block: Vec::with_capacity(BLOCK_LEN),
            sums: Vec::new(),
            len: 0,
        }
    }

    fn record(&mut self, record: &(impl IntoBytes + Immutable)) -> io::Result<()> {
        self.put(record.as_bytes())
    }

    fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.len += bytes.len() as u64;
        while !bytes.is_empty() {
            let room = (BLOCK_LEN - self.block.len()).min(bytes.len());
            let (now, rest) = bytes.split_at(room);
            self.block.extend_from_slice(now);
            bytes = rest;
            if self.block.len() == BLOCK_LEN {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sums.push(hash(&self.block));
        self.out.write_all(&self.block)?;
        self.block.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<(&'a mut W, Vec<u64>)> {
        if !self.block.is_empty() {
            self.flush()?;
        }
        Ok((self.out, self.sums))
    }
}

/// That `count` of something can be numbered.
pub(super) fn limit(count: usize, what: &'static str) -> Result<(), TreeError> {
    match count as u64 {
        0..=MAX_COUNT => Ok(()),
        _ => Err(TreeError::TooMany {
            what,
            limit: MAX_COUNT,
        }),
    }
}
