//! From blocks to members.

use super::{
    BLOCK,
    header::{self, Block},
    pax::Pax,
    sparse::MapReader,
};
use crate::{
    Device, Time,
    import::{ImportError, TarError, TarProblem},
    tree::{Extent, Meta},
};

type Result<T> = std::result::Result<T, ImportError>;

/// A stream of bytes that is looked at in place.
pub(in crate::import) trait Bytes {
    /// The next bytes, as many as are at hand; none only at the end.
    fn fill(&mut self) -> Result<&[u8]>;

    /// Moves on over `n` bytes of what [`Bytes::fill`] gave.
    fn consume(&mut self, n: usize);

    /// Moves on over `n` bytes that nobody wants to see; gives how many there were.
    fn skip(&mut self, n: u64) -> Result<u64> {
        let mut left = n;
        while left > 0 {
            let had = self.fill()?.len() as u64;
            if had == 0 {
                break;
            }
            let take = had.min(left);
            self.consume(usize::try_from(take).unwrap_or(usize::MAX));
            left -= take;
        }
        Ok(n - left)
    }
}

/// One member of an archive.
#[derive(Debug)]
pub(in crate::import) struct Member {
    /// Its name as the archive has it.
    pub(in crate::import) name: Vec<u8>,
    /// What it is.
    pub(in crate::import) kind: MemberKind,
    /// Owner, permissions, times, attributes.
    pub(in crate::import) meta: Meta,
}

/// What a member is.
#[derive(Debug)]
pub(in crate::import) enum MemberKind {
    /// A file of `size` bytes. Its stored bytes are read from the [`TarReader`]: the whole content,
    /// or that of `extents`.
    Regular {
        size: u64,
        extents: Option<Vec<Extent>>,
    },
    HardLink(Vec<u8>),
    Symlink(Vec<u8>),
    Directory,
    CharDevice(Device),
    BlockDevice(Device),
    Fifo,
}

/// Largest header that describes another entry. Real ones hold some attributes of 64 KiB; a sparse
/// map of version 0.1 may take more.
const EXTENSION_MAX: u64 = 16 << 20;
/// Largest global header: it is kept for all entries that follow.
const GLOBAL_MAX: u64 = 64 << 10;

/// Reads members one after the other.
pub(in crate::import) struct TarReader<B> {
    bytes: B,
    /// What messages call the source.
    source: String,
    /// Offset of the next byte of `bytes` in the stream.
    position: u64,
    /// Stored bytes of the current member that were not read yet.
    left: u64,
    /// Zeros from the end of those to the next block.
    padding: u64,
    /// Where the current member's first header began, and its name once known.
    start: u64,
    name: Option<Vec<u8>>,
    global: Pax,
}

/// What extension headers before a member say.
#[derive(Default)]
struct Extension {
    pax: Option<Pax>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl Extension {
    fn is_empty(&self) -> bool {
        self.pax.is_none() && self.long_name.is_none() && self.long_link.is_none()
    }
}

impl<B: Bytes> TarReader<B> {
    pub(in crate::import) fn new(bytes: B, source: String) -> Self {
        Self {
            bytes,
            source,
            position: 0,
            left: 0,
            padding: 0,
            start: 0,
            name: None,
            global: Pax::default(),
        }
    }

    /// Offset of the next byte in the stream.
    pub(in crate::import) fn position(&self) -> u64 {
        self.position
    }

    /// Stored bytes of the current member that were not read yet.
    pub(in crate::import) fn left(&self) -> u64 {
        self.left
    }

    /// An error about the current member.
    pub(in crate::import) fn error(&self, problem: TarProblem) -> ImportError {
        ImportError::Tar {
            name: self.source.clone(),
            error: TarError {
                entry: self.name.clone(),
                offset: self.start,
                problem,
            },
        }
    }

    /// The next member; `None` at the end of the archive. What was not read of the one before is
    /// skipped.
    pub(in crate::import) fn next(&mut self) -> Result<Option<Member>> {
        self.skip_rest()?;
        self.start = self.position;
        self.name = None;
        let mut extension = Extension::default();
        loop {
            let Some(block) = self.header_block()? else {
                if extension.is_empty() {
                    return Ok(None);
                }
                return Err(self.error(TarProblem::Dangling));
            };
            let header = Block::new(&block).ok_or_else(|| self.error(TarProblem::Checksum))?;
            if !self.extension(&header, &mut extension)? {
                return self.member(&header, extension).map(Some);
            }
        }
    }

    /// The next stored bytes of the current member; none when all were read.
    pub(in crate::import) fn content(&mut self) -> Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        if self.bytes.fill()?.is_empty() {
            return Err(self.error(TarProblem::Truncated {
                inside: "the content of a file",
            }));
        }
        let had = self.bytes.fill()?;
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        Ok(had.get(..most).unwrap_or(had))
    }

    /// Moves on over `n` bytes of what [`TarReader::content`] gave.
    pub(in crate::import) fn consume(&mut self, n: usize) {
        self.bytes.consume(n);
        self.position += n as u64;
        self.left -= n as u64;
    }

    /// Reads on to the end of the stream, which may go on after the end of the archive.
    pub(in crate::import) fn drain(&mut self) -> Result<()> {
        self.position += self.bytes.skip(u64::MAX)?;
        Ok(())
    }

    fn skip_rest(&mut self) -> Result<()> {
        let rest = self.left + self.padding;
        if rest > 0 {
            let skipped = self.bytes.skip(rest)?;
            self.position += skipped;
            if skipped < rest {
                return Err(self.error(TarProblem::Truncated {
                    inside: "the content of a file",
                }));
            }
        }
        (self.left, self.padding) = (0, 0);
        Ok(())
    }

    /// Fills `block`; `false` at the end of the stream.
    fn block(&mut self, block: &mut [u8; BLOCK], inside: &'static str) -> Result<bool> {
        let mut rest = block.as_mut_slice();
        while !rest.is_empty() {
            let had = self.bytes.fill()?;
            let n = had.len().min(rest.len());
            if n == 0 {
                break;
            }
            let (now, later) = rest.split_at_mut(n);
            now.copy_from_slice(had.get(..n).unwrap_or_default());
            rest = later;
            self.bytes.consume(n);
            self.position += n as u64;
        }
        match rest.len() {
            0 => Ok(true),
            BLOCK => Ok(false),
            _ => Err(self.error(TarProblem::Truncated { inside })),
        }
    }

    /// The next header; `None` at the end of the archive: two blocks of zeros, or, as GNU tar and
    /// Go accept it, the end of the stream where a header could stand.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        if !self.block(&mut block, "a header")? {
            if self.position == 0 {
                return Err(self.error(TarProblem::Empty));
            }
            tracing::warn!(source = self.source, "the archive has no end mark");
            return Ok(None);
        }
        if block != [0; BLOCK] {
            return Ok(Some(block));
        }
        if self.block(&mut block, "the end mark")? && block != [0; BLOCK] {
            return Err(self.error(TarProblem::LoneZeroBlock));
        }
        Ok(None)
    }

    /// Takes in a header that describes another entry; `false` if this one is an entry itself.
    fn extension(&mut self, header: &Block<'_>, to: &mut Extension) -> Result<bool> {
        match header.type_flag() {
            b'x' | b'X' => {
                let data = self.extension_data(header, "PAX header", EXTENSION_MAX)?;
                let base = self.global.clone();
                let pax = to.pax.get_or_insert(base);
                pax.apply(&data, false).map_err(|p| self.error(p))?;
            }
            b'g' => {
                let data = self.extension_data(header, "global PAX header", GLOBAL_MAX)?;
                let mut global = std::mem::take(&mut self.global);
                global.apply(&data, true).map_err(|p| self.error(p))?;
                self.global = global;
            }
            b'L' => to.long_name = Some(self.long_name(header, "long name")?),
            b'K' => to.long_link = Some(self.long_name(header, "long link target")?),
            // A volume's label describes nothing that a layer has.
            b'V' => self.pass_over(header)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn pass_over(&mut self, header: &Block<'_>) -> Result<()> {
        let size = header.size().map_err(|p| self.error(p))?;
        self.expect_content(size);
        self.skip_rest()
    }

    fn long_name(&mut self, header: &Block<'_>, what: &'static str) -> Result<Vec<u8>> {
        let mut name = self.extension_data(header, what, GLOBAL_MAX)?;
        let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
        name.truncate(end);
        Ok(name)
    }

    fn extension_data(
        &mut self,
        header: &Block<'_>,
        what: &'static str,
        limit: u64,
    ) -> Result<Vec<u8>> {
        let size = header.size().map_err(|p| self.error(p))?;
        if size > limit {
            return Err(self.error(TarProblem::TooLarge { what, size, limit }));
        }
        self.expect_content(size);
        let mut data = Vec::new();
        loop {
            let had = self.content()?;
            if had.is_empty() {
                break;
            }
            data.extend_from_slice(had);
            let n = had.len();
            self.consume(n);
        }
        self.skip_rest()?;
        Ok(data)
    }

    fn expect_content(&mut self, size: u64) {
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
    }

    fn member(&mut self, header: &Block<'_>, extension: Extension) -> Result<Member> {
        let mut pax = extension.pax.unwrap_or_else(|| self.global.clone());
        let name = [pax.sparse.name.take(), pax.path.take(), extension.long_name]
            .into_iter()
            .flatten()
            .next()
            .unwrap_or_else(|| header.name());
        self.name = Some(name.clone());
        let link = pax.linkpath.take().or(extension.long_link);
        let link = link.unwrap_or_else(|| header.link_name());
        let meta = meta(header, &mut pax).map_err(|p| self.error(p))?;
        // Nothing follows the header of what is no file, whatever size it claims (some writers
        // repeat there the size of the file that a hard link leads to): so GNU tar, libarchive, Go.
        let kind = match header.type_flag() {
            // Version 7 tar had no type for directories.
            0 if name.ends_with(b"/") => MemberKind::Directory,
            b'0' | 0 | b'7' | b'S' => self.regular(header, pax)?,
            b'1' => MemberKind::HardLink(link),
            b'2' => MemberKind::Symlink(link),
            b'3' => MemberKind::CharDevice(self.device(header, &pax)?),
            b'4' => MemberKind::BlockDevice(self.device(header, &pax)?),
            b'5' => MemberKind::Directory,
            b'6' => MemberKind::Fifo,
            // GNU's incremental dumps list the directory's names behind its header.
            b'D' => {
                self.pass_over(header)?;
                MemberKind::Directory
            }
            other => return Err(self.error(TarProblem::Type(char::from(other)))),
        };
        Ok(Member { name, kind, meta })
    }

    fn device(&self, header: &Block<'_>, pax: &Pax) -> Result<Device> {
        // `makedev(3)` in the kernel: 12 bits and 20 bits.
        const MAJOR_MAX: u32 = 0xfff;
        const MINOR_MAX: u32 = 0xf_ffff;
        let (major, minor) = header.device().map_err(|p| self.error(p))?;
        let major = pax.dev_major.unwrap_or(major);
        let minor = pax.dev_minor.unwrap_or(minor);
        for (field, value, max) in [
            ("device major", major, MAJOR_MAX),
            ("device minor", minor, MINOR_MAX),
        ] {
            if value > max {
                let max = u64::from(max);
                return Err(self.error(TarProblem::Number { field, min: 0, max }));
            }
        }
        Ok(Device { major, minor })
    }

    fn regular(&mut self, header: &Block<'_>, pax: Pax) -> Result<MemberKind> {
        let stored = match pax.size {
            Some(size) => size,
            None => header.size().map_err(|p| self.error(p))?,
        };
        let sparse = pax.sparse;
        let (map, size) = if header.type_flag() == b'S' {
            self.old_sparse(header)?
        } else if sparse.major == Some(1) && sparse.minor == Some(0) {
            return self.sparse_1_0(stored, sparse.real_size);
        } else if sparse.major.is_some_and(|major| major > 0) {
            return Err(self.error(TarProblem::Sparse {
                detail: "its version is none of 0.0, 0.1 and 1.0",
            }));
        } else if let Some(map) = sparse.map {
            (map, sparse.real_size.unwrap_or(stored))
        } else {
            self.expect_content(stored);
            return Ok(MemberKind::Regular {
                size: stored,
                extents: None,
            });
        };
        self.expect_content(stored);
        let extents = map.finish(size, stored).map_err(|p| self.error(p))?;
        Ok(MemberKind::Regular {
            size,
            extents: Some(extents),
        })
    }

    fn old_sparse(&mut self, header: &Block<'_>) -> Result<(super::sparse::Map, u64)> {
        let (mut map, size, mut more) = header
            .sparse()
            .map_err(|p| self.error(p))?
            .ok_or_else(|| self.error(TarProblem::Type('S')))?;
        let mut block = [0; BLOCK];
        while more {
            if !self.block(&mut block, "a sparse map")? {
                return Err(self.error(TarProblem::Truncated {
                    inside: "a sparse map",
                }));
            }
            more = header::sparse_block(&mut map, &block).map_err(|p| self.error(p))?;
        }
        Ok((map, size))
    }

    fn sparse_1_0(&mut self, stored: u64, size: Option<u64>) -> Result<MemberKind> {
        let size = size.ok_or_else(|| {
            self.error(TarProblem::Sparse {
                detail: "the real size is missing",
            })
        })?;
        let mut reader = MapReader::default();
        let mut block = [0; BLOCK];
        let mut left = stored;
        loop {
            if left < BLOCK as u64 {
                return Err(self.error(TarProblem::Sparse {
                    detail: "the map before the data is longer than the entry",
                }));
            }
            if !self.block(&mut block, "a sparse map")? {
                return Err(self.error(TarProblem::Truncated {
                    inside: "a sparse map",
                }));
            }
            left -= BLOCK as u64;
            if reader.block(&block).map_err(|p| self.error(p))? {
                break;
            }
        }
        self.expect_content(left);
        let extents = reader.into_map().finish(size, left);
        Ok(MemberKind::Regular {
            size,
            extents: Some(extents.map_err(|p| self.error(p))?),
        })
    }
}

fn meta(header: &Block<'_>, pax: &mut Pax) -> std::result::Result<Meta, TarProblem> {
    let mtime = match pax.mtime {
        Some(time) => time,
        None => header.mtime()?,
    };
    let (atime, ctime) = header.atime_ctime();
    let or_mtime = |first: Option<Time>, second: Option<Time>| first.or(second).unwrap_or(mtime);
    Ok(Meta {
        perm: header.perm()?,
        uid: match pax.uid {
            Some(uid) => uid,
            None => header.uid()?,
        },
        gid: match pax.gid {
            Some(gid) => gid,
            None => header.gid()?,
        },
        atime: or_mtime(pax.atime, atime),
        mtime,
        ctime: or_mtime(pax.ctime, ctime),
        xattrs: std::mem::take(&mut pax.xattrs),
    })
}
