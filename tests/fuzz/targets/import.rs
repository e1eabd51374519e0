//! A layer from anyone: an error, or a layer that is whole; and nothing outside the store is touched.
//!
//! The first byte of an input: bits 0 and 1, the rest is the stream itself, or the short form of a
//! tar that is given as it is, by gzip, or by zstd.

#![no_main]

use std::{
    fs,
    io::Write as _,
    path::Path,
    sync::{Arc, LazyLock},
};

use libfuzzer_sys::fuzz_target;
use pellicle_fuzz::{forge_tar, limit_files, scratch, tour};
use pellicle_layer::TreeLower;
use pellicle_store::{
    Roots, Store,
    import::{ImportOptions, import_layer},
};
use pellicle_union::{Options, Union};

fn stream(how: u8, rest: &[u8]) -> Vec<u8> {
    match how & 3 {
        0 => rest.to_vec(),
        1 => forge_tar(rest),
        2 => {
            let fast = flate2::Compression::fast();
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), fast);
            gzip.write_all(&forge_tar(rest)).expect("memory takes it");
            gzip.finish().expect("memory takes it")
        }
        _ => zstd::encode_all(&*forge_tar(rest), 1).expect("memory takes it"),
    }
}

/// A store that all runs share, and beside it what an import must not find its way to.
static STAND: LazyLock<(tempfile::TempDir, Store)> = LazyLock::new(|| {
    let top = scratch();
    fs::write(top.path().join("beside"), "not to be touched").expect("room");
    let store = Store::open(&top.path().join("store")).expect("a store");
    (top, store)
});

fn assert_untouched(top: &Path) {
    let mut names: Vec<_> = fs::read_dir(top)
        .expect("the directory is there")
        .map(|entry| entry.expect("it can be listed").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["beside", "store"], "an import made something");
    let beside = fs::read(top.join("beside")).expect("it is there");
    assert_eq!(beside, b"not to be touched");
}

fuzz_target!(init: limit_files(64 << 20), |input: &[u8]| {
    let Some((how, rest)) = input.split_first() else {
        return;
    };
    let (top, store) = &*STAND;
    let source = stream(*how, rest);
    let imported = import_layer(store, &*source, &ImportOptions::default(), &());
    if let Ok(layer) = imported {
        let report = store.verify(&mut |_, _| {}).expect("the store can be listed");
        assert_eq!(report.damaged, [], "an import left damage");
        let image = store.image_tree(&[layer.diff_id]).expect("an image of it");
        let lower = Arc::new(TreeLower::new(image, store));
        let (union, _) = Union::open(lower, None, Options { read_only: true }).expect("a union");
        let _ = tour(&union);
    }
    // Each run finds an empty store, and what a refused import left goes as well.
    store.collect(&Roots::default(), false).expect("it can be emptied");
    assert_untouched(top.path());
});
