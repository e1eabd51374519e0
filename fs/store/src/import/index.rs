//! An archive that is mounted where it lies: its tree, with contents left in a file.

use std::{
    fs::File,
    io::{self, BufWriter, Read, Write},
    os::unix::fs::{FileExt, MetadataExt},
};

use super::{
    ImportError, ImportOptions, Progress,
    assemble::Contents,
    chunks::{CHUNK, ChunkReader},
    contents::inline,
    decode::Format,
    pipeline::Pass,
    tar::{Bytes, TarReader},
};
use crate::{
    Digest,
    tree::{Content, Extent, INLINE_MAX, INLINE_TOTAL_MAX, TreeBuilder},
};

/// An archive and its tree.
pub struct IndexedArchive {
    /// The tree; contents are [`Content::Span`], [`Content::SparseSpan`] or in the tree. Whiteouts
    /// and opaque marks are the empty files that they are in the archive.
    pub tree: TreeBuilder,
    /// The file that spans count in: the archive itself, or what was unpacked.
    pub contents: File,
    /// Names the archive: the digest of the uncompressed stream, or, where it was not read whole, of
    /// the file's device, inode, size and time of modification.
    pub identity: Digest,
    /// Entries of the archive.
    pub entries: u64,
}

/// Makes the tree of `archive`.
///
/// Of a plain tar in a regular file only the headers are read. Of anything else the contents are
/// unpacked, without their names and headers, into the file that `spill` gives; it should be one
/// that has no name, so that nothing is left of it.
///
/// # Errors
/// As [`super::import_layer`]; [`ImportError::Host`] if the contents cannot be unpacked.
pub fn index_archive(
    archive: File,
    spill: &mut dyn FnMut() -> io::Result<File>,
    options: &ImportOptions,
    progress: &dyn Progress,
) -> Result<IndexedArchive, ImportError> {
    let pass = Pass {
        name: options.source_name(),
        cancel: &options.cancel,
        progress,
        show_marks: true,
    };
    let mut file = InPlace::new(archive, &pass)?;
    if file.regular && Format::detect(file.fill()?) == Ok(Format::Plain) {
        return index_in_place(file, &pass);
    }
    unpack(file, spill, &pass)
}

fn index_in_place(file: InPlace<'_>, pass: &Pass<'_>) -> Result<IndexedArchive, ImportError> {
    let identity = file.identity;
    let contents = file
        .file
        .try_clone()
        .map_err(|source| file.failed(source))?;
    let mut reader = TarReader::new(file, pass.name.to_owned());
    let (tree, entries) = pass.assemble(&mut reader, &mut Spans)?;
    Ok(IndexedArchive {
        tree,
        contents,
        identity,
        entries,
    })
}

fn unpack(
    mut file: InPlace<'_>,
    spill: &mut dyn FnMut() -> io::Result<File>,
    pass: &Pass<'_>,
) -> Result<IndexedArchive, ImportError> {
    let mut contents = Unpacked {
        out: BufWriter::with_capacity(CHUNK, spill().map_err(no_room)?),
        at: 0,
    };
    // What was looked at to tell the format comes first.
    let head = file.buffer.get(..file.filled).unwrap_or_default().to_vec();
    file.at = file.filled;
    let identity = file.identity;
    let source = head.chain(SequentialFile(&file.file, file.start + head.len() as u64));
    let passed = pass.run(source, &mut |_| Ok(()), &mut contents)?;
    Ok(IndexedArchive {
        tree: passed.tree,
        contents: contents
            .out
            .into_inner()
            .map_err(|e| no_room(e.into_error()))?,
        identity: passed.diff_id.unwrap_or(identity),
        entries: passed.entries,
    })
}

fn no_room(source: io::Error) -> ImportError {
    ImportError::Host {
        action: "unpack the archive's contents into a temporary file (TMPDIR may name a directory with more room; a plain tar needs none)",
        source,
    }
}

/// A file that is read on from where the look at its beginning ended.
struct SequentialFile<'a>(&'a File, u64);

impl Read for SequentialFile<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = match self.0.read_at(into, self.1) {
            // A pipe has no offsets.
            Err(e) if e.raw_os_error() == Some(libc::ESPIPE) => (&mut &*self.0).read(into)?,
            other => other?,
        };
        self.1 += n as u64;
        Ok(n)
    }
}

/// The bytes of a file, of which only what is wanted is read.
struct InPlace<'a> {
    file: File,
    regular: bool,
    size: u64,
    identity: Digest,
    buffer: Vec<u8>,
    /// Offset in the file of the buffer's first byte.
    start: u64,
    /// Bytes of the buffer that are read, and how many of them were consumed.
    filled: usize,
    at: usize,
    pass: &'a Pass<'a>,
}

impl<'a> InPlace<'a> {
    fn new(file: File, pass: &'a Pass<'a>) -> Result<Self, ImportError> {
        let stat = file.metadata().map_err(|source| ImportError::Read {
            name: pass.name.to_owned(),
            offset: 0,
            source,
        })?;
        let about = format!(
            "archive {} {} {} {}.{}",
            stat.dev(),
            stat.ino(),
            stat.size(),
            stat.mtime(),
            stat.mtime_nsec()
        );
        Ok(Self {
            file,
            regular: stat.is_file(),
            size: stat.size(),
            identity: Digest::of(about.as_bytes()),
            buffer: vec![0; CHUNK],
            start: 0,
            filled: 0,
            at: 0,
            pass,
        })
    }

    fn position(&self) -> u64 {
        self.start + self.at as u64
    }

    fn failed(&self, source: io::Error) -> ImportError {
        ImportError::Read {
            name: self.pass.name.to_owned(),
            offset: self.position(),
            source,
        }
    }
}

impl Bytes for InPlace<'_> {
    fn fill(&mut self) -> Result<&[u8], ImportError> {
        if self.at >= self.filled {
            self.pass.cancel.check()?;
            self.start = self.position();
            (self.at, self.filled) = (0, 0);
            let mut from = SequentialFile(&self.file, self.start);
            let read = loop {
                match from.read(&mut self.buffer) {
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    other => break other,
                }
            };
            self.filled = read.map_err(|source| self.failed(source))?;
        }
        Ok(self.buffer.get(self.at..self.filled).unwrap_or_default())
    }

    fn consume(&mut self, n: usize) {
        self.at += n;
        self.pass.progress.bytes(n as u64);
    }

    fn skip(&mut self, n: u64) -> Result<u64, ImportError> {
        let n = n.min(self.size.saturating_sub(self.position()));
        self.pass.progress.bytes(n);
        let inside = (self.filled - self.at) as u64;
        if n <= inside {
            self.at += usize::try_from(n).unwrap_or(0);
        } else {
            self.start = self.position() + n;
            (self.at, self.filled) = (0, 0);
        }
        Ok(n)
    }
}

/// Leaves contents where they are.
struct Spans;

impl Contents<InPlace<'_>> for Spans {
    fn keep(
        &mut self,
        from: &mut TarReader<InPlace<'_>>,
        extents: Option<Vec<Extent>>,
        _: &TreeBuilder,
    ) -> Result<Content, ImportError> {
        Ok(match from.left() {
            0 => Content::Empty,
            _ => span(extents, from.position()),
        })
    }
}

fn span(extents: Option<Vec<Extent>>, offset: u64) -> Content {
    match extents {
        Some(extents) => Content::SparseSpan { extents, offset },
        None => Content::Span { offset },
    }
}

/// Puts contents one behind the other into a file, small ones into the tree.
struct Unpacked {
    out: BufWriter<File>,
    at: u64,
}

impl Contents<ChunkReader> for Unpacked {
    fn keep(
        &mut self,
        from: &mut TarReader<ChunkReader>,
        extents: Option<Vec<Extent>>,
        tree: &TreeBuilder,
    ) -> Result<Content, ImportError> {
        let stored = from.left();
        if stored == 0 {
            return Ok(Content::Empty);
        }
        let small = stored <= INLINE_MAX as u64 && tree.inline_bytes() < INLINE_TOTAL_MAX;
        if small && extents.is_none() {
            return inline(from).map(Content::Inline);
        }
        let offset = self.at;
        loop {
            let bytes = from.content()?;
            if bytes.is_empty() {
                return Ok(span(extents, offset));
            }
            self.out.write_all(bytes).map_err(no_room)?;
            let n = bytes.len();
            self.at += n as u64;
            from.consume(n);
        }
    }
}
