//! The archive of a layer, compressed on the way from its tree.

use std::{
    io::{self, Read, Write},
    thread,
};

use pellicle_store::{Digest, Hasher, Store, import::Cancel};
use pellicle_union::{CommitError, Watch, write_layer};

use super::RegistryError;

/// How layers are compressed that were not yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum CompressionFormat {
    /// What every registry and engine reads
    #[default]
    Gzip,
    /// Several times faster, and read by every engine of the last years
    Zstd,
}

/// Format and level.
#[derive(Clone, Copy, Debug, Default)]
pub struct Compression {
    /// The format.
    pub format: CompressionFormat,
    /// 0 to 9 for gzip, 1 to 22 for zstd; the format's own default if not given.
    pub level: Option<u32>,
}

impl Compression {
    /// The levels there are, as a mistake is told of.
    ///
    /// # Errors
    /// If the level is none of them.
    pub fn check(&self) -> Result<(), String> {
        let (low, high) = match self.format {
            CompressionFormat::Gzip => (0, 9),
            CompressionFormat::Zstd => (1, 22),
        };
        if (low..=high).contains(&self.level()) {
            return Ok(());
        }
        Err(format!("the levels of {} are {low} to {high}", self.name()))
    }

    fn level(&self) -> u32 {
        self.level.unwrap_or(match self.format {
            CompressionFormat::Gzip => 6,
            CompressionFormat::Zstd => 3,
        })
    }

    fn name(&self) -> &'static str {
        match self.format {
            CompressionFormat::Gzip => "gzip",
            CompressionFormat::Zstd => "zstd",
        }
    }

    /// What tells blobs that were made in different ways apart.
    pub(super) fn key(&self) -> String {
        format!("{}-{}", self.name(), self.level())
    }

    /// The media type of such a layer, in a manifest of docker's or of OCI's.
    pub(super) fn media_type(&self, docker: bool) -> String {
        let base = if docker {
            "application/vnd.docker.image.rootfs.diff.tar."
        } else {
            "application/vnd.oci.image.layer.v1.tar+"
        };
        format!("{base}{}", self.name())
    }
}

/// The layer `diff_id` as an archive compressed like that, given to `take` as it is made. Returns what
/// `take` does, if all of the archive was made and is the layer's.
pub(super) fn with_archive<T>(
    store: &Store,
    diff_id: &Digest,
    how: Compression,
    cancel: &Cancel,
    take: impl FnOnce(&mut dyn Read) -> Result<T, RegistryError>,
) -> Result<T, RegistryError> {
    let host = |doing| move |e| RegistryError::io(doing, std::path::Path::new("a pipe"))(e);
    let (mut reader, writer) = io::pipe().map_err(host("make"))?;
    thread::scope(|scope| {
        let maker = thread::Builder::new()
            .name("compress".to_owned())
            .spawn_scoped(scope, move || make(store, diff_id, how, cancel, writer))
            .map_err(host("start a thread for"))?;
        let taken = take(&mut reader);
        // If not all of it was wanted, who makes it must hear of that.
        drop(reader);
        let made = maker.join().unwrap_or_else(|_| {
            Err(RegistryError::invalid(
                format!("layer {diff_id}"),
                "making its archive stopped",
            ))
        });
        match (taken, made) {
            (Err(error), _) | (Ok(_), Err(error)) => Err(error),
            (Ok(taken), Ok(())) => Ok(taken),
        }
    })
}

fn make(
    store: &Store,
    diff_id: &Digest,
    how: Compression,
    cancel: &Cancel,
    out: impl Write,
) -> Result<(), RegistryError> {
    let fail = |source| RegistryError::Layer(CommitError::Write { source });
    match how.format {
        CompressionFormat::Gzip => {
            let level = flate2::Compression::new(how.level());
            let mut encoder = flate2::write::GzEncoder::new(out, level);
            plain(store, diff_id, cancel, &mut encoder)?;
            encoder.finish().map_err(fail)?;
        }
        CompressionFormat::Zstd => {
            let level = i32::try_from(how.level()).unwrap_or(3);
            let mut encoder = zstd::stream::write::Encoder::new(out, level).map_err(fail)?;
            plain(store, diff_id, cancel, &mut encoder)?;
            encoder.finish().map_err(fail)?;
        }
    }
    Ok(())
}

/// Writes the layer's plain archive: the blob, where that is kept, else made of its tree.
fn plain(
    store: &Store,
    diff_id: &Digest,
    cancel: &Cancel,
    out: &mut dyn Write,
) -> Result<(), RegistryError> {
    let mut hashed = Hashed {
        out,
        hash: Hasher::default(),
    };
    if store.blobs().contains(diff_id) {
        let mut file = store.blobs().open(diff_id)?;
        io::copy(&mut file, &mut hashed).map_err(|source| CommitError::Write { source })?;
    } else {
        let watch = Watch {
            cancel: cancel.clone(),
            progress: &(),
        };
        write_layer(&store.tree(diff_id)?, store, &mut hashed, &watch)?;
    }
    let (found, _) = hashed.hash.finish();
    if found == *diff_id {
        return Ok(());
    }
    Err(RegistryError::invalid(
        format!("layer {diff_id} of the store"),
        format!("its archive has the digest {found}; `pellicle store verify --repair` tells more"),
    ))
}

/// Passes bytes on and hashes them.
struct Hashed<'a> {
    out: &'a mut dyn Write,
    hash: Hasher,
}

impl Write for Hashed<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.out.write_all(buf)?;
        self.hash.update(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_checked_and_kept_apart() {
        let of = |format, level| Compression { format, level };
        assert_eq!(of(CompressionFormat::Gzip, None).key(), "gzip-6");
        assert_eq!(of(CompressionFormat::Zstd, Some(19)).key(), "zstd-19");
        assert!(of(CompressionFormat::Gzip, Some(10)).check().is_err());
        assert!(of(CompressionFormat::Zstd, Some(0)).check().is_err());
        assert!(of(CompressionFormat::Zstd, Some(22)).check().is_ok());
    }
}
