//! Answers from a tree file in place.

use std::{path::Path, sync::Arc};

use zerocopy::FromBytes as _;

use super::{
    Content, Extent, Packed, TreeError, TreeKind,
    file::TreeFile,
    format::{
        CONTENT_EMPTY, CONTENT_INLINE, CONTENT_OBJECT, CONTENT_SPAN, CONTENT_SPARSE_INLINE,
        CONTENT_SPARSE_OBJECT, CONTENT_SPARSE_SPAN, DigestRecord, EntryRecord, ExtentRecord,
        FLAG_IMPLIED, FLAG_OPAQUE, InodeRecord, Section, WhiteoutRecord, XattrRecord,
        XattrSetRecord,
    },
};
use crate::{Attr, Device, Digest, FileKind, Ino, Time};

/// What `st_size` says of a directory: there is no such thing here, and programs expect a block.
const DIRECTORY_SIZE: u64 = 4096;

/// A tree file, mapped (or in memory), answering in place. Cloning shares the mapping.
///
/// Every answer may be [`TreeError::Damaged`]: a block of the file is verified when it is touched
/// for the first time.
#[derive(Clone, Debug)]
pub struct Tree {
    pub(super) file: Arc<TreeFile>,
}

/// One name in a directory of a [`Tree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeEntry<'a> {
    /// The name.
    pub name: &'a [u8],
    /// The inode it leads to.
    pub ino: Ino,
    /// That inode's kind.
    pub kind: FileKind,
}

/// Where the content of a regular file of a [`Tree`] is; as [`super::Content`].
#[derive(Clone, Copy, Debug)]
pub enum ContentRef<'a> {
    /// All zeros.
    Empty,
    /// These bytes.
    Inline(&'a [u8]),
    /// That object.
    Object(Digest),
    /// Only the extents are data.
    Sparse {
        /// Ascending, disjoint, inside the file; each with its place in `data`.
        extents: Extents<'a>,
        /// Their bytes, back to back.
        data: PackedRef<'a>,
    },
    /// From there in the archive that the tree stands for.
    Span {
        /// Where in the uncompressed archive.
        offset: u64,
    },
    /// Only the extents are data, back to back in the archive.
    SparseSpan {
        /// Ascending, disjoint, inside the file; each with its place relative to `offset`.
        extents: Extents<'a>,
        /// Where in the uncompressed archive.
        offset: u64,
    },
}

impl ContentRef<'_> {
    /// The same for a tree in the making.
    #[must_use]
    pub fn to_content(&self) -> Content {
        match self {
            Self::Empty => Content::Empty,
            Self::Inline(bytes) => Content::Inline(bytes.to_vec()),
            Self::Object(id) => Content::Object(*id),
            Self::Sparse { extents, data } => Content::Sparse {
                extents: extents.to_list(),
                data: match data {
                    PackedRef::Inline(bytes) => Packed::Inline(bytes.to_vec()),
                    PackedRef::Object(id) => Packed::Object(*id),
                },
            },
            Self::Span { offset } => Content::Span { offset: *offset },
            Self::SparseSpan { extents, offset } => Content::SparseSpan {
                extents: extents.to_list(),
                offset: *offset,
            },
        }
    }
}

/// The data of a sparse file; as [`super::Packed`].
#[derive(Clone, Copy, Debug)]
pub enum PackedRef<'a> {
    /// These bytes.
    Inline(&'a [u8]),
    /// That object.
    Object(Digest),
}

/// The extents of one sparse file.
#[derive(Clone, Copy, Debug)]
pub struct Extents<'a>(&'a [ExtentRecord]);

impl Extents<'_> {
    fn to_list(self) -> Vec<Extent> {
        let all = (0..self.len()).filter_map(|i| self.get(i));
        all.map(|(extent, _)| extent).collect()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The `i`-th extent, and where in the packed data it starts.
    #[must_use]
    pub fn get(&self, i: usize) -> Option<(Extent, u64)> {
        let r = self.0.get(i)?;
        let (offset, len) = (r.offset.get(), r.len.get());
        Some((Extent { offset, len }, r.packed.get()))
    }

    /// Index of the first extent that ends after `offset`; [`Extents::len`] if there is none.
    #[must_use]
    pub fn at(&self, offset: u64) -> usize {
        self.0
            .partition_point(|r| r.offset.get().saturating_add(r.len.get()) <= offset)
    }

    /// Bytes of packed data.
    #[must_use]
    pub fn packed_len(&self) -> u64 {
        self.0
            .last()
            .map_or(0, |r| r.packed.get().saturating_add(r.len.get()))
    }
}

impl Tree {
    /// Maps the tree file at `path`. Takes as long for a million files as for one.
    ///
    /// # Errors
    /// [`TreeError::Io`], [`TreeError::NotATree`], [`TreeError::Unknown`], [`TreeError::Damaged`].
    pub fn open(path: &Path) -> Result<Self, TreeError> {
        TreeFile::map(path).map(Self::of)
    }

    /// The tree whose file's bytes these are.
    ///
    /// # Errors
    /// As [`Tree::open`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, TreeError> {
        TreeFile::own(bytes).map(Self::of)
    }

    fn of(file: TreeFile) -> Self {
        Self {
            file: Arc::new(file),
        }
    }

    /// The file's path, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        self.file.name()
    }

    /// What the tree stands for.
    #[must_use]
    pub fn kind(&self) -> TreeKind {
        self.file.kind
    }

    /// The tree's name; see [`super::TreeHeader::identity`].
    #[must_use]
    pub fn identity(&self) -> Digest {
        self.file.identity
    }

    /// Diff ids of its layers, lowest first.
    #[must_use]
    pub fn layers(&self) -> &[Digest] {
        &self.file.layers
    }

    /// Gives the memory that the mapped file takes back to the host. The pages stay in the host's
    /// cache, so the next question costs a page fault, not a read.
    pub fn release_memory(&self) {
        self.file.release();
    }

    /// How many inodes there are: they are numbered `1..=inode_count()`.
    #[must_use]
    pub fn inode_count(&self) -> u64 {
        self.file.count(Section::Inodes)
    }

    /// How many names there are in all directories.
    #[must_use]
    pub fn name_count(&self) -> u64 {
        self.file.count(Section::Entries)
    }

    pub(crate) fn contradiction(&self, detail: &str) -> TreeError {
        self.file.damaged(detail)
    }

    /// How many objects its contents are in.
    #[must_use]
    pub fn object_count(&self) -> u64 {
        self.file.count(Section::Objects)
    }

    /// The `at`-th of those objects.
    ///
    /// # Errors
    /// Damage.
    pub fn object(&self, at: u64) -> Result<Digest, TreeError> {
        Ok(Digest(
            self.file
                .record::<DigestRecord>(Section::Objects, at)?
                .sha256,
        ))
    }

    /// Whether it has any whiteout. (An opaque mark need not have one beside it.)
    #[must_use]
    pub fn has_whiteouts(&self) -> bool {
        self.file.count(Section::Whiteouts) > 0
    }

    /// Attributes of `ino`.
    ///
    /// # Errors
    /// [`TreeError::NoSuchNode`], or damage.
    pub fn attr(&self, ino: Ino) -> Result<Attr, TreeError> {
        let (r, kind) = self.inode(ino)?;
        let size = r.size.get();
        let (size, blocks) = match kind {
            FileKind::Directory => (DIRECTORY_SIZE, DIRECTORY_SIZE / 512),
            FileKind::Regular => (size, self.blocks(r)?),
            _ => (size, 0),
        };
        let is_device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice);
        Ok(Attr {
            ino,
            kind,
            perm: (r.mode.get() & 0o7777) as u16,
            nlink: r.nlink.get(),
            uid: r.uid.get(),
            gid: r.gid.get(),
            rdev: if is_device {
                Device {
                    major: r.b.get(),
                    minor: r.c.get(),
                }
            } else {
                Device::default()
            },
            size,
            blocks,
            atime: Time {
                sec: r.atime.get(),
                nsec: r.atime_nsec.get(),
            },
            mtime: Time {
                sec: r.mtime.get(),
                nsec: r.mtime_nsec.get(),
            },
            ctime: Time {
                sec: r.ctime.get(),
                nsec: r.ctime_nsec.get(),
            },
        })
    }

    /// The inode that `name` names in directory `dir`; `None` if there is no such name.
    ///
    /// # Errors
    /// [`TreeError::NoSuchNode`] if `dir` is no directory, or damage.
    pub fn lookup(&self, dir: Ino, name: &[u8]) -> Result<Option<(Ino, FileKind)>, TreeError> {
        let d = self.directory(dir)?;
        let (mut low, mut high) = (0, u64::from(d.b.get()));
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = self.entry_record(d, middle)?;
            let found = self.name_of(entry.name_offset.get(), entry.name_len.get())?;
            match found.cmp(name) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => {
                    return Ok(Some((
                        Ino(entry.ino.get().into()),
                        self.kind_of(entry.kind)?,
                    )));
                }
            }
        }
        Ok(None)
    }

    /// The `at`-th name of directory `dir`, sorted by their bytes; `None` past the last.
    ///
    /// # Errors
    /// As [`Tree::lookup`].
    pub fn entry(&self, dir: Ino, at: u64) -> Result<Option<TreeEntry<'_>>, TreeError> {
        let d = self.directory(dir)?;
        if at >= u64::from(d.b.get()) {
            return Ok(None);
        }
        let entry = self.entry_record(d, at)?;
        Ok(Some(TreeEntry {
            name: self.name_of(entry.name_offset.get(), entry.name_len.get())?,
            ino: Ino(entry.ino.get().into()),
            kind: self.kind_of(entry.kind)?,
        }))
    }

    /// The `at`-th whiteout of directory `dir`, sorted; `None` past the last.
    ///
    /// # Errors
    /// As [`Tree::lookup`].
    pub fn whiteout(&self, dir: Ino, at: u64) -> Result<Option<&[u8]>, TreeError> {
        let d = self.directory(dir)?;
        if at >= u64::from(d.e.get()) {
            return Ok(None);
        }
        let index = u64::from(d.d.get()) + at;
        let w: &WhiteoutRecord = self.file.record(Section::Whiteouts, index)?;
        self.name_of(w.name_offset.get(), w.name_len.get())
            .map(Some)
    }

    /// Whether directory `dir` hides what the layers below have in it.
    ///
    /// # Errors
    /// As [`Tree::lookup`].
    pub fn is_opaque(&self, dir: Ino) -> Result<bool, TreeError> {
        Ok(self.directory(dir)?.flags & FLAG_OPAQUE != 0)
    }

    /// Whether directory `dir` is only implied by what is in it: its layer does not name it, so
    /// over layers that do, its metadata is theirs.
    ///
    /// # Errors
    /// As [`Tree::lookup`].
    pub fn is_implied(&self, dir: Ino) -> Result<bool, TreeError> {
        Ok(self.directory(dir)?.flags & FLAG_IMPLIED != 0)
    }

    /// The directory that holds directory `dir`; the root's is the root.
    ///
    /// # Errors
    /// As [`Tree::lookup`].
    pub fn parent(&self, dir: Ino) -> Result<Ino, TreeError> {
        Ok(Ino(self.directory(dir)?.c.get().into()))
    }

    /// The target of symbolic link `ino`.
    ///
    /// # Errors
    /// [`TreeError::NoSuchNode`] if it is none, or damage.
    pub fn readlink(&self, ino: Ino) -> Result<&[u8], TreeError> {
        let r = self.inode_as(ino, FileKind::Symlink, "symbolic link")?;
        self.file.bytes(Section::Targets, r.a.get(), r.size.get())
    }

    /// Whether `ino` has any extended attribute.
    ///
    /// # Errors
    /// As [`Tree::attr`].
    pub fn has_xattrs(&self, ino: Ino) -> Result<bool, TreeError> {
        Ok(self.inode(ino)?.0.xattrs.get() != 0)
    }

    /// Calls `each` with every extended attribute of `ino`, sorted by name: name and value.
    ///
    /// # Errors
    /// As [`Tree::attr`].
    pub fn xattrs(&self, ino: Ino, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), TreeError> {
        let Some(set) = self.inode(ino)?.0.xattrs.get().checked_sub(1) else {
            return Ok(());
        };
        let set: &XattrSetRecord = self.file.record(Section::XattrSets, set.into())?;
        let first = u64::from(set.first.get());
        for i in first..first + u64::from(set.count.get()) {
            let (name, value) = self.xattr(i)?;
            each(name, value);
        }
        Ok(())
    }

    pub(super) fn xattr(&self, index: u64) -> Result<(&[u8], &[u8]), TreeError> {
        let x: &XattrRecord = self.file.record(Section::Xattrs, index)?;
        let data = |offset, len: u32| self.file.bytes(Section::XattrData, offset, len.into());
        Ok((
            data(x.name_offset.get(), x.name_len.get())?,
            data(x.value_offset.get(), x.value_len.get())?,
        ))
    }

    /// Where the content of regular file `ino` is.
    ///
    /// # Errors
    /// [`TreeError::NoSuchNode`] if it is no regular file, or damage.
    pub fn content(&self, ino: Ino) -> Result<ContentRef<'_>, TreeError> {
        self.content_and_size(ino).map(|(content, _)| content)
    }

    /// Where the content of regular file `ino` is, and how many bytes it has.
    ///
    /// # Errors
    /// As [`Tree::content`].
    pub fn content_and_size(&self, ino: Ino) -> Result<(ContentRef<'_>, u64), TreeError> {
        let r = self.inode_as(ino, FileKind::Regular, "regular file")?;
        let (a, size) = (r.a.get(), r.size.get());
        let inline = |len| self.file.bytes(Section::Inline, a, len);
        let content = match r.content {
            CONTENT_EMPTY => ContentRef::Empty,
            CONTENT_INLINE => ContentRef::Inline(inline(size)?),
            CONTENT_OBJECT => ContentRef::Object(self.object(a)?),
            CONTENT_SPARSE_INLINE => {
                let extents = self.extents(r)?;
                let data = PackedRef::Inline(inline(extents.packed_len())?);
                ContentRef::Sparse { extents, data }
            }
            CONTENT_SPARSE_OBJECT => ContentRef::Sparse {
                extents: self.extents(r)?,
                data: PackedRef::Object(self.object(a)?),
            },
            CONTENT_SPAN => ContentRef::Span { offset: a },
            CONTENT_SPARSE_SPAN => ContentRef::SparseSpan {
                extents: self.extents(r)?,
                offset: a,
            },
            other => {
                let detail = format!("inode {ino} has a content of unknown kind {other}");
                return Err(self.file.damaged(detail));
            }
        };
        Ok((content, size))
    }

    /// Index (lowest 0) of the layer that `ino` came from.
    ///
    /// # Errors
    /// As [`Tree::attr`].
    pub fn layer_of(&self, ino: Ino) -> Result<u32, TreeError> {
        Ok(self.inode(ino)?.0.layer.get())
    }

    #[inline]
    pub(super) fn inode(&self, ino: Ino) -> Result<(&InodeRecord, FileKind), TreeError> {
        if ino.0 == 0 || ino.0 > self.inode_count() {
            return Err(TreeError::NoSuchNode {
                ino,
                wanted: "file",
            });
        }
        let record: &InodeRecord = self.file.record(Section::Inodes, ino.0 - 1)?;
        match FileKind::from_mode(record.mode.get()) {
            Some(kind) => Ok((record, kind)),
            None => Err(self.file.damaged(format!("inode {ino} is of no kind"))),
        }
    }

    #[inline]
    fn inode_as(
        &self,
        ino: Ino,
        kind: FileKind,
        wanted: &'static str,
    ) -> Result<&InodeRecord, TreeError> {
        match self.inode(ino)? {
            (record, k) if k == kind => Ok(record),
            _ => Err(TreeError::NoSuchNode { ino, wanted }),
        }
    }

    #[inline]
    pub(super) fn directory(&self, dir: Ino) -> Result<&InodeRecord, TreeError> {
        self.inode_as(dir, FileKind::Directory, "directory")
    }

    #[inline]
    fn entry_record(&self, dir: &InodeRecord, at: u64) -> Result<&EntryRecord, TreeError> {
        let index = dir.a.get().saturating_add(at);
        self.file.record(Section::Entries, index)
    }

    #[inline]
    pub(super) fn name_of(&self, offset: u64, len: u16) -> Result<&[u8], TreeError> {
        self.file.bytes(Section::Names, offset, len.into())
    }

    #[inline]
    pub(super) fn kind_of(&self, code: u8) -> Result<FileKind, TreeError> {
        FileKind::from_mode(u32::from(code) << 12)
            .ok_or_else(|| self.file.damaged("a directory entry is of no kind"))
    }

    pub(super) fn extents(&self, r: &InodeRecord) -> Result<Extents<'_>, TreeError> {
        let len = Section::Extents.record_len();
        let bytes = self.file.bytes(
            Section::Extents,
            u64::from(r.d.get()) * len,
            u64::from(r.e.get()) * len,
        )?;
        <[ExtentRecord]>::ref_from_bytes(bytes)
            .map(Extents)
            .map_err(|_| self.file.damaged("an extent list has the wrong size"))
    }

    fn blocks(&self, r: &InodeRecord) -> Result<u64, TreeError> {
        let bytes = match r.content {
            CONTENT_EMPTY => 0,
            CONTENT_SPARSE_INLINE | CONTENT_SPARSE_OBJECT | CONTENT_SPARSE_SPAN => {
                self.extents(r)?.packed_len()
            }
            _ => r.size.get(),
        };
        Ok(bytes.div_ceil(512))
    }
}
