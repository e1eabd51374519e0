//! What came of a large layer before its pull ended: `registry/partial/<digest>` in the store.
//!
//! Every byte that comes is kept there as well until the layer is complete, so that the next pull, also
//! after a crash, asks only for the rest. Nothing here is believed: the bytes go through the import like
//! those of the network, and count if the digest of the whole is right. Whoever fetches a layer holds a
//! lock on its file; another one who fetches the same meanwhile keeps nothing.

use std::{
    fs::{self, File},
    io::{self, Read, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use pellicle_store::{Digest, Store};
use rustix::fs::{FlockOperation, flock};

use super::content::Blob;

/// A smaller layer is fetched again sooner than it is kept.
const WORTH: u64 = 1 << 20;

/// The directory in the store at `root`.
fn dir(root: &Path) -> PathBuf {
    root.join("registry/partial")
}

/// Removes what no pull in progress holds.
pub(crate) fn sweep(root: &Path) {
    for entry in fs::read_dir(dir(root)).into_iter().flatten().flatten() {
        let path = entry.path();
        if let Ok(file) = opened(&path)
            && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            let _ = fs::remove_file(path);
        }
    }
}

/// Opens the file of a layer, or makes it; what lies there and cannot be one goes.
fn opened(path: &Path) -> io::Result<File> {
    let open = || {
        File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)
    };
    discard_other(path);
    open().or_else(|_| {
        fs::remove_file(path)?;
        open()
    })
}

/// Removes what cannot be the file of a layer.
fn discard_other(path: &Path) {
    let _ = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(meta) if !meta.is_file() => fs::remove_file(path),
        _ => Ok(()),
    };
}

/// The file of a layer that is being fetched.
#[derive(Debug)]
pub(super) struct Partial {
    path: PathBuf,
    /// Locked.
    file: File,
    /// Bytes that were there.
    had: u64,
}

impl Partial {
    /// That of the layer `blob` of `size` bytes; `None` if it is not worth it, or another process has it.
    /// Without, a pull does the same but from the start: no failure here is one of the pull.
    pub(super) fn open(store: &Store, blob: &Digest, size: u64) -> Option<Self> {
        if size < WORTH {
            return None;
        }
        let dir = dir(store.root());
        let path = dir.join(blob.hex());
        let opened = fs::create_dir_all(&dir).and_then(|()| {
            let file = opened(&path)?;
            flock(&file, FlockOperation::NonBlockingLockExclusive)?;
            let had = file.metadata()?.len();
            Ok((file, had))
        });
        let (file, had) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                tracing::debug!(%error, path = %path.display(), "what comes is not kept");
                return None;
            }
        };
        // One that was removed between opening and locking is nobody's.
        let is_there = fs::metadata(&path)
            .is_ok_and(|there| file.metadata().is_ok_and(|own| own.ino() == there.ino()));
        let mut partial = Self { path, file, had };
        if had >= size {
            // All of it, and yet it is no layer of the store: it is none.
            partial.forget();
        }
        is_there.then_some(partial)
    }

    /// Bytes that were there.
    pub(super) fn had(&self) -> u64 {
        self.had
    }

    /// Begins anew.
    pub(super) fn forget(&mut self) {
        let _ = self.file.set_len(0);
        self.had = 0;
    }

    /// Removes it: the layer is complete, or what came is of no use.
    pub(super) fn remove(self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A blob: first what is there of it, then what the network brings, which is kept.
pub(super) struct Resumed<'a, 'b> {
    partial: Option<&'a mut Partial>,
    /// Bytes still to be read from the file.
    replay: u64,
    pub(super) blob: &'a mut Blob<'b>,
}

impl<'a, 'b> Resumed<'a, 'b> {
    /// `blob`, of which nothing was asked for yet.
    ///
    /// # Errors
    /// The host's.
    pub(super) fn new(
        mut partial: Option<&'a mut Partial>,
        blob: &'a mut Blob<'b>,
    ) -> io::Result<Self> {
        let replay = partial.as_ref().map_or(0, |partial| partial.had);
        if let Some(partial) = &mut partial {
            partial.file.rewind()?;
        }
        blob.start_at(replay);
        Ok(Self {
            partial,
            replay,
            blob,
        })
    }
}

impl Read for Resumed<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let (Some(partial), 1..) = (&mut self.partial, self.replay) {
            let len = buffer
                .len()
                .min(usize::try_from(self.replay).unwrap_or(usize::MAX));
            let n = partial
                .file
                .read(buffer.get_mut(..len).unwrap_or_default())?;
            if n == 0 && len > 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.replay -= n as u64;
            return Ok(n);
        }
        let n = self.blob.read(buffer)?;
        if let Some(partial) = &mut self.partial
            && let Err(error) = partial.file.write_all(buffer.get(..n).unwrap_or_default())
        {
            // What there is no room for twice is not kept.
            tracing::debug!(%error, "what comes is not kept");
            partial.forget();
            let _ = partial.file.seek(SeekFrom::Start(0));
            self.partial = None;
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_layer_is_kept_and_by_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let blob = Digest::of(b"blob");
        assert!(Partial::open(&store, &blob, WORTH - 1).is_none());
        let mut partial = Partial::open(&store, &blob, WORTH).unwrap();
        assert_eq!(partial.had(), 0);
        partial.file.write_all(&[1; 1000]).unwrap();
        assert!(Partial::open(&store, &blob, WORTH).is_none(), "it is held");
        sweep(store.root());
        drop(partial);
        let partial = Partial::open(&store, &blob, WORTH).unwrap();
        assert_eq!(partial.had(), 1000);
        // More than the layer has is not the layer.
        drop(partial);
        let path = self::dir(store.root()).join(blob.hex());
        fs::write(&path, vec![1; WORTH as usize]).unwrap();
        assert_eq!(Partial::open(&store, &blob, WORTH).unwrap().had(), 0);
        fs::write(&path, [1; 10]).unwrap();
        sweep(store.root());
        assert!(!path.exists());
    }
}
