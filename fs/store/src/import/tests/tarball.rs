//! A writer of tar streams, right and wrong ones.

/// A stream in the making.
#[derive(Clone, Default)]
pub(super) struct Tarball(pub(super) Vec<u8>);

/// A header block that is filled in by hand.
pub(super) struct Header(pub(super) [u8; 512]);

impl Header {
    pub(super) fn new(name: &[u8], kind: u8, size: usize) -> Self {
        let mut h = Self([0; 512]);
        h.set(0, name).set(100, b"0000644\0");
        h.set(108, b"0000000\0").set(116, b"0000000\0");
        h.set(124, format!("{size:011o}\0").as_bytes());
        h.set(136, b"00000000144\0");
        h.set(156, &[kind]).set(257, b"ustar\x0000");
        h
    }

    pub(super) fn gnu(name: &[u8], kind: u8, size: usize) -> Self {
        let mut h = Self::new(name, kind, size);
        h.set(257, b"ustar  \0");
        h
    }

    pub(super) fn set(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn sealed(&self) -> [u8; 512] {
        let mut block = self.0;
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }
}

impl Tarball {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn header(mut self, header: &Header) -> Self {
        self.0.extend_from_slice(&header.sealed());
        self
    }

    pub(super) fn data(mut self, data: &[u8]) -> Self {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(super) fn entry(self, name: &[u8], kind: u8, data: &[u8]) -> Self {
        self.header(&Header::new(name, kind, data.len())).data(data)
    }

    pub(super) fn file(self, name: &str, data: &str) -> Self {
        self.entry(name.as_bytes(), b'0', data.as_bytes())
    }

    pub(super) fn dir(self, name: &str) -> Self {
        let mut h = Header::new(name.as_bytes(), b'5', 0);
        h.set(100, b"0000755\0");
        self.header(&h)
    }

    /// A symbolic (`2`) or hard (`1`) link.
    pub(super) fn link(self, kind: u8, name: &str, target: &str) -> Self {
        let mut h = Header::new(name.as_bytes(), kind, 0);
        h.set(157, target.as_bytes());
        self.header(&h)
    }

    /// A PAX header for the next entry.
    pub(super) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        self.extension(b'x', records)
    }

    pub(super) fn extension(self, kind: u8, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let len = (rest + 1..)
                .find(|n| rest + n.to_string().len() == *n)
                .unwrap();
            data.extend_from_slice(format!("{len} {key}=").as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.entry(b"PaxHeader", kind, &data)
    }

    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}
