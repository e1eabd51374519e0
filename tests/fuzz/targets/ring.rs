//! Requests over the ring as no kernel would send them, to a union in memory.
//!
//! An input is a row of requests: opcode, node, how much of an operation's structure and of the
//! payload is given, and both.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::{
    arbitrary::{Result, Unstructured},
    fuzz_target,
};
use pellicle_fuse::fuzzing::Requests;
use pellicle_fuzz::{limit_files, tour};
use pellicle_sys::fuse_ring::{HEADER, OPERATION, Parts};
use pellicle_union::Ino;

#[path = "../../../fs/union/tests/support/mod.rs"]
mod support;

use support::{lower::MemLower, upper::MemUpper};

/// Where `struct fuse_in_header` has the opcode and the node.
const OPCODE: usize = 4;
const NODE: usize = 16;
const PAYLOAD: usize = 8192;
const REQUESTS_MAX: usize = 24;

fn sample() -> Arc<MemLower> {
    let mut tree = MemLower::new();
    let dir = tree.dir(Ino::ROOT, "dir");
    tree.file(dir, "file", b"content");
    tree.symlink(Ino::ROOT, "link", "dir/file");
    Arc::new(tree)
}

fn send(requests: &Requests, input: &mut Unstructured<'_>) -> Result<()> {
    let mut header = [0; HEADER];
    let mut operation = [0; OPERATION];
    let mut payload = vec![0; PAYLOAD];
    header[OPCODE] = input.arbitrary()?;
    header[NODE] = input.arbitrary()?;
    let lengths: [u8; 2] = input.arbitrary()?;
    let op = usize::from(lengths[0]).min(OPERATION);
    input.fill_buffer(&mut operation[..op])?;
    let given = usize::from(lengths[1]);
    input.fill_buffer(&mut payload[..given])?;
    // A length may also lie.
    let length = if input.ratio(1, 16)? {
        usize::from(input.arbitrary::<u16>()?)
    } else {
        given
    };
    let parts = Parts {
        header: &header,
        operation: &operation,
        payload: &mut payload,
        length,
    };
    if let Ok(used) = requests.answer(parts) {
        assert!(used <= PAYLOAD, "an answer of {used} bytes");
    }
    Ok(())
}

fuzz_target!(init: limit_files(1 << 20), |input: &[u8]| {
    let mut input = Unstructured::new(input);
    let upper = MemUpper::new();
    let lower = sample();
    let union = Arc::new(support::open(&lower, &upper));
    let requests = Requests::new(Arc::clone(&union));
    for _ in 0..REQUESTS_MAX {
        if input.is_empty() || send(&requests, &mut input).is_err() {
            break;
        }
    }
    let _ = tour(&union);
    drop((requests, union));
    let _ = tour(&support::open(&lower, &upper));
});
