//! Compressed streams: which format, and its decoding.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

use super::{
    ImportError,
    chunks::{Chunk, ChunkReader, Pool},
    tar::Bytes,
};

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Plain,
    Gzip,
    Zstd,
}

impl Format {
    /// OCI media type of a layer in this format (image-spec layer.md, media-types.md).
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::Plain => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "tar",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// The format of a stream that starts with `head`; `Err` names one that is not supported.
    pub(super) fn detect(head: &[u8]) -> Result<Self, &'static str> {
        match head {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            // A frame, or a skippable one (RFC 8878).
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Self::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Err("xz"),
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, ..] => Err("bzip2"),
            [0x04, 0x22, 0x4d, 0x18, ..] => Err("lz4"),
            [b'P', b'K', 3, 4, ..] => Err("zip"),
            _ => Ok(Self::Plain),
        }
    }
}

/// Decodes all of `from`, in chunks of `pool`, until `emit` wants no more.
pub(super) fn decode(
    format: Format,
    from: &mut ChunkReader,
    name: &str,
    pool: &Pool,
    emit: &mut dyn FnMut(Chunk) -> bool,
) -> Result<(), ImportError> {
    let result = match format {
        Format::Plain => pump(from, pool, emit).map(|_| ()),
        Format::Gzip => gzip(from, pool, emit),
        Format::Zstd => zstd::stream::read::Decoder::with_buffer(&mut *from)
            .and_then(|mut decoder| pump(&mut decoder, pool, emit).map(|_| ())),
    };
    let Err(error) = result else {
        return Ok(());
    };
    Err(from
        .take_failure()
        .unwrap_or_else(|| ImportError::Compression {
            name: name.to_owned(),
            format: format.name(),
            offset: from.position(),
            detail: error.to_string(),
        }))
}

/// Members one after the other; zeros that tape and registry tools pad with may follow the last.
fn gzip(
    from: &mut ChunkReader,
    pool: &Pool,
    emit: &mut dyn FnMut(Chunk) -> bool,
) -> io::Result<()> {
    loop {
        if !pump(&mut GzDecoder::new(&mut *from), pool, emit)? {
            return Ok(());
        }
        match from.fill_buf()? {
            [] => return Ok(()),
            [0x1f, ..] => {}
            _ => return zeros_to_the_end(from),
        }
    }
}

fn zeros_to_the_end(from: &mut ChunkReader) -> io::Result<()> {
    loop {
        let had = from.fill_buf()?;
        if had.is_empty() {
            return Ok(());
        }
        if had.iter().any(|b| *b != 0) {
            return Err(io::Error::other(
                "what follows the last member is neither one nor padding",
            ));
        }
        let n = had.len();
        Bytes::consume(from, n);
    }
}

/// Moves `from` to its end into full chunks; `false` if `emit` wanted no more.
fn pump(from: &mut dyn Read, pool: &Pool, emit: &mut dyn FnMut(Chunk) -> bool) -> io::Result<bool> {
    loop {
        let mut buffer = pool.take();
        let len = read_full(from, &mut buffer)?;
        let last = len < buffer.len();
        if len > 0 && !emit(pool.chunk(buffer, len)) {
            return Ok(false);
        }
        if last {
            return Ok(true);
        }
    }
}

/// Fills `buffer` from `from`; gives fewer bytes only at the end.
pub(super) fn read_full(from: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while let Some(rest) = buffer.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(len)
}
