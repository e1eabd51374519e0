//! Random operations on the union and on a simple model, the whole tree compared after each.
//!
//! Remounts (which are what `kill -9` leaves: everything acknowledged and nothing else), a full
//! disk at any host call, compaction, files that are open without a name, and a listing that goes
//! on while names change are operations like any other.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helper fails the test"
)]

#[path = "support/compare.rs"]
mod compare;
#[path = "support/harness.rs"]
mod harness;
#[path = "support/operation.rs"]
mod operation;
#[path = "support/reference.rs"]
mod reference;
#[path = "support/stand.rs"]
mod stand;
mod support;

use harness::Harness;
use operation::Op;
use pellicle_upper::{Chunks, DirOptions};
use proptest::{prelude::*, test_runner::FileFailurePersistence};
use stand::Pair;
use support::real::RealUpper;

fn run(ops: &[Op], pair: Pair) {
    let mut harness = Harness::new(pair);
    for op in ops {
        harness.step(op);
    }
    harness.step(&Op::Remount { compact: true });
    harness.step(&Op::Remount { compact: false });
}

/// As containers have them, and so that nearly every change is over the edge of one. None of the tree's
/// files is large enough for the first.
fn any_chunks() -> impl Strategy<Value = Chunks> {
    let size = prop_oneof![Just(1), Just(4), Just(64), Just(4096)];
    prop_oneof![
        1 => Just(Chunks::default()),
        5 => (size, 0..20u64).prop_map(|(size, whole)| Chunks { whole, size }),
    ]
}

fn any_op() -> impl Strategy<Value = Op> {
    use Op::*;
    let plain = prop_oneof![
        6 => (any::<u8>(), 0..4u8, 0..4u8, 0..4u8).prop_map(|(dir, name, kind, perm)| Make { dir, name, kind, perm }),
        2 => (any::<u8>(), any::<u8>(), 0..4u8).prop_map(|(node, dir, name)| Link { node, dir, name }),
        3 => (any::<u8>(), 0..4u8).prop_map(|(dir, name)| Unlink { dir, name }),
        3 => (any::<u8>(), 0..4u8).prop_map(|(dir, name)| Rmdir { dir, name }),
        6 => (any::<u8>(), 0..4u8, any::<u8>(), 0..4u8, 0..5u8)
            .prop_map(|(from, a, to, b, flags)| Rename { from, a, to, b, flags }),
        5 => (any::<u8>(), 0..5u8, 0..4u8, 1..9u8, any::<bool>())
            .prop_map(|(node, offset, len, byte, kill)| Write { node, offset, len, byte, kill }),
        4 => (any::<u8>(), 0..5u8).prop_map(|(node, size)| Truncate { node, size }),
        2 => (any::<u8>(), 0..6u8, 0..5u8, 1..4u8)
            .prop_map(|(node, mode, offset, len)| Allocate { node, mode, offset, len }),
        2 => (any::<u8>(), 0..5u8, any::<u8>(), 0..5u8, 1..4u8)
            .prop_map(|(from, at, to, to_at, len)| Copy { from, at, to, to_at, len }),
        2 => (any::<u8>(), 0..6u8).prop_map(|(node, perm)| Chmod { node, perm }),
        1 => (any::<u8>(), 0..3u8).prop_map(|(node, who)| Chown { node, who }),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(node, time)| Utimens { node, time }),
        3 => (any::<u8>(), 0..3u8, 0..3u8, 0..3u8)
            .prop_map(|(node, name, value, flag)| SetXattr { node, name, value, flag }),
        2 => (any::<u8>(), 0..3u8).prop_map(|(node, name)| RemoveXattr { node, name }),
        3 => any::<u8>().prop_map(|node| Hold { node }),
        2 => any::<u8>().prop_map(|node| Release { node }),
        2 => any::<u8>().prop_map(|dir| ListBegin { dir }),
        4 => (1..4u8).prop_map(|n| ListMore { n }),
        1 => any::<bool>().prop_map(|compact| Remount { compact }),
    ];
    (
        plain,
        prop_oneof![8 => Just(None), 1 => (0..2u8).prop_map(Some)],
    )
        .prop_map(|(op, full)| match full {
            Some(after) if !matches!(op, Remount { .. }) => Full {
                after,
                op: Box::new(op),
            },
            _ => op,
        })
}

proptest! {
    #![proptest_config(ProptestConfig {
        // 256 cases; PROPTEST_CASES for more.
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/model.seeds"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_union_is_what_the_model_is(
        ops in prop::collection::vec(any_op(), 1..80),
        backed in any::<bool>(),
        chunks in prop::option::of(any_chunks()),
    ) {
        run(&ops, Pair::Memory { backed, chunks });
    }

    #[test]
    fn the_union_of_a_tree_and_a_journal_is_what_the_model_is(
        ops in prop::collection::vec(any_op(), 1..80),
        chunks in any_chunks(),
    ) {
        run(&ops, Pair::Real(RealUpper::Journal(chunks)));
    }

    // Marks are `trusted.` ones: for root.
    #[test]
    fn the_union_of_a_tree_and_a_directory_is_what_the_model_is(
        ops in prop::collection::vec(any_op(), 1..80),
        redirects in any::<bool>(),
    ) {
        let options = DirOptions {
            redirects: Some(redirects),
            volatile: true,
            ..DirOptions::default()
        };
        run(&ops, Pair::Real(RealUpper::Dir(options)));
    }
}

/// Found by the random run: a compacted log had forgotten the highest number.
#[test]
fn a_number_is_not_given_again_after_compaction_and_remount() {
    let make = |name| Op::Make {
        dir: 0,
        name,
        kind: 0,
        perm: 0,
    };
    run(
        &[
            make(3),
            Op::Unlink { dir: 0, name: 3 },
            Op::Remount { compact: true },
            Op::Remount { compact: false },
            make(2),
            make(3),
        ],
        Pair::Memory {
            backed: false,
            chunks: None,
        },
    );
}
