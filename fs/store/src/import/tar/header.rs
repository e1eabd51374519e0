//! One header block.

use tar::Header;

use super::{
    BLOCK,
    number::{self, field},
    pax::ID_MAX,
    sparse::Map,
};
use crate::{Time, import::TarProblem};

/// A header block whose checksum is right.
pub(super) struct Block<'a>(&'a Header);

impl<'a> Block<'a> {
    /// `None` if the checksum is wrong.
    pub(super) fn new(bytes: &'a [u8; BLOCK]) -> Option<Self> {
        let header = Header::from_byte_slice(bytes);
        let stored = field(&header.as_old().cksum)?;
        (stored == sum(bytes, i128::from) || stored == sum(bytes, |b| i128::from(b as i8)))
            .then_some(Self(header))
    }

    /// The type flag.
    pub(super) fn type_flag(&self) -> u8 {
        let [flag] = self.0.as_old().linkflag;
        flag
    }

    /// The name, with the prefix of a POSIX header.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = until_nul(&self.0.as_old().name);
        let Some(ustar) = self.0.as_ustar() else {
            return name.to_vec();
        };
        // star marks its own variant at the end; there the prefix is shorter and times follow it.
        let prefix = match self.0.as_bytes().ends_with(b"tar\0") {
            true => ustar.prefix.split_at(131).0,
            false => &ustar.prefix,
        };
        match until_nul(prefix) {
            [] => name.to_vec(),
            prefix => [prefix, b"/", name].concat(),
        }
    }

    pub(super) fn link_name(&self) -> Vec<u8> {
        until_nul(&self.0.as_old().linkname).to_vec()
    }

    /// Permission bits; some writers add the type's.
    pub(super) fn perm(&self) -> Result<u16, TarProblem> {
        let mode = ranged("mode", &self.0.as_old().mode, u64::from(u32::MAX))?;
        Ok((mode & 0o7777) as u16)
    }

    pub(super) fn uid(&self) -> Result<u32, TarProblem> {
        Ok(ranged("uid", &self.0.as_old().uid, ID_MAX)? as u32)
    }

    pub(super) fn gid(&self) -> Result<u32, TarProblem> {
        Ok(ranged("gid", &self.0.as_old().gid, ID_MAX)? as u32)
    }

    /// Bytes that follow the header.
    pub(super) fn size(&self) -> Result<u64, TarProblem> {
        ranged("size", &self.0.as_old().size, i64::MAX as u64)
    }

    pub(super) fn mtime(&self) -> Result<Time, TarProblem> {
        seconds("mtime", &self.0.as_old().mtime)
    }

    /// Access and change time of a GNU header, where it has them.
    pub(super) fn atime_ctime(&self) -> (Option<Time>, Option<Time>) {
        let Some(gnu) = self.0.as_gnu() else {
            return (None, None);
        };
        let time = |bytes: &[u8]| {
            let present = bytes.iter().any(|b| *b != 0 && *b != b' ');
            // Writers that are not GNU tar leave other things here: no time is no error.
            present.then(|| seconds("atime", bytes).ok()).flatten()
        };
        (time(&gnu.atime), time(&gnu.ctime))
    }

    /// Major and minor number; 0 in headers that have none.
    pub(super) fn device(&self) -> Result<(u32, u32), TarProblem> {
        let max = u64::from(u32::MAX);
        let (major, minor) = match (self.0.as_ustar(), self.0.as_gnu()) {
            (Some(h), _) => (&h.dev_major, &h.dev_minor),
            (None, Some(h)) => (&h.dev_major, &h.dev_minor),
            (None, None) => return Ok((0, 0)),
        };
        Ok((
            ranged("device major", major, max)? as u32,
            ranged("device minor", minor, max)? as u32,
        ))
    }

    /// The start of an old GNU sparse map, the file's real size, and whether more blocks of the map
    /// follow. `None` if this is no GNU header.
    pub(super) fn sparse(&self) -> Result<Option<(Map, u64, bool)>, TarProblem> {
        let Some(gnu) = self.0.as_gnu() else {
            return Ok(None);
        };
        let mut map = Map::default();
        for region in &gnu.sparse {
            push(&mut map, &region.offset, &region.numbytes)?;
        }
        let real = ranged("real size", &gnu.realsize, i64::MAX as u64)?;
        Ok(Some((map, real, gnu.isextended != [0])))
    }
}

/// Adds what a further block of an old GNU sparse map holds; whether another follows.
pub(super) fn sparse_block(map: &mut Map, block: &[u8; BLOCK]) -> Result<bool, TarProblem> {
    const REGIONS: usize = 21;
    const REGION: usize = 24;
    let (regions, rest) = block.split_at(REGIONS * REGION);
    for region in regions.chunks_exact(REGION) {
        let (offset, len) = region.split_at(REGION / 2);
        push(map, offset, len)?;
    }
    Ok(rest.first().is_some_and(|more| *more != 0))
}

/// A region whose fields are blank is not there.
fn push(map: &mut Map, offset: &[u8], len: &[u8]) -> Result<(), TarProblem> {
    if len.iter().all(|b| *b == 0) && offset.iter().all(|b| *b == 0) {
        return Ok(());
    }
    let max = i64::MAX as u64;
    map.push(
        ranged("sparse offset", offset, max)?,
        ranged("sparse length", len, max)?,
    )
}

fn ranged(name: &'static str, bytes: &[u8], max: u64) -> Result<u64, TarProblem> {
    number::field(bytes)
        .and_then(|n| u64::try_from(n).ok())
        .filter(|n| *n <= max)
        .ok_or(TarProblem::Number {
            field: name,
            min: 0,
            max,
        })
}

fn seconds(name: &'static str, bytes: &[u8]) -> Result<Time, TarProblem> {
    match number::field(bytes).map(i64::try_from) {
        Some(Ok(sec)) => Ok(Time { sec, nsec: 0 }),
        _ => Err(TarProblem::Number {
            field: name,
            min: i64::MIN,
            max: i64::MAX as u64,
        }),
    }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|b| *b == 0).next().unwrap_or_default()
}

/// The sum of all bytes with the checksum field taken as spaces. POSIX sums unsigned bytes; some
/// old systems summed signed ones.
fn sum(bytes: &[u8; BLOCK], value: impl Fn(u8) -> i128) -> i128 {
    let (before, rest) = bytes.split_at(148);
    let after = rest.split_at(8).1;
    let total: i128 = before.iter().chain(after).map(|b| value(*b)).sum();
    total + 8 * i128::from(b' ')
}
