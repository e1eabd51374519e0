//! A tree file of anyone's making: opening it and asking everything gives answers or errors.
//!
//! The first byte of an input: even, the rest is the file; odd, its short form.

#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use pellicle_fuzz::{forge_tree, scratch, tour};
use pellicle_layer::TreeLower;
use pellicle_store::{Store, Tree};
use pellicle_union::{Options, Union};

#[allow(dead_code, reason = "the store's tests use all of it")]
#[path = "../../../fs/store/tests/suite/common.rs"]
mod common;
#[allow(dead_code, reason = "the store's tests use all of it")]
#[path = "../../../fs/store/tests/suite/forged.rs"]
mod forged;

/// Without any object: what the tree keeps elsewhere is missing.
static STORE: LazyLock<(tempfile::TempDir, Store)> = LazyLock::new(|| {
    let dir = scratch();
    let store = Store::open(dir.path()).expect("a store");
    (dir, store)
});

fuzz_target!(|input: &[u8]| {
    let Some((first, rest)) = input.split_first() else {
        return;
    };
    let file = match first & 1 {
        0 => rest.to_vec(),
        _ => forge_tree(rest),
    };
    let Ok(tree) = Tree::from_bytes(file) else {
        return;
    };
    forged::use_it(&tree);
    let lower = Arc::new(TreeLower::new(tree, &STORE.1));
    if let Ok((union, _)) = Union::open(lower, None, Options { read_only: true }) {
        let _ = tour(&union);
        let _ = union.differences();
    }
});
