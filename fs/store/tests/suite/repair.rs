//! Damage of every kind, repaired from what is intact, or set aside.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use pellicle_store::{
    Digest, Outcome, Quarantine, Repaired, Sources, Store,
    import::{ImportOptions, import_layer},
};

struct Stand {
    _dir: tempfile::TempDir,
    store: Store,
    /// Two layers: their tars, diff ids and blobs.
    tars: [Vec<u8>; 2],
    layers: [Digest; 2],
    blobs: [Digest; 2],
}

/// Large enough to be an object.
fn text(fill: u8) -> Vec<u8> {
    vec![fill; 40_000]
}

fn tar(names: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in names {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *content).unwrap();
    }
    tar.into_inner().unwrap()
}

impl Stand {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let tars = [
            tar(&[
                ("big", &text(1)),
                ("small", b"inline"),
                ("shared", &text(9)),
            ]),
            tar(&[("other", &text(2)), ("small", b"over"), ("again", &text(9))]),
        ];
        let import = |tar: &Vec<u8>| {
            let zipped = zstd::encode_all(&**tar, 1).unwrap();
            import_layer(&store, &*zipped, &ImportOptions::default(), &()).unwrap()
        };
        let made = [import(&tars[0]), import(&tars[1])];
        let layers = [made[0].diff_id, made[1].diff_id];
        store.image_tree(&layers).unwrap();
        Self {
            _dir: dir,
            layers,
            blobs: [made[0].blob, made[1].blob],
            tars,
            store,
        }
    }

    fn sources(&self) -> Sources {
        let blobs = self.layers.iter().zip(self.blobs);
        Sources {
            blobs: blobs.map(|(l, b)| (*l, BTreeSet::from([b]))).collect(),
            stacks: vec![self.layers.to_vec()],
        }
    }

    fn image(&self) -> Digest {
        Digest::chain(&self.layers).unwrap()
    }

    fn object(&self, fill: u8) -> PathBuf {
        self.store.objects().path(&Digest::of(&text(fill)))
    }

    fn repair_with(&self, sources: &Sources) -> Vec<Repaired> {
        self.store.open_directories().unwrap();
        let report = self.store.verify(&mut |_, _| ()).unwrap();
        let quarantine = Quarantine::new(self.store.root(), "2026-01-02T03:04:05Z".to_owned());
        self.store
            .repair(&report.damaged, sources, &quarantine, &|_| ())
            .unwrap()
    }

    fn repair(&self) -> Vec<Repaired> {
        self.repair_with(&self.sources())
    }

    fn assert_well(&self) {
        let report = self.store.verify(&mut |_, _| ()).unwrap();
        assert_eq!((report.damaged, report.directories), (vec![], vec![]));
        assert_eq!((report.objects, report.trees, report.blobs), (3, 3, 2));
    }

    /// The contents that the quarantine has, by what they are.
    fn aside(&self) -> Vec<(String, Vec<u8>)> {
        let mut all = Vec::new();
        let mut dirs = vec![self.store.root().join("quarantine")];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                } else if let Ok(bytes) = fs::read(&path) {
                    let parent = path.parent().unwrap().file_name().unwrap();
                    all.push((parent.to_string_lossy().into_owned(), bytes));
                }
            }
        }
        all
    }
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    replace(path, &bytes);
}

/// Not in place: others may have a link to it.
fn replace(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn restored(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Restored(_))
}

#[test]
fn every_damage_of_an_object_is_repaired_from_a_blob() {
    let kinds: [&dyn Fn(&Path); 8] = [
        &|path| flip(path, 39_999),
        &|path| replace(path, &text(1)[..39_000]),
        &|path| replace(path, b""),
        &|path| fs::remove_file(path).unwrap(),
        &|path| mode(path, 0),
        &|path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        },
        &|path| {
            fs::remove_file(path).unwrap();
            symlink("/dev/zero", path).unwrap();
        },
        &|path| {
            fs::remove_file(path).unwrap();
            let mode = rustix::fs::Mode::from_raw_mode(0o644);
            rustix::fs::mkfifoat(rustix::fs::CWD, path, mode).unwrap();
        },
    ];
    for (n, damage) in kinds.iter().enumerate() {
        let stand = Stand::new();
        let path = stand.object(1);
        damage(&path);
        let report = stand.store.verify(&mut |_, _| ()).unwrap();
        assert_eq!(report.damaged.len(), 1, "kind {n}");
        let mut users = vec![stand.layers[0], stand.image()];
        users.sort();
        let mut found = report.damaged[0].used_by.clone();
        found.sort();
        assert_eq!(found, users, "kind {n}");
        let done = stand.repair();
        assert_eq!(done.len(), 1, "kind {n}");
        assert!(restored(&done[0].outcome), "kind {n}: {done:?}");
        stand.assert_well();
        assert_eq!(fs::read(&path).unwrap(), text(1));
        let kept = done[0].aside.is_some();
        assert_eq!(
            kept,
            !matches!(n, 3 | 4),
            "kind {n}: what there was is kept"
        );
    }
}

#[test]
fn what_a_running_container_has_open_stays_as_it_is() {
    use std::io::Read as _;

    let stand = Stand::new();
    flip(&stand.object(1), 5);
    let mut open = fs::File::open(stand.object(1)).unwrap();
    let tree = stand.store.tree(&stand.layers[0]).unwrap();
    let _mount = stand.store.lock_shared().unwrap();
    assert!(stand.repair().iter().all(|r| restored(&r.outcome)));
    let mut bytes = Vec::new();
    open.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len(), 40_000);
    tree.check().unwrap();
    stand.assert_well();
}

#[test]
fn every_damage_of_a_tree_is_repaired_from_its_blob_or_its_layers() {
    type Damaging<'a> = &'a dyn Fn(&Path);
    let kinds: [(&str, Damaging<'_>); 6] = [
        ("header", &|path| flip(path, 50)),
        ("body", &|path| flip(path, 4100)),
        ("inline content", &|path| {
            let bytes = fs::read(path).unwrap();
            let at = bytes.windows(6).position(|w| w == b"inline");
            let at = at.or_else(|| bytes.windows(4).position(|w| w == b"over"));
            flip(path, at.unwrap());
        }),
        ("truncated", &|path| {
            let bytes = fs::read(path).unwrap();
            replace(path, &bytes[..bytes.len() / 2]);
        }),
        ("emptied", &|path| replace(path, b"")),
        ("mode", &|path| mode(path, 0o200)),
    ];
    for (name, damage) in kinds {
        let stand = Stand::new();
        let trees = [stand.layers[0], stand.layers[1], stand.image()];
        let whole = trees.map(|id| fs::read(stand.store.tree_path(&id)).unwrap());
        for id in trees {
            damage(&stand.store.tree_path(&id));
        }
        let done = stand.repair();
        assert_eq!(done.len(), 3, "{name}");
        assert!(
            done.iter().all(|r| restored(&r.outcome)),
            "{name}: {done:?}"
        );
        stand.assert_well();
        for (id, bytes) in trees.iter().zip(whole) {
            let now = fs::read(stand.store.tree_path(id)).unwrap();
            assert!(now == bytes, "{name}: byte for byte");
        }
    }
}

#[test]
fn what_cannot_be_made_again_is_set_aside_and_comes_back_by_an_import() {
    let stand = Stand::new();
    flip(&stand.object(1), 0);
    flip(&stand.store.tree_path(&stand.layers[1]), 4100);
    let damaged = fs::read(stand.object(1)).unwrap();
    for blob in &stand.blobs {
        flip(&stand.store.blobs().path(blob), 30);
    }
    let done = stand.repair();
    assert_eq!(done.len(), 4);
    for one in &done {
        assert!(matches!(one.outcome, Outcome::Lost(_)), "{one:?}");
        assert!(!one.damage.path.exists());
        assert!(one.aside.as_ref().unwrap().is_file());
    }
    assert!(stand.aside().contains(&("objects".into(), damaged)));
    let report = stand.aside();
    let report = report
        .iter()
        .find(|(_, b)| b.starts_with(b"{\"from\""))
        .unwrap();
    let lines = String::from_utf8(report.1.clone()).unwrap();
    for one in &done {
        assert!(lines.contains(&one.damage.id.hex()), "{lines}");
        assert!(lines.contains("2026-01-02T03:04:05Z"));
    }
    // Nothing new to find but that it is missing.
    let again = stand.store.verify(&mut |_, _| ()).unwrap();
    assert_eq!(again.damaged.len(), 1);
    assert_eq!(again.damaged[0].detail, "it is not there");

    for tar in &stand.tars {
        let zipped = zstd::encode_all(&**tar, 1).unwrap();
        import_layer(&stand.store, &*zipped, &ImportOptions::default(), &()).unwrap();
    }
    stand.assert_well();
}

#[test]
fn a_plain_copy_of_the_same_bytes_is_used() {
    let stand = Stand::new();
    // A content that is a blob too, and one that an earlier repair could not read.
    stand.store.blobs().put(&text(1)).unwrap();
    let nothing = Sources::default();
    flip(&stand.object(1), 3);
    let done = stand.repair_with(&nothing);
    assert!(restored(&done[0].outcome), "{done:?}");
    stand.store.blobs().remove(&Digest::of(&text(1))).unwrap();

    let old = stand.store.root().join("quarantine/earlier/blobs");
    fs::create_dir_all(&old).unwrap();
    let blob = stand.store.blobs().path(&stand.blobs[0]);
    fs::copy(&blob, old.join(stand.blobs[0].hex())).unwrap();
    fs::remove_file(&blob).unwrap();
    fs::write(&blob, "not it").unwrap();
    let done = stand.repair_with(&nothing);
    assert!(restored(&done[0].outcome), "{done:?}");
    stand.assert_well();
}

#[test]
fn what_nobody_needs_is_set_aside_and_not_missed() {
    let stand = Stand::new();
    let stray = stand.store.objects().put(&text(77)).unwrap();
    flip(&stand.store.objects().path(&stray), 1);
    flip(&stand.store.tree_path(&stand.layers[1]), 4100);
    let mut sources = stand.sources();
    sources.blobs.clear();
    sources.stacks.clear();
    let done = stand.repair_with(&sources);
    assert!(
        done.iter().all(|r| r.outcome == Outcome::NotNeeded),
        "{done:?}"
    );
    assert!(done.iter().all(|r| r.outcome.is_well()));
}

#[test]
fn directories_that_lock_their_owner_out_are_named_and_opened() {
    let stand = Stand::new();
    let object = stand.object(1);
    let dir = object.parent().unwrap();
    for path in [dir, &stand.store.root().join("trees")] {
        mode(path, 0);
        let report = stand.store.verify(&mut |_, _| ()).unwrap();
        assert_eq!(report.directories.len(), 1);
        assert_eq!(report.directories[0].path, path);
        assert_eq!(stand.store.open_directories().unwrap().len(), 1);
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o755);
        stand.assert_well();
    }
}

#[test]
fn a_repair_that_was_killed_is_gone_on_with() {
    let stand = Stand::new();
    // Kept already, and still in its place: as after a kill between the two.
    flip(&stand.object(1), 3);
    let dir = stand.store.root().join("quarantine/killed-1/objects");
    fs::create_dir_all(&dir).unwrap();
    fs::hard_link(stand.object(1), dir.join(Digest::of(&text(1)).hex())).unwrap();
    // Taken away, and nothing in its place yet.
    let tree = stand.store.tree_path(&stand.image());
    fs::remove_file(&tree).unwrap();
    let done = stand.repair();
    assert!(done.iter().all(|r| restored(&r.outcome)), "{done:?}");
    stand.store.image_tree(&stand.layers).unwrap();
    stand.assert_well();
}

#[test]
fn two_repairs_do_not_run_at_once_and_a_collection_waits() {
    let stand = Stand::new();
    let exclusive = stand.store.lock_exclusive().unwrap();
    drop(exclusive);
    let lock = fs::File::create(stand.store.root().join("locks/repair")).unwrap();
    lock.lock().unwrap();
    let quarantine = Quarantine::new(stand.store.root(), "now".to_owned());
    let refused = stand
        .store
        .repair(&[], &stand.sources(), &quarantine, &|_| ());
    assert!(refused.is_err(), "{refused:?}");
    drop(lock);
    stand
        .store
        .repair(&[], &stand.sources(), &quarantine, &|_| ())
        .unwrap();
    assert_eq!(quarantine.dir(), None, "nothing was set aside");
}
