//! The stages of an import and the threads they run on.
//!
//! ```text
//! read, hash and keep the source -> decode -> hash the tar (diff id)
//!                                         `-> parse, hash and keep contents (the calling thread)
//! ```
//!
//! Chunks are shared, not copied, between the two ends. A stage that fails sends its error on; one
//! whose receiver is gone stops. So the first error in the order of the stream reaches the caller,
//! and no thread outlives the call. A plain tar is its own diff id: there the source goes straight
//! to the parser.

use std::{
    io::{self, Read},
    thread::{self, Scope, ScopedJoinHandle},
};

use crossbeam::channel::{Receiver, Sender, bounded};
use sha2::{Digest as _, Sha256};

use super::{
    Cancel, ImportError, Progress,
    assemble::{Assembler, Contents},
    chunks::{Chunk, ChunkReader, DEPTH, Item, Pool},
    decode::{self, Format},
    tar::{Bytes, TarReader},
};
use crate::{Digest, tree::TreeBuilder};

/// What all stages know.
pub(super) struct Pass<'a> {
    /// What messages call the source.
    pub(super) name: &'a str,
    pub(super) cancel: &'a Cancel,
    pub(super) progress: &'a dyn Progress,
    /// See [`Assembler::new`].
    pub(super) show_marks: bool,
}

/// What a pass found.
pub(super) struct Passed {
    pub(super) tree: TreeBuilder,
    pub(super) format: Format,
    /// Digest of the uncompressed stream; `None` if that is the source itself, or nobody asked.
    pub(super) diff_id: Option<Digest>,
    pub(super) entries: u64,
}

/// Who looks at all bytes of a stage.
pub(super) type Tap<'a> = &'a mut (dyn FnMut(&[u8]) -> Result<(), ImportError> + Send);

type Result<T, E = ImportError> = std::result::Result<T, E>;

impl Pass<'_> {
    /// Reads all of `source` into a tree. `each` sees every byte of the source, in order.
    pub(super) fn run(
        &self,
        mut source: impl Read + Send,
        each: Tap<'_>,
        contents: &mut impl Contents<ChunkReader>,
    ) -> Result<Passed> {
        let pool = Pool::new();
        thread::scope(|scope| {
            let (raw, mut chunks) = channel();
            let reading = pool.clone();
            start(scope, "read", move || {
                self.read(&mut source, &reading, &raw, each);
            })?;
            let format = self.detect(&mut chunks)?;
            if format == Format::Plain {
                let (tree, entries) = self.parse(chunks, contents)?;
                return Ok(Passed {
                    tree,
                    format,
                    diff_id: None,
                    entries,
                });
            }
            let (plain, decoded) = channel();
            let (to_hash, hashed) = bounded(DEPTH);
            start(scope, "decode", move || {
                self.decode(format, chunks, &pool, &plain, &to_hash);
            })?;
            let hash = start(scope, "hash", move || hash(&hashed))?;
            let (tree, entries) = self.parse(decoded, contents)?;
            let diff_id = hash.join().map_err(|_| stopped())?;
            Ok(Passed {
                tree,
                format,
                diff_id: Some(diff_id),
                entries,
            })
        })
    }

    /// The first stage. A source that blocks is noticed to be cancelled only when it gives bytes.
    fn read(&self, source: &mut dyn Read, pool: &Pool, to: &Sender<Item>, each: Tap<'_>) {
        let mut offset = 0;
        loop {
            let item = self.read_chunk(source, pool, offset, each);
            let last = match &item {
                Ok(chunk) => chunk.is_empty(),
                Err(_) => true,
            };
            offset += item.as_ref().map_or(0, |chunk| chunk.len() as u64);
            let end_of_source = last && item.is_ok();
            if end_of_source || to.send(item).is_err() || last {
                return;
            }
        }
    }

    fn read_chunk(
        &self,
        source: &mut dyn Read,
        pool: &Pool,
        offset: u64,
        each: &mut (dyn FnMut(&[u8]) -> Result<()> + Send),
    ) -> Item {
        self.cancel.check()?;
        let mut buffer = pool.take();
        let len = decode::read_full(source, &mut buffer).map_err(|source| ImportError::Read {
            name: self.name.to_owned(),
            offset,
            source,
        })?;
        let chunk = pool.chunk(buffer, len);
        each(&chunk)?;
        self.progress.bytes(len as u64);
        Ok(chunk)
    }

    fn detect(&self, chunks: &mut ChunkReader) -> Result<Format> {
        Format::detect(Bytes::fill(chunks)?).map_err(|format| ImportError::Unsupported {
            name: self.name.to_owned(),
            format,
        })
    }

    fn decode(
        &self,
        format: Format,
        mut from: ChunkReader,
        pool: &Pool,
        to: &Sender<Item>,
        to_hash: &Sender<Chunk>,
    ) {
        let done = decode::decode(format, &mut from, self.name, pool, &mut |chunk| {
            // The hash never ends early; the parser does when it fails.
            !self.cancel.is_cancelled()
                && to_hash.send(chunk.clone()).is_ok()
                && to.send(Ok(chunk)).is_ok()
        });
        if let Err(error) = done.and_then(|()| self.cancel.check()) {
            // If the parser is gone, it has an error of its own.
            let _ = to.send(Err(error));
        }
    }

    fn parse(
        &self,
        chunks: ChunkReader,
        contents: &mut impl Contents<ChunkReader>,
    ) -> Result<(TreeBuilder, u64)> {
        let mut reader = TarReader::new(chunks, self.name.to_owned());
        let parsed = self.assemble(&mut reader, contents)?;
        reader.drain()?;
        Ok(parsed)
    }

    /// Builds the tree of all members of `reader`.
    pub(super) fn assemble<B: Bytes>(
        &self,
        reader: &mut TarReader<B>,
        contents: &mut impl Contents<B>,
    ) -> Result<(TreeBuilder, u64)> {
        const BATCH: u64 = 256;
        let mut assembler = Assembler::new(self.show_marks);
        while let Some(member) = reader.next()? {
            assembler.add(reader, member, contents)?;
            if assembler.entries().is_multiple_of(BATCH) {
                self.cancel.check()?;
                self.progress.entries(BATCH);
            }
        }
        let entries = assembler.entries();
        self.progress.entries(entries % BATCH);
        Ok((assembler.finish(), entries))
    }
}

fn channel() -> (Sender<Item>, ChunkReader) {
    let (to, from) = bounded(DEPTH);
    (to, ChunkReader::new(from))
}

fn hash(chunks: &Receiver<Chunk>) -> Digest {
    let mut sum = Sha256::new();
    for chunk in chunks {
        sum.update(&*chunk);
    }
    Digest(sum.finalize().into())
}

/// Starts one stage.
pub(super) fn start<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    stage: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    thread::Builder::new()
        .name(format!("import-{name}"))
        .spawn_scoped(scope, stage)
        .map_err(|source| ImportError::Host {
            action: "start a thread",
            source,
        })
}

/// A stage that ended without telling its end, which it cannot.
pub(super) fn stopped() -> ImportError {
    ImportError::Host {
        action: "wait for a stage of the import",
        source: io::Error::other("it stopped"),
    }
}
