//! `store verify --repair`: each kind of damage is named with whom it touches, made whole from what
//! is intact or set aside, and nothing is ever just dropped.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use pellicle_tests::{Outcome, TestStore, Who, archive::Archive};
use serde_json::Value;

/// Contents that are objects: too large for a tree.
fn content(fill: u8) -> Vec<u8> {
    (0..100_000u32).map(|n| (n % 251) as u8 ^ fill).collect()
}

/// An image `img` of two layers, and one `half` of the first alone; from these files.
fn images(s: &TestStore) -> [PathBuf; 2] {
    let one = Archive::new()
        .dir("d/")
        .file("d/one", content(1))
        .file("small", "alpha content\n")
        .end();
    let two = Archive::new()
        .file("d/two", content(2))
        .file("small2", "beta content\n")
        .end();
    let files = [s.file("one.tar", one), s.file("two.tar", two)];
    import(s, &files);
    files
}

fn import(s: &TestStore, files: &[PathBuf; 2]) {
    s.cmd(["import"])
        .arg(&files[0])
        .arg("img")
        .arg("--layer")
        .arg(&files[1])
        .ok();
    s.cmd(["import"]).arg(&files[0]).arg("half").ok();
}

fn verify(s: &TestStore) -> Outcome {
    s.cmd(["store", "verify"]).run()
}

fn repair(s: &TestStore) -> Outcome {
    s.cmd(["store", "verify", "--repair"]).run()
}

/// Nothing is damaged.
fn assert_well(s: &TestStore) {
    let found = verify(s).exited(0);
    assert!(found.out().contains("no damage found"), "{found}");
}

/// It ended as if something were damaged, and says each of `words`.
fn assert_damaged(outcome: &Outcome, words: &[&str]) {
    assert_eq!(outcome.code(), 1, "{outcome}");
    let all = outcome.out() + &outcome.err();
    for word in words {
        assert!(all.contains(word), "{word:?} is not said: {outcome}");
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && !path.is_symlink() {
                left.push(path);
            } else {
                all.push(path);
            }
        }
    }
    all.sort();
    all
}

/// The file in `dir` of the store that holds exactly `bytes`.
fn holding(s: &TestStore, dir: &str, bytes: &[u8]) -> PathBuf {
    files(&s.root().join(dir))
        .into_iter()
        .find(|path| fs::read(path).is_ok_and(|b| b == bytes))
        .expect("it is in the store")
}

/// Changes bytes in place, so that the owner stays.
fn change(path: &Path, how: impl FnOnce(&mut Vec<u8>)) {
    let mode = fs::metadata(path).expect("stat").permissions();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("chmod");
    let mut bytes = fs::read(path).expect("read");
    how(&mut bytes);
    fs::write(path, bytes).expect("write");
    fs::set_permissions(path, mode).expect("chmod");
}

fn flip(path: &Path, at: usize) {
    change(path, |bytes| bytes[at] ^= 0x20);
}

fn find_bytes(bytes: &[u8], what: &[u8]) -> usize {
    bytes
        .windows(what.len())
        .position(|w| w == what)
        .expect("it is there")
}

#[test]
fn objects_and_trees_are_made_again_from_the_blobs_that_hold_them() {
    for who in Who::all() {
        let s = TestStore::new(who);
        images(&s);
        assert_well(&s);
        let object = || holding(&s, "objects", &content(1));
        let trees = || files(&s.root().join("trees"));
        type Hurt<'a> = (&'a str, &'a dyn Fn() -> PathBuf, &'a dyn Fn(&Path));
        let tree_with = |alpha: bool, beta: bool| {
            let has = |bytes: &[u8], text: &[u8]| bytes.windows(text.len()).any(|w| w == text);
            let holds = |path: &PathBuf| {
                let bytes = fs::read(path).expect("read");
                has(&bytes, b"alpha content") == alpha && has(&bytes, b"beta content") == beta
            };
            trees().into_iter().find(holds).expect("a tree with it")
        };
        let layer = || tree_with(true, false);
        let image = || tree_with(true, true);
        let hurts: [Hurt<'_>; 9] = [
            ("a bit of an object", &object, &|p| flip(p, 50_000)),
            ("an object cut", &object, &|p| {
                change(p, |b| b.truncate(70_000))
            }),
            ("an object gone", &object, &|p| {
                fs::remove_file(p).expect("rm")
            }),
            ("an object closed", &object, &|p| {
                fs::set_permissions(p, fs::Permissions::from_mode(0o000)).expect("chmod");
            }),
            ("a tree's header", &layer, &|p| flip(p, 60)),
            ("an inline content", &layer, &|p| {
                change(p, |b| {
                    let at = find_bytes(b, b"alpha content\n");
                    b[at] ^= 1;
                });
            }),
            ("a tree cut", &layer, &|p| change(p, |b| b.truncate(4500))),
            ("an image's tree", &image, &|p| flip(p, 4200)),
            ("a tree gone", &layer, &|p| fs::remove_file(p).expect("rm")),
        ];
        for (what, find, hurt) in hurts {
            let path = find();
            let before = fs::read(&path).expect("read");
            hurt(&path);
            let found = verify(&s).exited(1);
            let said = found.out();
            let touched: &[&str] = match what {
                "an image's tree" => &["img"],
                _ => &["img", "half"],
            };
            for image in touched {
                assert!(
                    said.contains(image),
                    "{what}: {image} is not named: {found}"
                );
            }
            let id = path.file_name().expect("a name").to_string_lossy();
            assert!(said.contains(&*id), "{what}: {found}");
            let done = repair(&s).exited(0);
            assert!(done.out().contains("whole again"), "{what}: {done}");
            assert!(fs::read(&path).expect("read") == before, "{what}");
            assert_well(&s);
        }
    }
}

#[test]
fn what_is_lost_is_named_and_comes_back_by_an_import() {
    for who in Who::all() {
        let s = TestStore::new(who);
        let sources = images(&s);
        let blobs = files(&s.root().join("blobs"));
        for blob in &blobs {
            flip(blob, 20);
        }
        let object = holding(&s, "objects", &content(2));
        flip(&object, 99_999);
        let hurt = fs::read(&object).expect("read");
        assert_damaged(&verify(&s), &[]);
        let done = repair(&s);
        assert_damaged(&done, &["img", "import"]);
        assert!(!object.exists(), "what is damaged does not stay");
        let aside = holding(&s, "quarantine", &hurt);
        let top = s.root().join("quarantine");
        let run = aside.strip_prefix(&top).expect("inside");
        let run = top.join(run.components().next().expect("a directory"));
        let report = fs::read_to_string(run.join("report.jsonl")).expect("a report");
        for line in report.lines() {
            let line: Value = serde_json::from_str(line).expect("JSON");
            assert!(
                line["when"].is_string() && line["why"].is_string(),
                "{line}"
            );
        }
        let name = object
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        assert!(report.contains(&name), "{report}");
        // Still: it is missing, and that is what is said.
        let still = verify(&s).exited(1);
        assert!(still.out().contains("it is not there"), "{still}");
        import(&s, &sources);
        // Made at another time, they are other images: of the old ones the descriptions are lost.
        let old = s
            .cmd(["store", "verify", "--format", "{{.Images}}"])
            .run()
            .out();
        for image in old.lines().collect::<BTreeSet<_>>() {
            s.cmd(["rmi", "-f", image]).ok();
        }
        assert_well(&s);
        let mut all = BTreeSet::new();
        for blob in files(&top)
            .iter()
            .filter(|p| p.to_string_lossy().contains("blobs/"))
        {
            all.insert(blob.file_name().expect("a name").to_owned());
        }
        assert_eq!(all.len(), blobs.len(), "every damaged blob was kept");
    }
}

#[test]
fn a_damaged_list_of_images_is_made_again() {
    for who in Who::all() {
        let s = TestStore::new(who);
        images(&s);
        let list = s.root().join("images/index.json");
        let before = s
            .cmd(["images", "--format", "{{.Repository}} {{.ID}}"])
            .ok();
        change(&list, |bytes| {
            let cut = bytes.len() - 4;
            bytes.truncate(cut);
        });
        assert_damaged(&verify(&s), &["list of images", "--repair"]);
        assert_eq!(repair(&s).code(), 0);
        let after = s
            .cmd(["images", "--format", "{{.Repository}} {{.ID}}"])
            .ok();
        let sorted = |text: &str| {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&before), sorted(&after));
        // Nothing of it can be read: the images are found by their manifests, and have no names.
        change(&list, |bytes| bytes.fill(b'x'));
        assert_eq!(repair(&s).code(), 0);
        let nameless = s.cmd(["images", "-a", "-q"]).run();
        let count = if nameless.code() == 0 {
            nameless.out().lines().count()
        } else {
            s.cmd(["images", "-q"]).ok().lines().count()
        };
        assert_eq!(count, 2, "{nameless}");
        assert_well(&s);
    }
}

/// The journal of the only container.
fn journal(s: &TestStore) -> PathBuf {
    files(&s.root().join("containers"))
        .into_iter()
        .find(|p| p.ends_with("upper/journal"))
        .expect("a journal")
}

fn frame_speaking_of(log: &[u8], name: &[u8]) -> std::ops::Range<usize> {
    let at = find_bytes(log, name);
    let mut start = 4096;
    loop {
        let length = u32::from_le_bytes(log[start..start + 4].try_into().expect("4 bytes"));
        let end = start + length as usize;
        if at < end {
            return start..end;
        }
        start = end;
    }
}

#[test]
fn a_journal_is_mended_without_loss_or_cut_with_all_that_is_lost_told() {
    for who in Who::all() {
        let s = TestStore::with_tools(who);
        let script = "for n in 1 2 3 4 5 6; do echo $n > /file-$n; sync; done";
        s.cmd(["run", "--name", "hurt", "tools", "sh", "-c", script])
            .ok();
        assert_well(&s);
        let log = journal(&s);
        let whole = fs::read(&log).expect("read");
        let frame = frame_speaking_of(&whole, b"file-4");

        // One bit.
        flip(&log, frame.start + 20);
        assert_damaged(&verify(&s), &["hurt", "one bit is turned"]);
        assert_ne!(s.cmd(["start", "hurt"]).run().code(), 0);
        assert_eq!(repair(&s).code(), 0);
        assert!(
            fs::read(&log)
                .expect("read")
                .starts_with(&whole[..frame.end])
        );
        assert_well(&s);

        // A stretch.
        change(&log, |bytes| {
            bytes[frame.start + 8..frame.start + 40].fill(0x5A)
        });
        let hurt = fs::read(&log).expect("read");
        let told = verify(&s);
        assert_damaged(&told, &["hurt", "synced", "/file-5", "--repair"]);
        assert!(
            fs::read(&log).expect("read") == hurt,
            "telling changes nothing"
        );
        let done = repair(&s).exited(0);
        assert!(done.out().contains("/file-5"), "{done}");
        holding(&s, "quarantine", &hurt);
        assert_well(&s);
        // The content of what was lost is kept as well.
        holding(&s, "quarantine", b"6\n");
        s.cmd(["start", "hurt"]).ok();
        let _ = s.cmd(["wait", "hurt"]).run();
        let out = s.cmd(["diff", "hurt"]).ok();
        assert!(out.contains("/file-1") && out.contains("/file-3"), "{out}");

        // Nothing that would help.
        change(&log, |bytes| bytes.truncate(100));
        assert_damaged(&repair(&s), &["hurt", "pellicle rm -f"]);
        s.cmd(["rm", "-f", "hurt"]).ok();
        assert_well(&s);
    }
}

#[test]
fn the_files_of_a_container_are_looked_at_and_those_that_run_left_alone() {
    for who in Who::all() {
        let s = TestStore::with_tools(who);
        let seconds = s.seconds();
        s.cmd(["run", "-d", "--name", "runs", "tools", "sh", "-c"])
            .arg(format!("echo x > /x; sync; sleep {seconds}"))
            .ok();
        pellicle_tests::wait_for("the file", Duration::from_secs(60), || {
            s.cmd(["diff", "runs"]).ok().contains("/x").then_some(())
        });
        // Everything beside it goes on while it runs: imports, and a repair of what it stands on.
        let sources = images(&s);
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..5 {
                    import(&s, &sources);
                }
            });
            for fill in [1, 2, 1, 2] {
                let all = files(&s.root().join("objects"));
                let found = all
                    .iter()
                    .find(|p| fs::read(p).is_ok_and(|b| b == content(fill)));
                if let Some(path) = found {
                    flip(path, 7);
                }
                let done = repair(&s);
                assert!(done.code() <= 1, "{done}");
            }
        });
        let _ = repair(&s);
        assert_well(&s);
        s.cmd(["exec", "runs", "cat", "/x"]).ok();

        let log = journal(&s);
        pellicle_tests::wait_for(
            "it to be synced by itself",
            Duration::from_secs(180),
            || {
                let bytes = fs::read(&log).expect("read");
                let mark = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8"));
                (mark(1024).max(mark(1536)) > 0).then_some(())
            },
        );
        // The first batch is among what was synced.
        let file = fs::File::options().write(true).open(&log).expect("open");
        let mut byte = [0];
        let at = 4096 + 10;
        fs::File::open(&log)
            .and_then(|f| f.read_exact_at(&mut byte, at))
            .expect("read");
        file.write_all_at(&[byte[0] ^ 1], at).expect("write");
        assert_damaged(&repair(&s), &["runs", "pellicle stop"]);
        s.cmd(["exec", "runs", "true"]).ok();
        s.cmd(["stop", "-t", "1", "runs"]).ok();
        assert_eq!(repair(&s).code(), 0);

        let data = log.with_file_name("data");
        let content = files(&data).into_iter().next().expect("a data file");
        fs::remove_file(content).expect("rm");
        assert_damaged(&verify(&s), &["runs", "/x"]);
        let state = log.parent().and_then(Path::parent).expect("a container");
        fs::write(state.join("state.json"), "{").expect("write");
        assert_damaged(&verify(&s), &["pellicle rm -f"]);
        let id = state.file_name().expect("an id").to_owned();
        let _ = s.cmd(["rm", "-f"]).arg(id).run();
    }
}

#[test]
fn a_repair_that_is_killed_anywhere_is_finished_by_the_next() {
    let s = TestStore::new(Who::all()[0]);
    let mut archive = Archive::new();
    for n in 0..60u8 {
        archive = archive.file(&format!("f{n}"), content(n));
    }
    let file = s.file("many.tar", archive.end());
    s.cmd(["import"]).arg(file).arg("many").ok();
    let whole: Vec<_> = files(&s.root().join("objects"))
        .into_iter()
        .map(|path| (fs::read(&path).expect("read"), path))
        .collect();
    let mut all_hurt = BTreeSet::new();
    for round in 0..12u64 {
        for (n, (_, path)) in whole.iter().enumerate() {
            let now = fs::read(path).unwrap_or_default();
            if now.len() == 100_000 && now == whole[n].0 {
                flip(path, 1000 + round as usize);
                all_hurt.insert(fs::read(path).expect("read"));
            }
        }
        let running = s.cmd(["store", "verify", "--repair"]).spawn();
        thread::sleep(Duration::from_millis(round * 15));
        running.signal(Signal::SIGKILL);
        let _ = running.wait();
        let found = verify(&s);
        assert!(found.code() <= 1, "{found}");
    }
    assert_eq!(repair(&s).code(), 0);
    assert_well(&s);
    for (bytes, path) in &whole {
        assert!(fs::read(path).expect("read") == *bytes);
    }
    let kept: BTreeSet<Vec<u8>> = files(&s.root().join("quarantine"))
        .iter()
        .map(|path| fs::read(path).expect("read"))
        .collect();
    assert!(all_hurt.is_subset(&kept), "something damaged was dropped");
}

#[test]
fn findings_are_objects_for_programs() {
    let s = TestStore::new(Who::all()[0]);
    images(&s);
    let json = |args: &[&str]| -> Vec<Value> {
        let out = s
            .cmd(["store", "verify", "--format", "json"])
            .args(args)
            .run();
        let text = out.out();
        text.lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    };
    assert_eq!(json(&[]), Vec::<Value>::new());
    flip(&holding(&s, "objects", &content(1)), 0);
    let found = json(&[]);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["Kind"], "object");
    assert_eq!(found[0]["Images"], "half:latest, img:latest");
    assert_eq!(found[0]["Well"], false);
    let done = json(&["--repair"]);
    assert_eq!(done[0]["Well"], true);
    assert!(Path::new(done[0]["SetAside"].as_str().expect("text")).is_file());
}
