//! A whole tree as programs see it, to be compared.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt::Debug,
    fs,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirEntryExt as _, FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{FileType, lgetxattr, llistxattr};

/// One name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Inode number.
    pub ino: u64,
    /// Kind and permission bits.
    pub mode: u32,
    /// Names that lead to it.
    pub nlink: u64,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Device number.
    pub rdev: u64,
    /// Bytes.
    pub size: u64,
    /// Times of last modification and last change: seconds and nanoseconds.
    pub times: [(i64, i64); 2],
    /// Time of last access, likewise.
    pub accessed: (i64, i64),
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// A file's content or a link's target, as a number of 64 bits.
    pub content: u64,
}

/// Every name below `root` (and `root` as the empty path). Checks on the way that the numbers of
/// `readdir(3)` are those of `stat(2)`, and that link counts are true.
///
/// # Panics
/// If they are not, or something cannot be read.
#[must_use]
pub fn tree(root: &Path) -> BTreeMap<PathBuf, Node> {
    let seen = walk(root);
    let is_dir = |node: &Node| FileType::from_raw_mode(node.mode) == FileType::Directory;
    let mut names = BTreeMap::new();
    let mut subdirectories = BTreeMap::new();
    for (path, node) in &seen {
        *names.entry(node.ino).or_insert(0u64) += 1;
        if let Some(above) = path.parent().filter(|_| is_dir(node)) {
            *subdirectories.entry(above).or_insert(0u64) += 1;
        }
    }
    for (path, node) in &seen {
        let links = if is_dir(node) {
            2 + subdirectories.get(path.as_path()).unwrap_or(&0)
        } else {
            names[&node.ino]
        };
        assert_eq!(node.nlink, links, "links of {}", path.display());
    }
    seen
}

/// Every name below `root` (and `root` as the empty path), for file systems whose link counts are
/// not to be relied on. Checks that the numbers of `readdir(3)` are those of `stat(2)`.
///
/// # Panics
/// If they are not, or something cannot be read.
#[must_use]
pub fn walk(root: &Path) -> BTreeMap<PathBuf, Node> {
    walk_with(root, true)
}

/// As [`walk`], for file systems whose `readdir(3)` gives numbers that are not those of `stat(2)`.
///
/// # Panics
/// If something cannot be read.
#[must_use]
pub fn walk_by_stat(root: &Path) -> BTreeMap<PathBuf, Node> {
    walk_with(root, false)
}

fn walk_with(root: &Path, compare_numbers: bool) -> BTreeMap<PathBuf, Node> {
    let mut seen = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(path) = todo.pop() {
        let full = root.join(&path);
        let meta = said(&full, fs::symlink_metadata(&full));
        if meta.is_dir() {
            for entry in said(&full, fs::read_dir(&full)) {
                let entry = said(&full, entry);
                let below = path.join(entry.file_name());
                let meta = said(&full, fs::symlink_metadata(entry.path()));
                if compare_numbers {
                    assert_eq!(entry.ino(), meta.ino(), "d_ino of {}", below.display());
                }
                let kind = said(&full, entry.file_type());
                assert_eq!(kind, meta.file_type(), "d_type of {}", below.display());
                todo.push(below);
            }
        }
        let node = node(&full, &meta);
        seen.insert(path, node);
    }
    seen
}

/// Says where two trees differ.
///
/// # Panics
/// If they do.
pub fn assert_same(one: &BTreeMap<PathBuf, Node>, two: &BTreeMap<PathBuf, Node>, what: &str) {
    let mut wrong = Vec::new();
    for (path, node) in one {
        match two.get(path) {
            None => wrong.push(format!("{} is gone", path.display())),
            Some(other) if other != node => {
                wrong.push(format!("{}: {node:?}\n   now {other:?}", path.display()));
            }
            Some(_) => {}
        }
    }
    for path in two.keys().filter(|path| !one.contains_key(*path)) {
        wrong.push(format!("{} is new", path.display()));
    }
    wrong.truncate(10);
    assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
}

fn node(path: &Path, meta: &fs::Metadata) -> Node {
    let kind = meta.file_type();
    let content = if kind.is_file() {
        hash(&said(path, fs::read(path)))
    } else if kind.is_symlink() {
        hash(said(path, fs::read_link(path)).as_os_str().as_bytes())
    } else {
        0
    };
    Node {
        ino: meta.ino(),
        mode: meta.mode(),
        nlink: meta.nlink(),
        owner: (meta.uid(), meta.gid()),
        rdev: if kind.is_char_device() || kind.is_block_device() {
            meta.rdev()
        } else {
            0
        },
        size: meta.size(),
        times: [
            (meta.mtime(), meta.mtime_nsec()),
            (meta.ctime(), meta.ctime_nsec()),
        ],
        accessed: (meta.atime(), meta.atime_nsec()),
        xattrs: xattrs(path),
        content,
    }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut list = vec![0; 65_536];
    let n = said(path, llistxattr(path, &mut list[..]));
    let mut all = BTreeMap::new();
    for name in list[..n].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 65_536];
        let name_os = OsString::from(std::ffi::OsStr::from_bytes(name));
        let n = said(path, lgetxattr(path, name_os, &mut value[..]));
        value.truncate(n);
        all.insert(name.to_vec(), value);
    }
    all
}

/// FNV-1a: enough to tell contents of one tree apart.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

fn said<T, E: Debug>(path: &Path, result: Result<T, E>) -> T {
    result.unwrap_or_else(|e| panic!("{}: {e:?}", path.display()))
}
