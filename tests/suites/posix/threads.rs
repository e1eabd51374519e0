//! Eight threads that make, rename, exchange, link, unlink, list and read names in the same
//! directories, and a count of what each of them did that must come out even.
//!
//! Every file holds one line that says its own number and a check sum, written with one call; a
//! reader finds all of it or nothing. Renames never replace, so the names that are there in the end
//! are those that were there, plus those made and linked, minus those unlinked.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
};

use pellicle_tests::{
    Overlay, Way,
    tree::{assert_same, tree},
};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::{can_run, full, write};

const THREADS: u64 = 8;
const DIRS: [&str; 3] = ["low", "both", "new"];
const NAMES: u64 = 12;

/// xorshift64*: the same sequence for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }
}

fn line(token: u64) -> String {
    format!("{token} {}\n", token.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// The number that a file's content says; `None` for one that is not written yet.
fn token(content: &str, of: &Path) -> Option<u64> {
    if content.is_empty() {
        return None;
    }
    let token = content.split(' ').next().and_then(|n| n.parse().ok());
    let token = token.unwrap_or_else(|| panic!("{} holds {content:?}", of.display()));
    assert_eq!(content, line(token), "{}", of.display());
    Some(token)
}

struct Shared {
    root: PathBuf,
    names: AtomicI64,
    next: AtomicU64,
}

impl Shared {
    fn path(&self, random: &mut Random) -> PathBuf {
        let dir = DIRS[random.below(DIRS.len() as u64) as usize];
        self.root
            .join(dir)
            .join(format!("n{}", random.below(NAMES)))
    }

    /// One random operation. What may be said of a name that others change is said; anything
    /// else is a failure.
    fn step(&self, random: &mut Random) {
        let path = self.path(random);
        match random.below(12) {
            0..=2 => {
                let made = OpenOptions::new().write(true).create_new(true).open(&path);
                if let Some(mut file) = allowed(made, &[ErrorKind::AlreadyExists], &path) {
                    self.names.fetch_add(1, Ordering::SeqCst);
                    let token = self.next.fetch_add(1, Ordering::SeqCst);
                    file.write_all(line(token).as_bytes()).expect("write");
                }
            }
            3..=4 => {
                if allowed(fs::remove_file(&path), &[ErrorKind::NotFound], &path).is_some() {
                    self.names.fetch_sub(1, Ordering::SeqCst);
                }
            }
            5 => {
                // Open without a name: still whole.
                let Some(mut file) = allowed(File::open(&path), &[ErrorKind::NotFound], &path)
                else {
                    return;
                };
                if allowed(fs::remove_file(&path), &[ErrorKind::NotFound], &path).is_some() {
                    self.names.fetch_sub(1, Ordering::SeqCst);
                }
                let mut content = String::new();
                file.read_to_string(&mut content).expect("read");
                token(&content, &path);
            }
            6 => {
                let to = self.path(random);
                let kinds = [ErrorKind::AlreadyExists, ErrorKind::NotFound];
                if allowed(fs::hard_link(&path, &to), &kinds, &to).is_some() {
                    self.names.fetch_add(1, Ordering::SeqCst);
                }
            }
            kind @ 7..=8 => {
                let to = self.path(random);
                let flags = if kind == 7 {
                    RenameFlags::NOREPLACE
                } else {
                    RenameFlags::EXCHANGE
                };
                let done = renameat_with(CWD, &path, CWD, &to, flags);
                let kinds = [ErrorKind::AlreadyExists, ErrorKind::NotFound];
                allowed(done.map_err(Into::into), &kinds, &to);
            }
            9 => {
                let dir = path.parent().expect("a directory");
                let mut seen = BTreeSet::new();
                for entry in fs::read_dir(dir).expect("list") {
                    let name = entry.expect("list").file_name();
                    // A name can be listed again if it was made anew meanwhile, but no listing
                    // is longer than what was ever there.
                    seen.insert(name);
                }
                assert!(seen.len() as u64 <= NAMES, "{seen:?}");
            }
            _ => {
                if let Some(content) =
                    allowed(fs::read_to_string(&path), &[ErrorKind::NotFound], &path)
                {
                    token(&content, &path);
                }
            }
        }
    }
}

fn allowed<T>(done: std::io::Result<T>, kinds: &[ErrorKind], path: &Path) -> Option<T> {
    match done {
        Ok(value) => Some(value),
        Err(e) if kinds.contains(&e.kind()) => None,
        Err(e) => panic!("{}: {e}", path.display()),
    }
}

#[test]
fn eight_threads_in_the_same_directories_come_out_even() {
    if !can_run("eight_threads_in_the_same_directories_come_out_even") {
        return;
    }
    for way in Way::all() {
        let mut first = 0;
        let mut overlay = Overlay::new(way, |low, high| {
            for (dir, name) in [(low, "low"), (low, "both"), (high, "both")] {
                fs::create_dir(dir.join(name)).expect("mkdir");
            }
            for n in 0..NAMES / 2 {
                write(low.join(format!("low/n{n}")), line(first));
                write(high.join(format!("both/n{n}")), line(first + 1));
                first += 2;
            }
        });
        fs::create_dir(overlay.at().join("new")).expect("mkdir");
        let shared = Shared {
            root: overlay.at(),
            names: AtomicI64::new(i64::try_from(first).expect("few")),
            next: AtomicU64::new(first),
        };
        let steps = if full() { 60_000 } else { 4_000 };
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let shared = &shared;
                scope.spawn(move || {
                    let mut random = Random(0x5eed + thread);
                    for _ in 0..steps {
                        shared.step(&mut random);
                    }
                });
            }
        });

        let (mut names, mut inodes) = (0, BTreeMap::new());
        for dir in DIRS {
            for entry in fs::read_dir(overlay.at().join(dir)).expect("list") {
                let path = entry.expect("list").path();
                names += 1;
                let ino = fs::metadata(&path).expect("stat").ino();
                let content = fs::read_to_string(&path).expect("read");
                let token = token(&content, &path).expect("written");
                let other = inodes.insert(token, ino);
                assert!(
                    other.is_none_or(|other| other == ino),
                    "{token} is in two files"
                );
            }
        }
        assert_eq!(names, shared.names.load(Ordering::SeqCst), "{way}: names");
        let before = tree(&overlay.at());
        overlay.remount();
        assert_same(
            &way.lasting(before),
            &way.lasting(tree(&overlay.at())),
            &format!("{way}, remounted"),
        );
    }
}
