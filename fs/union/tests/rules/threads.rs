//! Many threads at once, with a checker.

use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use pellicle_union::{Caller, Error, FileKind, Ino, NewNode, RenameFlags, Union};

use crate::support::{content, lower::MemLower, names, open, upper::MemUpper};

const THREADS: usize = 8;
const ROUNDS: usize = 400;

fn allowed(result: Result<(), Error>) {
    match result {
        Ok(())
        | Err(
            Error::NotFound
            | Error::Exists
            | Error::NotEmpty
            | Error::IsDirectory
            | Error::NotDirectory
            | Error::Invalid,
        ) => (),
        Err(other) => panic!("{other:?}"),
    }
}

/// A worker that makes, moves and removes names that all share.
fn stir(union: &Union, seed: usize, dirs: &[Ino]) {
    let mut state = seed as u64 * 77 + 1;
    let mut pick = |n: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as usize % n
    };
    let who = Caller::default();
    for round in 0..ROUNDS {
        let (from, to) = (dirs[pick(dirs.len())], dirs[pick(dirs.len())]);
        let (a, b) = (format!("n{}", pick(6)), format!("n{}", pick(6)));
        let (a, b) = (a.as_bytes(), b.as_bytes());
        match pick(7) {
            0 | 1 => {
                let made = union.make(from, a, NewNode::Regular, 0o644, who);
                if let Ok(attr) = made {
                    union.remember(attr.ino);
                    union
                        .write(attr.ino, 0, &round.to_le_bytes(), false)
                        .unwrap();
                    assert_eq!(content(union, attr.ino).len(), 8);
                    union.forget(attr.ino, 1);
                }
            }
            2 => allowed(
                union
                    .make(from, a, NewNode::Directory, 0o755, who)
                    .map(drop),
            ),
            3 => allowed(union.unlink(from, a)),
            4 => allowed(union.rmdir(from, a)),
            5 => {
                let flags = RenameFlags {
                    exchange: pick(2) == 0,
                    no_replace: false,
                };
                allowed(union.rename(from, a, to, b, flags));
            }
            _ => {
                if let Ok(attr) = union.lookup(from, a)
                    && attr.kind == FileKind::Regular
                {
                    match union.link(attr.ino, to, b) {
                        Err(Error::NotFound) => (),
                        other => allowed(other.map(drop)),
                    }
                }
            }
        }
    }
}

/// Link counts, parents and numbers agree with the names.
fn check(union: &Union) {
    let mut links = std::collections::BTreeMap::<Ino, u32>::new();
    let mut todo = vec![Ino::ROOT];
    while let Some(dir) = todo.pop() {
        let mut subdirs = 0;
        for (name, ino, kind) in names(union, dir) {
            assert_eq!(union.lookup(dir, &name).unwrap().ino, ino);
            if kind == FileKind::Directory {
                subdirs += 1;
                assert_eq!(union.parent(ino).unwrap(), dir);
                todo.push(ino);
            } else {
                *links.entry(ino).or_default() += 1;
            }
        }
        assert_eq!(union.attr(dir).unwrap().nlink, 2 + subdirs);
    }
    for (ino, count) in links {
        assert_eq!(union.attr(ino).unwrap().nlink, count);
    }
}

#[test]
fn shared_directories_survive_eight_threads_and_a_remount() {
    let mut lower = MemLower::new();
    let dirs: Vec<Ino> = (0..3)
        .map(|n| lower.dir(Ino::ROOT, &format!("d{n}")))
        .collect();
    for dir in &dirs {
        for n in 0..4 {
            lower.file(*dir, &format!("n{n}"), b"lower");
        }
        lower.file(*dir, "stays", b"");
    }
    let lower = Arc::new(lower);
    let upper = MemUpper::new();
    let union = Arc::new(open(&lower, &upper));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|n| {
                scope.spawn({
                    let (u, d) = (&union, &dirs);
                    move || stir(u, n, d)
                })
            })
            .collect();
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for dir in &dirs {
                    let mut seen = Vec::new();
                    union
                        .list(*dir, 0, &mut |e| {
                            seen.push(e.name.to_vec());
                            ControlFlow::Continue(())
                        })
                        .unwrap();
                    assert_eq!(seen.iter().filter(|n| *n == b"stays").count(), 1);
                    thread::yield_now();
                }
            }
        });
        for worker in workers {
            worker.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    check(&union);
    let listed = |union: &Union| -> BTreeSet<_> {
        dirs.iter()
            .flat_map(|dir| names(union, *dir))
            .collect::<Vec<_>>()
            .into_iter()
            .map(|(name, ino, _)| (name, ino))
            .collect()
    };
    let before = listed(&union);
    drop(union);
    let union = open(&lower, &upper);
    check(&union);
    assert_eq!(listed(&union), before);
}

#[test]
fn writers_of_one_file_do_not_lose_each_others_bytes() {
    let mut lower = MemLower::new();
    let ino = lower.file(Ino::ROOT, "f", &[b'.'; THREADS * ROUNDS]);
    let union = open(&Arc::new(lower), &MemUpper::new());
    thread::scope(|scope| {
        for n in 0..THREADS {
            let union = &union;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let at = (round * THREADS + n) as u64;
                    union.write(ino, at, &[b'a' + n as u8], false).unwrap();
                }
            });
        }
    });
    let bytes = content(&union, ino);
    let right = bytes
        .iter()
        .enumerate()
        .all(|(at, b)| *b == b'a' + (at % THREADS) as u8);
    assert!(right && bytes.len() == THREADS * ROUNDS);
}
