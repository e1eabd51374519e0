//! Operations on the union and on the model of its tests, compared after each; with remounts, full
//! disks and compaction among them. What differs is a finding.

#![no_main]

use libfuzzer_sys::{
    arbitrary::{Result, Unstructured},
    fuzz_target,
};
use pellicle_upper::{Chunks, DirOptions};

#[allow(dead_code, reason = "other suites use the rest")]
#[path = "../../../fs/union/tests/support/compare.rs"]
mod compare;
#[allow(dead_code, reason = "other suites use the rest")]
#[path = "../../../fs/union/tests/support/harness.rs"]
mod harness;
#[path = "../../../fs/union/tests/support/operation.rs"]
mod operation;
#[allow(dead_code, reason = "other suites use the rest")]
#[path = "../../../fs/union/tests/support/reference.rs"]
mod reference;
#[path = "../../../fs/union/tests/support/stand.rs"]
mod stand;
#[path = "../../../fs/union/tests/support/mod.rs"]
mod support;

use harness::Harness;
use operation::Op;
use stand::Pair;
use support::real::RealUpper;

/// As long as the random runs of the tests.
const OPS_MAX: usize = 80;

/// Small, so that the few bytes of these files are in several.
fn chunks(input: &mut Unstructured<'_>) -> Result<Chunks> {
    Ok(Chunks {
        whole: input.int_in_range(0..=19)?,
        size: input.int_in_range(1..=16)?,
    })
}

fn pair(input: &mut Unstructured<'_>) -> Result<Pair> {
    Ok(match input.int_in_range(0..=4)? {
        backed @ 0..=1 => Pair::Memory {
            backed: backed == 1,
            chunks: input
                .arbitrary::<bool>()?
                .then(|| chunks(input))
                .transpose()?,
        },
        2 => Pair::Real(RealUpper::Journal(chunks(input)?)),
        // Marks are `trusted.` ones: for root.
        _ if !rustix::process::geteuid().is_root() => {
            Pair::Real(RealUpper::Journal(chunks(input)?))
        }
        redirects => Pair::Real(RealUpper::Dir(DirOptions {
            redirects: Some(redirects == 4),
            volatile: true,
            ..DirOptions::default()
        })),
    })
}

fn op(u: &mut Unstructured<'_>) -> Result<Op> {
    let plain = plain(u)?;
    Ok(match plain {
        Op::Remount { .. } => plain,
        _ if u.ratio(1, 9)? => Op::Full {
            after: u.int_in_range(0..=1)?,
            op: Box::new(plain),
        },
        _ => plain,
    })
}

fn plain(u: &mut Unstructured<'_>) -> Result<Op> {
    let node = u.arbitrary()?;
    let mut up_to = |n: u8| u.int_in_range(0..=n);
    Ok(match up_to(18)? {
        0 => Op::Make {
            dir: node,
            name: up_to(3)?,
            kind: up_to(3)?,
            perm: up_to(3)?,
        },
        1 => Op::Link {
            node,
            dir: up_to(255)?,
            name: up_to(3)?,
        },
        2 => Op::Unlink {
            dir: node,
            name: up_to(3)?,
        },
        3 => Op::Rmdir {
            dir: node,
            name: up_to(3)?,
        },
        4 => Op::Rename {
            from: node,
            a: up_to(3)?,
            to: up_to(255)?,
            b: up_to(3)?,
            flags: up_to(4)?,
        },
        5 => Op::Write {
            node,
            offset: up_to(4)?,
            len: up_to(3)?,
            byte: 1 + up_to(7)?,
            kill: up_to(1)? == 1,
        },
        6 => Op::Truncate {
            node,
            size: up_to(4)?,
        },
        7 => Op::Allocate {
            node,
            mode: up_to(5)?,
            offset: up_to(4)?,
            len: 1 + up_to(2)?,
        },
        8 => Op::Copy {
            from: node,
            at: up_to(4)?,
            to: up_to(255)?,
            to_at: up_to(4)?,
            len: 1 + up_to(2)?,
        },
        9 => Op::Chmod {
            node,
            perm: up_to(5)?,
        },
        10 => Op::Chown {
            node,
            who: up_to(2)?,
        },
        11 => Op::Utimens {
            node,
            time: up_to(255)?,
        },
        12 => Op::SetXattr {
            node,
            name: up_to(2)?,
            value: up_to(2)?,
            flag: up_to(2)?,
        },
        13 => Op::RemoveXattr {
            node,
            name: up_to(2)?,
        },
        14 => Op::Hold { node },
        15 => Op::Release { node },
        16 => Op::ListBegin { dir: node },
        17 => Op::ListMore { n: 1 + up_to(2)? },
        _ => Op::Remount {
            compact: up_to(1)? == 1,
        },
    })
}

fuzz_target!(|input: &[u8]| {
    let mut input = Unstructured::new(input);
    let Ok(pair) = pair(&mut input) else { return };
    let mut ops = Vec::new();
    while !input.is_empty() && ops.len() < OPS_MAX {
        match op(&mut input) {
            Ok(op) => ops.push(op),
            Err(_) => break,
        }
    }
    let mut harness = Harness::new(pair);
    for op in &ops {
        harness.step(op);
    }
    harness.step(&Op::Remount { compact: true });
    harness.step(&Op::Remount { compact: false });
});
