//! Where the contents of an imported layer's files go.

use std::io::Write;

use super::{ImportError, assemble::Contents, chunks::ChunkReader, tar::TarReader};
use crate::{
    Digest, Store, StoreError,
    tree::{Content, Extent, INLINE_MAX, INLINE_TOTAL_MAX, Packed, TreeBuilder},
};

/// Keeps contents in a store: small ones in the tree, others as objects.
pub(super) struct ToStore<'a> {
    store: &'a Store,
    bytes: u64,
}

impl<'a> ToStore<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store, bytes: 0 }
    }

    /// Bytes kept, holes not counted.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn object(&self, from: &mut TarReader<ChunkReader>) -> Result<Digest, ImportError> {
        let objects = self.store.objects();
        let mut writer = objects.writer()?;
        loop {
            let bytes = from.content()?;
            if bytes.is_empty() {
                return Ok(writer.finish()?);
            }
            let written = writer.write_all(bytes);
            written.map_err(StoreError::io("write an object to", self.store.root()))?;
            let n = bytes.len();
            from.consume(n);
        }
    }

    fn packed(
        &self,
        from: &mut TarReader<ChunkReader>,
        tree: &TreeBuilder,
    ) -> Result<Packed, ImportError> {
        let small = from.left() <= INLINE_MAX as u64 && tree.inline_bytes() < INLINE_TOTAL_MAX;
        Ok(match small {
            true => Packed::Inline(inline(from)?),
            false => Packed::Object(self.object(from)?),
        })
    }
}

impl Contents<ChunkReader> for ToStore<'_> {
    fn keep(
        &mut self,
        from: &mut TarReader<ChunkReader>,
        extents: Option<Vec<Extent>>,
        tree: &TreeBuilder,
    ) -> Result<Content, ImportError> {
        if from.left() == 0 {
            return Ok(Content::Empty);
        }
        self.bytes += from.left();
        let data = self.packed(from, tree)?;
        Ok(match (extents, data) {
            (Some(extents), data) => Content::Sparse { extents, data },
            (None, Packed::Inline(bytes)) => Content::Inline(bytes),
            (None, Packed::Object(id)) => Content::Object(id),
        })
    }
}

/// The stored bytes of a member that has few.
pub(super) fn inline(from: &mut TarReader<ChunkReader>) -> Result<Vec<u8>, ImportError> {
    let mut all = Vec::new();
    loop {
        let bytes = from.content()?;
        if bytes.is_empty() {
            return Ok(all);
        }
        all.extend_from_slice(bytes);
        let n = bytes.len();
        from.consume(n);
    }
}
