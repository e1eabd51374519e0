//! Images of the store into OCI layouts (image-spec image-layout.md), with the blobs and the manifest that a
//! push to a registry sends, so that the digests are the same.
//!
//! A layout that is there keeps what it has: blobs are added, and `index.json` is replaced as a whole when
//! all of them are there. Who changes it holds a lock on its directory.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use pellicle_store::{
    Digest, Hasher, Meta, Store,
    archive::{ArchiveWriter, Kind},
    import::{Cancel, Progress},
};
use serde_json::{Value, json};

use super::{
    Compression, ManifestFormat, RegistryError, at_once,
    compress::with_archive,
    known::Known,
    media_type,
    pull::Show,
    push::{Piece, Pushed, PushedBlob, pieces, with_made, written_as},
    upload::How,
};
use crate::image::{Image, Images, load::REF_NAME};

const BUFFER: usize = 256 << 10;
/// An index of 4 MiB is the largest that any registry takes.
const INDEX_MAX: u64 = 4 << 20;

/// How an image goes into a layout.
pub struct Ship<'a> {
    /// How layers are compressed that are not compressed.
    pub compression: Compression,
    /// What the manifest is written as, if not as it is.
    pub format: Option<ManifestFormat>,
    /// The tag it gets there.
    pub tag: Option<&'a str>,
    /// A request to stop.
    pub cancel: &'a Cancel,
    /// Told what becomes of the blobs.
    pub show: &'a dyn Show,
}

/// Puts `image` into the layout `dir`, which is made if it is not there.
///
/// # Errors
/// [`RegistryError`]; `index.json` is as it was then.
pub fn push_to_layout(
    images: &Images,
    image: &Image,
    dir: &Path,
    ship: &Ship<'_>,
) -> Result<Pushed, RegistryError> {
    let store = images.store();
    let _lock = store.lock_shared()?;
    let text = images.raw_manifest(&image.manifest)?;
    let known = Known::read(store);
    let pieces = pieces(store, &known, image, &text)?;
    let layout = Layout::open(dir)?;
    let work = Work {
        store,
        known: &known,
        layout: &layout,
        ship,
    };
    let blobs = at_once::each(&pieces, &|piece, stop| work.one(piece, stop))?;
    let kind = media_type::of(&text).unwrap_or_else(|| media_type::MANIFESTS[0].to_owned());
    let made: Vec<_> = pieces.iter().zip(&blobs).map(|(p, b)| (*p, *b)).collect();
    let manifest = with_made(&text, &kind, &made, ship.compression)?;
    let (manifest, kind) = written_as(&manifest, ship.format)?;
    let (digest, size) = layout.add(&mut manifest.as_slice(), &())?;
    ship.cancel.check().map_err(|_| RegistryError::Cancelled)?;
    let descriptor = json!({"mediaType": kind, "digest": digest.to_string(), "size": size});
    layout.list(descriptor, ship.tag)?;
    Ok(Pushed {
        digest,
        size,
        blobs,
        referrers: Vec::new(),
    })
}

/// Writes the layout `dir` as a tar archive, in an order that is always the same.
///
/// # Errors
/// The host's.
pub fn archive(dir: &Path, out: impl Write) -> Result<(), RegistryError> {
    let mut archive = ArchiveWriter::new(out);
    let write = |e| RegistryError::io("write the archive of", dir)(e);
    for name in ["oci-layout", "index.json"] {
        append(&mut archive, dir, name)?;
    }
    let meta = Meta {
        perm: 0o755,
        ..Meta::default()
    };
    for name in ["blobs/", "blobs/sha256/"] {
        let entry = archive.entry(name.as_bytes(), &Kind::Directory, &meta);
        entry.map_err(write)?;
    }
    let blobs = dir.join(BLOBS);
    let list = fs::read_dir(&blobs).map_err(RegistryError::io("list", &blobs))?;
    let mut names = Vec::new();
    for entry in list {
        let entry = entry.map_err(RegistryError::io("list", &blobs))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    for name in names {
        append(&mut archive, dir, &format!("{BLOBS}/{name}"))?;
    }
    archive.finish().map(drop).map_err(write)
}

fn append<W: Write>(
    archive: &mut ArchiveWriter<W>,
    dir: &Path,
    name: &str,
) -> Result<(), RegistryError> {
    let path = dir.join(name);
    let read = |e| RegistryError::io("read", &path)(e);
    let mut file = File::open(&path).map_err(read)?;
    let size = file.metadata().map_err(read)?.len();
    let kind = Kind::Regular {
        size,
        extents: None,
    };
    let meta = Meta {
        perm: 0o644,
        ..Meta::default()
    };
    let write = |e| RegistryError::io("write the archive of", dir)(e);
    archive
        .entry(name.as_bytes(), &kind, &meta)
        .map_err(write)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let n = file.read(&mut buffer).map_err(read)?;
        if n == 0 {
            return Ok(());
        }
        archive
            .content(buffer.get(..n).unwrap_or_default())
            .map_err(write)?;
    }
}

const BLOBS: &str = "blobs/sha256";
const MARK: &str = "oci-layout";

/// A layout that only this process changes.
struct Layout {
    dir: PathBuf,
    /// Its lock.
    _held: File,
}

impl Layout {
    fn open(dir: &Path) -> Result<Self, RegistryError> {
        fs::create_dir_all(dir).map_err(RegistryError::io("make", dir))?;
        let held = File::open(dir).map_err(RegistryError::io("open", dir))?;
        held.lock().map_err(RegistryError::io("lock", dir))?;
        let layout = Self {
            dir: dir.to_owned(),
            _held: held,
        };
        let mark = dir.join(MARK);
        match fs::read(&mark) {
            Ok(text) => {
                let value: Option<Value> = serde_json::from_slice(&text).ok();
                let version = value
                    .as_ref()
                    .and_then(|v| v.get("imageLayoutVersion")?.as_str());
                if !version.is_some_and(|v| v.starts_with("1.")) {
                    return Err(RegistryError::File {
                        path: mark,
                        why: "it is no OCI layout of version 1".to_owned(),
                    });
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let mut entries = fs::read_dir(dir).map_err(RegistryError::io("list", dir))?;
                if entries.next().is_some() {
                    return Err(RegistryError::File {
                        path: dir.to_owned(),
                        why: "it is a directory with files in it, and no OCI layout".to_owned(),
                    });
                }
                layout.replace(MARK, &json!({"imageLayoutVersion": "1.0.0"}))?;
            }
            Err(e) => return Err(RegistryError::io("read", &mark)(e)),
        }
        let blobs = dir.join(BLOBS);
        fs::create_dir_all(&blobs).map_err(RegistryError::io("make", &blobs))?;
        Ok(layout)
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.dir.join(BLOBS).join(digest.hex())
    }

    /// Whether it has that blob.
    fn has(&self, digest: &Digest, size: u64) -> bool {
        fs::symlink_metadata(self.blob(digest)).is_ok_and(|m| m.is_file() && m.len() == size)
    }

    /// A file in it that has no name yet.
    fn unnamed(&self, below: &str) -> Result<tempfile::NamedTempFile, RegistryError> {
        let dir = self.dir.join(below);
        tempfile::Builder::new()
            .prefix(".pellicle-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .tempfile_in(&dir)
            .map_err(RegistryError::io("make a file in", &dir))
    }

    /// Adds a blob; its digest and size.
    fn add(
        &self,
        from: &mut dyn Read,
        progress: &dyn Progress,
    ) -> Result<(Digest, u64), RegistryError> {
        let mut file = self.unnamed(BLOBS)?;
        let mut hash = Hasher::default();
        let mut buffer = vec![0; BUFFER];
        loop {
            let n = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(RegistryError::io("read what goes to", &self.dir)(e)),
            };
            let bytes = buffer.get(..n).unwrap_or_default();
            hash.update(bytes);
            file.write_all(bytes)
                .map_err(RegistryError::io("write", file.path()))?;
            progress.bytes(n as u64);
        }
        let (digest, size) = hash.finish();
        let to = self.blob(&digest);
        file.persist(&to)
            .map_err(|e| RegistryError::io("make", &to)(e.error))?;
        Ok((digest, size))
    }

    fn replace(&self, name: &str, value: &Value) -> Result<(), RegistryError> {
        let mut file = self.unnamed("")?;
        let to = self.dir.join(name);
        file.write_all(value.to_string().as_bytes())
            .map_err(RegistryError::io("write", &to))?;
        file.persist(&to)
            .map(drop)
            .map_err(|e| RegistryError::io("replace", &to)(e.error))
    }

    /// Lists an image under `tag`, which another loses; its other images stay.
    fn list(&self, mut descriptor: Value, tag: Option<&str>) -> Result<(), RegistryError> {
        let path = self.dir.join("index.json");
        let bad = |why: &str| RegistryError::File {
            path: path.clone(),
            why: why.to_owned(),
        };
        let mut index = match File::open(&path) {
            Ok(file) => {
                let mut text = Vec::new();
                file.take(INDEX_MAX + 1)
                    .read_to_end(&mut text)
                    .map_err(RegistryError::io("read", &path))?;
                serde_json::from_slice(&text).map_err(|e| bad(&e.to_string()))?
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => json!({
                "schemaVersion": 2,
                "mediaType": media_type::INDEXES[0],
                "manifests": [],
            }),
            Err(e) => return Err(RegistryError::io("read", &path)(e)),
        };
        let list = index.get_mut("manifests").and_then(Value::as_array_mut);
        let list = list.ok_or_else(|| bad("it is no index of an OCI layout"))?;
        let name_of = |d: &Value| {
            let name = d.get("annotations")?.get(REF_NAME)?.as_str()?;
            Some(name.to_owned())
        };
        list.retain(|d| match (name_of(d), tag) {
            (Some(name), Some(tag)) => name != tag,
            (None, None) => d.get("digest") != descriptor.get("digest"),
            _ => true,
        });
        if let (Some(tag), Some(members)) = (tag, descriptor.as_object_mut()) {
            members.insert("annotations".to_owned(), json!({REF_NAME: tag}));
        }
        list.push(descriptor);
        self.replace("index.json", &index)
    }
}

struct Work<'a> {
    store: &'a Store,
    known: &'a Known,
    layout: &'a Layout,
    ship: &'a Ship<'a>,
}

impl Work<'_> {
    fn one(&self, piece: &Piece, stop: &AtomicBool) -> Result<PushedBlob, RegistryError> {
        for (digest, size) in piece.expected(self.known, self.ship.compression) {
            if self.layout.has(&digest, size) {
                self.ship.show.skip(&digest, size, "already there");
                let how = How::There;
                return Ok(PushedBlob { digest, size, how });
            }
        }
        let (name, announced) = match piece {
            Piece::Kept(digest, size) => (digest, *size),
            Piece::Made(diff_id) | Piece::Elsewhere(_, _, diff_id) => (diff_id, 0),
        };
        let shown = self.ship.show.begin(name, announced);
        let (digest, size) = match piece {
            Piece::Kept(digest, _) => {
                let file = self.store.blobs().open(digest)?;
                let added = self.layout.add(&mut self.watched(file, stop), &*shown)?;
                if added.0 != *digest {
                    let why = format!("its bytes have the digest {}", added.0);
                    return Err(RegistryError::invalid(
                        format!("the blob {digest} of the store"),
                        why,
                    ));
                }
                added
            }
            Piece::Made(diff_id) | Piece::Elsewhere(_, _, diff_id) => with_archive(
                self.store,
                diff_id,
                self.ship.compression,
                self.ship.cancel,
                |archive| self.layout.add(&mut self.watched(archive, stop), &*shown),
            )?,
        };
        shown.done("written");
        let how = How::Sent;
        Ok(PushedBlob { digest, size, how })
    }

    fn watched<'a, R: Read>(&'a self, from: R, stop: &'a AtomicBool) -> Watched<'a, R> {
        Watched {
            from,
            stop,
            cancel: self.ship.cancel,
        }
    }
}

/// Ends when nobody needs it any more.
struct Watched<'a, R> {
    from: R,
    stop: &'a AtomicBool,
    cancel: &'a Cancel,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) || self.cancel.is_cancelled() {
            return Err(io::Error::other("interrupted"));
        }
        self.from.read(buffer)
    }
}
