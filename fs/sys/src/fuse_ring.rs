//! One io_uring that carries FUSE requests (`FUSE_IO_URING_CMD_*`, Linux 6.14).
//!
//! Each *entry* is a pair of buffers, one for the headers of a request and one for its payload,
//! that is registered with one of the connection's queues. An entry is at any moment either the
//! kernel's, which writes a request into it when one comes, or ours, from the completion that says
//! so until the answer is handed over. [`Request`] is the latter state: it alone gives references
//! to the buffers, and it cannot outlive its turn. An answer costs no system call by itself: the
//! next [`FuseRing::wait`] hands over all answers and waits for requests in one.
//!
//! Layouts and numbers are those of `include/uapi/linux/fuse.h` (`struct fuse_uring_req_header`,
//! `struct fuse_uring_cmd_req`, `enum fuse_uring_cmd`), the rules those of `fs/fuse/dev_uring.c`.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsRawFd, BorrowedFd},
    ptr::{self, NonNull},
    time::Duration,
};

use io_uring::{IoUring, opcode, squeue, types};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

const REGISTER: u32 = 1;
const COMMIT_AND_FETCH: u32 = 2;

/// Bytes of the generic part of a request's header; `fuse_in_header` is its start.
pub const HEADER: usize = 128;
/// Bytes for the part that belongs to the operation.
pub const OPERATION: usize = 128;
/// Where `struct fuse_uring_ent_in_out` lies, behind both.
const ENTRY_AT: usize = HEADER + OPERATION;
const COMMIT_ID_AT: usize = ENTRY_AT + 8;
const LENGTH_AT: usize = ENTRY_AT + 16;
/// `sizeof(struct fuse_uring_req_header)`.
const HEADERS: usize = ENTRY_AT + 32;
/// From one entry's headers to the next one's: whole cache lines.
const STRIDE: usize = 320;
/// `sizeof(struct fuse_out_header)`.
const OUT_HEADER: usize = 16;
/// Where `unique` lies in `fuse_in_header` and in `fuse_out_header` alike.
const UNIQUE_AT: usize = 8;

const _: () = assert!(STRIDE >= HEADERS && STRIDE.is_multiple_of(64));
const _: () = assert!(size_of::<squeue::Entry128>() == 128);
/// Where `len` lies in `struct io_uring_sqe`.
const SQE_LEN_AT: usize = 24;

/// What completes when the wake-up descriptor becomes readable; no entry has this number.
const WAKE: u64 = u64::MAX;
/// What completes at once, to try out whether entering works.
const PROBE: u64 = u64::MAX - 1;

/// Index of the descriptors in the ring's own table.
const DEVICE: types::Fixed = types::Fixed(0);
const WAKER: types::Fixed = types::Fixed(1);

/// Who may touch an entry's buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    /// Registered or answered: the kernel, at any moment.
    Kernel,
    /// Not registered yet, not any more, or holding a request.
    Us,
}

#[derive(Debug)]
struct Entry {
    queue: u16,
    holder: Holder,
    /// What was asked last, to ask it again.
    command: u32,
    commit_id: u64,
}

/// An io_uring with its entries and their buffers. It stays on the thread that made it: the kernel
/// writes requests into the buffers on that thread.
pub struct FuseRing {
    ring: IoUring<squeue::Entry128>,
    entries: Vec<Entry>,
    /// What the registrations point to; never moved or changed.
    vectors: Box<[[libc::iovec; 2]]>,
    memory: Memory,
    payload: usize,
    /// The registrations are in the submission queue, or were.
    registering: bool,
    stays_here: PhantomData<*mut ()>,
}

/// What [`FuseRing::event`] found.
#[derive(Debug)]
pub enum Event<'r> {
    /// A request, to be answered.
    Request(Request<'r>),
    /// An entry that the kernel will not use any more, with its number and why: `ENOTCONN` and
    /// `ECONNABORTED` when the file system is gone, others when it was not accepted.
    Ended(usize, io::Error),
    /// The wake-up descriptor became readable. Said once.
    Woken,
}

impl FuseRing {
    /// Makes a ring of one entry for each element of `queues`, the number of the queue that it
    /// will belong to, each with `payload` bytes (a multiple of the page size); memory of payloads
    /// is taken from the system only as it is touched. `device` is the `/dev/fuse` descriptor of
    /// the connection, which the ring keeps open; `waker` is what wakes [`FuseRing::wait`] by
    /// becoming readable. Nothing is registered yet, but it is certain that it could be submitted.
    ///
    /// # Errors
    /// The host's: ENOSYS without io_uring, EPERM where it is switched off (`io_uring_disabled`,
    /// seccomp), EMFILE, ENOMEM, EINVAL before Linux 6.1.
    pub fn new(
        device: BorrowedFd<'_>,
        waker: BorrowedFd<'_>,
        queues: &[u16],
        payload: usize,
    ) -> io::Result<Self> {
        // One more for the wake-up. The completion queue is twice that: it cannot overflow, since
        // an entry has one completion at most that was not seen.
        let depth = u32::try_from(queues.len() + 1).map_err(|_| io::ErrorKind::InvalidInput)?;
        let ring = IoUring::<squeue::Entry128>::builder()
            .setup_submit_all()
            .setup_single_issuer()
            .setup_coop_taskrun()
            .build(depth.next_power_of_two())?;
        ring.submitter()
            .register_files(&[device.as_raw_fd(), waker.as_raw_fd()])?;
        let memory = Memory::new(queues.len(), payload)?;
        let vectors = (0..queues.len())
            .map(|index| {
                Ok([
                    vector(memory.headers(index)?, HEADERS),
                    vector(memory.payload(index, payload)?, payload),
                ])
            })
            .collect::<io::Result<_>>()?;
        let entries = queues
            .iter()
            .map(|&queue| Entry {
                queue,
                holder: Holder::Us,
                command: REGISTER,
                commit_id: 0,
            })
            .collect();
        let mut ring = Self {
            ring,
            entries,
            vectors,
            memory,
            payload,
            registering: false,
            stays_here: PhantomData,
        };
        ring.probe()?;
        Ok(ring)
    }

    /// Sends something through the ring that means nothing.
    fn probe(&mut self) -> io::Result<()> {
        self.push(opcode::Nop::new().build().user_data(PROBE).into())?;
        self.ring.submit_and_wait(1)?;
        match self.ring.completion().next() {
            Some(done) if done.user_data() == PROBE && done.result() >= 0 => Ok(()),
            _ => Err(io::ErrorKind::Other.into()),
        }
    }

    /// Registers all entries with the connection, whose INIT must have been answered, and begins
    /// to listen for the wake-up. What the kernel does not accept shows as [`Event::Ended`] in the
    /// calls of [`FuseRing::event`] right after this one.
    ///
    /// # Errors
    /// The host's, when not all could be submitted; calling again goes on.
    pub fn register(&mut self) -> io::Result<()> {
        if !self.registering {
            self.registering = true;
            let poll = opcode::PollAdd::new(WAKER, libc::POLLIN as u32).build();
            self.push(poll.user_data(WAKE).into())?;
            for index in 0..self.entries.len() {
                self.submit_entry(index, REGISTER)?;
            }
        }
        self.ring.submit().map(|_| ())
    }

    /// Hands over all answers; whether there is something for [`FuseRing::event`], without waiting.
    ///
    /// # Errors
    /// The host's. Being interrupted is none.
    pub fn look(&mut self) -> io::Result<bool> {
        match self.ring.submit() {
            Err(e) if e.kind() != io::ErrorKind::Interrupted => Err(e),
            _ => Ok(!self.ring.completion().is_empty()),
        }
    }

    /// Hands over all answers and waits until there is something for [`FuseRing::event`], at most
    /// as long as `patience`; `Ok(false)` if that ran out.
    ///
    /// # Errors
    /// The host's. Being interrupted is none.
    pub fn wait(&mut self, patience: Option<Duration>) -> io::Result<bool> {
        let waited = match patience {
            None => self.ring.submit_and_wait(1),
            Some(patience) => {
                let time = types::Timespec::from(patience);
                let arguments = types::SubmitArgs::new().timespec(&time);
                self.ring.submitter().submit_with_args(1, &arguments)
            }
        };
        match waited {
            Ok(_) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::ETIME) => Ok(false),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(e) => Err(e),
        }
    }

    /// The next thing that happened, without waiting.
    pub fn event(&mut self) -> Option<Event<'_>> {
        loop {
            let done = self.ring.completion().next()?;
            if done.user_data() == WAKE {
                return Some(Event::Woken);
            }
            let index = usize::try_from(done.user_data()).unwrap_or(usize::MAX);
            let Some(entry) = self.entries.get_mut(index) else {
                continue;
            };
            entry.holder = Holder::Us;
            match -done.result() {
                0 => {
                    entry.commit_id = self.memory.get_u64(index, COMMIT_ID_AT);
                    return Some(Event::Request(Request {
                        ring: self,
                        index,
                        answered: false,
                    }));
                }
                libc::EAGAIN | libc::EINTR => {
                    let command = entry.command;
                    if let Err(e) = self.submit_entry(index, command) {
                        return Some(Event::Ended(index, e));
                    }
                }
                errno => return Some(Event::Ended(index, io::Error::from_raw_os_error(errno))),
            }
        }
    }

    /// The queue that entry `index` belongs to.
    #[must_use]
    pub fn queue_of(&self, index: usize) -> Option<u16> {
        self.entries.get(index).map(|entry| entry.queue)
    }

    /// Gives the memory of payloads beyond their first `keep` bytes back to the system, where the
    /// kernel has no request in them. What it writes there next takes new memory.
    ///
    /// # Errors
    /// The host's.
    pub fn trim(&mut self, keep: usize) -> io::Result<()> {
        let keep = keep.next_multiple_of(rustix::param::page_size());
        if keep >= self.payload {
            return Ok(());
        }
        for index in 0..self.entries.len() {
            let start = self.memory.payload(index, self.payload)?;
            // SAFETY: the range lies inside this entry's payload. Without a request in it nobody
            // relies on its bytes: `trim` takes the ring exclusively, so there is no `Request` of
            // ours, and into an entry that the kernel holds it only writes, which then finds new
            // zero pages.
            unsafe {
                let start = start.as_ptr().add(keep).cast();
                madvise(start, self.payload - keep, Advice::LinuxDontNeed)?;
            }
        }
        Ok(())
    }

    fn submit_entry(&mut self, index: usize, command: u32) -> io::Result<()> {
        let Some(entry) = self.entries.get_mut(index) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let Some(vectors) = self.vectors.get(index) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        entry.command = command;
        // struct fuse_uring_cmd_req: flags, commit id, queue, padding.
        let mut request = [0; 80];
        put(&mut request, 8, &entry.commit_id.to_ne_bytes());
        put(&mut request, 16, &entry.queue.to_ne_bytes());
        let mut sqe = opcode::UringCmd80::new(DEVICE, command)
            .cmd(request)
            .addr(Some(vectors.as_ptr().expose_provenance() as u64))
            .build()
            .user_data(index as u64);
        // SAFETY: an Entry128 is, in `repr(C)`, the kernel's `struct io_uring_sqe` of 128 bytes
        // (asserted above), whose `len` is the aligned u32 at offset 24; the crate has no setter
        // for it. The reference to `sqe` is unique.
        unsafe {
            ptr::from_mut(&mut sqe)
                .cast::<u8>()
                .add(SQE_LEN_AT)
                .cast::<u32>()
                .write(2);
        }
        entry.holder = Holder::Kernel;
        let pushed = self.push(sqe);
        if pushed.is_err()
            && let Some(entry) = self.entries.get_mut(index)
        {
            entry.holder = Holder::Us;
        }
        pushed
    }

    fn push(&mut self, sqe: squeue::Entry128) -> io::Result<()> {
        if self.ring.submission().is_full() {
            self.ring.submit()?;
        }
        // SAFETY: what the submission points to (the vectors, the buffers they name) lives as long
        // as the ring, and stays mapped as long as the kernel may use it (`Drop`). A buffer is in
        // the kernel's hands from here on: `Holder::Kernel` was set, no reference to it exists.
        unsafe { self.ring.submission().push(&sqe) }.map_err(|_| io::ErrorKind::WouldBlock.into())
    }
}

impl std::fmt::Debug for FuseRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FuseRing")
            .field("entries", &self.entries)
            .field("payload", &self.payload)
            .finish_non_exhaustive()
    }
}

impl Drop for FuseRing {
    fn drop(&mut self) {
        if self.entries.iter().any(|e| e.holder == Holder::Kernel) {
            // The ring closes after this and takes its entries back from the connection, but when
            // exactly is the kernel's business: memory that it may still write to is not reused.
            self.memory.leak();
        }
    }
}

/// A request that waits for its answer. Dropped without one it is answered with EIO.
#[derive(Debug)]
pub struct Request<'r> {
    ring: &'r mut FuseRing,
    index: usize,
    answered: bool,
}

/// What a request consists of. Its payload is also where the answer's goes.
#[derive(Debug)]
pub struct Parts<'a> {
    /// Starts with `fuse_in_header`.
    pub header: &'a [u8; HEADER],
    /// Starts with the operation's own structure, if it has one; what follows is left over from
    /// earlier requests.
    pub operation: &'a [u8; OPERATION],
    /// The whole buffer.
    pub payload: &'a mut [u8],
    /// How many bytes of it belong to the request.
    pub length: usize,
}

impl Request<'_> {
    /// The buffers.
    pub fn parts(&mut self) -> Parts<'_> {
        let payload = self.ring.payload;
        let length = self.ring.memory.get_u32(self.index, LENGTH_AT) as usize;
        // SAFETY: the entry is ours (its completion was seen, its answer not yet handed over), so
        // neither the kernel nor, `self` being borrowed exclusively, anyone here touches its
        // buffers while the references live; they are in range, initialised memory, and disjoint.
        unsafe {
            let headers = self.ring.memory.headers_at(self.index);
            Parts {
                header: headers.cast::<[u8; HEADER]>().as_ref(),
                operation: headers.add(HEADER).cast::<[u8; OPERATION]>().as_ref(),
                payload: std::slice::from_raw_parts_mut(
                    self.ring.memory.payload_at(self.index, payload).as_ptr(),
                    payload,
                ),
                length: length.min(payload),
            }
        }
    }

    /// Answers with `errno` (0: success) and, if that is 0, the first `length` bytes of the payload.
    pub fn answer(mut self, errno: i32, length: usize) {
        self.commit(errno, length);
    }

    fn commit(&mut self, errno: i32, length: usize) {
        self.answered = true;
        let length = if errno == 0 {
            length.min(self.ring.payload)
        } else {
            0
        };
        // Lengths are those of a payload: far below 4 GiB.
        let length = u32::try_from(length).unwrap_or(0);
        let memory = &mut self.ring.memory;
        let unique = memory.get_u64(self.index, UNIQUE_AT);
        memory.put(
            self.index,
            0,
            &(length.saturating_add(OUT_HEADER as u32)).to_ne_bytes(),
        );
        memory.put(self.index, 4, &errno.saturating_neg().to_ne_bytes());
        memory.put(self.index, UNIQUE_AT, &unique.to_ne_bytes());
        memory.put(self.index, LENGTH_AT, &length.to_ne_bytes());
        // The submission queue has room for every entry, so this cannot fail; if it did, the
        // request would stay unanswered and end with the connection.
        let _ = self.ring.submit_entry(self.index, COMMIT_AND_FETCH);
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.commit(libc::EIO, 0);
        }
    }
}

/// The buffers of all entries: first all headers, then, from a page boundary on, all payloads.
struct Memory {
    base: NonNull<u8>,
    payloads_at: usize,
    length: usize,
    entries: usize,
    leaked: bool,
}

impl Memory {
    fn new(entries: usize, payload: usize) -> io::Result<Self> {
        let too_large = || io::Error::from(io::ErrorKind::OutOfMemory);
        let page = rustix::param::page_size();
        if payload == 0 || !payload.is_multiple_of(page) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let payloads_at = entries
            .checked_mul(STRIDE)
            .and_then(|n| n.max(1).checked_next_multiple_of(page))
            .ok_or_else(too_large)?;
        let length = entries
            .checked_mul(payload)
            .and_then(|n| n.checked_add(payloads_at))
            .filter(|&n| isize::try_from(n).is_ok())
            .ok_or_else(too_large)?;
        // SAFETY: new memory at an address of the kernel's choice touches none that is in use.
        let base = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        let base = NonNull::new(base.cast()).ok_or_else(too_large)?;
        Ok(Self {
            base,
            payloads_at,
            length,
            entries,
            leaked: false,
        })
    }

    fn headers(&self, index: usize) -> io::Result<NonNull<u8>> {
        if index >= self.entries {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: `index` is below the number of entries that the mapping was made for.
        Ok(unsafe { self.headers_at(index) })
    }

    fn payload(&self, index: usize, payload: usize) -> io::Result<NonNull<u8>> {
        if index >= self.entries {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: as above.
        Ok(unsafe { self.payload_at(index, payload) })
    }

    /// # Safety
    /// `index` is below the number of entries.
    unsafe fn headers_at(&self, index: usize) -> NonNull<u8> {
        // SAFETY: the caller's promise keeps this inside the mapping.
        unsafe { self.base.add(index * STRIDE) }
    }

    /// # Safety
    /// `index` is below the number of entries, `payload` the size that the mapping was made for.
    unsafe fn payload_at(&self, index: usize, payload: usize) -> NonNull<u8> {
        // SAFETY: the caller's promise keeps this inside the mapping.
        unsafe { self.base.add(self.payloads_at + index * payload) }
    }

    /// Where `length` bytes at `at` of entry `index`'s headers lie.
    fn field(&self, index: usize, at: usize, length: usize) -> Option<NonNull<u8>> {
        let end = at.checked_add(length)?;
        if index >= self.entries || end > HEADERS {
            return None;
        }
        // SAFETY: just checked to lie inside this entry's headers.
        Some(unsafe { self.headers_at(index).add(at) })
    }

    fn get<const N: usize>(&self, index: usize, at: usize) -> [u8; N] {
        match self.field(index, at, N) {
            // SAFETY: in range, initialised (mappings begin as zeros), any bytes are a valid array,
            // whose alignment is 1. Callers read entries that are ours.
            Some(field) => unsafe { field.cast::<[u8; N]>().read() },
            None => [0; N],
        }
    }

    fn get_u64(&self, index: usize, at: usize) -> u64 {
        u64::from_ne_bytes(self.get(index, at))
    }

    fn get_u32(&self, index: usize, at: usize) -> u32 {
        u32::from_ne_bytes(self.get(index, at))
    }

    fn put(&mut self, index: usize, at: usize, bytes: &[u8]) {
        if let Some(field) = self.field(index, at, bytes.len()) {
            // SAFETY: in range, and memory of this value's own cannot overlap a slice that Rust
            // handed out. Callers write entries that are ours.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), field.as_ptr(), bytes.len()) };
        }
    }

    fn leak(&mut self) {
        self.leaked = true;
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if !self.leaked {
            // SAFETY: the mapping is this value's own, nothing borrows from it, and the kernel
            // holds no entry of it. An error would mean that it was never mapped.
            let _ = unsafe { munmap(self.base.as_ptr().cast(), self.length) };
        }
    }
}

fn vector(start: NonNull<u8>, length: usize) -> libc::iovec {
    libc::iovec {
        iov_base: start.as_ptr().cast(),
        iov_len: length,
    }
}

/// Copies `bytes` to `at`, as far as there is room.
fn put(buffer: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = buffer
        .get_mut(at..)
        .and_then(|rest| rest.get_mut(..bytes.len()))
    {
        place.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, os::fd::AsFd};

    fn waker() -> std::os::fd::OwnedFd {
        rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap()
    }

    /// A file that takes no commands: every registration is refused.
    fn nothing() -> File {
        tempfile::tempfile().unwrap()
    }

    fn has_rings() -> bool {
        let works = IoUring::new(2).is_ok();
        if !works {
            println!("skipped: no io_uring here");
        }
        works
    }

    #[test]
    fn what_is_refused_ends_each_entry_and_a_wake_up_is_seen() {
        if !has_rings() {
            return;
        }
        let (device, waker) = (nothing(), waker());
        let mut ring = FuseRing::new(device.as_fd(), waker.as_fd(), &[0, 0, 7], 8192).unwrap();
        ring.register().unwrap();
        rustix::io::write(&waker, &1u64.to_ne_bytes()).unwrap();
        let (mut ended, mut woken) = (Vec::new(), false);
        while ended.len() < 3 || !woken {
            assert!(ring.wait(Some(Duration::from_secs(20))).unwrap());
            while let Some(event) = ring.event() {
                match event {
                    Event::Ended(index, e) => ended.push((index, e.raw_os_error().unwrap())),
                    Event::Woken => woken = true,
                    Event::Request(_) => unreachable!(),
                }
            }
        }
        ended.sort_unstable();
        assert_eq!(
            ended.iter().map(|(index, _)| *index).collect::<Vec<_>>(),
            [0, 1, 2]
        );
        assert_eq!(ring.queue_of(2), Some(7));
        assert_eq!(ring.queue_of(3), None);
        ring.trim(4096).unwrap();
    }

    #[test]
    fn waiting_ends_when_patience_does() {
        if !has_rings() {
            return;
        }
        let (device, waker) = (nothing(), waker());
        let mut ring = FuseRing::new(device.as_fd(), waker.as_fd(), &[], 4096).unwrap();
        ring.register().unwrap();
        assert!(!ring.wait(Some(Duration::from_millis(1))).unwrap());
        assert!(ring.event().is_none());
    }

    #[test]
    fn buffers_keep_what_was_put_into_them_and_nothing_outside() {
        let mut memory = Memory::new(2, 8192).unwrap();
        memory.put(1, COMMIT_ID_AT, &77u64.to_ne_bytes());
        memory.put(1, LENGTH_AT, &5u32.to_ne_bytes());
        assert_eq!(memory.get_u64(1, COMMIT_ID_AT), 77);
        assert_eq!(memory.get_u32(1, LENGTH_AT), 5);
        assert_eq!(memory.get_u64(0, COMMIT_ID_AT), 0);
        memory.put(2, 0, &[1]);
        memory.put(0, HEADERS - 1, &[1, 2]);
        assert_eq!(memory.get_u64(2, 0), 0);
        assert!(memory.headers(2).is_err() && memory.payload(2, 8192).is_err());
        let last = memory.payload(1, 8192).unwrap();
        assert_eq!(
            last.as_ptr().addr() + 8192,
            memory.base.as_ptr().addr() + memory.length
        );
        assert!(Memory::new(1, 100).is_err());
        assert!(Memory::new(usize::MAX / 2, 1 << 20).is_err());
    }
}
