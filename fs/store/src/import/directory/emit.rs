//! PAX archives, written: the canonical form of a directory.

use std::io::{self, Write};

use tar::{EntryType, Header};

use crate::{
    Device, Time,
    import::{ImportError, tar::BLOCK},
    tree::{Extent, Meta},
};

/// What an entry that is written is.
pub(super) enum Kind<'a> {
    Directory,
    /// `size` bytes, of which only `extents` are data, if told; the data follows.
    Regular {
        size: u64,
        extents: Option<&'a [Extent]>,
    },
    Symlink(&'a [u8]),
    HardLink(&'a [u8]),
    CharDevice(Device),
    BlockDevice(Device),
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

/// The reader of the archive is gone; its own error says why.
pub(super) fn refused(source: io::Error) -> ImportError {
    ImportError::Host {
        action: "hand the archive of the directory on",
        source,
    }
}

/// Writes entries.
pub(super) struct Emitter<W> {
    out: W,
    /// Bytes of content still owed, and of padding after them.
    left: u64,
    padding: usize,
}

impl<W: Write> Emitter<W> {
    pub(super) fn new(out: W) -> Self {
        Self {
            out,
            left: 0,
            padding: 0,
        }
    }

    /// Writes an entry's header. [`Emitter::content`] must follow as long as it has content.
    pub(super) fn entry(
        &mut self,
        path: &[u8],
        kind: &Kind<'_>,
        meta: &Meta,
    ) -> Result<(), ImportError> {
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
    pub(super) fn content(&mut self, bytes: &[u8]) -> Result<(), ImportError> {
        self.write(bytes)?;
        self.left = self.left.saturating_sub(bytes.len() as u64);
        self.pad()
    }

    /// Writes the end mark.
    pub(super) fn finish(mut self) -> Result<(), ImportError> {
        self.write(&[0; 2 * BLOCK])
    }

    fn extension(&mut self, records: &Records) -> Result<(), ImportError> {
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

    fn block(&mut self, header: &mut Header) -> Result<(), ImportError> {
        header.set_cksum();
        self.write(header.as_bytes())
    }

    fn owe(&mut self, bytes: u64) {
        self.left = bytes;
        self.padding = (bytes.next_multiple_of(BLOCK as u64) - bytes) as usize;
    }

    fn pad(&mut self) -> Result<(), ImportError> {
        if self.left > 0 {
            return Ok(());
        }
        let padding = std::mem::take(&mut self.padding);
        let zeros = [0; BLOCK];
        self.write(zeros.get(..padding).unwrap_or_default())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ImportError> {
        self.out.write_all(bytes).map_err(refused)
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

fn device(header: &mut Header, device: Device) -> Result<(), ImportError> {
    header
        .set_device_major(device.major)
        .and_then(|()| header.set_device_minor(device.minor))
        .map_err(refused)
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
