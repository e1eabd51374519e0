//! The writing end of the log file: appending frames and finding room for them.
//!
//! Invariants: frames fill `HEADER_LEN..end` without a gap; `allocated >= end` is how far the file
//! has real blocks and, where it is mapped, the mapping reaches; nothing below `end` changes but
//! the header page. The first word of a frame is stored after its other bytes, so a process killed
//! at any instant leaves whole frames, and then zeros or garbage under a zero word.

use std::{fs::File, io, sync::Arc};

use pellicle_sys::log_map::LogMap;
use zerocopy::IntoBytes;

use super::format::{self, FRAME_HEADER_LEN, SESSION_AT, SYNCED_AT, SessionWord, Synced};

use crate::{
    LogPosition,
    host::{Host, Op, no_space},
};

/// Up to here a log that begins without room is written as any file is. Blocks that were given away
/// have to be taken back, which some disks are told at once: longer than a short container's start.
const SMALL: u64 = 16 << 10;
/// The first piece of room that a log gets; small, for most containers never need more.
pub(super) const FIRST_ROOM: u64 = 256 << 10;
const LARGEST_STEP: u64 = 16 << 20;
const PAGE: u64 = 4096;
/// Room past the end that is given back when the log is closed.
const WORTH_TRIMMING: u64 = 1 << 20;

/// How bytes get into the file.
#[derive(Debug)]
enum Medium {
    /// Stores into a shared mapping: no system call.
    Mapped(LogMap),
    /// `pwrite`, on file systems where allocated blocks do not guarantee that a page of a mapping
    /// can be had (copy-on-write and network file systems): there a store could be SIGBUS.
    Written,
}

#[derive(Debug)]
pub(super) struct Log {
    pub(super) file: Arc<File>,
    medium: Option<Medium>,
    allocated: u64,
    /// It began without room and has none yet: no blocks are promised behind `allocated`, and frames are
    /// written there.
    small: bool,
    pub(super) end: u64,
    /// Sequence number of the last frame.
    pub(super) last_seq: u64,
    /// Checksum of the last frame, or the salt.
    pub(super) chain: u64,
    pub(super) salt: u64,
    pub(super) generation: u64,
    /// Records in all frames.
    pub(super) records: u64,
    /// Last frame with a copied flag; 0 for none.
    pub(super) last_copied: u64,
    /// The `synced_seq` that is itself known to be on disk.
    pub(super) durable: u64,
    /// Frames up to here are on disk.
    pub(super) flushed: u64,
    /// Room behind the end that is set aside, and such that the next frame may use.
    reserved: u64,
    released: u64,
    /// Which of the two places the next `synced_seq` goes to.
    slot: usize,
}

/// Where a log that was read or just made ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogEnd {
    pub(super) end: u64,
    pub(super) last_seq: u64,
    pub(super) chain: u64,
    pub(super) salt: u64,
    pub(super) generation: u64,
    pub(super) records: u64,
    pub(super) last_copied: u64,
    pub(super) durable: u64,
    pub(super) flushed: u64,
    pub(super) slot: usize,
}

impl Log {
    /// Takes `file`, which ends as `at` says. What the file has past that is not trusted to have
    /// blocks behind it (a copied upper may be sparse) and is allocated anew when needed.
    pub(super) fn new(file: Arc<File>, at: LogEnd, allocated: Option<u64>) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let allocated = allocated
            .unwrap_or(at.end.next_multiple_of(PAGE))
            .min(length)
            .max(at.end);
        Ok(Self {
            file,
            medium: None,
            allocated,
            small: false,
            end: at.end,
            last_seq: at.last_seq,
            chain: at.chain,
            salt: at.salt,
            generation: at.generation,
            records: at.records,
            last_copied: at.last_copied,
            durable: at.durable,
            flushed: at.flushed,
            reserved: 0,
            released: 0,
            slot: at.slot,
        })
    }

    /// Lets the log, which is new and has no room, go without as long as it is small and nothing is to be
    /// set aside.
    pub(super) fn begin_small(mut self) -> Self {
        self.small = true;
        self
    }

    /// Makes the log go the way of file systems whose mappings are not to be relied on.
    #[cfg(test)]
    pub(super) fn avoid_mapping(&mut self) {
        self.medium = Some(Medium::Written);
    }

    pub(super) fn allocated(&self) -> u64 {
        self.allocated
    }

    fn medium(&mut self, host: &Host) -> io::Result<&mut Medium> {
        if self.medium.is_none() {
            let medium = if blocks_can_be_kept(&self.file) && host.trip(Op::Map).is_ok() {
                LogMap::new(&self.file, self.allocated).map_or(Medium::Written, Medium::Mapped)
            } else {
                Medium::Written
            };
            self.medium = Some(medium);
        }
        self.medium
            .as_mut()
            .ok_or_else(|| io::ErrorKind::Other.into())
    }

    fn put(&mut self, host: &Host, op: Op, at: u64, bytes: &[u8]) -> io::Result<()> {
        let file = Arc::clone(&self.file);
        if self.small {
            return host.write_all(op, &file, bytes, at);
        }
        match self.medium(host)? {
            Medium::Mapped(map) => host.trip(op).and_then(|()| map.write(at, bytes)),
            Medium::Written => host.write_all(op, &file, bytes, at),
        }
    }

    fn publish(&mut self, host: &Host, op: Op, at: u64, word: u64) -> io::Result<()> {
        let file = Arc::clone(&self.file);
        if self.small {
            return host.write_all(op, &file, &word.to_le_bytes(), at);
        }
        match self.medium(host)? {
            Medium::Mapped(map) => host.trip(op).and_then(|()| map.publish(at, word)),
            Medium::Written => host.write_all(op, &file, &word.to_le_bytes(), at),
        }
    }

    /// Appends `frame`: [`FRAME_HEADER_LEN`] free bytes, then `records` records.
    pub(super) fn append(
        &mut self,
        host: &Host,
        frame: &mut [u8],
        records: u32,
        copied: bool,
    ) -> io::Result<()> {
        let length = frame.len() as u64;
        if !self.stays_small(length) {
            self.find_room(host, length + self.reserved)?;
        }
        let seq = self.last_seq + 1;
        let chain = format::seal_frame(frame, records, seq, self.chain);
        let (word, rest) = frame
            .split_first_chunk::<8>()
            .filter(|_| frame.len() > FRAME_HEADER_LEN)
            .ok_or(io::ErrorKind::InvalidInput)?;
        self.put(host, Op::Append, self.end + 8, rest)?;
        self.publish(host, Op::Append, self.end, u64::from_le_bytes(*word))?;
        self.end += length;
        self.last_seq = seq;
        self.released = 0;
        self.chain = chain;
        self.records += u64::from(records);
        if copied {
            self.last_copied = seq;
        }
        Ok(())
    }

    pub(super) fn position(&self) -> LogPosition {
        LogPosition {
            seq: self.last_seq,
            generation: self.generation,
            offset: self.end,
            chain: self.chain,
        }
    }

    /// Whether a frame of `length` bytes needs no room.
    fn stays_small(&self, length: u64) -> bool {
        self.small && self.reserved == 0 && self.end + length <= SMALL
    }

    /// Sees to it that there are `length` bytes of room behind the end.
    fn find_room(&mut self, host: &Host, length: u64) -> io::Result<()> {
        if self.end + length > self.allocated {
            self.grow(host, self.end + length)?;
        }
        Ok(())
    }

    /// Sets `length` bytes aside.
    pub(super) fn reserve(&mut self, host: &Host, length: u64) -> io::Result<()> {
        self.find_room(host, self.reserved + self.released + length)?;
        self.reserved += length;
        Ok(())
    }

    /// Leaves `length` bytes that were set aside to the next frame.
    pub(super) fn release(&mut self, length: u64) {
        self.reserved = self.reserved.saturating_sub(length);
        self.released += length;
    }

    /// Sets aside what `old`, which this log replaces, had set aside.
    pub(super) fn take_reserved(&mut self, host: &Host, old: &Self) -> io::Result<()> {
        self.find_room(host, old.reserved + old.released)?;
        self.reserved = old.reserved;
        self.released = old.released;
        Ok(())
    }

    /// Finds room up to `least` bytes and, if there is, for as much again as the log has.
    fn grow(&mut self, host: &Host, least: u64) -> io::Result<()> {
        let least = least.next_multiple_of(PAGE);
        let step = self.allocated.clamp(FIRST_ROOM, LARGEST_STEP);
        let generous = (self.allocated + step).next_multiple_of(PAGE).max(least);
        let result = self.grow_to(host, generous);
        match result {
            Err(e) if no_space(&e) && least < generous => self.grow_to(host, least),
            other => other,
        }
    }

    fn grow_to(&mut self, host: &Host, length: u64) -> io::Result<()> {
        let before = self.allocated;
        let grown = host
            .allocate(&self.file, before, length.saturating_sub(before))
            .and_then(|()| match &mut self.medium {
                Some(Medium::Mapped(map)) => map.extend(length),
                _ => Ok(()),
            });
        if let Err(error) = grown {
            // What was allocated before the host ran out would otherwise fill the disk for good.
            // Where even that fails the blocks stay, past the end, and hurt nobody else.
            let _ = host.truncate(&self.file, before.max(self.end));
            return Err(error);
        }
        self.allocated = length;
        self.small = false;
        Ok(())
    }

    pub(super) fn set_session(&mut self, host: &Host, word: SessionWord) -> io::Result<()> {
        self.publish(host, Op::Session, SESSION_AT, word.0)
    }

    /// Notes that all frames up to `seq` are on disk.
    pub(super) fn set_synced(&mut self, host: &Host, seq: u64) -> io::Result<()> {
        let mark = Synced::new(seq, self.salt);
        let at = if self.slot == 0 {
            SYNCED_AT[0]
        } else {
            SYNCED_AT[1]
        };
        self.put(host, Op::Mark, at, mark.as_bytes())?;
        self.slot ^= 1;
        Ok(())
    }

    /// Gives back unused room if there is much of it. Only for a log that is being closed.
    pub(super) fn trim(&mut self, host: &Host) -> io::Result<()> {
        // Not by `allocated`, which knows nothing of room that an earlier process left.
        if self.file.metadata()?.len().saturating_sub(self.end) > WORTH_TRIMMING {
            self.medium = None;
            host.truncate(&self.file, self.end)?;
            self.allocated = self.end;
        }
        Ok(())
    }
}

/// [`Host::rewrite`] of frames, all of which must be there.
pub(super) fn rewrite(host: &Host, file: &File, from: u64, end: u64) -> io::Result<()> {
    if host.rewrite(file, from, end)? < end {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// Whether this file system keeps a promise of blocks, so that a store to a mapped page of them
/// never fails. Those that write elsewhere each time, or ask a server, may not.
fn blocks_can_be_kept(file: &File) -> bool {
    const EXT: i64 = 0xEF53;
    const XFS: i64 = 0x5846_5342;
    const TMPFS: i64 = 0x0102_1994;
    // The type of `f_type` differs between architectures.
    #[allow(clippy::unnecessary_cast, reason = "f_type is not i64 everywhere")]
    rustix::fs::fstatfs(file).is_ok_and(|s| matches!(s.f_type as i64, EXT | XFS | TMPFS))
}
