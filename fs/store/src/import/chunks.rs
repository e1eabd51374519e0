//! Buffers that travel between the threads of an import.
//!
//! A [`Chunk`] is shared by everyone who looks at its bytes and goes back to its [`Pool`] when the
//! last has done so: after the first moments an import allocates nothing. The channels between the
//! stages are short, so memory is bounded by their lengths.

use std::{
    io::{self, BufRead, Read},
    ops::Deref,
    sync::Arc,
};

use crossbeam::channel::{Receiver, Sender, bounded};

use super::{ImportError, tar::Bytes};

/// Bytes of a buffer. Larger ones leave the caches of the machine between two stages.
pub(super) const CHUNK: usize = 256 << 10;
/// Chunks that may wait between two stages.
pub(super) const DEPTH: usize = 8;

/// Buffers that are not in use.
#[derive(Clone)]
pub(super) struct Pool {
    free: (Sender<Vec<u8>>, Receiver<Vec<u8>>),
}

impl Pool {
    pub(super) fn new() -> Self {
        Self {
            free: bounded(2 * DEPTH + 4),
        }
    }

    /// A buffer of [`CHUNK`] bytes, with whatever was in it.
    pub(super) fn take(&self) -> Vec<u8> {
        self.free.1.try_recv().unwrap_or_else(|_| vec![0; CHUNK])
    }

    /// The first `len` bytes of `bytes`, to be shared.
    pub(super) fn chunk(&self, bytes: Vec<u8>, len: usize) -> Chunk {
        Chunk(Arc::new(Buffer {
            bytes,
            len,
            home: self.free.0.clone(),
        }))
    }
}

struct Buffer {
    bytes: Vec<u8>,
    len: usize,
    home: Sender<Vec<u8>>,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // A full pool has enough: then this one is freed.
        let _ = self.home.try_send(std::mem::take(&mut self.bytes));
    }
}

/// Bytes that several stages read.
#[derive(Clone)]
pub(super) struct Chunk(Arc<Buffer>);

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.bytes.get(..self.0.len).unwrap_or_default()
    }
}

/// What a stage hands to the next: bytes, or why there are no more.
pub(super) type Item = Result<Chunk, ImportError>;

/// The receiving end of a stage, as a stream. A sender that is gone means the end.
pub(super) struct ChunkReader {
    from: Receiver<Item>,
    current: Option<Chunk>,
    at: usize,
    position: u64,
    /// Why the stage before failed, for those who read through [`io::Read`].
    failure: Option<ImportError>,
}

impl ChunkReader {
    pub(super) fn new(from: Receiver<Item>) -> Self {
        Self {
            from,
            current: None,
            at: 0,
            position: 0,
            failure: None,
        }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Why the stage before failed, if it did.
    pub(super) fn take_failure(&mut self) -> Option<ImportError> {
        self.failure.take()
    }
}

impl Bytes for ChunkReader {
    fn fill(&mut self) -> Result<&[u8], ImportError> {
        while self.current.as_ref().is_none_or(|c| self.at >= c.len()) {
            self.current = None;
            self.at = 0;
            match self.from.recv() {
                Ok(item) => self.current = Some(item?),
                Err(_) => return Ok(&[]),
            }
        }
        let chunk = self.current.as_deref().unwrap_or_default();
        Ok(chunk.get(self.at..).unwrap_or_default())
    }

    fn consume(&mut self, n: usize) {
        self.at += n;
        self.position += n as u64;
    }
}

impl BufRead for ChunkReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if let Err(error) = Bytes::fill(self) {
            self.failure = Some(error);
            return Err(io::Error::other("the stage before failed"));
        }
        Bytes::fill(self).map_err(io::Error::other)
    }

    fn consume(&mut self, n: usize) {
        Bytes::consume(self, n);
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buf)?;
        BufRead::consume(self, n);
        Ok(n)
    }
}
