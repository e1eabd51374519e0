//! Requests as the kernel would put them into the buffers, and as it never would.

use super::*;
use std::{io, sync::Arc};

use pellicle_sys::fuse_ring::OPERATION;
use pellicle_union::{Options, Union};
use zerocopy::IntoBytes;

use crate::{ServeOptions, Stats};

#[path = "../../../tests/mount/lower.rs"]
#[allow(
    dead_code,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "shared with the mount tests, which use all of it"
)]
mod lower;
#[path = "../../../tests/mount/upper.rs"]
#[allow(clippy::unwrap_used, reason = "test code")]
mod upper;

struct Stand {
    operations: Operations,
    payload: Vec<u8>,
}

impl Stand {
    fn new() -> Self {
        let mut tree = lower::MemoryLower::new();
        let dir = tree.dir(Ino::ROOT, "dir");
        tree.file(dir, "file", b"content");
        tree.symlink(Ino::ROOT, "link", "dir/file");
        let upper: Box<dyn pellicle_upper::Upper> = Box::new(upper::MemoryUpper::default());
        let options = Options { read_only: false };
        let (union, _) = Union::open(Arc::new(tree), Some(upper), options).unwrap();
        let stats = Arc::new(Stats::default());
        Self {
            operations: Operations::new(Arc::new(union), ServeOptions::default(), stats, 2),
            payload: vec![0; 8192],
        }
    }

    fn send(
        &mut self,
        opcode: u32,
        node: u64,
        operation: &[u8],
        length: usize,
    ) -> Result<Length, Errno> {
        let mut head: InHeader = zerocopy::FromZeros::new_zeroed();
        (head.opcode, head.node) = (opcode, node);
        let mut header = [0xff; HEADER];
        header[..size_of::<InHeader>()].copy_from_slice(head.as_bytes());
        let mut op = [0xff; OPERATION];
        op[..operation.len()].copy_from_slice(operation);
        let context = Context {
            operations: &self.operations,
            register: &|_| Err(io::ErrorKind::Unsupported.into()),
        };
        let parts = Parts {
            header: &header,
            operation: &op,
            payload: &mut self.payload,
            length,
        };
        dispatch(&context, parts)
    }

    fn send_with(
        &mut self,
        opcode: u32,
        node: u64,
        operation: &[u8],
        payload: &[u8],
    ) -> Result<Length, Errno> {
        self.payload[..payload.len()].copy_from_slice(payload);
        self.send(opcode, node, operation, payload.len())
    }

    fn entry(&self) -> wire::EntryOut {
        read(&self.payload).unwrap()
    }
}

#[test]
fn names_and_structures_are_found_where_the_kernel_puts_them() {
    let mut s = Stand::new();
    assert_eq!(
        s.send_with(opcode::LOOKUP, 1, &[], b"dir\0").unwrap(),
        size_of::<wire::EntryOut>()
    );
    let dir = s.entry().node;
    s.send_with(opcode::LOOKUP, dir, &[], b"file\0").unwrap();
    let file = s.entry().node;
    assert_eq!(s.entry().attr.size, 7);
    s.send_with(opcode::LOOKUP, 1, &[], b"missing\0").unwrap();
    assert_eq!(s.entry().node, 0);

    let read_in = ReadIn {
        handle: 0,
        offset: 3,
        size: 4096,
        read_flags: 0,
        lock_owner: 0,
        flags: 0,
        padding: 0,
    };
    let n = s.send(opcode::READ, file, read_in.as_bytes(), 0).unwrap();
    assert_eq!(&s.payload[..n], b"tent");

    let to = Rename2In {
        new_dir: 1,
        flags: 0,
        padding: 0,
    };
    s.send_with(opcode::RENAME2, dir, to.as_bytes(), b"file\0moved\0")
        .unwrap();
    s.send_with(opcode::SYMLINK, 1, &[], b"new\0to here\0")
        .unwrap();
    let new = s.entry().node;
    let n = s.send(opcode::READLINK, new, &[], 0).unwrap();
    assert_eq!(&s.payload[..n], b"to here");

    let x = SetXattrIn { size: 3, flags: 0 };
    s.send_with(opcode::SETXATTR, file, x.as_bytes(), b"user.x\0abcd")
        .unwrap();
    let ask = |size| GetXattrIn { size, padding: 0 };
    let n = s
        .send_with(opcode::GETXATTR, file, ask(0).as_bytes(), b"user.x\0")
        .unwrap();
    assert_eq!((n, s.payload[0]), (8, 3), "the size is asked for");
    let n = s
        .send_with(opcode::GETXATTR, file, ask(9).as_bytes(), b"user.x\0")
        .unwrap();
    assert_eq!(&s.payload[..n], b"abc");
    let short = s.send_with(opcode::GETXATTR, file, ask(2).as_bytes(), b"user.x\0");
    assert_eq!(short.unwrap_err().code(), libc::ERANGE);
}

#[test]
fn what_lacks_its_end_is_refused() {
    let mut s = Stand::new();
    let mut code = |opcode, payload: &[u8]| {
        s.send_with(opcode, 1, &[0; OPERATION], payload)
            .unwrap_err()
            .code()
    };
    for (opcode, payload) in [
        (opcode::LOOKUP, b"dir".as_slice()),
        (opcode::UNLINK, b""),
        (opcode::SYMLINK, b"name\0target"),
        (opcode::RENAME, b"one\0two"),
        (opcode::SETXATTR, b"user.x"),
    ] {
        assert_eq!(code(opcode, payload), libc::EINVAL, "{opcode}");
    }
    // A size beyond what came.
    let mut s = Stand::new();
    let mut write: WriteIn = zerocopy::FromZeros::new_zeroed();
    write.size = 5;
    let e = s.send_with(opcode::WRITE, 3, write.as_bytes(), b"1234");
    assert_eq!(e.unwrap_err().code(), libc::EINVAL);
    let x = SetXattrIn { size: 5, flags: 0 };
    let e = s.send_with(opcode::SETXATTR, 3, x.as_bytes(), b"user.x\0abcd");
    assert_eq!(e.unwrap_err().code(), libc::EINVAL);
    // An opcode of some later kernel.
    let e = s.send(1000, 1, &[], 0);
    assert_eq!(e.unwrap_err().code(), libc::ENOSYS);
}

#[test]
fn no_request_makes_an_answer_longer_than_the_buffer_or_a_panic() {
    let mut s = Stand::new();
    // xorshift64: the same every time.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..50_000 {
        let mut operation = [0; OPERATION];
        for word in operation.chunks_exact_mut(8) {
            // Small numbers mean something more often.
            let mask = if random() % 2 == 0 { 0xff } else { u64::MAX };
            word.copy_from_slice(&(random() & mask).to_ne_bytes());
        }
        let length = (random() % 64) as usize;
        for byte in &mut s.payload[..length] {
            *byte = b"\0ab./\xff"[(random() % 6) as usize];
        }
        let (opcode, node) = ((random() % 60) as u32, random() % 6);
        match s.send(opcode, node, &operation, length) {
            Ok(n) => assert!(n <= s.payload.len(), "opcode {opcode}"),
            // A panic inside of an operation is caught there and becomes EIO.
            Err(e) => assert_ne!(e.code(), libc::EIO, "opcode {opcode}: {operation:?}"),
        }
    }
    assert!(s.operations.stats.total() > 10_000);
}
