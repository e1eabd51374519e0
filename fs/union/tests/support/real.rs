//! The real pair: a tree in a store, and a journal, with a full disk put in front of it.

use std::{fs::File, path::PathBuf, sync::Arc};

use parking_lot::Mutex;
use pellicle_layer::{Lower, TreeLower};
use pellicle_store::{Body, Child, Content, Digest, Meta, NodeId, Store, TreeBuilder};
use pellicle_union::{FileKind, Ino, Options, Union};
use pellicle_upper::{
    Journal, JournalLower, JournalOptions, Record, Recovery, Space, Upper, UpperError,
};

use super::{
    lower::MemLower,
    upper::{Room, State},
};

pub(crate) struct Real {
    dir: tempfile::TempDir,
    lower: Arc<TreeLower>,
    pub(crate) state: Arc<Mutex<State>>,
}

impl Real {
    /// The same tree as `like`, flushed never so that many cases can run.
    pub(crate) fn new(like: &MemLower) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let tree = build(like, &store);
        let tree = store.publish_tree(&Digest::of(b"model"), tree).unwrap();
        let lower = Arc::new(TreeLower::new(tree, &store));
        let real = Self {
            dir,
            lower,
            state: Arc::default(),
        };
        drop(Journal::create(&real.upper_dir(), real.journal_lower(), options()).unwrap());
        real
    }

    fn upper_dir(&self) -> PathBuf {
        self.dir.path().join("upper")
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
        let journal = Journal::open(&self.upper_dir(), self.journal_lower(), options()).unwrap();
        let upper = Narrow {
            journal,
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
fn options() -> JournalOptions {
    JournalOptions {
        volatile: true,
        sync_interval: None,
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

/// A journal on a host that may be full.
struct Narrow {
    journal: Journal,
    state: Arc<Mutex<State>>,
}

impl Upper for Narrow {
    fn replay(&self, apply: &mut dyn FnMut(Record<'_>)) -> Result<Recovery, UpperError> {
        self.journal.replay(apply)
    }

    fn commit(&self, batch: &[Record<'_>]) -> Result<(), UpperError> {
        self.state.lock().take_room()?;
        self.journal.commit(batch)
    }

    fn data(&self, ino: Ino) -> Result<Arc<File>, UpperError> {
        self.journal.data(ino)
    }

    fn create_data(&self, ino: Ino) -> Result<Arc<File>, UpperError> {
        self.state.lock().take_room()?;
        self.journal.create_data(ino)
    }

    fn note_copied(&self, ino: Ino) {
        self.journal.note_copied(ino);
    }

    fn remove_data(&self, ino: Ino) {
        self.journal.remove_data(ino);
    }

    fn sync_file(&self, ino: Ino) -> Result<(), UpperError> {
        self.journal.sync_file(ino)
    }

    fn sync_all(&self) -> Result<(), UpperError> {
        self.journal.sync_all()
    }

    fn wants_compaction(&self, live: u64) -> bool {
        let wanted = std::mem::take(&mut self.state.lock().compact_next);
        self.journal.wants_compaction(live) || wanted
    }

    fn compact(
        &self,
        snapshot: &mut dyn FnMut(&mut dyn FnMut(Record<'_>)),
    ) -> Result<(), UpperError> {
        self.journal.compact(snapshot)
    }

    fn space(&self) -> Result<Space, UpperError> {
        self.journal.space()
    }
}
