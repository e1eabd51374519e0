//! A container's output as it is kept: one JSON object per line, as docker's json-file driver has
//! it (`log`, `stream`, `time`). Output that is not UTF-8 is in `hex` instead of `log`, so that
//! nothing is lost.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use super::state::now;

/// A line without an end is written in pieces of this many bytes.
const PIECE: usize = 16 << 10;

/// Where output came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of the file.
#[derive(Debug, Serialize, Deserialize)]
pub struct Entry {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    log: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
    /// Where it came from.
    pub stream: Stream,
    /// When, RFC 3339.
    pub time: String,
}

impl Entry {
    /// The output itself.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        match (&self.log, &self.hex) {
            (Some(text), _) => text.clone().into_bytes(),
            (None, Some(hex)) => hex::decode(hex).unwrap_or_default(),
            (None, None) => Vec::new(),
        }
    }
}

/// The log of a running container, shared by those who copy its streams. Made with the first
/// output.
#[derive(Clone, Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: Arc<Mutex<Option<File>>>,
}

impl Log {
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            path: dir.join("log"),
            file: Arc::new(Mutex::new(None)),
        }
    }

    /// A writer for one stream.
    pub(super) fn writer(&self, stream: Stream) -> Writer {
        Writer {
            log: self.clone(),
            stream,
            pending: Vec::new(),
        }
    }

    fn put(&self, lines: &[u8]) -> io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if file.is_none() {
            *file = Some(
                OpenOptions::new()
                    .append(true)
                    .create(true)
                    .open(&self.path)?,
            );
        }
        match file.as_mut() {
            Some(file) => file.write_all(lines),
            None => Ok(()),
        }
    }
}

/// Splits one stream into lines.
pub(super) struct Writer {
    log: Log,
    stream: Stream,
    pending: Vec<u8>,
}

impl Writer {
    /// Keeps `bytes`; what is behind the last line end waits for the next call.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.pending.extend_from_slice(bytes);
        let mut out = Vec::new();
        let mut start = 0;
        while let Some(rest) = self.pending.get(start..).filter(|r| !r.is_empty()) {
            let whole = rest
                .iter()
                .take(PIECE)
                .position(|b| *b == b'\n')
                .map(|at| at + 1);
            let Some(length) = whole.or((rest.len() >= PIECE).then_some(PIECE)) else {
                break;
            };
            encode(rest.get(..length).unwrap_or(rest), self.stream, &mut out)?;
            start += length;
        }
        self.pending.drain(..start);
        if out.is_empty() {
            Ok(())
        } else {
            self.log.put(&out)
        }
    }

    /// Keeps the rest too.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut out = Vec::new();
        encode(&std::mem::take(&mut self.pending), self.stream, &mut out)?;
        self.log.put(&out)
    }
}

fn encode(bytes: &[u8], stream: Stream, out: &mut Vec<u8>) -> io::Result<()> {
    let (log, hex) = match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(hex::encode(bytes))),
    };
    let entry = Entry {
        log,
        hex,
        stream,
        time: now(),
    };
    serde_json::to_writer(&mut *out, &entry)?;
    out.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(dir: &Path) -> Vec<Entry> {
        let text = std::fs::read(dir.join("log")).unwrap_or_default();
        text.split(|b| *b == b'\n')
            .filter(|l| !l.is_empty())
            .map(|l| serde_json::from_slice(l).unwrap())
            .collect()
    }

    #[test]
    fn every_byte_comes_back_in_order_whatever_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::new(dir.path());
        let mut writer = log.writer(Stream::Stderr);
        let mut sent = b"one\ntwo \xff\xfe\nno end".to_vec();
        sent.extend(std::iter::repeat_n(b'x', 3 * PIECE));
        for piece in sent.chunks(7) {
            writer.write(piece).unwrap();
        }
        writer.finish().unwrap();
        let entries = entries(dir.path());
        let got: Vec<u8> = entries.iter().flat_map(Entry::bytes).collect();
        assert!(got == sent);
        assert_eq!(entries[0].bytes(), b"one\n");
        assert!(entries.iter().all(|e| e.stream == Stream::Stderr));
    }

    #[test]
    fn silence_makes_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Log::new(dir.path()).writer(Stream::Stdout);
        writer.write(b"").unwrap();
        writer.finish().unwrap();
        assert!(!dir.path().join("log").exists());
    }
}
