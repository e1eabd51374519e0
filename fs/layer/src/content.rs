//! Trees as lower layers: names and attributes from the tree, a file's content from wherever the
//! tree says that it is.

use std::{borrow::Cow, fs::File, io, os::unix::fs::FileExt, sync::Arc};

use pellicle_store::{
    Attr, Content, Digest, FileKind, Ino, Tree,
    tree::{ContentRef, Extents, PackedRef, TreeError},
};

use crate::{Entry, Lower, LowerError};

/// A tree, and where the contents that are not in it are. Whatever has both is a [`Lower`].
pub(crate) trait Files {
    /// The tree.
    fn tree(&self) -> &Tree;

    /// The object of that name.
    fn object(&self, id: &Digest) -> Result<Arc<File>, LowerError>;

    /// The archive that spans count in.
    fn archive(&self) -> Result<Arc<File>, LowerError>;

    /// What messages call the file behind `content`.
    fn name(&self, content: &ContentRef<'_>) -> String;
}

impl<T: Files + Send + Sync> Lower for T {
    fn inode_count(&self) -> u64 {
        self.tree().inode_count()
    }

    fn identity(&self) -> [u8; 32] {
        self.tree().identity().0
    }

    fn attr(&self, ino: Ino) -> Result<Attr, LowerError> {
        self.tree().attr(ino).map_err(tree_error)
    }

    fn lookup(&self, dir: Ino, name: &[u8]) -> Result<Option<(Ino, FileKind)>, LowerError> {
        self.tree().lookup(dir, name).map_err(tree_error)
    }

    fn entry(&self, dir: Ino, at: u64) -> Result<Option<Entry<'_>>, LowerError> {
        let entry = self.tree().entry(dir, at).map_err(tree_error)?;
        Ok(entry.map(|e| Entry {
            name: e.name,
            ino: e.ino,
            kind: e.kind,
        }))
    }

    fn parent(&self, dir: Ino) -> Result<Ino, LowerError> {
        self.tree().parent(dir).map_err(tree_error)
    }

    fn readlink(&self, ino: Ino) -> Result<Cow<'_, [u8]>, LowerError> {
        self.tree()
            .readlink(ino)
            .map(Cow::Borrowed)
            .map_err(tree_error)
    }

    fn has_xattrs(&self, ino: Ino) -> Result<bool, LowerError> {
        self.tree().has_xattrs(ino).map_err(tree_error)
    }

    fn xattrs(&self, ino: Ino, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), LowerError> {
        self.tree().xattrs(ino, each).map_err(tree_error)
    }

    fn read(&self, ino: Ino, offset: u64, buf: &mut [u8]) -> Result<usize, LowerError> {
        read(self.tree(), self, ino, offset, buf)
    }

    fn backing(&self, ino: Ino) -> Result<Option<Arc<File>>, LowerError> {
        match self.tree().content(ino).map_err(tree_error)? {
            ContentRef::Object(id) => self.object(&id).map(Some),
            _ => Ok(None),
        }
    }

    fn stored(&self, ino: Ino) -> Result<Option<Content>, LowerError> {
        let content = self.tree().content(ino).map_err(tree_error)?.to_content();
        let is_in_archive = matches!(content, Content::Span { .. } | Content::SparseSpan { .. });
        Ok((!is_in_archive).then_some(content))
    }

    fn seek(&self, ino: Ino, offset: u64, data: bool) -> Result<Option<u64>, LowerError> {
        seek(self.tree(), ino, offset, data)
    }

    fn names_of(&self, ino: Ino, each: &mut dyn FnMut(Ino, &[u8])) -> Result<bool, LowerError> {
        self.tree().names_of(ino, each).map_err(tree_error)
    }

    fn layer_of(&self, ino: Ino) -> Result<u32, LowerError> {
        self.tree().layer_of(ino).map_err(tree_error)
    }

    fn release_memory(&self) {
        self.tree().release_memory();
    }
}

/// An error of a tree as one of the layer it is in.
pub(crate) fn tree_error(error: TreeError) -> LowerError {
    match error {
        TreeError::NoSuchNode { ino, wanted } => LowerError::NoSuchNode { ino, wanted },
        TreeError::Io { path, source, .. } => LowerError::Io {
            what: path.display().to_string(),
            source,
        },
        TreeError::Damaged {
            file,
            block,
            detail,
        } => LowerError::Corrupt {
            what: file,
            detail: match block {
                Some(block) => format!("block {block}: {detail}"),
                None => detail,
            },
        },
        other @ (TreeError::NotATree { .. }
        | TreeError::Unknown { .. }
        | TreeError::Unstorable { .. }
        | TreeError::TooMany { .. }) => LowerError::Corrupt {
            what: "a tree".into(),
            detail: other.to_string(),
        },
    }
}

/// Bytes, wherever they are.
enum Data<'a> {
    Bytes(&'a [u8]),
    /// A file, and where in it they start.
    File(Arc<File>, u64),
}

impl Data<'_> {
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        match self {
            Self::File(file, start) => file.read_exact_at(into, start.saturating_add(offset)),
            Self::Bytes(bytes) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                let to = from.saturating_add(into.len());
                match bytes.get(from..to) {
                    Some(part) => into.copy_from_slice(part),
                    None => return Err(io::ErrorKind::UnexpectedEof.into()),
                }
                Ok(())
            }
        }
    }
}

/// A content taken apart: its data, and which parts of the file those are, if not all.
fn parts<'a>(
    content: ContentRef<'a>,
    files: &(impl Files + ?Sized),
) -> Result<(Data<'a>, Option<Extents<'a>>), LowerError> {
    Ok(match content {
        ContentRef::Empty => (Data::Bytes(&[]), None),
        ContentRef::Inline(bytes) => (Data::Bytes(bytes), None),
        ContentRef::Object(id) => (Data::File(files.object(&id)?, 0), None),
        ContentRef::Span { offset } => (Data::File(files.archive()?, offset), None),
        ContentRef::SparseSpan { extents, offset } => {
            (Data::File(files.archive()?, offset), Some(extents))
        }
        ContentRef::Sparse { extents, data } => match data {
            PackedRef::Inline(bytes) => (Data::Bytes(bytes), Some(extents)),
            PackedRef::Object(id) => (Data::File(files.object(&id)?, 0), Some(extents)),
        },
    })
}

/// As [`crate::Lower::read`], of regular file `ino` of `tree`.
fn read(
    tree: &Tree,
    files: &(impl Files + ?Sized),
    ino: Ino,
    offset: u64,
    buf: &mut [u8],
) -> Result<usize, LowerError> {
    let (content, size) = tree.content_and_size(ino).map_err(tree_error)?;
    let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
    let n = left.min(buf.len());
    let Some(buf) = buf.get_mut(..n).filter(|buf| !buf.is_empty()) else {
        return Ok(0);
    };
    if matches!(content, ContentRef::Empty) {
        buf.fill(0);
        return Ok(n);
    }
    let (data, extents) = parts(content, files)?;
    let done = match extents {
        None => data.read(offset, buf),
        Some(extents) => read_sparse(&data, &extents, offset, buf),
    };
    match done {
        Ok(()) => Ok(n),
        Err(source) if source.kind() == io::ErrorKind::UnexpectedEof => Err(LowerError::Corrupt {
            what: files.name(&content),
            detail: format!("it is shorter than inode {ino} needs"),
        }),
        Err(source) => Err(LowerError::Io {
            what: files.name(&content),
            source,
        }),
    }
}

/// Reads from `offset` of a file whose content is the first `size` bytes of `file`.
pub(crate) fn read_span(file: &File, offset: u64, size: u64, buf: &mut [u8]) -> io::Result<usize> {
    let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
    let n = left.min(buf.len());
    if let Some(buf) = buf.get_mut(..n) {
        file.read_exact_at(buf, offset)?;
    }
    Ok(n)
}

fn read_sparse(
    data: &Data<'_>,
    extents: &Extents<'_>,
    offset: u64,
    buf: &mut [u8],
) -> io::Result<()> {
    buf.fill(0);
    let end = offset.saturating_add(buf.len() as u64);
    for i in extents.at(offset)..extents.len() {
        let Some((extent, packed)) = extents.get(i).filter(|(e, _)| e.offset < end) else {
            break;
        };
        let from = extent.offset.max(offset);
        let to = extent.offset.saturating_add(extent.len).min(end);
        let place = |at: u64| usize::try_from(at.saturating_sub(offset)).unwrap_or(usize::MAX);
        if let Some(part) = buf.get_mut(place(from)..place(to)) {
            data.read(packed.saturating_add(from - extent.offset), part)?;
        }
    }
    Ok(())
}

/// As [`crate::Lower::seek`], of regular file `ino` of `tree`.
fn seek(tree: &Tree, ino: Ino, offset: u64, data: bool) -> Result<Option<u64>, LowerError> {
    let (content, size) = tree.content_and_size(ino).map_err(tree_error)?;
    if offset >= size {
        return Ok(None);
    }
    Ok(match content {
        ContentRef::Sparse { extents, .. } | ContentRef::SparseSpan { extents, .. } => {
            seek_sparse(&extents, size, offset, data)
        }
        // All hole.
        ContentRef::Empty => (!data).then_some(offset),
        // All data.
        ContentRef::Inline(_) | ContentRef::Object(_) | ContentRef::Span { .. } => {
            Some(if data { offset } else { size })
        }
    })
}

fn seek_sparse(extents: &Extents<'_>, size: u64, offset: u64, data: bool) -> Option<u64> {
    let mut i = extents.at(offset);
    let first = extents.get(i).map(|(extent, _)| extent);
    if data {
        return first.map(|extent| extent.offset.max(offset));
    }
    let mut hole = offset;
    // Extents that touch are one run of data.
    while let Some((extent, _)) = extents.get(i).filter(|(e, _)| e.offset <= hole) {
        hole = extent.offset.saturating_add(extent.len);
        i += 1;
    }
    Some(hole.min(size))
}
