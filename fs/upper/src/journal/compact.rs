//! Replacing the log by one that says the same with fewer records.
//!
//! The new log is written whole to `journal.new`, flushed, and renamed over the old one, so that
//! at every instant one complete log has the name. It carries no copied flags, so what was copied
//! is flushed first; and its header calls all of it synced, so so is all other content.

use std::{io, os::unix::fs::FileExt, sync::Arc, sync::atomic::Ordering};

use rustix::fs::OFlags;
use zerocopy::little_endian::U64;

use super::{
    Shared,
    format::{self, FRAME_HEADER_LEN, HEADER_LEN, Header, SessionWord},
    host::{Op, open_at},
    io_error,
    log::{Log, LogEnd},
    record,
};
use crate::{Record, UpperError};

pub(super) const NEW: &str = "journal.new";

/// Frames of a snapshot are closed at this size.
const FRAME_GOAL: usize = 64 << 10;
const WRITE_GOAL: usize = 1 << 20;

/// The state, as [`crate::Upper::compact`] is given it.
type Snapshotter<'a> = &'a mut dyn FnMut(&mut dyn FnMut(Record<'_>));

impl Shared {
    pub(super) fn compact(&self, snapshot: Snapshotter<'_>) -> Result<(), UpperError> {
        self.check_writable()?;
        let turn = self.gate.enter();
        let work = self.files.work();
        let doomed = self.files.doomed();
        if self.is_durable() {
            // Not yet a failed sync: nothing was promised, and the old log stays.
            self.files.sync_touched(&self.host)?;
            self.files.flush(&self.host, &work)?;
        }
        let (last_seq, generation) = self.with_log(|log| Ok((log.last_seq, log.generation)))?;
        let result = self
            .write_new(last_seq, generation, snapshot)
            .and_then(|new| {
                self.host
                    .rename(&self.dir, NEW, super::LOG)
                    .map_err(io_error("replace", &self.log_path()))?;
                Ok(new)
            });
        let new = match result {
            Ok(new) => new,
            Err(error) => {
                // What is left of it is overwritten by the next attempt.
                let _ = self.host.remove(&self.dir, NEW);
                return Err(error);
            }
        };
        let seq = new.last_seq;
        let mut log = self.log.lock();
        if log.as_ref().is_none_or(|log| log.last_seq != last_seq) {
            // The caller was to hold commits off. What has the name now lacks one: take no more.
            self.poisoned.store(true, Ordering::SeqCst);
            return Err(UpperError::Poisoned {
                path: self.path.clone(),
            });
        }
        *log = Some(new);
        self.note_size(&log);
        drop(log);
        self.committed.store(seq, Ordering::SeqCst);
        self.names_dirty.store(true, Ordering::SeqCst);
        if self.is_durable() {
            // Should this fail, both logs are whole and say the same, but commits to the new one
            // could be lost with the name: that is a failed sync.
            if let Err(error) = self.sync_names() {
                self.poisoned.store(true, Ordering::SeqCst);
                return Err(error);
            }
            self.files.settle(&work);
            self.files.bury(&self.host, &doomed);
            self.synced.store(seq, Ordering::SeqCst);
        }
        drop(turn);
        Ok(())
    }

    /// Writes and flushes the new log. Nothing of the old one is touched.
    fn write_new(
        &self,
        last_seq: u64,
        generation: u64,
        snapshot: Snapshotter<'_>,
    ) -> Result<Log, UpperError> {
        let path = self.path.join(NEW);
        let fail = || io_error("write to", &path);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC;
        let file = self
            .host
            .trip(Op::Snapshot)
            .and_then(|()| open_at(&self.dir, NEW, flags))
            .map_err(fail())?;
        let header = self.header(generation + 1, last_seq + 1).map_err(fail())?;
        let mut writer = Snapshot::new(file, header.salt.get(), last_seq);
        snapshot(&mut |record| writer.add(self, &record));
        writer.close_frame(self);
        writer.write_out(self);
        if let Some(error) = writer.error {
            return Err(fail()(error));
        }
        let (file, seq) = (writer.file, writer.seq);
        // A volatile log promises nothing, so its header claims nothing.
        let synced = if self.is_durable() { seq } else { last_seq };
        let session = SessionWord::new(self.boot, false);
        let page = format::header_page(header, session, synced);
        file.write_all_at(&page, 0).map_err(fail())?;
        if self.is_durable() {
            self.host.sync_log(&file).map_err(fail())?;
        }
        let end = LogEnd {
            end: writer.at,
            last_seq: seq,
            chain: writer.chain,
            salt: header.salt.get(),
            generation: generation + 1,
            records: writer.total,
            last_copied: 0,
            durable: synced,
            slot: 0,
        };
        Log::new(Arc::new(file), end, None).map_err(fail())
    }

    /// The fixed part of the header of a new log.
    pub(super) fn header(&self, generation: u64, first_seq: u64) -> io::Result<Header> {
        super::new_header(&self.lower, generation, first_seq)
    }
}

/// Collects records into frames and frames into writes. The first error is kept and ends it.
struct Snapshot {
    file: std::fs::File,
    frame: Vec<u8>,
    records: u32,
    pending: Vec<u8>,
    at: u64,
    seq: u64,
    chain: u64,
    total: u64,
    error: Option<io::Error>,
}

impl Snapshot {
    fn new(file: std::fs::File, salt: u64, last_seq: u64) -> Self {
        Self {
            file,
            frame: vec![0; FRAME_HEADER_LEN],
            records: 0,
            pending: Vec::new(),
            at: HEADER_LEN,
            seq: last_seq,
            chain: salt,
            total: 0,
            error: None,
        }
    }

    fn add(&mut self, shared: &Shared, record: &Record<'_>) {
        if self.error.is_some() {
            return;
        }
        if let Err(why) = record::check(record) {
            self.error = Some(io::Error::new(io::ErrorKind::InvalidInput, why));
            return;
        }
        record::encode(record, false, &mut self.frame);
        self.records += 1;
        self.total += 1;
        if self.frame.len() >= FRAME_GOAL {
            self.close_frame(shared);
        }
    }

    fn close_frame(&mut self, shared: &Shared) {
        if self.records == 0 {
            return;
        }
        self.seq += 1;
        self.chain = format::seal_frame(&mut self.frame, self.records, self.seq, self.chain);
        self.pending.append(&mut self.frame);
        self.frame.resize(FRAME_HEADER_LEN, 0);
        self.records = 0;
        if self.pending.len() >= WRITE_GOAL {
            self.write_out(shared);
        }
    }

    fn write_out(&mut self, shared: &Shared) {
        let written = shared
            .host
            .trip(Op::Snapshot)
            .and_then(|()| self.file.write_all_at(&self.pending, self.at));
        match written {
            Ok(()) => self.at += self.pending.len() as u64,
            Err(e) => self.error = Some(e),
        }
        self.pending.clear();
    }
}

/// A new random salt.
pub(super) fn salt() -> io::Result<U64> {
    let mut bytes = [0; 8];
    let n = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    if n == bytes.len() {
        Ok(U64::from_bytes(bytes))
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}
