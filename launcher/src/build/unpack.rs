//! ADD of a tar archive: what is in it, instead of the file.

use std::{
    io::{self, Read},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use pellicle_store::{Device, Ino, Time};
use pellicle_union::NewNode;
use tar::EntryType;

use super::{
    BuildError,
    place::{Looks, Placer},
    source::{self, Source, Xattrs},
};

/// Bytes of memory for xz, whatever an archive asks for; `xz -9` asks for 65 MiB.
const XZ_MEMORY: u64 = 512 << 20;
/// Where a PAX header has extended attributes.
const XATTR: &str = "SCHILY.xattr.";

/// Whether the file at `path` is an archive that is to be unpacked: plain, gzip, bzip2, xz or zstd.
///
/// # Errors
/// The source's.
pub(super) fn is_archive(source: &dyn Source, path: &Path) -> Result<bool, BuildError> {
    let mut archive = tar::Archive::new(plain(source, path)?);
    // A header counts if its checksum is right.
    let first = archive.entries().ok().and_then(|mut e| e.next());
    Ok(first.is_some_and(|e| e.is_ok()))
}

fn plain<'a>(source: &'a dyn Source, path: &Path) -> Result<Box<dyn Read + 'a>, BuildError> {
    let mut start = Vec::new();
    source
        .open(path)?
        .take(6)
        .read_to_end(&mut start)
        .map_err(BuildError::io("read", path))?;
    let file = source.open(path)?;
    Ok(match start.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            Box::new(zstd::Decoder::new(file).map_err(BuildError::io("decompress", path))?)
        }
        b"\xfd7zXZ\0" => {
            let flags = liblzma::stream::CONCATENATED;
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, flags);
            let stream = stream.map_err(|e| BuildError::io("decompress", path)(e.into()))?;
            Box::new(liblzma::read::XzDecoder::new_stream(file, stream))
        }
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Box::new(bzip2::read::MultiBzDecoder::new(file)),
        _ => file,
    })
}

/// Unpacks the archive at `path` into directory `into`, which is `to`. With `owner` everything is
/// that one's.
///
/// # Errors
/// A damaged archive, names that lead out of the directory, what the tree says.
pub(super) fn unpack(
    placer: &mut Placer<'_>,
    source: &dyn Source,
    path: &Path,
    into: Ino,
    to: &Path,
    owner: Option<(u32, u32)>,
) -> Result<(), BuildError> {
    let damaged = |e: io::Error| BuildError::io("unpack", path)(e);
    let mut archive = tar::Archive::new(plain(source, path)?);
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let name = inner(path, &entry.path_bytes())?;
        let looks = looks(&mut entry, owner).map_err(damaged)?;
        let Some(last) = name.file_name() else {
            // The archive's own root.
            continue;
        };
        let above = name.parent().unwrap_or(Path::new(""));
        let dir = if above.as_os_str().is_empty() {
            into
        } else {
            placer.directory(&to.join(above))?
        };
        let last = last.as_bytes();
        let target = entry.link_name_bytes().map(|t| t.into_owned());
        let device = Device {
            major: entry.header().device_major().ok().flatten().unwrap_or(0),
            minor: entry.header().device_minor().ok().flatten().unwrap_or(0),
        };
        match entry.header().entry_type() {
            EntryType::Directory => {
                placer.new_directory(dir, last, &looks, false)?;
            }
            EntryType::Symlink => {
                let target = target.unwrap_or_default();
                placer.node(dir, last, NewNode::Symlink(&target), &looks)?;
            }
            EntryType::Link => {
                let target = inner(path, &target.unwrap_or_default())?;
                let found = placer.find(&to.join(&target))?.ok_or_else(|| {
                    bad(
                        path,
                        format!(
                            "{} links to {}, which is not there",
                            name.display(),
                            target.display()
                        ),
                    )
                })?;
                placer.link(found.ino, dir, last)?;
            }
            EntryType::Char => {
                placer.node(dir, last, NewNode::CharDevice(device), &looks)?;
            }
            EntryType::Block => {
                placer.node(dir, last, NewNode::BlockDevice(device), &looks)?;
            }
            EntryType::Fifo => {
                placer.node(dir, last, NewNode::Fifo, &looks)?;
            }
            EntryType::XGlobalHeader => {}
            _ => {
                placer.file(dir, last, &mut entry, &looks)?;
            }
        }
    }
    Ok(())
}

fn inner(archive: &Path, name: &[u8]) -> Result<PathBuf, BuildError> {
    let (inside, left) = source::inside(std::ffi::OsStr::from_bytes(name));
    if left {
        let name = String::from_utf8_lossy(name).into_owned();
        return Err(bad(archive, format!("{name} leads out of it")));
    }
    Ok(inside)
}

fn bad(archive: &Path, why: String) -> BuildError {
    BuildError::request(
        format!("ADD {}: {why}", archive.display()),
        "make the archive again, or take it as it is with COPY",
    )
}

fn looks(entry: &mut tar::Entry<'_, impl Read>, owner: Option<(u32, u32)>) -> io::Result<Looks> {
    let mut xattrs: Xattrs = Vec::new();
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        if let Some(name) = extension.key_bytes().strip_prefix(XATTR.as_bytes()) {
            xattrs.push((name.to_vec(), extension.value_bytes().to_vec()));
        }
    }
    let header = entry.header();
    let id = |id: io::Result<u64>| id.map(|id| u32::try_from(id).unwrap_or(0));
    let (uid, gid) = match owner {
        Some(owner) => owner,
        None => (id(header.uid())?, id(header.gid())?),
    };
    Ok(Looks {
        uid,
        gid,
        perm: (header.mode()? & 0o7777) as u16,
        mtime: Time {
            sec: i64::try_from(header.mtime()?).unwrap_or(0),
            nsec: 0,
        },
        xattrs,
    })
}
