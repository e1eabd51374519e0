//! Where images are loaded from: a directory, or a tar archive as a file or a stream.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read, Seek as _, SeekFrom},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use pellicle_store::import::Cancel;

use super::{
    LoadError,
    tar_index::{self, Member, normal},
};

/// A member's bytes, and how many there are said to be.
pub(super) type Opened<'a> = (Box<dyn Read + Send + 'a>, u64);

/// Links followed before it counts as a loop.
const LINKS_MAX: usize = 8;

/// The members of an image layout or a saved image, by name.
pub(super) enum Source {
    Directory(PathBuf),
    Archive {
        file: File,
        members: HashMap<String, Member>,
        name: String,
    },
}

impl Source {
    /// Opens a directory, or an archive in a file of any compression.
    pub(super) fn open(path: &Path, spool: &Path, cancel: &Cancel) -> Result<Self, LoadError> {
        if fs::metadata(path)
            .map_err(LoadError::io("read", path))?
            .is_dir()
        {
            return Ok(Self::Directory(path.to_owned()));
        }
        let mut file = File::open(path).map_err(LoadError::io("open", path))?;
        let mut magic = [0; 4];
        let plain = file
            .metadata()
            .map_err(LoadError::io("read", path))?
            .is_file()
            && file
                .read_at(&mut magic, 0)
                .map_err(LoadError::io("read", path))?
                == magic.len()
            && compression(&magic).is_none();
        let name = path.display().to_string();
        if !plain {
            file.seek(SeekFrom::Start(0))
                .or_else(|e| {
                    // A pipe is at its start anyway.
                    if e.raw_os_error() == Some(libc::ESPIPE) {
                        Ok(0)
                    } else {
                        Err(e)
                    }
                })
                .map_err(LoadError::io("read", path))?;
            return Self::stream(file, name, spool, cancel);
        }
        let members = tar_index::index(&file, &name)?;
        Ok(Self::Archive {
            file,
            members,
            name,
        })
    }

    /// Reads an archive from a stream, through a nameless file in `spool`: its members are needed
    /// in another order than they come in.
    pub(super) fn stream(
        mut stream: impl Read,
        name: String,
        spool: &Path,
        cancel: &Cancel,
    ) -> Result<Self, LoadError> {
        let from = PathBuf::from(&name);
        let mut magic = Vec::new();
        stream
            .by_ref()
            .take(4)
            .read_to_end(&mut magic)
            .map_err(LoadError::io("read", &from))?;
        let whole = io::Cursor::new(magic.clone()).chain(stream);
        let mut plain: Box<dyn Read + '_> = match compression(&magic) {
            Some("gzip") => Box::new(flate2::read::MultiGzDecoder::new(whole)),
            Some(_) => {
                Box::new(zstd::Decoder::new(whole).map_err(LoadError::io("decompress", &from))?)
            }
            None => Box::new(whole),
        };
        let mut file =
            tempfile::tempfile_in(spool).map_err(LoadError::io("make a file in", spool))?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            cancel.check()?;
            let n = match plain.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(LoadError::io("read", &from)(e)),
            };
            let bytes = buffer.get(..n).unwrap_or_default();
            io::Write::write_all(&mut file, bytes)
                .map_err(LoadError::io("write a file in", spool))?;
        }
        let members = tar_index::index(&file, &name)?;
        Ok(Self::Archive {
            file,
            members,
            name,
        })
    }

    /// What messages call it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Directory(path) => path.display().to_string(),
            Self::Archive { name, .. } => name.clone(),
        }
    }

    /// Opens a member; its size as claimed.
    pub(super) fn member(&self, name: &str) -> Result<Option<Opened<'_>>, LoadError> {
        match self {
            Self::Directory(dir) => {
                let path = dir.join(normal(name));
                // Not blocking: a FIFO in its place must not hang us.
                let opened = File::options()
                    .read(true)
                    .custom_flags(libc::O_NONBLOCK)
                    .open(&path);
                let file = match opened {
                    Ok(file) => file,
                    Err(e)
                        if matches!(
                            e.kind(),
                            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                        ) =>
                    {
                        return Ok(None);
                    }
                    Err(e) => return Err(LoadError::io("open", &path)(e)),
                };
                let meta = file.metadata().map_err(LoadError::io("read", &path))?;
                if !meta.is_file() {
                    return Err(LoadError::invalid(
                        path.display().to_string(),
                        "it is not a regular file",
                    ));
                }
                Ok(Some((Box::new(file), meta.len())))
            }
            Self::Archive { file, members, .. } => {
                let mut name = normal(name);
                for _ in 0..LINKS_MAX {
                    match members.get(&name) {
                        None => return Ok(None),
                        Some(Member::Link(target)) => name.clone_from(target),
                        Some(Member::File { offset, size }) => {
                            let span = Span {
                                file,
                                at: *offset,
                                left: *size,
                            };
                            return Ok(Some((Box::new(span), *size)));
                        }
                    }
                }
                Err(LoadError::invalid(
                    format!("the member {name}"),
                    "its links go in a circle",
                ))
            }
        }
    }

    /// A member of at most `max` bytes, whole.
    pub(super) fn small(&self, name: &str, max: u64) -> Result<Option<Vec<u8>>, LoadError> {
        let Some((reader, size)) = self.member(name)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        let path = Path::new(&self.name()).join(name);
        reader
            .take(max + 1)
            .read_to_end(&mut bytes)
            .map_err(LoadError::io("read", &path))?;
        let len = bytes.len() as u64;
        if len > max {
            return Err(LoadError::invalid(
                name,
                format!("it has more than {max} bytes"),
            ));
        }
        if len < size {
            return Err(LoadError::invalid(
                name,
                format!("it is cut off after {len} of {size} bytes"),
            ));
        }
        Ok(Some(bytes))
    }
}

/// A stretch of a file, read without moving its position.
struct Span<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Span<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buf.len());
        let n = self
            .file
            .read_at(buf.get_mut(..want).unwrap_or_default(), self.at)?;
        self.at += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

/// RFC 1952 and RFC 8878 magic numbers.
fn compression(magic: &[u8]) -> Option<&'static str> {
    match magic {
        [0x1f, 0x8b, ..] => Some("gzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("zstd"),
        _ => None,
    }
}
