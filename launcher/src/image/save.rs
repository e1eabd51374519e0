//! Images out of the store, for other programs: OCI layouts (image-spec image-layout.md), as a
//! directory or an archive, and docker-archives, which are both at once, as docker's own have been
//! since version 25.
//!
//! The same images give the same bytes. The blob of a layer that was committed here is made from its
//! tree on the way, and checked against the digest that the manifest has for it. A blob that was left at
//! a registry, because its layer was here already, is replaced by the layer's plain archive, in the
//! manifest, too.

mod docker_dir;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read as _, Write},
    path::{Path, PathBuf},
};

use pellicle_store::{
    Digest, Hasher, Meta, Store,
    archive::{ArchiveWriter, Kind},
};
use pellicle_union::{CommitError, Watch, write_layer};
use serde_json::{Value, json};

use super::{
    Image, ImageError, Images, familiar,
    load::{CONTAINERD_NAME, REF_NAME},
    own_layers::with_own_layers,
    parse_manifest,
};

pub use docker_dir::save_docker_directory;

/// Bytes copied at a time.
const BUFFER: usize = 256 << 10;

/// What to make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum SaveFormat {
    /// What `docker load` and `podman load` read; it is an OCI layout, too
    #[default]
    DockerArchive,
    /// An OCI layout in a tar archive
    OciArchive,
    /// An OCI layout as a directory
    OciDir,
    /// One image as a directory with a manifest of docker's form, which skopeo and podman call dir:
    DockerDir,
}

/// An image and the names it is to have.
#[derive(Clone, Debug)]
pub struct Saved {
    /// The image.
    pub image: Image,
    /// Full names.
    pub names: Vec<String>,
}

/// Why images could not be saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// An image is damaged.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A layer could not be read, or what is made could not be written.
    #[error(transparent)]
    Layer(#[from] CommitError),
    /// A blob is not what its manifest says.
    #[error("the blob {id} is damaged: {detail}")]
    Blob {
        /// Its digest.
        id: Digest,
        /// What is wrong.
        detail: String,
    },
    /// An image cannot have the form that was asked for.
    #[error("the image {id} cannot be written so: {why}; use another --format")]
    Unfit {
        /// The digest of its manifest.
        id: Digest,
        /// What keeps it from that.
        why: String,
    },
    /// The host failed.
    #[error("cannot write {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
}

/// Takes the members of a layout, one after the other.
trait Members {
    /// Adds a directory.
    fn directory(&mut self, name: &str) -> Result<(), SaveError>;
    /// Adds a file of `size` bytes, which `fill` writes.
    fn file(&mut self, name: &str, size: u64, fill: Fill<'_>) -> Result<(), SaveError>;
}

type Fill<'a> = &'a mut dyn FnMut(&mut dyn Write) -> Result<(), SaveError>;

struct InArchive<W: Write>(ArchiveWriter<W>);

fn refused(source: io::Error) -> SaveError {
    SaveError::Layer(CommitError::Write { source })
}

/// The content of the last entry of an archive.
struct Content<'a, W: Write>(&'a mut ArchiveWriter<W>);

impl<W: Write> Write for Content<'_, W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.content(buf)?;
        Ok(buf.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> InArchive<W> {
    fn entry(&mut self, name: &str, kind: &Kind<'_>, perm: u16) -> Result<(), SaveError> {
        let meta = Meta {
            perm,
            ..Meta::default()
        };
        self.0.entry(name.as_bytes(), kind, &meta).map_err(refused)
    }
}

impl<W: Write> Members for InArchive<W> {
    fn directory(&mut self, name: &str) -> Result<(), SaveError> {
        self.entry(&format!("{name}/"), &Kind::Directory, 0o755)
    }

    fn file(&mut self, name: &str, size: u64, fill: Fill<'_>) -> Result<(), SaveError> {
        let kind = Kind::Regular {
            size,
            extents: None,
        };
        self.entry(name, &kind, 0o644)?;
        fill(&mut Content(&mut self.0))
    }
}

/// In a directory that is not there until it is whole.
struct InDirectory<'a>(&'a Path);

impl Members for InDirectory<'_> {
    fn directory(&mut self, name: &str) -> Result<(), SaveError> {
        let path = self.0.join(name);
        fs::create_dir_all(&path).map_err(|source| SaveError::Io { path, source })
    }

    fn file(&mut self, name: &str, _: u64, fill: Fill<'_>) -> Result<(), SaveError> {
        let path = self.0.join(name);
        let mut file = File::create_new(&path).map_err(|source| SaveError::Io { path, source })?;
        fill(&mut file)
    }
}

/// Writes `images` as one archive.
///
/// # Errors
/// [`SaveError`]; what was written by then is of no use.
pub fn save_archive(
    images: &Images,
    saved: &[Saved],
    format: SaveFormat,
    out: impl Write,
    watch: &Watch<'_>,
) -> Result<(), SaveError> {
    let mut members = InArchive(ArchiveWriter::new(out));
    save(images, saved, format, &mut members, watch)?;
    members.0.finish().map_err(refused)
}

/// Writes `images` as a layout in the empty directory `dir`.
///
/// # Errors
/// As [`save_archive`].
pub fn save_directory(
    images: &Images,
    saved: &[Saved],
    dir: &Path,
    watch: &Watch<'_>,
) -> Result<(), SaveError> {
    save(
        images,
        saved,
        SaveFormat::OciDir,
        &mut InDirectory(dir),
        watch,
    )
}

fn save(
    images: &Images,
    saved: &[Saved],
    format: SaveFormat,
    members: &mut dyn Members,
    watch: &Watch<'_>,
) -> Result<(), SaveError> {
    let mut index = Vec::new();
    let mut docker = Vec::new();
    let mut blobs: Vec<(Digest, u64)> = Vec::new();
    // Manifests that are made here.
    let mut made: BTreeMap<Digest, Vec<u8>> = BTreeMap::new();
    for one in saved {
        let (id, text) = with_own_layers(images, &one.image, &watch.cancel)?;
        let manifest = parse_manifest(&text).map_err(|why| damaged(&one.image.manifest, &why))?;
        let size = |id: &Digest| {
            let size = images.store().blobs().size(id).map_err(ImageError::from)?;
            size.ok_or_else(|| damaged(id, "it is not in the store"))
        };
        let manifest_size = text.len() as u64;
        blobs.push((id, manifest_size));
        if id != one.image.manifest {
            made.insert(id, text);
        }
        blobs.push((one.image.id, size(&one.image.id)?));
        let mut layers = Vec::new();
        for layer in manifest.layers() {
            let id: Digest = layer.digest().as_ref().parse().map_err(|_| {
                let digest = layer.digest();
                damaged(&one.image.manifest, &format!("it names the layer {digest}"))
            })?;
            blobs.push((id, layer.size()));
            layers.push(member_of(&id));
        }
        let media_type = match manifest.media_type() {
            Some(media_type) => media_type.to_string(),
            None => super::publish::MANIFEST_TYPE.to_owned(),
        };
        let descriptor = json!({
            "mediaType": media_type,
            "digest": id.to_string(),
            "size": manifest_size,
        });
        index.extend(descriptors(&descriptor, &one.names));
        docker.push(json!({
            "Config": member_of(&one.image.id),
            "RepoTags": one.names.iter().map(|n| familiar(n)).collect::<Vec<_>>(),
            "Layers": layers,
        }));
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": index,
    });
    document(
        members,
        "oci-layout",
        &json!({"imageLayoutVersion": "1.0.0"}),
    )?;
    document(members, "index.json", &index)?;
    if format == SaveFormat::DockerArchive {
        document(members, "manifest.json", &Value::Array(docker))?;
    }
    members.directory("blobs")?;
    members.directory("blobs/sha256")?;
    let mut written = BTreeSet::new();
    for (id, size) in blobs {
        if !written.insert(id) {
            continue;
        }
        if let Some(text) = made.get(&id) {
            members.file(&member_of(&id), size, &mut |out| {
                out.write_all(text).map_err(refused)
            })?;
        } else {
            write_blob(images.store(), &id, size, &member_of(&id), members, watch)?;
        }
    }
    Ok(())
}

fn damaged(id: &Digest, detail: &str) -> SaveError {
    SaveError::Blob {
        id: *id,
        detail: detail.to_owned(),
    }
}

fn member_of(id: &Digest) -> String {
    format!("blobs/sha256/{}", id.hex())
}

/// The descriptor of an image, once for each of its names.
fn descriptors(descriptor: &Value, names: &[String]) -> Vec<Value> {
    if names.is_empty() {
        return vec![descriptor.clone()];
    }
    let named = names.iter().map(|name| {
        let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        let mut named = descriptor.clone();
        if let Some(members) = named.as_object_mut() {
            let annotations = json!({
                CONTAINERD_NAME: name,
                REF_NAME: tag,
            });
            members.insert("annotations".to_owned(), annotations);
        }
        named
    });
    named.collect()
}

fn document(members: &mut dyn Members, name: &str, value: &Value) -> Result<(), SaveError> {
    let text = value.to_string();
    members.file(name, text.len() as u64, &mut |out| {
        out.write_all(text.as_bytes()).map_err(refused)
    })
}

/// Writes blob `id` of `size` bytes as `name`, checking both.
fn write_blob(
    store: &Store,
    id: &Digest,
    size: u64,
    name: &str,
    members: &mut dyn Members,
    watch: &Watch<'_>,
) -> Result<(), SaveError> {
    members.file(name, size, &mut |out| {
        let mut checked = Checked {
            out,
            hash: Hasher::default(),
            left: size,
        };
        if store.blobs().contains(id) {
            copy_blob(store, id, &mut checked, watch)?;
        } else {
            let tree = store.tree(id).map_err(ImageError::from)?;
            write_layer(&tree, store, &mut checked, watch)?;
        }
        let left = checked.left;
        let (found, _) = checked.hash.finish();
        if found == *id && left == 0 {
            return Ok(());
        }
        Err(damaged(id, &format!("its bytes have the digest {found}")))
    })
}

fn copy_blob(
    store: &Store,
    id: &Digest,
    to: &mut impl Write,
    watch: &Watch<'_>,
) -> Result<(), SaveError> {
    let mut file = store.blobs().open(id).map_err(ImageError::from)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        if watch.cancel.is_cancelled() {
            return Err(CommitError::Cancelled.into());
        }
        let n = match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(damaged(id, &e.to_string())),
        };
        to.write_all(buffer.get(..n).unwrap_or_default())
            .map_err(refused)?;
        watch.progress.bytes(n as u64);
    }
}

/// Passes bytes on and hashes them; takes no more than were announced.
struct Checked<'a> {
    out: &'a mut dyn Write,
    hash: Hasher,
    left: u64,
}

impl Write for Checked<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(buf.len() as u64).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "a blob in the store is longer than its manifest says",
            )
        })?;
        self.out.write_all(buf)?;
        self.hash.update(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
