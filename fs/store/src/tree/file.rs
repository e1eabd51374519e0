//! An open tree file: its header, and checked access to its records.
//!
//! Opening reads the header, the checksums (8 bytes per 64 KiB) and the layer list; nothing in it
//! grows with the number of files but those 8 bytes. A block of the body is verified when it is
//! touched first, and a bit in `verified` says so from then on: the file does not change, so two
//! threads that verify the same block at once find the same. Whatever a record says is still
//! checked against the section it points into, so that no file, however made, can do more than give
//! an error.

use std::{
    fs::File,
    io,
    path::Path,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use pellicle_sys::map::Map;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::{
    TreeError, TreeKind,
    format::{
        ALL_SECTIONS, BLOCK_LEN, COMPAT_NAMES, DigestRecord, HEADER_LEN, Header, KIND_IMAGE,
        KIND_LAYER, KNOWN_INCOMPAT, MAGIC, MAX_COUNT, Range, SECTIONS, Section, VERSION, hash,
    },
};
use crate::Digest;

#[derive(Debug)]
enum Data {
    Mapped(Map),
    Owned(Vec<u8>),
}

/// An open tree file.
#[derive(Debug)]
pub(super) struct TreeFile {
    data: Data,
    name: String,
    sections: [(u64, u64); ALL_SECTIONS],
    /// Whether the sections that lead to names are there.
    pub(super) has_names: bool,
    verified: Box<[AtomicU64]>,
    checksums: usize,
    body_end: usize,
    pub(super) kind: TreeKind,
    pub(super) identity: Digest,
    pub(super) layers: Vec<Digest>,
}

impl TreeFile {
    pub(super) fn map(path: &Path) -> Result<Self, TreeError> {
        let io = |doing| {
            move |source: io::Error| TreeError::Io {
                doing,
                path: path.to_owned(),
                source,
            }
        };
        let file = File::open(path).map_err(io("open tree"))?;
        let map = Map::of(&file).map_err(io("map tree"))?;
        Self::new(Data::Mapped(map), path.display().to_string())
    }

    pub(super) fn own(bytes: Vec<u8>) -> Result<Self, TreeError> {
        Self::new(Data::Owned(bytes), "a tree in memory".into())
    }

    fn new(data: Data, name: String) -> Result<Self, TreeError> {
        let bytes = data.bytes();
        let damaged = |detail: &str| TreeError::Damaged {
            file: name.clone(),
            block: None,
            detail: detail.into(),
        };
        if !bytes.starts_with(&MAGIC) {
            return Err(TreeError::NotATree { file: name });
        }
        let (header, _) =
            Header::ref_from_prefix(bytes).map_err(|_| damaged("it ends inside its header"))?;
        if header.version.get() != VERSION {
            return Err(TreeError::Unknown {
                file: name,
                what: "version",
                found: header.version.get().into(),
            });
        }
        let head = bytes.get(..HEADER_LEN - 8).unwrap_or_default();
        if hash(head) != header.checksum.get() {
            return Err(damaged("the checksum of its header does not match"));
        }
        if header.incompat.get() & !KNOWN_INCOMPAT != 0 {
            return Err(TreeError::Unknown {
                file: name,
                what: "features",
                found: header.incompat.get() & !KNOWN_INCOMPAT,
            });
        }
        let sums = geometry(header, bytes).map_err(damaged)?;
        if hash(sums) != header.checksums_hash.get() {
            return Err(damaged("the checksum of its checksums does not match"));
        }
        let kind = match header.kind.get() {
            KIND_LAYER => TreeKind::Layer,
            KIND_IMAGE => TreeKind::Image,
            _ => return Err(damaged("it is neither a layer nor an image")),
        };
        let mut file = Self {
            name: String::new(),
            sections: sections_of(header),
            has_names: header.compat.get() & COMPAT_NAMES != 0,
            verified: (0..sums.len().div_ceil(8 * 64))
                .map(|_| AtomicU64::new(0))
                .collect(),
            checksums: HEADER_LEN + body_len(header),
            body_end: HEADER_LEN + body_len(header),
            kind,
            identity: Digest(header.identity),
            layers: Vec::new(),
            data,
        };
        file.name = name;
        let count = file.count(Section::Layers);
        file.layers = (0..count)
            .map(|i| {
                Ok(Digest(
                    file.record::<DigestRecord>(Section::Layers, i)?.sha256,
                ))
            })
            .collect::<Result<_, TreeError>>()?;
        Ok(file)
    }

    /// The file, for messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    #[cold]
    pub(super) fn damaged(&self, detail: impl Into<String>) -> TreeError {
        TreeError::Damaged {
            file: self.name.clone(),
            block: None,
            detail: detail.into(),
        }
    }

    /// How many records `section` has.
    #[inline]
    pub(super) fn count(&self, section: Section) -> u64 {
        self.section(section).1 / section.record_len()
    }

    #[inline]
    fn section(&self, section: Section) -> (u64, u64) {
        // The index is below ALL_SECTIONS by the enum's definition.
        self.sections
            .get(section as usize)
            .copied()
            .unwrap_or_default()
    }

    /// Record `index` of `section`.
    #[inline]
    pub(super) fn record<T: FromBytes + KnownLayout + Immutable + Unaligned>(
        &self,
        section: Section,
        index: u64,
    ) -> Result<&T, TreeError> {
        let len = size_of::<T>() as u64;
        let offset = index.saturating_mul(len);
        let bytes = self.bytes(section, offset, len)?;
        T::ref_from_bytes(bytes).map_err(|_| self.damaged("a record has the wrong size"))
    }

    /// `len` bytes of `section` from `offset`.
    #[inline]
    pub(super) fn bytes(
        &self,
        section: Section,
        offset: u64,
        len: u64,
    ) -> Result<&[u8], TreeError> {
        let (start, section_len) = self.section(section);
        if offset.checked_add(len).is_none_or(|end| end > section_len) {
            return Err(self.out_of_section(section));
        }
        if len == 0 {
            return Ok(&[]);
        }
        // No overflow: the section is inside the file, as opening has checked.
        let at = usize::try_from(start + offset).unwrap_or(usize::MAX);
        let end = usize::try_from(start + offset + len).unwrap_or(usize::MAX);
        let first = (at - HEADER_LEN) / BLOCK_LEN;
        let last = (end - 1 - HEADER_LEN) / BLOCK_LEN;
        if !self.is_verified(first) || (last != first && !self.are_verified(first + 1, last)) {
            self.verify(first, last)?;
        }
        self.data
            .bytes()
            .get(at..end)
            .ok_or_else(|| self.out_of_section(section))
    }

    #[cold]
    fn out_of_section(&self, section: Section) -> TreeError {
        self.damaged(format!(
            "something reaches out of its {} section",
            section.name()
        ))
    }

    #[inline]
    fn is_verified(&self, block: usize) -> bool {
        self.verified
            .get(block / 64)
            .is_some_and(|w| w.load(Relaxed) & (1 << (block % 64)) != 0)
    }

    #[cold]
    fn are_verified(&self, first: usize, last: usize) -> bool {
        (first..=last).all(|b| self.is_verified(b))
    }

    #[cold]
    fn verify(&self, first: usize, last: usize) -> Result<(), TreeError> {
        for block in (first..=last).filter(|b| !self.is_verified(*b)) {
            if self.hash_of(block) != self.sum_of(block) {
                return Err(TreeError::Damaged {
                    file: self.name.clone(),
                    block: Some(block as u64),
                    detail: "its checksum does not match".into(),
                });
            }
            if let Some(word) = self.verified.get(block / 64) {
                word.fetch_or(1 << (block % 64), Relaxed);
            }
        }
        Ok(())
    }

    fn hash_of(&self, block: usize) -> Option<u64> {
        let start = HEADER_LEN + block * BLOCK_LEN;
        let end = self.body_end.min(start + BLOCK_LEN);
        self.data.bytes().get(start..end).map(hash)
    }

    fn sum_of(&self, block: usize) -> Option<u64> {
        let at = self.checksums + block * 8;
        let sum = self.data.bytes().get(at..at + 8)?;
        Some(u64::from_le_bytes(sum.try_into().ok()?))
    }

    /// Gives mapped memory back to the host; it comes back when it is touched.
    pub(super) fn release(&self) {
        if let Data::Mapped(map) = &self.data
            && let Err(error) = map.release()
        {
            tracing::debug!(%error, tree = self.name, "mapped memory could not be given back");
        }
    }

    /// Verifies every block, also those that were before.
    pub(super) fn verify_all(&self) -> Result<(), TreeError> {
        for word in &self.verified {
            word.store(0, Relaxed);
        }
        let blocks = (self.body_end - HEADER_LEN).div_ceil(BLOCK_LEN);
        match blocks.checked_sub(1) {
            Some(last) => self.verify(0, last),
            None => Ok(()),
        }
    }
}

impl Data {
    #[inline]
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// The sections of [`Section::ALL`]; empty where the file says that it has none.
fn sections_of(header: &Header) -> [(u64, u64); ALL_SECTIONS] {
    let mut all = [(HEADER_LEN as u64, 0); ALL_SECTIONS];
    for (slot, range) in all.iter_mut().zip(ranges(header)) {
        *slot = (range.offset.get(), range.len.get());
    }
    all
}

fn ranges(header: &Header) -> impl Iterator<Item = &Range> {
    let more = match header.compat.get() & COMPAT_NAMES {
        0 => &[][..],
        _ => &header.more[..],
    };
    header.sections.iter().chain(more)
}

/// Length of the body, which [`geometry`] has checked.
fn body_len(header: &Header) -> usize {
    usize::try_from(header.body.len.get()).unwrap_or(0)
}

/// Checks that body, checksums and sections lie in the file as they must; returns the checksums.
fn geometry<'a>(header: &Header, bytes: &'a [u8]) -> Result<&'a [u8], &'static str> {
    let end_of = |r: &Range| r.offset.get().checked_add(r.len.get());
    let file_len = bytes.len() as u64;
    if header.file_len.get() != file_len {
        return Err("its length is not the one in its header: it was cut off or added to");
    }
    let (body, sums) = (&header.body, &header.checksums);
    let blocks = body.len.get().div_ceil(BLOCK_LEN as u64);
    if header.header_len.get() as usize != HEADER_LEN
        || header.block_len.get() as usize != BLOCK_LEN
        || header.section_count.get() as usize != SECTIONS
        || body.offset.get() != HEADER_LEN as u64
        || end_of(body) != Some(sums.offset.get())
        || sums.len.get() != blocks * 8
        || end_of(sums) != Some(file_len)
    {
        return Err("its parts do not lie as its format says");
    }
    for (section, range) in Section::ALL.into_iter().zip(ranges(header)) {
        if range.offset.get() < HEADER_LEN as u64
            || end_of(range).is_none_or(|end| end > sums.offset.get())
            || range.len.get() % section.record_len() != 0
            || (section.record_len() > 1 && range.len.get() / section.record_len() > MAX_COUNT)
        {
            return Err("one of its sections does not lie inside its body");
        }
    }
    let at = usize::try_from(sums.offset.get()).unwrap_or(usize::MAX);
    bytes.get(at..).ok_or("it ends before its checksums")
}
