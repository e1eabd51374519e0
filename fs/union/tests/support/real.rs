//! The real pair: a tree in a store, and a journal or an upper directory, with a full disk put in
//! front of it.

use std::{fs::File, path::PathBuf, sync::Arc};

use parking_lot::Mutex;
use pellicle_layer::{Lower, TreeLower};
use pellicle_store::{Body, Child, Content, Digest, Meta, NodeId, Store, TreeBuilder};
use pellicle_union::{FileKind, Ino, Options, Union};
use pellicle_upper::{
    Chunks, DirOptions, DirUpper, Journal, JournalLower, JournalOptions, LogPosition, Record,
    Recovery, Space, Upper, UpperError,
};

use super::{
    lower::MemLower,
    upper::{Room, State},
};

/// Which upper is over the tree.
#[derive(Clone, Debug)]
pub(crate) enum RealUpper {
    Journal(Chunks),
    Dir(DirOptions),
}

pub(crate) struct Real {
    upper: RealUpper,
    dir: tempfile::TempDir,
    lower: Arc<TreeLower>,
    pub(crate) state: Arc<Mutex<State>>,
}

impl Real {
    /// The same tree as `like`, flushed never so that many cases can run.
    pub(crate) fn new(like: &MemLower, upper: RealUpper) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let tree = build(like, &store);
        let tree = store.publish_tree(&Digest::of(b"model"), tree).unwrap();
        let lower = Arc::new(TreeLower::new(tree, &store));
        let real = Self {
            upper,
            dir,
            lower,
            state: Arc::default(),
        };
        match real.upper {
            RealUpper::Journal(chunks) => {
                let of = real.journal_lower();
                drop(Journal::create(&real.upper_dir(), of, options(chunks)).unwrap());
            }
            RealUpper::Dir(_) => real.make_upper_dir(like),
        }
        real
    }

    fn upper_dir(&self) -> PathBuf {
        self.dir.path().join("upper")
    }

    /// An upper directory whose top is as the lower tree's, as whoever makes a container has it.
    fn make_upper_dir(&self, like: &MemLower) {
        std::fs::create_dir(self.upper_dir()).unwrap();
        std::fs::create_dir(self.dir.path().join("work")).unwrap();
        let top = &like.nodes[0].attr;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(top.perm.into());
        std::fs::set_permissions(self.upper_dir(), mode).unwrap();
        let when = |t: pellicle_union::Time| {
            std::time::UNIX_EPOCH + std::time::Duration::new(t.sec as u64, t.nsec)
        };
        let times = std::fs::FileTimes::new();
        let times = times
            .set_accessed(when(top.atime))
            .set_modified(when(top.mtime));
        File::open(self.upper_dir())
            .unwrap()
            .set_times(times)
            .unwrap();
    }

    pub(crate) fn is_dir_upper(&self) -> bool {
        matches!(self.upper, RealUpper::Dir(_))
    }

    fn journal_lower(&self) -> JournalLower {
        JournalLower {
            identity: self.lower.identity(),
            inode_count: self.lower.inode_count(),
        }
    }

    pub(crate) fn inode_count(&self) -> u64 {
        self.lower.inode_count()
    }

    pub(crate) fn open(&self) -> Union {
        let dir = self.upper_dir();
        let upper: Box<dyn Upper> = match &self.upper {
            RealUpper::Journal(chunks) => {
                Box::new(Journal::open(&dir, self.journal_lower(), options(*chunks)).unwrap())
            }
            RealUpper::Dir(options) => {
                let work = self.dir.path().join("work");
                Box::new(DirUpper::open(&dir, &work, self.lower.clone(), options).unwrap())
            }
        };
        let upper = Narrow {
            upper,
            state: self.state.clone(),
        };
        let options = Options::default();
        let lower = self.lower.clone();
        Union::open(lower, Some(Box::new(upper)), options)
            .unwrap()
            .0
    }
}

#[allow(
    clippy::needless_update,
    reason = "there are more fields where failpoints are built in"
)]
fn options(chunks: Chunks) -> JournalOptions {
    JournalOptions {
        volatile: true,
        sync_interval: None,
        chunks,
        ..JournalOptions::default()
    }
}

fn build(like: &MemLower, store: &Store) -> TreeBuilder {
    let mut tree = TreeBuilder::new();
    let mut made: Vec<NodeId> = Vec::new();
    for node in &like.nodes {
        let meta = Meta {
            perm: node.attr.perm,
            uid: node.attr.uid,
            gid: node.attr.gid,
            atime: node.attr.atime,
            mtime: node.attr.mtime,
            ctime: node.attr.ctime,
            xattrs: node.xattrs.clone().into_iter().collect(),
        };
        if made.is_empty() {
            let root = tree.root();
            *tree.meta_mut(root) = meta;
            made.push(root);
            continue;
        }
        let body = match node.attr.kind {
            FileKind::Directory => Body::Directory,
            FileKind::Symlink => Body::Symlink(node.content.clone()),
            _ => Body::Regular {
                size: node.content.len() as u64,
                content: if node.content.len() < 100 {
                    Content::Inline(node.content.clone())
                } else {
                    Content::Object(store.objects().put(&node.content).unwrap())
                },
            },
        };
        made.push(tree.add_node(meta, body));
    }
    for (at, node) in like.nodes.iter().enumerate() {
        for (name, child) in &node.children {
            let child = made[child.0 as usize - 1];
            tree.set_child(made[at], name, Child::Node(child));
        }
    }
    tree
}

/// An upper on a host that may be full.
struct Narrow {
    upper: Box<dyn Upper>,
    state: Arc<Mutex<State>>,
}

impl Upper for Narrow {
    fn replay(&self, apply: &mut dyn FnMut(Record<'_>)) -> Result<Recovery, UpperError> {
        self.upper.replay(apply)
    }

    fn commit(&self, batch: &[Record<'_>]) -> Result<(), UpperError> {
        self.state.lock().take_room()?;
        self.upper.commit(batch)
    }

    fn chunks(&self) -> Option<Chunks> {
        self.upper.chunks()
    }

    fn data(&self, ino: Ino) -> Result<Arc<File>, UpperError> {
        self.upper.data(ino)
    }

    fn data_to_write(&self, ino: Ino) -> Result<Arc<File>, UpperError> {
        self.upper.data_to_write(ino)
    }
    fn is_held(&self) -> bool {
        self.upper.is_held()
    }
    fn create_data(&self, ino: Ino) -> Result<Arc<File>, UpperError> {
        self.state.lock().take_room()?;
        self.upper.create_data(ino)
    }

    fn note_copied(&self, ino: Ino) {
        self.upper.note_copied(ino);
    }

    fn remove_data(&self, ino: Ino) {
        self.upper.remove_data(ino);
    }

    fn undo_data(&self, ino: Ino) {
        self.upper.undo_data(ino);
    }

    fn sync_file(&self, ino: Ino) -> Result<(), UpperError> {
        self.upper.sync_file(ino)
    }

    fn sync_all(&self) -> Result<(), UpperError> {
        self.upper.sync_all()
    }

    fn wants_compaction(&self, live: u64) -> bool {
        let wanted = std::mem::take(&mut self.state.lock().compact_next);
        self.upper.wants_compaction(live) || wanted
    }

    fn position(&self) -> LogPosition {
        self.upper.position()
    }

    fn compact(
        &self,
        since: LogPosition,
        snapshot: &mut dyn FnMut(&mut dyn FnMut(Record<'_>)),
    ) -> Result<(), UpperError> {
        self.upper.compact(since, snapshot)
    }

    fn space(&self) -> Result<Space, UpperError> {
        self.upper.space()
    }
}
