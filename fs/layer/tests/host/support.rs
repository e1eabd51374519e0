//! Directories to stack, and what a stack shows.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use pellicle_layer::{HostOptions, HostStack, Lower};
use pellicle_store::{FileKind, Ino};

/// Directories `0`, `1`, …, the first being the top-most layer.
pub(crate) struct Layers {
    _dir: tempfile::TempDir,
    pub(crate) tops: Vec<PathBuf>,
}

impl Layers {
    pub(crate) fn new(count: usize) -> Self {
        // Not in /tmp: where that is a tmpfs it may lack user attributes.
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let tops: Vec<PathBuf> = (0..count).map(|n| dir.path().join(n.to_string())).collect();
        for top in &tops {
            fs::create_dir(top).unwrap();
        }
        Self { _dir: dir, tops }
    }

    pub(crate) fn at(&self, layer: usize, path: &str) -> PathBuf {
        self.tops[layer].join(path)
    }

    pub(crate) fn dir(&self, layer: usize, path: &str) -> PathBuf {
        let at = self.at(layer, path);
        fs::create_dir_all(&at).unwrap();
        at
    }

    pub(crate) fn file(&self, layer: usize, path: &str, content: &str) -> PathBuf {
        let at = self.at(layer, path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(&at, content).unwrap();
        at
    }

    pub(crate) fn mark(&self, layer: usize, path: &str, name: &str, value: &str) {
        set_xattr(&self.at(layer, path), name, value);
    }

    pub(crate) fn open(&self) -> HostStack {
        self.open_with(&HostOptions::default())
    }

    pub(crate) fn open_with(&self, options: &HostOptions) -> HostStack {
        HostStack::open(&self.tops, options).unwrap()
    }
}

pub(crate) fn set_xattr(at: &Path, name: &str, value: &str) {
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::lsetxattr(at, name, value.as_bytes(), flags).unwrap();
}

pub(crate) fn whiteout(at: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    fs::create_dir_all(at.parent().unwrap()).unwrap();
    mknodat(CWD, at, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
}

pub(crate) fn chmod(at: &Path, mode: u32) {
    fs::set_permissions(at, fs::Permissions::from_mode(mode)).unwrap();
}

/// The inode at `path`.
pub(crate) fn find(stack: &dyn Lower, path: &str) -> Option<Ino> {
    let mut at = Ino::ROOT;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        at = stack.lookup(at, name.as_bytes()).unwrap()?.0;
    }
    Some(at)
}

/// The text in the file at `path`.
pub(crate) fn text(stack: &dyn Lower, path: &str) -> String {
    let ino = find(stack, path).unwrap_or_else(|| panic!("there is no {path}"));
    let size = stack.attr(ino).unwrap().size as usize;
    let mut buf = vec![0; size + 10];
    let n = stack.read(ino, 0, &mut buf).unwrap();
    assert_eq!(n, size, "{path} is read to its end");
    String::from_utf8(buf[..n].to_vec()).unwrap()
}

/// Every path, sorted, directories with a slash.
pub(crate) fn paths(stack: &dyn Lower) -> Vec<String> {
    let mut all = Vec::new();
    let mut todo = vec![(Ino::ROOT, String::new())];
    while let Some((dir, path)) = todo.pop() {
        let mut at = 0;
        while let Some(entry) = stack.entry(dir, at).unwrap() {
            at += 1;
            let path = format!("{path}{}", String::from_utf8_lossy(entry.name));
            if entry.kind == FileKind::Directory {
                todo.push((entry.ino, format!("{path}/")));
                all.push(format!("{path}/"));
            } else {
                all.push(path);
            }
        }
    }
    all.sort();
    all
}

pub(crate) fn xattrs(stack: &dyn Lower, path: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let ino = find(stack, path).unwrap();
    stack
        .xattrs(ino, &mut |name, value| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            all.push((text(name), text(value)));
        })
        .unwrap();
    all
}
