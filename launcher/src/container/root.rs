//! The root file system of a container: the image's tree under the container's journal, and what
//! the supervisor reads from it without a mount.

use std::{borrow::Cow, fs::File, path::Path, sync::Arc};

use pellicle_layer::{Entry, Lower, LowerError, TreeLower};
use pellicle_store::{Attr, Digest, FileKind, Ino, Store};
use pellicle_union::{Options, Union};
use pellicle_upper::{Journal, JournalLower, JournalOptions, Recovery};

use super::{ContainerError, state::State};

/// Symbolic links followed in one path, as the kernel has it.
const LINKS_MAX: u32 = 40;

/// What of a file is read at most (passwd and group files).
const FILE_MAX: u64 = 1 << 20;

/// How the writable layer is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upper {
    /// For a running container; made if it is missing.
    Serve {
        /// Nothing is ever flushed to the disk.
        volatile: bool,
    },
    /// A snapshot, to look into.
    Look,
}

/// Opens the root of container `state`, whose directory is `dir`.
///
/// # Errors
/// A damaged or missing image, and what the journal has against being opened.
pub fn open(
    store: &Store,
    state: &State,
    dir: &Path,
    upper: Upper,
) -> Result<(Union, Recovery), ContainerError> {
    let lower = lower(store, state)?;
    let of = JournalLower {
        identity: lower.identity(),
        inode_count: lower.inode_count(),
    };
    let dir = dir.join("upper");
    let journal = match upper {
        // A container that never ran changed nothing.
        Upper::Look if !dir.join("journal").exists() => None,
        Upper::Look => Some(Journal::open_read_only(&dir, of)?),
        Upper::Serve { volatile } => {
            let usual = JournalOptions::default();
            // The structure has more members where failures are made on purpose.
            #[allow(clippy::needless_update)]
            let options = JournalOptions {
                volatile,
                sync_interval: usual.sync_interval.filter(|_| !volatile),
                ..usual
            };
            Some(if dir.join("journal").exists() {
                Journal::open(&dir, of, options)?
            } else {
                Journal::create(&dir, of, options)?
            })
        }
    };
    let boxed = journal.map(|j| Box::new(j) as Box<dyn pellicle_upper::Upper>);
    let options = Options {
        read_only: upper == Upper::Look,
    };
    Ok(Union::open(lower, boxed, options)?)
}

fn lower(store: &Store, state: &State) -> Result<Arc<dyn Lower>, ContainerError> {
    let diff_ids = state
        .diff_ids
        .iter()
        .map(|d| d.parse::<Digest>())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| ContainerError::Damaged {
            path: store
                .root()
                .join("containers")
                .join(&state.id)
                .join("state.json"),
            detail: e.to_string(),
        })?;
    let tree = TreeLower::new(store.image_tree(&diff_ids)?, store);
    Ok(if state.settings.single_id {
        Arc::new(OneOwner(tree))
    } else {
        Arc::new(tree)
    })
}

/// The regular file that `path` leads to inside `union`, cut at a megabyte; empty if there is no
/// such file.
///
/// Links are followed as if the union were `/`; nothing of the host is looked at.
///
/// # Errors
/// Damage, and the host's errors.
pub fn read(union: &Union, path: &[u8]) -> Result<Vec<u8>, ContainerError> {
    let Some(attr) = find(union, path)?.filter(|a| a.kind == FileKind::Regular) else {
        return Ok(Vec::new());
    };
    let size = usize::try_from(attr.size.min(FILE_MAX)).unwrap_or(0);
    let mut bytes = vec![0; size];
    let got = union.read(attr.ino, 0, &mut bytes)?;
    bytes.truncate(got);
    Ok(bytes)
}

/// The inode that `path` leads to; `None` if nothing is there.
///
/// # Errors
/// Damage, and the host's errors.
pub fn find(union: &Union, path: &[u8]) -> Result<Option<Attr>, ContainerError> {
    use pellicle_union::Error;

    let mut at = union.attr(Ino::ROOT)?;
    // Components still to be walked, the next one last.
    let mut rest: Vec<Vec<u8>> = Vec::new();
    let push = |rest: &mut Vec<Vec<u8>>, path: &[u8]| {
        rest.extend(path.split(|b| *b == b'/').rev().map(<[u8]>::to_vec));
    };
    push(&mut rest, path);
    let mut links = 0;
    while let Some(name) = rest.pop() {
        let next = match name.as_slice() {
            b"" | b"." => continue,
            b".." => union.parent(at.ino).and_then(|p| union.attr(p)),
            name => union.lookup(at.ino, name),
        };
        let next = match next {
            Ok(next) => next,
            Err(Error::NotFound | Error::NotDirectory | Error::NameTooLong) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        if next.kind != FileKind::Symlink {
            at = next;
            continue;
        }
        links += 1;
        if links > LINKS_MAX {
            return Ok(None);
        }
        let target = union.readlink(next.ino)?;
        if target.starts_with(b"/") {
            at = union.attr(Ino::ROOT)?;
        }
        push(&mut rest, &target);
    }
    Ok(Some(at))
}

/// The tree with everything owned by root, for a container with one id: the kernel would let
/// nobody inside change what belongs to an id that is not mapped.
struct OneOwner(TreeLower);

impl Lower for OneOwner {
    fn inode_count(&self) -> u64 {
        self.0.inode_count()
    }
    fn identity(&self) -> [u8; 32] {
        self.0.identity()
    }
    fn attr(&self, ino: Ino) -> Result<Attr, LowerError> {
        let attr = self.0.attr(ino)?;
        Ok(Attr {
            uid: 0,
            gid: 0,
            ..attr
        })
    }
    fn lookup(&self, dir: Ino, name: &[u8]) -> Result<Option<(Ino, FileKind)>, LowerError> {
        self.0.lookup(dir, name)
    }
    fn entry(&self, dir: Ino, at: u64) -> Result<Option<Entry<'_>>, LowerError> {
        self.0.entry(dir, at)
    }
    fn parent(&self, dir: Ino) -> Result<Ino, LowerError> {
        self.0.parent(dir)
    }
    fn readlink(&self, ino: Ino) -> Result<Cow<'_, [u8]>, LowerError> {
        self.0.readlink(ino)
    }
    fn has_xattrs(&self, ino: Ino) -> Result<bool, LowerError> {
        self.0.has_xattrs(ino)
    }
    fn xattrs(&self, ino: Ino, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), LowerError> {
        self.0.xattrs(ino, each)
    }
    fn read(&self, ino: Ino, offset: u64, buf: &mut [u8]) -> Result<usize, LowerError> {
        self.0.read(ino, offset, buf)
    }
    fn backing(&self, ino: Ino) -> Result<Option<Arc<File>>, LowerError> {
        self.0.backing(ino)
    }
    fn seek(&self, ino: Ino, offset: u64, data: bool) -> Result<Option<u64>, LowerError> {
        self.0.seek(ino, offset, data)
    }
    fn layer_of(&self, ino: Ino) -> Result<u32, LowerError> {
        self.0.layer_of(ino)
    }
}
