//! Logs that contradict themselves or the tree: an error, never a panic or a loop.

use std::sync::Arc;

use pellicle_union::{Error, FileKind, Ino, Options, Union};
use pellicle_upper::{ContentSource, Node};

use crate::support::{
    lower::MemLower,
    upper::{MemUpper, Said},
};

fn sample() -> (Arc<MemLower>, Ino, Ino) {
    let mut lower = MemLower::new();
    let dir = lower.dir(Ino::ROOT, "d");
    let file = lower.file(dir, "f", b"text");
    (Arc::new(lower), dir, file)
}

fn node(ino: u64, kind: FileKind) -> Node {
    Node {
        ino: Ino(ino),
        kind,
        perm: 0o755,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: Default::default(),
        size: 0,
        content: ContentSource::Zero,
        atime: Default::default(),
        mtime: Default::default(),
        ctime: Default::default(),
        parent: Ino::ROOT,
    }
}

fn open(log: Vec<Said>) -> Result<Union, Error> {
    let upper = MemUpper::new();
    upper.state.lock().log = log;
    let (lower, ..) = sample();
    Union::open(lower, Some(Box::new(upper)), Options::default()).map(|(union, _)| union)
}

#[test]
fn contradictions_are_damage() {
    let (_, dir, file) = sample();
    let (d, f) = (FileKind::Directory, FileKind::Regular);
    let entry = |parent, name: &[u8], ino, kind| Said::Entry(parent, name.into(), ino, kind);
    let new = Ino(9);
    let mixed = Said::Node(Node {
        content: ContentSource::Mixed,
        ..node(file.0, f)
    });
    let logs = [
        vec![Said::Node(node(0, f))],
        vec![Said::Node(node(u64::MAX, f))],
        vec![Said::Node(node(dir.0, f))],
        vec![Said::Node(node(9, f)), Said::Node(node(9, d))],
        vec![Said::Node(Node {
            content: ContentSource::Lower,
            ..node(9, f)
        })],
        vec![Said::Node(Node {
            content: ContentSource::Data,
            ..node(9, d)
        })],
        vec![Said::Node(Node {
            size: u64::MAX,
            ..node(9, f)
        })],
        vec![Said::Node(Node {
            content: ContentSource::Mixed,
            ..node(9, f)
        })],
        vec![Said::Own(file, 0, 5)],
        vec![Said::Node(node(file.0, f)), Said::Own(file, 0, 5)],
        vec![mixed.clone(), Said::Own(file, 5, 5)],
        vec![mixed.clone(), Said::Own(file, 0, 5), Said::Own(file, 9, 1)],
        vec![Said::Own(new, 0, 5)],
        vec![entry(new, b"x", file, f)],
        vec![entry(file, b"x", file, f)],
        vec![entry(dir, b"x", new, f)],
        vec![entry(dir, b"x", file, d)],
        vec![entry(dir, b"a/b", file, f)],
        vec![entry(dir, b"..", file, f)],
        vec![
            Said::Node(node(9, f)),
            entry(dir, b"x", new, f),
            Said::Gone(new),
        ],
        vec![Said::Symlink(new, b"x".into())],
        vec![Said::Xattr(new, b"user.x".into(), vec![])],
        vec![Said::Gone(Ino(0))],
        // Found by fuzzing.
        vec![Said::Gone(Ino::ROOT)],
        vec![
            Said::Node(Node {
                nlink: 0,
                ..node(9, f)
            }),
            entry(dir, b"x", new, f),
        ],
    ];
    for log in logs {
        let what = format!("{log:?}");
        let error = open(log).err();
        assert!(
            matches!(error, Some(Error::Damaged { .. })),
            "{what}: {error:?}"
        );
        assert_eq!(error.unwrap().errno(), libc::EIO);
    }
}

#[test]
fn directories_in_a_circle_end_in_an_error() {
    let d = FileKind::Directory;
    let (_, dir, _) = sample();
    let union = open(vec![
        Said::Node(Node {
            parent: Ino(10),
            ..node(9, d)
        }),
        Said::Node(Node {
            parent: Ino(9),
            ..node(10, d)
        }),
        Said::Entry(Ino(9), b"x".into(), Ino(10), d),
        Said::Entry(Ino(10), b"y".into(), Ino(9), d),
    ])
    .unwrap();
    let moved = union.rename(Ino::ROOT, b"d", Ino(9), b"d", Default::default());
    assert!(matches!(moved, Err(Error::Damaged { .. })));
    assert_eq!(union.path_of(Ino(9)), None);
    assert_eq!(union.path_of(dir).unwrap(), b"/d");
    union.differences().unwrap();
}

#[test]
fn numbers_that_are_no_inode_are_not_found() {
    let union = open(Vec::new()).unwrap();
    for ino in [0, 4, 1 << 40, u64::MAX] {
        let ino = Ino(ino);
        assert!(matches!(union.attr(ino), Err(Error::NotFound)), "{ino}");
        assert!(matches!(union.lookup(ino, b"x"), Err(Error::NotFound)));
        assert!(matches!(union.read(ino, 0, &mut [0]), Err(Error::NotFound)));
        assert!(matches!(
            union.write(ino, 0, b"x", false),
            Err(Error::NotFound)
        ));
        assert!(matches!(union.xattr_names(ino), Err(Error::NotFound)));
        assert!(matches!(
            union.link(ino, Ino::ROOT, b"x"),
            Err(Error::NotFound)
        ));
        union.remember(ino);
        union.forget(ino, 3);
    }
}

#[test]
fn any_cookie_can_be_asked_for() {
    let union = open(Vec::new()).unwrap();
    for from in [1, 2, 1 << 62, (1 << 62) + 1, i64::MAX as u64, u64::MAX] {
        let none = &mut |_: pellicle_union::Listed<'_>| -> std::ops::ControlFlow<()> {
            panic!("there is one name only, and it is before {from}")
        };
        union.list(Ino::ROOT, from, none).unwrap();
    }
}
