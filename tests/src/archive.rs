//! Tar archives as no honest program writes them: every byte of a header is the test's choice.

use std::io::Write as _;

/// A tar archive in memory.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
}

/// Type flags of entries (ustar).
pub mod kind {
    /// A regular file.
    pub const FILE: u8 = b'0';
    /// A hard link.
    pub const LINK: u8 = b'1';
    /// A symbolic link.
    pub const SYMLINK: u8 = b'2';
    /// A directory.
    pub const DIRECTORY: u8 = b'5';
}

impl Archive {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a regular file, 0755.
    #[must_use]
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        self.entry(kind::FILE, name, "", content.len() as u64, content)
    }

    /// Adds a directory, 0755.
    #[must_use]
    pub fn dir(self, name: &str) -> Self {
        self.entry(kind::DIRECTORY, name, "", 0, b"")
    }

    /// Adds a link.
    #[must_use]
    pub fn link(self, kind: u8, name: &str, target: &str) -> Self {
        self.entry(kind, name, target, 0, b"")
    }

    /// Adds an entry with a header that says `size`, followed by `content`.
    ///
    /// # Panics
    /// If name or target do not fit the plain header.
    #[must_use]
    pub fn entry(mut self, kind: u8, name: &str, target: &str, size: u64, content: &[u8]) -> Self {
        let mut header = [0_u8; 512];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        assert!(
            name.len() <= 100 && target.len() <= 100,
            "too long for a plain header"
        );
        put(0, name.as_bytes());
        put(100, b"0000755\0");
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, format!("{size:011o}\0").as_bytes());
        put(136, b"14000000000\0");
        put(148, b"        ");
        put(156, &[kind]);
        put(157, target.as_bytes());
        put(257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|&b| u32::from(b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(content);
        let end = self.bytes.len().next_multiple_of(512);
        self.bytes.resize(end, 0);
        self
    }

    /// The archive with its end mark.
    #[must_use]
    pub fn end(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }

    /// The archive as it is, without an end mark.
    #[must_use]
    pub fn unfinished(self) -> Vec<u8> {
        self.bytes
    }
}

/// `bytes`, compressed by gzip.
///
/// # Panics
/// Never in practice.
#[must_use]
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// `bytes`, compressed by zstd.
///
/// # Panics
/// Never in practice.
#[must_use]
pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("memory")
}
