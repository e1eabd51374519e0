//! A pipe between two threads whose end is told apart from the death of its writer.

use std::io::{self, Read, Write};

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::import::chunks::{CHUNK, DEPTH};

/// A pipe that holds about two mebibytes.
pub(super) fn pipe() -> (PipeWriter, PipeReader) {
    let (to, from) = bounded(DEPTH);
    let writer = PipeWriter {
        to,
        buffer: Vec::with_capacity(CHUNK),
    };
    let reader = PipeReader {
        from,
        current: Vec::new(),
        at: 0,
        ended: false,
    };
    (writer, reader)
}

/// Writes end with [`PipeWriter::finish`]; a writer that is dropped without it fails its reader.
pub(super) struct PipeWriter {
    to: Sender<Vec<u8>>,
    buffer: Vec<u8>,
}

impl PipeWriter {
    fn send(&mut self) -> io::Result<()> {
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        self.to
            .send(full)
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }

    /// Sends what is left and the end mark, an empty buffer.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.send()?;
        }
        self.send()
    }
}

impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(CHUNK - self.buffer.len());
        self.buffer
            .extend_from_slice(bytes.get(..n).unwrap_or_default());
        if self.buffer.len() >= CHUNK {
            self.send()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads what a [`PipeWriter`] writes.
pub(super) struct PipeReader {
    from: Receiver<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Read for PipeReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.current.len() && !self.ended {
            self.current = self
                .from
                .recv()
                .map_err(|_| io::Error::other("the directory could not be read to its end"))?;
            self.at = 0;
            self.ended = self.current.is_empty();
        }
        let n = self.current.get(self.at..).unwrap_or_default().read(into)?;
        self.at += n;
        Ok(n)
    }
}
