//! Serves host directories with a journal over them until somebody unmounts:
//! `serve -o lowerdir=HIGH:LOW,upperdir=DIR,workdir=DIR[,opens=silent|answered|passthrough]
//! [,whole=BYTES][,chunk=BYTES][,fsname=NAME] DIR`.
//!
//! For the suites and for trying things by hand. The lower directories are imported into a store in
//! the work directory, each as a layer.

use std::{
    error::Error,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use pellicle_fuse::{MountOptions, Opens, ServeOptions, mount_here, serve};
use pellicle_layer::{Lower, TreeLower};
use pellicle_store::{
    Store,
    import::{ImportOptions, import_directory},
};
use pellicle_union::{Options, Union};
use pellicle_upper::{Journal, JournalLower, JournalOptions, UpperError};

type Failure = Box<dyn Error>;

/// How often a journal is tried that an ended server may not have let go of yet.
const TRIES: u32 = 100;

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let (Some("-o"), Some(options), Some(at)) = (args.next().as_deref(), args.next(), args.next())
    else {
        return Err("usage: serve -o lowerdir=HIGH:LOW,upperdir=DIR,workdir=DIR DIR".into());
    };
    let option = |key: &str| {
        let mut all = options.split(',').filter_map(|o| o.split_once('='));
        all.find_map(|(k, value)| (k == key).then_some(value))
    };
    let needed = |key: &str| option(key).ok_or_else(|| format!("no {key} given"));

    let store = Store::open(Path::new(needed("workdir")?))?;
    let mut layers = Vec::new();
    for dir in needed("lowerdir")?.rsplit(':') {
        let layer = import_directory(&store, Path::new(dir), &ImportOptions::default(), &())?;
        layers.push(layer.diff_id);
    }
    let tree = store.image_tree(&layers)?;
    let lower: Arc<dyn Lower> = Arc::new(TreeLower::new(tree, &store));
    let mut kept = JournalOptions::default();
    if let Some(whole) = option("whole") {
        kept.chunks.whole = whole.parse()?;
    }
    if let Some(size) = option("chunk") {
        kept.chunks.size = size.parse()?;
    }
    let journal = journal(&PathBuf::from(needed("upperdir")?), lower.as_ref(), &kept)?;
    let (union, _) = Union::open(lower, Some(Box::new(journal)), Options::default())?;

    let mount = MountOptions {
        fs_name: option("fsname").unwrap_or("pellicle").to_owned(),
        allow_other: true,
        ..MountOptions::default()
    };
    let serving = ServeOptions {
        opens: match option("opens") {
            None | Some("silent") => Opens::Silent,
            Some("answered") => Opens::Answered,
            Some("passthrough") => Opens::Passthrough,
            Some(other) => return Err(format!("no way to open files is called {other}").into()),
        },
        ..ServeOptions::default()
    };
    let fd = mount_here(Path::new(&at), &mount)?;
    Ok(serve(fd, Arc::new(union), serving)?.join()?)
}

fn journal(dir: &Path, lower: &dyn Lower, kept: &JournalOptions) -> Result<Journal, Failure> {
    let mut tries = 0;
    loop {
        let of = JournalLower {
            identity: lower.identity(),
            inode_count: lower.inode_count(),
        };
        let opened = if dir.join("journal").exists() {
            Journal::open(dir, of, kept.clone())
        } else {
            Journal::create(dir, of, kept.clone())
        };
        match opened {
            Err(UpperError::InUse { .. }) if tries < TRIES => {
                tries += 1;
                thread::sleep(Duration::from_millis(50));
            }
            done => return Ok(done?),
        }
    }
}
