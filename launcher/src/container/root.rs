//! The root file system of a container: the image's tree under the container's journal, and what
//! the supervisor reads from it without a mount.

use std::{borrow::Cow, fs::File, path::Path, sync::Arc};

use pellicle_layer::{Entry, Lower, LowerError, TreeLower};
use pellicle_store::{Attr, Content, Digest, FileKind, Ino, Store};
use pellicle_union::{Caller, Error, NewNode, Options, Union};
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
    /// A snapshot of what is written to meanwhile.
    Beside,
    /// To make a layer of it; nobody else can open it meanwhile, and it is not in use.
    Hold,
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
    open_over(lower(store, state)?, dir, upper)
}

/// [`open`] over a tree that was opened before.
///
/// # Errors
/// As [`open`].
pub fn open_over(
    lower: Arc<dyn Lower>,
    dir: &Path,
    upper: Upper,
) -> Result<(Union, Recovery), ContainerError> {
    let of = JournalLower {
        identity: lower.identity(),
        inode_count: lower.inode_count(),
    };
    let dir = dir.join("upper");
    let journal = match upper {
        // A container that never ran changed nothing.
        Upper::Look | Upper::Beside | Upper::Hold if !dir.join("journal").exists() => None,
        Upper::Hold => Some(Journal::open_held(&dir, of)?),
        Upper::Look => Some(Journal::open_read_only(&dir, of)?),
        Upper::Beside => Some(Journal::open_read_only(&dir, of)?.beside_its_writer()),
        Upper::Serve { volatile } => {
            let usual = JournalOptions::default();
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
        read_only: !matches!(upper, Upper::Serve { .. }),
    };
    Ok(Union::open(lower, boxed, options)?)
}

/// The image alone.
///
/// # Errors
/// Damage.
pub(super) fn bare(lower: &Arc<dyn Lower>) -> Result<Union, ContainerError> {
    let options = Options { read_only: true };
    Ok(Union::open(Arc::clone(lower), None, options)?.0)
}

/// The tree of the image of `state`.
///
/// # Errors
/// A damaged or missing image.
pub(super) fn lower(store: &Store, state: &State) -> Result<Arc<dyn Lower>, ContainerError> {
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
    tree(store, &diff_ids, state.settings.single_id)
}

/// The tree of that stack of layers, lowest first; with `single_id` everything in it is root's.
///
/// # Errors
/// A damaged or missing layer.
pub fn tree(
    store: &Store,
    diff_ids: &[Digest],
    single_id: bool,
) -> Result<Arc<dyn Lower>, ContainerError> {
    let tree = TreeLower::new(store.image_tree(diff_ids)?, store);
    Ok(if single_id {
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
    walk(union, path, &mut |_, _, _| Ok(None))
}

/// Makes what is missing of `path`: directories, and at its end one of `kind` (a directory or a
/// regular file), where a symbolic link leads to nothing at its target. A file in the way stays
/// there; mounting will tell.
///
/// Done here before the root is served, it costs no message, where the first process would need a
/// dozen.
///
/// # Errors
/// Damage, and the host's errors, as a full disk.
pub(super) fn make_point(union: &Union, path: &[u8], kind: FileKind) -> Result<(), ContainerError> {
    let owner = Caller {
        uid: 0,
        gid: 0,
        umask: 0o022,
    };
    walk(union, path, &mut |dir, name, is_last| {
        let (what, perm) = if is_last && kind == FileKind::Regular {
            (NewNode::Regular, 0o666)
        } else {
            (NewNode::Directory, 0o777)
        };
        union.make(dir, name, what, perm, owner).map(Some)
    })
    .map(drop)
}

/// What a walk does about a name that is not there: the directory, the name, and whether it is the
/// last of the path.
type Missing<'a> = &'a mut dyn FnMut(Ino, &[u8], bool) -> Result<Option<Attr>, Error>;

fn walk(union: &Union, path: &[u8], missing: Missing<'_>) -> Result<Option<Attr>, ContainerError> {
    let mut at = union.attr(Ino::ROOT)?;
    // Components still to be walked, the next one last.
    let mut rest: Vec<Vec<u8>> = Vec::new();
    let push = |rest: &mut Vec<Vec<u8>>, path: &[u8]| {
        let parts = path.split(|b| *b == b'/').rev();
        rest.extend(
            parts
                .filter(|p| !matches!(*p, b"" | b"."))
                .map(<[u8]>::to_vec),
        );
    };
    push(&mut rest, path);
    let mut links = 0;
    while let Some(name) = rest.pop() {
        let next = match name.as_slice() {
            b".." => union.parent(at.ino).and_then(|p| union.attr(p)),
            name => union.lookup(at.ino, name),
        };
        let next = match next {
            Err(Error::NotFound) => match missing(at.ino, &name, rest.is_empty())? {
                Some(made) => made,
                None => return Ok(None),
            },
            Err(Error::NotDirectory | Error::NameTooLong) => return Ok(None),
            other => other?,
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
    fn stored(&self, ino: Ino) -> Result<Option<Content>, LowerError> {
        self.0.stored(ino)
    }
    fn seek(&self, ino: Ino, offset: u64, data: bool) -> Result<Option<u64>, LowerError> {
        self.0.seek(ino, offset, data)
    }
    fn names_of(&self, ino: Ino, each: &mut dyn FnMut(Ino, &[u8])) -> Result<bool, LowerError> {
        self.0.names_of(ino, each)
    }
    fn layer_of(&self, ino: Ino) -> Result<u32, LowerError> {
        self.0.layer_of(ino)
    }
    fn release_memory(&self) {
        self.0.release_memory();
    }
}
