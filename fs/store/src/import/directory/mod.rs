//! A host directory becomes a layer: it is written as a tar stream, which is imported.
//!
//! One thread walks and writes, the import reads: what a directory becomes is exactly what its
//! archive would become, and the archive is kept as the blob, so that the image can be pushed.

mod host;
mod pipe;
mod walk;

use std::{
    io::{self, Write},
    path::Path,
    thread,
};

use flate2::write::GzEncoder;

use super::{
    Compression, ImportError, ImportOptions, ImportedLayer, Progress, import_layer,
    pipeline::{start, stopped},
};
use crate::{Store, archive::ArchiveWriter};
use pipe::PipeWriter;
use walk::Walk;

/// Imports the host directory `dir` as a layer.
///
/// The stream is PAX, sorted by name in each directory, with times to the nanosecond, owners as
/// [`ImportOptions::owners`] says, extended attributes (`user.`, `trusted.`, capabilities, ACLs),
/// hard links and holes. Access and change times are left out: reading changes them. Sockets have no
/// form in a tar and are left out, and so is the store itself if it is inside.
/// `progress` counts bytes of the blob.
///
/// # Errors
/// [`ImportError::Directory`] for what cannot be read or changes while it is; else as
/// [`import_layer`].
pub fn import_directory(
    store: &Store,
    dir: &Path,
    options: &ImportOptions,
    progress: &dyn Progress,
) -> Result<ImportedLayer, ImportError> {
    let mut options = options.clone();
    if options.name.is_empty() {
        options.name = dir.display().to_string();
    }
    let except = host::identity(store.root()).ok();
    let top = host::open_top(dir)?;
    thread::scope(|scope| {
        let (to, from) = pipe::pipe();
        let shared = &options;
        let walking = start(scope, "walk", move || {
            let mut walk = Walk::new(dir, shared, except);
            write_archive(shared.compression, to, &mut |out| walk.run(&top, out))
        })?;
        let imported = import_layer(store, from, &options, progress);
        let walked = walking.join().map_err(|_| stopped())?;
        match (walked, imported) {
            // The import only saw its source end.
            (Err(cause @ (ImportError::Directory { .. } | ImportError::Cancelled)), _) => {
                Err(cause)
            }
            (_, Err(cause)) | (Err(cause), Ok(_)) => Err(cause),
            (Ok(()), Ok(layer)) => Ok(layer),
        }
    })
}

/// The reader of the archive is gone; its own error says why.
fn refused(source: io::Error) -> ImportError {
    ImportError::Host {
        action: "hand the archive of the directory on",
        source,
    }
}

type Fill<'a> = &'a mut dyn FnMut(&mut ArchiveWriter<&mut dyn Write>) -> Result<(), ImportError>;

/// Has `fill` write an archive, compresses it and marks its end. Without the mark the reader
/// takes the stream for cut off.
fn write_archive(
    compression: Compression,
    mut to: PipeWriter,
    fill: Fill<'_>,
) -> Result<(), ImportError> {
    let mut archive = |out: &mut dyn Write| {
        let mut writer = ArchiveWriter::new(out);
        fill(&mut writer)?;
        writer.finish().map_err(refused)
    };
    match compression {
        Compression::None => archive(&mut to)?,
        Compression::Gzip => {
            // No name and no time in the header: equal directories give equal blobs.
            let mut gzip = GzEncoder::new(&mut to, flate2::Compression::new(6));
            archive(&mut gzip)?;
            gzip.finish().map_err(refused)?;
        }
        Compression::Zstd => {
            let mut zstd = zstd::stream::write::Encoder::new(&mut to, 3).map_err(refused)?;
            zstd.include_checksum(true).map_err(refused)?;
            archive(&mut zstd)?;
            zstd.finish().map_err(refused)?;
        }
    }
    to.finish().map_err(refused)
}

/// The archive of `dir`, uncompressed, without a store.
#[cfg(test)]
pub(super) fn archive_of(dir: &Path, options: &ImportOptions) -> Result<Vec<u8>, ImportError> {
    let mut all = Vec::new();
    let mut writer = ArchiveWriter::new(&mut all as &mut dyn Write);
    Walk::new(dir, options, None).run(&host::open_top(dir)?, &mut writer)?;
    writer.finish().map_err(refused)?;
    Ok(all)
}
