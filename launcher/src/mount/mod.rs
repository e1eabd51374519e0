//! Read-only mounts of images, layers and archives on the host.
//!
//! A mount is served by a process of its own, which `pellicle mount` starts in a new session and
//! waits for until it answers. There is no list of mounts beside the kernel's: what
//! `/proc/self/mountinfo` shows with our source is one.

mod table;

use std::{
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use pellicle_fuse::{MountOptions, SERVER_XATTR, ServeOptions, Server};
use pellicle_layer::{Archive, Lower, TreeLower};
use pellicle_store::{
    Digest, StoreLock, Tree, TreeHeader, TreeKind, Whiteouts, flatten, import::ImportOptions,
};
use pellicle_union::{Options, Union};

pub use table::{Mounted, list, parse_mountinfo};

use crate::{CliError, Context, image::Image, transport::Way};

/// Begins the source of every mount of ours, as the kernel shows it.
pub const SOURCE_PREFIX: &str = "pellicle:";

/// How long a server may take to say how it serves.
const PATIENCE: Duration = Duration::from_secs(5);

/// What to mount.
#[derive(Clone, Debug)]
pub enum What {
    /// An image of the store, or one of its layers.
    Image {
        /// The image.
        image: Box<Image>,
        /// Index of the layer, lowest 0.
        layer: Option<usize>,
    },
    /// A tar archive, in place.
    Archive(PathBuf),
}

/// A tree to be served, with what keeps it in the store meanwhile.
pub struct Opened {
    lower: Arc<dyn Lower>,
    _lock: Option<StoreLock>,
    source: String,
}

/// Opens what is to be mounted.
///
/// # Errors
/// If it is not in the store, or damaged.
pub fn open(cx: &Context, what: &What) -> Result<Opened, CliError> {
    match what {
        What::Image { image, layer } => {
            let store = cx.store()?;
            // Held as long as the mount: nothing of it may be collected.
            let lock = store.lock_shared()?;
            let tree = match layer.and_then(|at| image.diff_ids.get(at)) {
                Some(diff_id) => layer_tree(store.tree(diff_id)?, diff_id)?,
                None => store.image_tree(&image.diff_ids)?,
            };
            let layer = layer.map_or(String::new(), |at| format!("#{at}"));
            Ok(Opened {
                lower: Arc::new(TreeLower::new(tree, store)),
                _lock: Some(lock),
                source: format!("{SOURCE_PREFIX}{}{layer}", image.display_name()),
            })
        }
        What::Archive(path) => archive(cx, path),
    }
}

/// The layer as it is: its whiteouts seen as the `.wh.` files that they are in the archive.
fn layer_tree(tree: Tree, diff_id: &Digest) -> Result<Tree, CliError> {
    let header = TreeHeader {
        kind: TreeKind::Image,
        identity: Digest::of(format!("shown {diff_id}").as_bytes()),
        layers: vec![*diff_id],
    };
    Ok(Tree::from_bytes(
        flatten(&[tree], Whiteouts::Show)?.finish(&header)?,
    )?)
}

fn archive(cx: &Context, path: &Path) -> Result<Opened, CliError> {
    let size = path.metadata().ok().map(|m| m.len());
    let step = cx.out.step(path.display().to_string(), size);
    let archive = Archive::open(path, &ImportOptions::default(), &step)?;
    drop(step);
    Ok(Opened {
        lower: Arc::new(archive),
        _lock: None,
        source: format!("{SOURCE_PREFIX}{}", path.display()),
    })
}

/// Mounts `opened` on `dir` and starts to answer.
///
/// # Errors
/// If this process may not mount there, or the kernel has no FUSE.
pub fn serve(opened: Opened, dir: &Path, allow_other: bool, way: Way) -> Result<Served, CliError> {
    let options = MountOptions {
        fs_name: opened.source.clone(),
        read_only: true,
        allow_other,
        no_suid: true,
        ..MountOptions::default()
    };
    let (union, _) = Union::open(Arc::clone(&opened.lower), None, Options { read_only: true })?;
    let fd = if rustix::process::geteuid().is_root() {
        pellicle_fuse::mount_here(dir, &options)?
    } else {
        pellicle_fuse::mount_with_helper(dir, &options)?
    };
    let options = ServeOptions {
        transport: way.transport.into(),
        opens: way.opens.into(),
        tells: true,
        ..ServeOptions::default()
    };
    let server = pellicle_fuse::serve(fd, Arc::new(union), options).inspect_err(|_| {
        // Nobody would answer on it.
        let _ = pellicle_fuse::unmount(dir, true);
    })?;
    Ok(Served {
        server,
        _opened: opened,
    })
}

/// Asks the server of the mount on `dir` how it serves: a line that says which way requests come,
/// then a table of those that came.
///
/// # Errors
/// The host's: EACCES for other users' mounts, ENOTCONN where the server is gone, ENODATA where it
/// is an older one, and a timeout where it does not answer.
pub fn ask(dir: &Path) -> io::Result<String> {
    let (tell, told) = mpsc::channel();
    let dir = dir.to_owned();
    // In a thread, which the end of this process ends: a server that hangs holds who asks it.
    thread::Builder::new()
        .name("ask".to_owned())
        .spawn(move || {
            let mut text = vec![0; 64 << 10];
            let name = OsStr::from_bytes(SERVER_XATTR);
            let got = rustix::fs::getxattr(&dir, name, &mut text).map(|n| {
                text.truncate(n);
                String::from_utf8_lossy(&text).into_owned()
            });
            let _ = tell.send(got.map_err(io::Error::from));
        })?;
    told.recv_timeout(PATIENCE)
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Unmounts `dir`; `lazy` also while something works in it.
///
/// # Errors
/// If it is in use, or not ours to unmount.
pub fn unmount(dir: &Path, lazy: bool) -> Result<(), CliError> {
    Ok(pellicle_fuse::unmount(dir, lazy)?)
}

/// A mount that answers.
pub struct Served {
    server: Server,
    _opened: Opened,
}

impl Served {
    /// Waits until somebody unmounts it.
    ///
    /// # Errors
    /// If serving failed.
    pub fn join(self) -> Result<(), CliError> {
        Ok(self.server.join()?)
    }
}
