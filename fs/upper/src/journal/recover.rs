//! Replaying a log, and deciding how much of it counts.
//!
//! Frames count while they are valid. What is not valid although the header says that it was
//! synced is damage, reported and never dropped; behind the synced part it is a torn tail. After
//! the host went down, a frame behind the synced part that makes a copied file count is where
//! replay stops: the copy may not have reached the disk, and the lower tree still has the content.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    path::Path,
};

use super::{
    format::Header,
    io_error,
    log::LogEnd,
    record,
    scan::{Front, Scan, Step, corrupt, leftover},
};
use crate::{Record, Recovery, UpperError};

/// What replay found.
#[derive(Debug)]
pub(super) struct Replayed {
    pub(super) end: LogEnd,
    pub(super) recovery: Recovery,
    /// Inodes whose content is in a data file, and the batch that said so.
    pub(super) data: HashMap<u64, u64>,
    /// Files whose copying may not be on disk.
    pub(super) copied: HashSet<u64>,
    /// The log may speak of mixed content.
    mixed: bool,
}

/// Calls `apply` with the records of the log in `file`. `boot` is the host's present boot.
pub(super) fn replay(
    file: &File,
    path: &Path,
    front: &Front,
    boot: u64,
    apply: &mut dyn FnMut(Record<'_>),
) -> Result<Replayed, UpperError> {
    let fail = || io_error("read", path);
    let other_boot = !front.session.same_boot(boot);
    let mut scan = Scan::new(file, &front.header).map_err(fail())?;
    let mut found = Replayed {
        end: start_of(front),
        recovery: Recovery::default(),
        data: HashMap::new(),
        copied: HashSet::new(),
        mixed: front.mixed(),
    };
    let stopped = loop {
        let at = scan.at;
        match scan.next().map_err(fail())? {
            Step::Frame { seq, records, body } => {
                let unsynced = seq > front.synced;
                let damaged = |detail| corrupt(path, at, detail);
                if unsynced && other_boot && has_copied(body).map_err(damaged)? {
                    break Some("a copy that may not be on disk");
                }
                let copied = found
                    .take(seq, records, body, unsynced, apply)
                    .map_err(damaged)?;
                if copied {
                    found.end.last_copied = seq;
                }
                found.end.last_seq = seq;
                found.end.records += u64::from(records);
                found.recovery.batches += 1;
            }
            Step::End => break None,
            Step::Bad(why) => break Some(why),
        }
        found.end.end = scan.at;
        found.end.chain = scan.chain;
    };
    if found.end.last_seq < front.synced {
        let missing = found.end.last_seq + 1;
        let what = stopped.unwrap_or("nothing there");
        let detail = format!(
            "batch {missing} of {} that were synced: {what}",
            front.synced
        );
        return Err(corrupt(path, found.end.end, detail));
    }
    let clean = front.session.clean();
    if stopped.is_some() || !clean {
        found.recovery.torn_bytes = leftover(file, found.end.end, scan.length()).map_err(fail())?;
    }
    let unsynced = found.end.last_seq > front.synced || found.recovery.torn_bytes > 0;
    found.recovery.clean = clean && stopped.is_none();
    found.recovery.host_crashed = other_boot && (!clean || unsynced);
    Ok(found)
}

fn start_of(front: &Front) -> LogEnd {
    let Header {
        salt,
        generation,
        first_seq,
        ..
    } = front.header;
    LogEnd {
        end: super::format::HEADER_LEN,
        last_seq: first_seq.get() - 1,
        chain: salt.get(),
        salt: salt.get(),
        generation: generation.get(),
        records: 0,
        last_copied: 0,
        durable: front.synced,
        flushed: super::format::HEADER_LEN,
        slot: front.slot,
    }
}

/// Whether a record of a frame makes a copied file count.
pub(super) fn has_copied(mut body: &[u8]) -> Result<bool, &'static str> {
    while !body.is_empty() {
        let (_, copied, rest) = record::decode(body)?;
        if copied {
            return Ok(true);
        }
        body = rest;
    }
    Ok(false)
}

impl Replayed {
    /// Applies the records of one frame; returns whether one of them was a copy.
    fn take(
        &mut self,
        seq: u64,
        records: u32,
        mut body: &[u8],
        unsynced: bool,
        apply: &mut dyn FnMut(Record<'_>),
    ) -> Result<bool, &'static str> {
        let mut any = false;
        let mut count = 0u32;
        while !body.is_empty() {
            let (record, copied, rest) = record::decode(body)?;
            body = rest;
            count += 1;
            if record::is_mixed(&record) && !self.mixed {
                return Err("content in pieces, which the header does not announce");
            }
            match record {
                Record::Node(node) if node.content.has_data() => {
                    self.data.entry(node.ino.0).or_insert(seq);
                    if copied && unsynced {
                        self.copied.insert(node.ino.0);
                    }
                    any |= copied;
                }
                Record::Node(node) => self.forget(node.ino.0),
                Record::Gone { ino } => self.forget(ino.0),
                _ => {}
            }
            apply(record);
        }
        if count != records {
            return Err("a batch with another number of records than it says");
        }
        Ok(any)
    }

    fn forget(&mut self, ino: u64) {
        self.data.remove(&ino);
        self.copied.remove(&ino);
    }
}
