//! Reading a log file: its header page, then frame after frame.
//!
//! Reads through `pread` into memory of its own: an I/O error is an error and not a signal, and
//! what another process stores meanwhile cannot change bytes between check and use. Memory is
//! bounded by the file's size and by [`FRAME_MAX`], whatever a length claims.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

use zerocopy::FromBytes;

use super::{
    JournalLower,
    format::{
        FRAME_HEADER_LEN, FRAME_MAX, FrameHeader, HEADER_LEN, Header, KNOWN_FEATURES, MAGIC, MIXED,
        SESSION_AT, SYNCED_AT, SessionWord, Synced, VERSION, frame_checksum,
    },
    io_error,
};
use crate::UpperError;

const WINDOW: usize = 256 << 10;

/// What the header page says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Front {
    pub(super) header: Header,
    pub(super) session: SessionWord,
    pub(super) synced: u64,
    /// Which place the next `synced` is to be written to: not the one `synced` was read from.
    pub(super) slot: usize,
}

impl Front {
    /// Whether the log may speak of mixed content.
    pub(super) fn mixed(&self) -> bool {
        self.header.incompatible.get() & MIXED != 0
    }
}

pub(super) fn corrupt(path: &Path, offset: u64, detail: impl Into<String>) -> UpperError {
    UpperError::Corrupt {
        path: path.to_owned(),
        offset,
        detail: detail.into(),
    }
}

/// Reads and checks the header page of the log at `path`, which is to be over `lower`.
pub(super) fn read_front(
    file: &File,
    path: &Path,
    lower: &JournalLower,
) -> Result<Front, UpperError> {
    let front = read_front_over_any(file, path)?;
    if front.header.lower_identity != lower.identity
        || front.header.lower_inode_count.get() != lower.inode_count
    {
        return Err(UpperError::OtherLower {
            path: path.parent().unwrap_or(path).to_owned(),
        });
    }
    Ok(front)
}

/// [`read_front`], whatever lower tree the log is over.
pub(super) fn read_front_over_any(file: &File, path: &Path) -> Result<Front, UpperError> {
    let mut page = vec![0; HEADER_LEN as usize];
    file.read_exact_at(&mut page, 0)
        .map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => corrupt(path, 0, "it is shorter than its header"),
            _ => io_error("read", path)(e),
        })?;
    let (header, _) = Header::read_from_prefix(&page)
        .map_err(|_| corrupt(path, 0, "it is shorter than its header"))?;
    if page.iter().all(|b| *b == 0) {
        let detail = "the header is all zeros: the host went down before the log was first \
                      synced, or it was overwritten";
        return Err(corrupt(path, 0, detail));
    }
    if header.magic != MAGIC {
        return Err(corrupt(path, 0, "it is not a pellicle journal"));
    }
    if header.checksum.get() != header.sum() {
        return Err(corrupt(path, 0, "the header does not have its checksum"));
    }
    let unknown = header.incompatible.get() & !KNOWN_FEATURES;
    if header.version.get() != VERSION || unknown != 0 {
        return Err(UpperError::Version {
            path: path.to_owned(),
            found: header.version.get(),
            known: VERSION,
        });
    }
    if u64::from(header.header_len.get()) != HEADER_LEN || header.first_seq.get() == 0 {
        return Err(corrupt(path, 20, "the header contradicts its version"));
    }
    let at = |offset: u64| page.get(offset as usize..).unwrap_or_default();
    let marks = SYNCED_AT.map(|offset| {
        Synced::read_from_prefix(at(offset))
            .ok()
            .and_then(|(mark, _)| mark.checked(header.salt.get()))
    });
    let (synced, slot) = match marks {
        [Some(a), Some(b)] if a >= b => (a, 1),
        [_, Some(b)] => (b, 0),
        [Some(a), None] => (a, 1),
        [None, None] => {
            return Err(corrupt(
                path,
                SYNCED_AT[0],
                "both marks of the last sync are damaged",
            ));
        }
    };
    let session = at(SESSION_AT)
        .first_chunk::<8>()
        .copied()
        .unwrap_or_default();
    Ok(Front {
        header,
        session: SessionWord(u64::from_le_bytes(session)),
        synced,
        slot,
    })
}

/// What stands at a place in the log.
pub(super) enum Step<'a> {
    /// A whole frame.
    Frame {
        seq: u64,
        records: u32,
        body: &'a [u8],
    },
    /// Nothing was ever published here.
    End,
    /// No valid frame, and why.
    Bad(&'static str),
}

/// Goes through the frames of a file.
pub(super) struct Scan<'f> {
    file: &'f File,
    length: u64,
    /// Where the next frame begins.
    pub(super) at: u64,
    /// Sequence number of the last frame that was found.
    pub(super) seq: u64,
    pub(super) chain: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<'f> Scan<'f> {
    pub(super) fn new(file: &'f File, header: &Header) -> io::Result<Self> {
        Ok(Self {
            file,
            length: file.metadata()?.len(),
            at: HEADER_LEN,
            seq: header.first_seq.get() - 1,
            chain: header.salt.get(),
            window: Vec::new(),
            window_at: 0,
        })
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Looks at the place behind the last frame and, if a frame is there, moves past it.
    pub(super) fn next(&mut self) -> io::Result<Step<'_>> {
        if self.at + FRAME_HEADER_LEN as u64 > self.length {
            return Ok(if self.at == self.length {
                Step::End
            } else {
                Step::Bad("the file ends in a frame")
            });
        }
        self.fill(FRAME_HEADER_LEN)?;
        let Ok((header, _)) = FrameHeader::read_from_prefix(self.ahead()) else {
            return Ok(Step::Bad("the file ends in a frame"));
        };
        let length = header.length.get() as usize;
        if length == 0 && header.records.get() == 0 {
            return Ok(Step::End);
        }
        if length <= FRAME_HEADER_LEN || length > FRAME_MAX || !length.is_multiple_of(8) {
            return Ok(Step::Bad("a batch of impossible length"));
        }
        if self.at + length as u64 > self.length {
            return Ok(Step::Bad("a batch that reaches past the end of the file"));
        }
        if header.seq.get() != self.seq + 1 {
            return Ok(Step::Bad("a batch out of sequence"));
        }
        self.fill(length)?;
        let start = (self.at - self.window_at) as usize;
        let Some(body) = self.window.get(start + FRAME_HEADER_LEN..start + length) else {
            return Ok(Step::Bad("the file became shorter"));
        };
        if frame_checksum(&header, body, self.chain) != header.checksum.get() {
            return Ok(Step::Bad("a batch does not have its checksum"));
        }
        self.at += length as u64;
        self.seq += 1;
        self.chain = header.checksum.get();
        Ok(Step::Frame {
            seq: self.seq,
            records: header.records.get(),
            body,
        })
    }

    fn ahead(&self) -> &[u8] {
        self.window
            .get((self.at - self.window_at) as usize..)
            .unwrap_or_default()
    }

    /// Sees to it that the window holds `wanted` bytes from `at`, as far as the file has them.
    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        let end = self.window_at + self.window.len() as u64;
        if self.at >= self.window_at && self.at + wanted as u64 <= end {
            return Ok(());
        }
        let n = (wanted.max(WINDOW) as u64).min(self.length - self.at) as usize;
        self.window.resize(n, 0);
        self.window_at = self.at;
        let mut got = 0;
        while let Some(rest) = self.window.get_mut(got..).filter(|r| !r.is_empty()) {
            match self.file.read_at(rest, self.at + got as u64) {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.window.truncate(got);
        Ok(())
    }
}

/// How many bytes from `from` on reach to the last one that is not zero. Holes are not read.
pub(super) fn leftover(file: &File, from: u64, length: u64) -> io::Result<u64> {
    let mut last = from;
    let mut at = from;
    let mut piece = vec![0; 64 << 10];
    while at < length {
        at = match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(rustix::io::Errno::NXIO) => break,
            Err(e) => return Err(e.into()),
        };
        let n = file.read_at(&mut piece, at)?;
        if n == 0 {
            break;
        }
        let filled = piece.get(..n).unwrap_or_default();
        if let Some(i) = filled.iter().rposition(|b| *b != 0) {
            last = at + i as u64 + 1;
        }
        at += n as u64;
    }
    Ok(last - from)
}
