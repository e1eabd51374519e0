//! Trees for the tests.

use std::collections::BTreeMap;

use pellicle_store::{
    Attr, Body, Child, Content, Device, Digest, Extent, FileKind, Ino, Meta, NodeId, Packed, Time,
    Tree, TreeBuilder, TreeError, TreeHeader, TreeKind,
    tree::{ContentRef, PackedRef},
};

pub(crate) fn header(name: &str) -> TreeHeader {
    let id = Digest::of(name.as_bytes());
    TreeHeader {
        kind: TreeKind::Layer,
        identity: id,
        layers: vec![id],
    }
}

pub(crate) fn meta(perm: u16) -> Meta {
    Meta {
        perm,
        ..Meta::default()
    }
}

pub(crate) fn inline(text: &[u8]) -> Body {
    Body::Regular {
        size: text.len() as u64,
        content: Content::Inline(text.to_vec()),
    }
}

/// Sets `path` (from the root, directories on the way made as needed) to a new node.
pub(crate) fn put(t: &mut TreeBuilder, path: &str, meta: Meta, body: Body) -> NodeId {
    let node = t.add_node(meta, body);
    set(t, path, Child::Node(node));
    node
}

pub(crate) fn set(t: &mut TreeBuilder, path: &str, child: Child) {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let dir = mkdir(t, dir);
    t.set_child(dir, name.as_bytes(), child);
}

pub(crate) fn mkdir(t: &mut TreeBuilder, path: &str) -> NodeId {
    let mut dir = t.root();
    for name in path.split('/').filter(|n| !n.is_empty()) {
        dir = match t.child(dir, name.as_bytes()) {
            Some(Child::Node(n)) => n,
            _ => {
                let n = t.add_node(meta(0o755), Body::Directory);
                t.set_child(dir, name.as_bytes(), Child::Node(n));
                n
            }
        };
    }
    dir
}

/// A small tree with everything the format has.
pub(crate) fn everything() -> TreeBuilder {
    let mut t = TreeBuilder::new();
    let when = |sec, nsec| Time { sec, nsec };
    let full = Meta {
        perm: 0o6755,
        uid: 4_000_000_000,
        gid: 7,
        atime: when(-1, 999_999_999),
        mtime: when(1 << 40, 1),
        ctime: when(0, 0),
        xattrs: vec![
            (b"user.b".to_vec(), b"\0\xff".to_vec()),
            (b"security.capability".to_vec(), vec![1; 20]),
        ],
    };
    let hello = put(&mut t, "bin/hello", full.clone(), inline(b"hello, world\n"));
    set(&mut t, "bin/hallo", Child::Node(hello));
    set(&mut t, "other", Child::Node(hello));
    put(&mut t, "bin/same-xattrs", full, inline(b""));
    let object = |text: &[u8]| Content::Object(Digest::of(text));
    let regular = |size, content| Body::Regular { size, content };
    put(&mut t, "big", meta(0o644), regular(6, object(b"object")));
    put(&mut t, "big2", meta(0o600), regular(6, object(b"object")));
    put(
        &mut t,
        "hole",
        meta(0o644),
        regular(10 << 30, Content::Empty),
    );
    let extents = vec![
        Extent {
            offset: 4096,
            len: 3,
        },
        Extent {
            offset: 1 << 33,
            len: 2,
        },
    ];
    let data = Packed::Inline(b"abcde".to_vec());
    let sparse = Content::Sparse {
        extents: extents.clone(),
        data,
    };
    put(&mut t, "sparse", meta(0o644), regular(1 << 34, sparse));
    let sparse = Content::Sparse {
        extents: extents.clone(),
        data: Packed::Object(Digest::of(b"abcde")),
    };
    put(
        &mut t,
        "sparse-object",
        meta(0o644),
        regular(1 << 34, sparse),
    );
    put(
        &mut t,
        "span",
        meta(0o644),
        regular(9, Content::Span { offset: 512 }),
    );
    let sparse = Content::SparseSpan {
        extents,
        offset: 2048,
    };
    put(&mut t, "sparse-span", meta(0o644), regular(1 << 34, sparse));
    put(
        &mut t,
        "link",
        meta(0o777),
        Body::Symlink(b"../../etc/passwd".to_vec()),
    );
    let device = |major, minor| Device { major, minor };
    put(
        &mut t,
        "dev/null",
        meta(0o666),
        Body::CharDevice(device(1, 3)),
    );
    put(
        &mut t,
        "dev/sda",
        meta(0o660),
        Body::BlockDevice(device(8, 1 << 19)),
    );
    put(&mut t, "dev/fifo", meta(0o600), Body::Fifo);
    put(&mut t, "dev/socket", meta(0o600), Body::Socket);
    let odd = t.add_node(meta(0), Body::Fifo);
    let root = t.root();
    t.set_child(root, b"not \xff utf-8 \n", Child::Node(odd));
    t.set_child(root, b"gone", Child::Whiteout);
    t.set_child(root, b"zone", Child::Whiteout);
    let opaque = mkdir(&mut t, "opaque/sub");
    t.set_opaque(opaque);
    t.set_child(opaque, b"under", Child::Whiteout);
    let implied = mkdir(&mut t, "opaque");
    t.set_implied(implied, true);
    let unnamed = t.add_node(meta(0o644), inline(b"no name leads here"));
    let _ = unnamed;
    t
}

/// What can be seen of one path; inode numbers aside.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) attr: Attr,
    pub(crate) what: String,
    pub(crate) layer: u32,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Everything that can be seen of `tree`, by path.
pub(crate) fn walk(tree: &Tree) -> Result<BTreeMap<Vec<u8>, Seen>, TreeError> {
    walk_with(tree, true)
}

/// The same; `honest`: the tree must not contradict itself.
pub(crate) fn walk_with(tree: &Tree, honest: bool) -> Result<BTreeMap<Vec<u8>, Seen>, TreeError> {
    // A forged tree may contain itself.
    let limit = if honest { usize::MAX } else { 300 };
    let mut all = BTreeMap::new();
    let mut queue = vec![(b"/".to_vec(), Ino::ROOT)];
    while let Some((path, ino)) = queue.pop() {
        all.insert(path.clone(), see(tree, ino)?);
        if tree.attr(ino)?.kind != FileKind::Directory || all.len() > limit {
            continue;
        }
        let join = |name: &[u8]| [&path, name, b"/"].concat();
        let mut at = 0;
        while let Some(entry) = tree.entry(ino, at)? {
            let found = tree.lookup(ino, entry.name)?;
            assert!(!honest || found == Some((entry.ino, entry.kind)));
            queue.push((join(entry.name), entry.ino));
            at += 1;
        }
    }
    Ok(all)
}

fn see(tree: &Tree, ino: Ino) -> Result<Seen, TreeError> {
    let attr = tree.attr(ino)?;
    let what = match attr.kind {
        FileKind::Directory => {
            let mut whiteouts = Vec::new();
            while let Some(name) = tree.whiteout(ino, whiteouts.len() as u64)? {
                whiteouts.push(name);
            }
            let (opaque, implied) = (tree.is_opaque(ino)?, tree.is_implied(ino)?);
            format!("{opaque} {implied} {whiteouts:?}")
        }
        FileKind::Symlink => format!("{:?}", tree.readlink(ino)?),
        FileKind::Regular => see_content(tree.content(ino)?),
        _ => String::new(),
    };
    let mut xattrs = Vec::new();
    tree.xattrs(ino, &mut |n, v| xattrs.push((n.to_vec(), v.to_vec())))?;
    Ok(Seen {
        attr,
        what,
        layer: tree.layer_of(ino)?,
        xattrs,
    })
}

fn see_content(content: ContentRef<'_>) -> String {
    match content {
        ContentRef::Sparse { extents, data } => {
            let data = match data {
                PackedRef::Inline(bytes) => format!("{bytes:?}"),
                PackedRef::Object(id) => format!("{id}"),
            };
            format!("{extents:?} {data}")
        }
        other => format!("{other:?}"),
    }
}
