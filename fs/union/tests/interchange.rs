//! The dir upper and kernel overlayfs take turns on one upper directory: what one of them wrote, the
//! other shows, file by file. For root; in a user namespace too, where marks are `user.` ones.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::PathBuf,
    process::Command,
    sync::Arc,
};

use pellicle_layer::{HostOptions, HostStack, host::marks::Marks};
use pellicle_union::{Caller, FileKind, Ino, NewNode, Options, RenameFlags, SetAttr, Union};
use pellicle_upper::{
    DirOptions, DirUpper,
    dir::{Owners, Privilege},
};
use rustix::fs::{CWD, XattrFlags};

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const ROUNDS: u32 = 4;
const STEPS: u32 = 60;
const INSIDE: &str = "PELLICLE_INTERCHANGE_INSIDE";

/// Everything compared of one path.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    mode: u32,
    owner: (u32, u32),
    /// 0 for directories: overlayfs says 1 of merged ones.
    nlink: u32,
    mtime: (i64, i64),
    content: Vec<u8>,
    xattrs: Vec<(String, Vec<u8>)>,
}

type Tree = BTreeMap<String, Seen>;

/// A small generator (xorshift64), so that a seed is a run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % sides
    }

    /// A path of one to three names.
    fn path(&mut self) -> String {
        let depth = 1 + self.roll(3);
        let names: Vec<&str> = (0..depth).map(|_| NAMES[self.roll(NAMES.len())]).collect();
        names.join("/")
    }
}

#[derive(Clone, Debug)]
enum Step {
    File(String),
    Dir(String),
    Link(String, String),
    Symlink(String),
    Write(String, usize, usize),
    Truncate(String, u64),
    Chmod(String, u32),
    Chown(String, u32),
    Remove(String),
    Rename(String, String),
    Exchange(String, String),
    Xattr(String, bool),
}

fn any_step(dice: &mut Dice) -> Step {
    let (a, b) = (dice.path(), dice.path());
    match dice.roll(14) {
        0 | 1 => Step::File(a),
        2 => Step::Dir(a),
        3 => Step::Link(a, b),
        4 => Step::Symlink(a),
        5 => Step::Write(a, dice.roll(6000), 1 + dice.roll(50)),
        6 => Step::Truncate(a, dice.roll(5000) as u64),
        7 => Step::Chmod(a, [0o600, 0o755, 0o4711, 0o1777][dice.roll(4)]),
        8 => Step::Chown(a, dice.roll(3) as u32),
        9 | 10 => Step::Remove(a),
        11 => Step::Rename(a, b),
        12 => Step::Exchange(a, b),
        _ => Step::Xattr(a, dice.roll(3) > 0),
    }
}

/// What a step is done to. Steps that make no sense where they fall fail, the same on both.
trait Side {
    fn perform(&self, step: &Step) -> bool;
    fn tree(&self) -> Tree;
}

impl Side for Union {
    fn perform(&self, step: &Step) -> bool {
        self.try_step(step).is_some()
    }

    fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        let mut todo = vec![(Ino::ROOT, String::new())];
        while let Some((ino, path)) = todo.pop() {
            let attr = self.attr(ino).unwrap();
            let mut content = Vec::new();
            match attr.kind {
                FileKind::Regular => {
                    content = vec![0; attr.size as usize];
                    assert_eq!(self.read(ino, 0, &mut content).unwrap(), content.len());
                }
                FileKind::Symlink => content = self.readlink(ino).unwrap().to_vec(),
                _ => {}
            }
            let is_dir = attr.kind == FileKind::Directory;
            if is_dir {
                let each = &mut |e: pellicle_union::Listed<'_>| {
                    let name = String::from_utf8_lossy(e.name);
                    todo.push((e.ino, format!("{path}/{name}")));
                    std::ops::ControlFlow::Continue(())
                };
                self.list(ino, 0, each).unwrap();
            }
            let names = self.xattr_names(ino).unwrap();
            let names = names.split(|b| *b == 0).filter(|n| n.starts_with(b"user."));
            let xattrs = names.map(|n| {
                let value = self.xattr(ino, n).unwrap();
                (String::from_utf8_lossy(n).into_owned(), value)
            });
            let seen = Seen {
                mode: attr.kind.mode_bits() | u32::from(attr.perm),
                owner: (attr.uid, attr.gid),
                nlink: if is_dir { 0 } else { attr.nlink },
                mtime: (attr.mtime.sec, attr.mtime.nsec.into()),
                content,
                xattrs: xattrs.collect(),
            };
            tree.insert(path, seen);
        }
        tree
    }
}

trait Try {
    fn try_step(&self, step: &Step) -> Option<()>;
    fn find(&self, path: &str) -> Option<Ino>;
    fn above<'p>(&self, path: &'p str) -> Option<(Ino, &'p [u8])>;
}

impl Try for Union {
    fn find(&self, path: &str) -> Option<Ino> {
        path.split('/').try_fold(Ino::ROOT, |dir, name| {
            self.lookup(dir, name.as_bytes()).ok().map(|attr| attr.ino)
        })
    }

    fn above<'p>(&self, path: &'p str) -> Option<(Ino, &'p [u8])> {
        match path.rsplit_once('/') {
            Some((above, name)) => Some((self.find(above)?, name.as_bytes())),
            None => Some((Ino::ROOT, path.as_bytes())),
        }
    }

    fn try_step(&self, step: &Step) -> Option<()> {
        let who = Caller::default();
        let make = |path: &str, what| {
            let (dir, name) = self.above(path)?;
            self.make(dir, name, what, 0o755, who).ok().map(drop)
        };
        let regular = |path: &str| {
            let ino = self.find(path)?;
            (self.attr(ino).ok()?.kind == FileKind::Regular).then_some(ino)
        };
        let not_link = |path: &str| {
            let ino = self.find(path)?;
            (self.attr(ino).ok()?.kind != FileKind::Symlink).then_some(ino)
        };
        let set = |ino, set| self.set_attr(ino, set).ok().map(drop);
        match step {
            Step::File(path) => make(path, NewNode::Regular),
            Step::Dir(path) => make(path, NewNode::Directory),
            Step::Symlink(path) => make(path, NewNode::Symlink(b"to/there")),
            Step::Link(from, to) => {
                let (dir, name) = self.above(to)?;
                self.link(regular(from)?, dir, name).ok().map(drop)
            }
            Step::Write(path, at, len) => {
                let data = vec![b'w'; *len];
                let ino = regular(path)?;
                self.write(ino, *at as u64, &data, false).ok().map(drop)
            }
            Step::Truncate(path, size) => {
                let change = SetAttr {
                    size: Some(*size),
                    ..SetAttr::default()
                };
                set(regular(path)?, change)
            }
            Step::Chmod(path, mode) => {
                let change = SetAttr {
                    perm: Some(*mode as u16),
                    ..SetAttr::default()
                };
                set(not_link(path)?, change)
            }
            Step::Chown(path, id) => {
                let change = SetAttr {
                    uid: Some(*id),
                    gid: Some(*id),
                    ..SetAttr::default()
                };
                set(self.find(path)?, change)
            }
            Step::Remove(path) => {
                let (dir, name) = self.above(path)?;
                let removed = self.unlink(dir, name).or_else(|_| self.rmdir(dir, name));
                removed.ok()
            }
            Step::Rename(from, to) | Step::Exchange(from, to) => {
                let (a, a_name) = self.above(from)?;
                let (b, b_name) = self.above(to)?;
                let flags = RenameFlags {
                    exchange: matches!(step, Step::Exchange(..)),
                    no_replace: false,
                };
                self.rename(a, a_name, b, b_name, flags).ok()
            }
            Step::Xattr(path, there) => {
                let ino = not_link(path)?;
                if *there {
                    self.set_xattr(ino, b"user.x", b"value", false, false).ok()
                } else {
                    self.remove_xattr(ino, b"user.x").ok()
                }
            }
        }
    }
}

/// A directory where kernel overlayfs is mounted for as long as this lives.
struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let done = Command::new("umount").arg(&self.0).status();
        assert!(done.is_ok_and(|s| s.success()) || std::thread::panicking());
    }
}

impl Side for Mount {
    fn perform(&self, step: &Step) -> bool {
        use rustix::fs::{RenameFlags, renameat_with};
        let at = |path: &String| self.0.join(path);
        let regular = |path: &String| fs::symlink_metadata(at(path)).is_ok_and(|m| m.is_file());
        let is_link = |path: &String| at(path).is_symlink();
        let done = match step {
            Step::File(path) => fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(at(path))
                .map(drop),
            Step::Dir(path) => fs::create_dir(at(path)),
            Step::Symlink(path) => std::os::unix::fs::symlink("to/there", at(path)),
            Step::Link(from, to) if regular(from) => fs::hard_link(at(from), at(to)),
            Step::Write(path, offset, len) if regular(path) => {
                use std::os::unix::fs::FileExt;
                let file = fs::OpenOptions::new().write(true).open(at(path)).unwrap();
                file.write_all_at(&vec![b'k'; *len], *offset as u64)
            }
            Step::Truncate(path, size) if regular(path) => {
                let file = fs::OpenOptions::new().write(true).open(at(path));
                file.and_then(|file| file.set_len(*size))
            }
            Step::Chmod(path, mode) if !is_link(path) => {
                fs::set_permissions(at(path), fs::Permissions::from_mode(*mode))
            }
            Step::Chown(path, id) => std::os::unix::fs::lchown(at(path), Some(*id), Some(*id)),
            Step::Remove(path) => fs::remove_file(at(path)).or_else(|_| fs::remove_dir(at(path))),
            Step::Rename(from, to) => fs::rename(at(from), at(to)),
            Step::Exchange(a, b) => {
                renameat_with(CWD, at(a), CWD, at(b), RenameFlags::EXCHANGE).map_err(Into::into)
            }
            Step::Xattr(path, true) if !is_link(path) => {
                rustix::fs::lsetxattr(at(path), "user.x", b"kernel", XattrFlags::empty())
                    .map_err(Into::into)
            }
            Step::Xattr(path, false) => {
                rustix::fs::lremovexattr(at(path), "user.x").map_err(Into::into)
            }
            _ => return false,
        };
        done.is_ok()
    }

    fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        let mut todo = vec![String::new()];
        while let Some(path) = todo.pop() {
            let at = self.0.join(path.trim_start_matches('/'));
            let meta = fs::symlink_metadata(&at).unwrap();
            let mut content = Vec::new();
            if meta.is_dir() {
                for entry in fs::read_dir(&at).unwrap() {
                    let name = entry.unwrap().file_name();
                    todo.push(format!("{path}/{}", name.to_string_lossy()));
                }
            } else if meta.is_file() {
                content = fs::read(&at).unwrap();
            } else if meta.is_symlink() {
                content = fs::read_link(&at)
                    .unwrap()
                    .into_os_string()
                    .into_encoded_bytes();
            }
            let mut names = vec![0; 4096];
            let n = rustix::fs::llistxattr(&at, names.as_mut_slice()).unwrap();
            let names = names[..n]
                .split(|b| *b == 0)
                .filter(|n| n.starts_with(b"user."));
            let xattrs = names.map(|name| {
                let mut value = vec![0; 256];
                let n = rustix::fs::lgetxattr(&at, name, value.as_mut_slice()).unwrap();
                value.truncate(n);
                (String::from_utf8_lossy(name).into_owned(), value)
            });
            let seen = Seen {
                mode: meta.mode(),
                owner: (meta.uid(), meta.gid()),
                nlink: if meta.is_dir() {
                    0
                } else {
                    meta.nlink() as u32
                },
                mtime: (meta.mtime(), meta.mtime_nsec()),
                content,
                xattrs: xattrs.collect(),
            };
            tree.insert(path, seen);
        }
        tree
    }
}

struct Stand {
    dir: tempfile::TempDir,
    user: bool,
    more: &'static str,
}

impl Stand {
    fn new(user: bool, more: &'static str) -> Self {
        // Not in /tmp: where that is a tmpfs it may lack user attributes.
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        for name in [
            "top/a/b",
            "low/a/b/c",
            "low/c/d",
            "low/b",
            "upper",
            "work",
            "mount",
        ] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        for name in [
            "top/a/e",
            "top/e",
            "low/a/b/a",
            "low/a/b/c/x",
            "low/c/d/e",
            "low/d",
        ] {
            fs::write(dir.path().join(name), format!("the content of {name}")).unwrap();
        }
        std::os::unix::fs::symlink("x", dir.path().join("low/a/d")).unwrap();
        Self { dir, user, more }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn ours(&self) -> Union {
        let options = HostOptions {
            marks: if self.user {
                Marks::User
            } else {
                Marks::Trusted
            },
            ..HostOptions::default()
        };
        let tops = [self.at("top"), self.at("low")];
        let lower = Arc::new(HostStack::open(&tops, &options).unwrap());
        let options = DirOptions {
            privilege: if self.user {
                Privilege::User
            } else {
                Privilege::Trusted
            },
            owners: Owners::Host,
            ..DirOptions::default()
        };
        let (upper, work) = (self.at("upper"), self.at("work"));
        let upper = DirUpper::open(&upper, &work, lower.clone(), &options).unwrap();
        let (union, _) = Union::open(lower, Some(Box::new(upper)), Options::default()).unwrap();
        union
    }

    fn kernel(&self) -> Mount {
        let at = |name| self.at(name).display().to_string();
        let options = format!(
            "lowerdir={}:{},upperdir={},workdir={},{}",
            at("top"),
            at("low"),
            at("upper"),
            at("work"),
            self.more
        );
        let done = Command::new("mount")
            .args(["-t", "overlay", "overlay", "-o", &options])
            .arg(self.at("mount"))
            .status()
            .unwrap();
        assert!(done.success(), "kernel overlayfs takes {options}");
        Mount(self.at("mount"))
    }
}

fn differ(what: &str, a: &Tree, b: &Tree) {
    for path in a.keys().chain(b.keys()) {
        assert_eq!(a.get(path), b.get(path), "{what}: {path:?}");
    }
}

fn take_turns(user: bool, more: &'static str, seed: u64) {
    let stand = Stand::new(user, more);
    let mut dice = Dice(seed);
    let mut done = 0;
    for round in 0..ROUNDS {
        let mut steps = Vec::new();
        let mut turn = |side: &dyn Side| {
            for _ in 0..STEPS {
                let step = any_step(&mut dice);
                if user && matches!(step, Step::Chown(..)) {
                    continue;
                }
                if side.perform(&step) {
                    steps.push(step);
                }
            }
            done += steps.len();
            side.tree()
        };
        let written = turn(&stand.ours());
        let shown = stand.kernel().tree();
        let what = format!("seed {seed}, round {round}: ours, then the kernel's; {steps:?}");
        differ(&what, &written, &shown);
        let mut steps = Vec::new();
        let mount = stand.kernel();
        for _ in 0..STEPS {
            let step = any_step(&mut dice);
            let skip = user && matches!(step, Step::Chown(..));
            if !skip && mount.perform(&step) {
                steps.push(step);
            }
        }
        done += steps.len();
        let written = mount.tree();
        drop(mount);
        let shown = stand.ours().tree();
        let what = format!("seed {seed}, round {round}: the kernel's, then ours; {steps:?}");
        differ(&what, &written, &shown);
    }
    assert!(done > 50, "most steps did nothing: {done}");
}

#[test]
fn kernel_overlayfs_and_the_dir_upper_show_what_the_other_wrote() {
    for seed in 1..=20 {
        take_turns(false, "redirect_dir=on", seed);
    }
}

#[test]
fn so_they_do_where_the_kernel_copies_up_only_metadata() {
    for seed in 1..=10 {
        take_turns(false, "redirect_dir=on,metacopy=on", seed);
    }
}

#[test]
fn so_they_do_in_a_user_namespace() {
    if env::var_os(INSIDE).is_some() {
        for seed in 1..=20 {
            take_turns(true, "userxattr", seed);
        }
        return;
    }
    let done = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount"])
        .arg(env::current_exe().unwrap())
        .args(["--exact", "so_they_do_in_a_user_namespace", "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(done.success());
}
