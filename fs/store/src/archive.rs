//! PAX archives, written in one way only: the same entries give the same bytes.
//!
//! Names, link targets, sizes and ids that do not fit a header, times to the nanosecond and extended
//! attributes (`SCHILY.xattr.`) are in extended headers; holes are in GNU's sparse format 1.0. Times of
//! access and of change are left out.

use std::io::{self, Write};

use tar::{EntryType, Header};

use crate::{
    Device, Time,
    tree::{Extent, Meta},
};

/// Bytes of a record of the archive.
const BLOCK: usize = 512;

/// What an entry that is written is.
#[derive(Clone, Copy, Debug)]
pub enum Kind<'a> {
    /// A directory; its name ends with a slash.
    Directory,
    /// A regular file; its data follows ([`ArchiveWriter::content`]).
    Regular {
        /// Bytes of content, holes included.
        size: u64,
        /// What of it is data, if not all: ascending, disjoint, inside the file.
        extents: Option<&'a [Extent]>,
    },
    /// A symbolic link and its target.
    Symlink(&'a [u8]),
    /// One more name of the entry of that name, which came before.
    HardLink(&'a [u8]),
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A FIFO.
    Fifo,
}

impl Kind<'_> {
    fn entry_type(&self) -> EntryType {
        match self {
            Self::Directory => EntryType::Directory,
            Self::Regular { .. } => EntryType::Regular,
            Self::Symlink(_) => EntryType::Symlink,
            Self::HardLink(_) => EntryType::Link,
            Self::CharDevice(_) => EntryType::Char,
            Self::BlockDevice(_) => EntryType::Block,
            Self::Fifo => EntryType::Fifo,
        }
    }
}

/// Writes entries.
#[derive(Debug)]
pub struct ArchiveWriter<W> {
    out: W,
    /// Bytes of content still owed, and of padding after them.
    left: u64,
    padding: usize,
}

impl<W: Write> ArchiveWriter<W> {
    /// An archive without entries yet.
    pub fn new(out: W) -> Self {
        Self {
            out,
            left: 0,
            padding: 0,
        }
    }

    /// Writes an entry's header. [`ArchiveWriter::content`] must follow as long as it has content.
    ///
    /// # Errors
    /// What `out` says; the archive is of no use then.
    pub fn entry(&mut self, path: &[u8], kind: &Kind<'_>, meta: &Meta) -> io::Result<()> {
        let mut records = Records::default();
        let (stored, map) = stored(kind);
        let mut header = Header::new_ustar();
        header.set_entry_type(kind.entry_type());
        header.set_mode(u32::from(meta.perm));
        records.describe(&mut header, meta);
        let link = match kind {
            Kind::Symlink(target) | Kind::HardLink(target) => *target,
            _ => b"",
        };
        if let Kind::CharDevice(d) | Kind::BlockDevice(d) = kind {
            device(&mut header, *d)?;
        }
        let old = header.as_old_mut();
        if !put(&mut old.linkname, link) {
            records.name(b"linkpath", link);
        }
        if let (Kind::Regular { size, .. }, true) = (kind, map.is_some()) {
            put(&mut old.name, b"GNUSparseFile");
            records.add(b"GNU.sparse.major", b"1");
            records.add(b"GNU.sparse.minor", b"0");
            records.name(b"GNU.sparse.name", path);
            records.add(b"GNU.sparse.realsize", size.to_string().as_bytes());
        } else if !put(&mut old.name, path) {
            records.name(b"path", path);
        }
        let map = map.unwrap_or_default();
        let total = stored + map.len() as u64;
        if !octal(&mut old.size, total) {
            records.add(b"size", total.to_string().as_bytes());
        }
        self.extension(&records)?;
        self.block(&mut header)?;
        self.write(&map)?;
        self.owe(stored);
        self.pad()
    }

    /// Writes the next bytes of the last entry's content.
    ///
    /// # Errors
    /// As [`ArchiveWriter::entry`].
    pub fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write(bytes)?;
        self.left = self.left.saturating_sub(bytes.len() as u64);
        self.pad()
    }

    /// Writes the end mark.
    ///
    /// # Errors
    /// As [`ArchiveWriter::entry`].
    pub fn finish(mut self) -> io::Result<()> {
        self.write(&[0; 2 * BLOCK])
    }

    fn extension(&mut self, records: &Records) -> io::Result<()> {
        let data = records.finish();
        if data.is_empty() {
            return Ok(());
        }
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.set_mode(0o644);
        header.set_size(data.len() as u64);
        put(&mut header.as_old_mut().name, b"PaxHeader");
        self.block(&mut header)?;
        self.write(&data)?;
        self.write(&vec![0; data.len().next_multiple_of(BLOCK) - data.len()])
    }

    fn block(&mut self, header: &mut Header) -> io::Result<()> {
        header.set_cksum();
        self.write(header.as_bytes())
    }

    fn owe(&mut self, bytes: u64) {
        self.left = bytes;
        self.padding = (bytes.next_multiple_of(BLOCK as u64) - bytes) as usize;
    }

    fn pad(&mut self) -> io::Result<()> {
        if self.left > 0 {
            return Ok(());
        }
        let padding = std::mem::take(&mut self.padding);
        let zeros = [0; BLOCK];
        self.write(zeros.get(..padding).unwrap_or_default())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }
}

/// Bytes of data that follow the header, and the sparse map (GNU 1.0) that comes before them.
fn stored(kind: &Kind<'_>) -> (u64, Option<Vec<u8>>) {
    match kind {
        Kind::Regular {
            extents: Some(extents),
            ..
        } => {
            let mut map = format!("{}\n", extents.len());
            for e in *extents {
                map.push_str(&format!("{}\n{}\n", e.offset, e.len));
            }
            let mut map = map.into_bytes();
            map.resize(map.len().next_multiple_of(BLOCK), 0);
            (extents.iter().map(|e| e.len).sum(), Some(map))
        }
        Kind::Regular { size, .. } => (*size, None),
        _ => (0, None),
    }
}

fn device(header: &mut Header, device: Device) -> io::Result<()> {
    header
        .set_device_major(device.major)
        .and_then(|()| header.set_device_minor(device.minor))
}

/// Copies `bytes` into a field; `false`, and nothing but its start, if they do not fit.
fn put(field: &mut [u8], bytes: &[u8]) -> bool {
    let n = bytes.len().min(field.len());
    field.fill(0);
    for (to, from) in field.iter_mut().zip(bytes) {
        *to = *from;
    }
    n == bytes.len()
}

/// Writes an octal number with a final NUL; 0 and `false` if it does not fit.
fn octal(field: &mut [u8], value: u64) -> bool {
    let digits = field.len() - 1;
    let fits = u32::try_from(3 * digits).is_ok_and(|bits| bits >= 64 || value >> bits == 0);
    let value = if fits { value } else { 0 };
    put(field, format!("{value:0digits$o}").as_bytes());
    fits
}

/// PAX records in the making.
#[derive(Default)]
struct Records {
    data: Vec<u8>,
    binary: bool,
}

impl Records {
    /// Owners, time and attributes.
    fn describe(&mut self, header: &mut Header, meta: &Meta) {
        let old = header.as_old_mut();
        if !octal(&mut old.uid, u64::from(meta.uid)) {
            self.add(b"uid", meta.uid.to_string().as_bytes());
        }
        if !octal(&mut old.gid, u64::from(meta.gid)) {
            self.add(b"gid", meta.gid.to_string().as_bytes());
        }
        let whole = u64::try_from(meta.mtime.sec).unwrap_or(0);
        let fits = octal(&mut old.mtime, whole);
        if !fits || meta.mtime.sec < 0 || meta.mtime.nsec != 0 {
            self.add(b"mtime", decimal(meta.mtime).as_bytes());
        }
        for (name, value) in &meta.xattrs {
            let name = name.iter().flat_map(|b| match b {
                b'=' => b"%3D".to_vec(),
                b'%' => b"%25".to_vec(),
                other => vec![*other],
            });
            let key: Vec<u8> = b"SCHILY.xattr.".iter().copied().chain(name).collect();
            self.add(&key, value);
        }
    }

    /// A record that holds a name, which need not be UTF-8.
    fn name(&mut self, key: &[u8], name: &[u8]) {
        self.binary |= std::str::from_utf8(name).is_err();
        self.add(key, name);
    }

    fn add(&mut self, key: &[u8], value: &[u8]) {
        append(&mut self.data, key, value);
    }

    fn finish(&self) -> Vec<u8> {
        let mut all = Vec::new();
        if self.binary {
            append(&mut all, b"hdrcharset", b"BINARY");
        }
        all.extend_from_slice(&self.data);
        all
    }
}

/// `LENGTH KEY=VALUE\n`, the length counting itself.
fn append(to: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest;
    while rest + len.to_string().len() != len {
        len = rest + len.to_string().len();
    }
    to.extend_from_slice(len.to_string().as_bytes());
    to.push(b' ');
    to.extend_from_slice(key);
    to.push(b'=');
    to.extend_from_slice(value);
    to.push(b'\n');
}

fn decimal(time: Time) -> String {
    if time.nsec == 0 {
        time.sec.to_string()
    } else if time.sec < 0 {
        format!("-{}.{:09}", -(time.sec + 1), 1_000_000_000 - time.nsec)
    } else {
        format!("{}.{:09}", time.sec, time.nsec)
    }
}
