//! No bytes, however damaged or forged, do more than give an error.

use std::sync::LazyLock;

use pellicle_store::{Tree, TreeError};
use proptest::prelude::*;

use crate::{
    common::{everything, header, walk},
    forged::{seal, u64_at, use_it},
};

static FILE: LazyLock<Vec<u8>> = LazyLock::new(|| everything().finish(&header("golden")).unwrap());

#[test]
fn every_single_flipped_bit_is_noticed() {
    for at in 0..FILE.len() {
        let mut file = FILE.clone();
        file[at] ^= 1 << (at % 8);
        let outcome = Tree::from_bytes(file).and_then(|t| walk(&t));
        assert!(outcome.is_err(), "byte {at}");
    }
}

#[test]
fn every_truncation_and_anything_added_is_noticed() {
    for len in 0..FILE.len() {
        assert!(
            Tree::from_bytes(FILE[..len].to_vec()).is_err(),
            "{len} bytes"
        );
    }
    let mut longer = FILE.clone();
    longer.push(0);
    assert!(matches!(
        Tree::from_bytes(longer),
        Err(TreeError::Damaged { .. })
    ));
}

#[test]
fn errors_say_what_kind_of_file_it_is() {
    let err = |bytes: Vec<u8>| Tree::from_bytes(bytes).unwrap_err();
    assert!(matches!(err(vec![]), TreeError::NotATree { .. }));
    assert!(matches!(
        err(b"#!/bin/sh".to_vec()),
        TreeError::NotATree { .. }
    ));
    let mut newer = FILE.clone();
    newer[8] = 2;
    assert!(matches!(
        err(newer),
        TreeError::Unknown {
            what: "version",
            found: 2,
            ..
        }
    ));
    let mut feature = FILE.clone();
    feature[16] = 4;
    seal(&mut feature);
    assert!(matches!(
        err(feature),
        TreeError::Unknown {
            what: "features",
            found: 4,
            ..
        }
    ));
    let mut compatible = FILE.clone();
    compatible[24] |= 4;
    seal(&mut compatible);
    Tree::from_bytes(compatible).unwrap().check().unwrap();
}

#[test]
fn a_damaged_block_is_named_and_the_others_still_answer() {
    let mut t = everything();
    let root = t.root();
    for i in 0..3000 {
        let node = t.add_node(crate::common::meta(0o644), crate::common::inline(&[7; 100]));
        let name = format!("many-{i:04}");
        t.set_child(root, name.as_bytes(), pellicle_store::Child::Node(node));
    }
    let mut file = t.finish(&header("x")).unwrap();
    let sums_at = u64_at(&file, 96) as usize;
    let block = (sums_at - 1 - 4096) >> 16;
    file[sums_at - 1] ^= 1;
    let tree = Tree::from_bytes(file).unwrap();
    let (ino, _) = tree
        .lookup(pellicle_store::Ino::ROOT, b"many-0001")
        .unwrap()
        .unwrap();
    assert_eq!(tree.attr(ino).unwrap().size, 100);
    match tree.check() {
        Err(TreeError::Damaged { block: Some(b), .. }) => assert_eq!(b, block as u64),
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_damage_is_an_error(
        changes in prop::collection::vec((any::<prop::sample::Index>(), 1..=255u8), 1..6),
        keep in any::<prop::sample::Index>(),
        cut in prop::bool::weighted(0.2),
    ) {
        let mut file = FILE.clone();
        for (at, bits) in changes {
            let at = at.index(file.len());
            file[at] ^= bits;
        }
        if cut {
            file.truncate(keep.index(file.len()));
        }
        if file != *FILE {
            prop_assert!(Tree::from_bytes(file).and_then(|t| t.check()).is_err());
        }
    }

    #[test]
    fn forged_files_with_good_checksums_never_panic_or_run_for_ever(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        in_header in prop::bool::weighted(0.3),
    ) {
        let mut file = FILE.clone();
        let sums_at = u64_at(&file, 96) as usize;
        for (at, value) in changes {
            let at = match in_header {
                true => 120 + at.index(260),
                false => 4096 + at.index(sums_at - 4096),
            };
            file[at] = value;
        }
        seal(&mut file);
        if let Ok(tree) = Tree::from_bytes(file) {
            use_it(&tree);
        }
    }

    #[test]
    fn a_forged_inode_field_never_panics(
        inode in 0..12usize, field in 0..24usize,
        value in prop_oneof![Just(0u32), Just(1), Just(2), Just(u32::MAX), Just(1 << 31), any::<u32>()],
    ) {
        let mut file = FILE.clone();
        let at = 4096 + inode * 96 + field * 4;
        file[at..at + 4].copy_from_slice(&value.to_le_bytes());
        seal(&mut file);
        use_it(&Tree::from_bytes(file).unwrap());
    }
}
