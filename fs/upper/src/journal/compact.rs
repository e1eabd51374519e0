//! Replacing the log by one that says the same with fewer records, while commits go on.
//!
//! The new log is written to `journal.new`: a snapshot of the state, then every batch that came
//! since the snapshot was begun, copied from the old log. The snapshot need not be of one moment:
//! records say what is, so the batches behind it put right whatever it caught half-way. That is
//! true of the whole only, so what is called synced reaches past every batch that the snapshot may
//! have seen the effects of. In order:
//!
//! 1. the snapshot is written; removed data files are kept from here on, since it may name them;
//! 2. content is flushed, that of copied files too, for the snapshot carries no copied flags;
//! 3. the batches so far are copied, the header says that they are synced, and the file is flushed;
//! 4. the batches that came meanwhile are copied, until few are left;
//! 5. under the log's lock the last ones are copied, `journal.new` is renamed over `journal`, and
//!    commits go to the new log from then on;
//! 6. the directory is flushed. Until then a host that goes down may come back with either log;
//!    what only the new one has was not synced yet, for syncs wait for their turn.
//!
//! Until (5) an error or a crash leaves the old log in use, and nothing of it was touched.

use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc, sync::atomic::Ordering};

use zerocopy::{FromBytes, little_endian::U64};

use super::{
    Shared, data,
    format::{self, FRAME_HEADER_LEN, FRAME_MAX, FrameHeader, HEADER_LEN, Header, SessionWord},
    io_error,
    log::{Log, LogEnd},
    record,
    recover::has_copied,
    scan::corrupt,
};
use crate::{LogPosition, Record, UpperError, host::Op};

pub(super) const NEW: &str = "journal.new";

/// Frames of a snapshot are closed at this size.
const FRAME_GOAL: usize = 64 << 10;
const WRITE_GOAL: usize = 1 << 20;
/// So much may be copied while commits wait.
const FEW: u64 = if cfg!(test) { 1 << 10 } else { 128 << 10 };
/// Attempts to come down to that while others commit.
const ROUNDS: u32 = 8;

/// The state, as [`crate::Upper::compact`] is given it.
type Snapshotter<'a> = &'a mut dyn FnMut(&mut dyn FnMut(Record<'_>));

impl Shared {
    pub(super) fn compact(
        &self,
        since: LogPosition,
        snapshot: Snapshotter<'_>,
    ) -> Result<(), UpperError> {
        self.check_writable()?;
        let turn = self.gate.enter();
        let keep = KeepFiles::begin(&self.files);
        let doomed = self.files.doomed();
        let written = self
            .write_new(since, snapshot)
            .and_then(|(writer, tail, done)| Ok((self.take_over(writer, tail)?, done)));
        let (old, done) = match written {
            Ok(both) => both,
            Err(error) => {
                // What is left of it is overwritten by the next attempt.
                let _ = self.host.remove(&self.dir, NEW);
                return Err(error);
            }
        };
        drop(old);
        if self.is_durable() {
            // Should this fail, commits to the new log could be lost with its name: that is a
            // failed sync.
            let named = self.sync_names();
            self.or_poison(named)?;
            self.files.settle(&done.work);
            self.files.bury(&self.host, &doomed);
            self.synced.fetch_max(done.batches, Ordering::SeqCst);
        }
        drop(keep);
        drop(turn);
        Ok(())
    }

    /// Steps 1 to 4 of the module head. Gives what was written, where the batches in the old log
    /// begin that are still to be copied, and what is on disk now.
    fn write_new(
        &self,
        since: LogPosition,
        snapshot: Snapshotter<'_>,
    ) -> Result<(Snapshot, Tail, Done), UpperError> {
        let path = self.path.join(NEW);
        let fail = || io_error("write to", &path);
        let old = self.with_log(|log| Ok(Arc::clone(&log.file)))?;
        if self.with_log(|log| Ok(log.generation))? != since.generation {
            let why = io::Error::new(io::ErrorKind::InvalidInput, "it was compacted meanwhile");
            return Err(io_error("compact", &self.log_path())(why));
        }
        let file = self
            .host
            .create(Op::CreateLog, &self.dir, NEW)
            .map_err(fail())?;
        let header = self
            .header(since.generation + 1, since.seq + 1)
            .map_err(fail())?;
        let mut writer = Snapshot::new(file, header, since.seq);
        snapshot(&mut |record| writer.add(self, &record));
        writer.close_frame(self);
        writer.check().map_err(fail())?;

        let mut tail = Tail { old, at: since };
        let (end, batches) = self.with_log(|log| Ok((log.end, log.last_seq)))?;
        // After the end was read, so that all content which the batches up to there speak of is in it.
        let work = self.files.work();
        if self.is_durable() {
            // Not yet a failed sync: nothing was promised, and the old log stays.
            self.files.sync_touched(&self.host)?;
            self.files.flush(&self.host, &work)?;
        }
        writer.copy(self, &mut tail, end)?;
        writer.write_out(self);
        writer.check().map_err(fail())?;
        // A volatile log promises nothing, so its header claims nothing.
        writer.synced = if self.is_durable() {
            writer.seq
        } else {
            since.seq
        };
        writer.flushed = writer.at;
        writer.last_copied = 0;
        let session = SessionWord::new(self.boot, false);
        let page = format::header_page(header, session, writer.synced);
        self.host
            .write_all(Op::Snapshot, &writer.file, &page, 0)
            .map_err(fail())?;
        if self.is_durable() {
            self.host.sync_log(&writer.file).map_err(fail())?;
        }
        for _ in 0..ROUNDS {
            let end = self.with_log(|log| Ok(log.end))?;
            if end - tail.at.offset <= FEW {
                break;
            }
            writer.copy(self, &mut tail, end)?;
            writer.write_out(self);
            writer.check().map_err(fail())?;
        }
        Ok((writer, tail, Done { work, batches }))
    }

    /// Step 5. Gives the old log, to be closed where nobody waits.
    fn take_over(&self, mut writer: Snapshot, mut tail: Tail) -> Result<Log, UpperError> {
        let path = self.path.join(NEW);
        let fail = || io_error("write to", &path);
        let mut guard = self.log.lock();
        let log = guard.as_mut().ok_or_else(|| self.not_replayed())?;
        writer.copy(self, &mut tail, log.end)?;
        writer.write_out(self);
        writer.check().map_err(fail())?;
        let mut new = writer.finish().map_err(fail())?;
        new.take_reserved(&self.host, log).map_err(fail())?;
        self.host
            .rename(&self.dir, NEW, super::LOG)
            .map_err(io_error("replace", &self.log_path()))?;
        let old = std::mem::replace(log, new);
        self.names_dirty.store(true, Ordering::SeqCst);
        self.mixed.store(true, Ordering::SeqCst);
        self.note_size(&guard);
        Ok(old)
    }

    /// The fixed part of the header of a new log.
    pub(super) fn header(&self, generation: u64, first_seq: u64) -> io::Result<Header> {
        super::new_header(&self.lower, generation, first_seq)
    }
}

/// What the new log has made durable once it has the name.
struct Done {
    work: data::Work,
    /// Last batch, by its number in the old log.
    batches: u64,
}

/// While it lives, no data file is removed that a snapshot might name.
struct KeepFiles<'a>(&'a data::DataFiles);

impl<'a> KeepFiles<'a> {
    fn begin(files: &'a data::DataFiles) -> Self {
        files.keep_all(true);
        Self(files)
    }
}

impl Drop for KeepFiles<'_> {
    fn drop(&mut self) {
        self.0.keep_all(false);
    }
}

/// The batches of the old log that are not in the new one yet.
struct Tail {
    old: Arc<File>,
    at: LogPosition,
}

impl Tail {
    /// Reads the next batch behind the room for a frame's header, and moves past it. Gives the
    /// number of its records.
    fn next(&mut self, frame: &mut Vec<u8>) -> io::Result<Result<u32, &'static str>> {
        let mut front = [0; FRAME_HEADER_LEN];
        self.old.read_exact_at(&mut front, self.at.offset)?;
        let Ok(header) = FrameHeader::read_from_bytes(&front) else {
            return Ok(Err("a batch without a header"));
        };
        let length = header.length.get() as usize;
        if length <= FRAME_HEADER_LEN || length > FRAME_MAX {
            return Ok(Err("a batch of impossible length"));
        }
        frame.resize(length, 0);
        self.old.read_exact_at(frame, self.at.offset)?;
        let body = frame.get(FRAME_HEADER_LEN..).unwrap_or_default();
        let sum = format::frame_checksum(&header, body, self.at.chain);
        if sum != header.checksum.get() || header.seq.get() != self.at.seq + 1 {
            return Ok(Err("a batch does not have its checksum"));
        }
        self.at.chain = sum;
        self.at.seq += 1;
        self.at.offset += length as u64;
        Ok(Ok(header.records.get()))
    }
}

/// Collects records into frames and frames into writes. The first error is kept and ends it.
struct Snapshot {
    file: File,
    header: Header,
    frame: Vec<u8>,
    records: u32,
    pending: Vec<u8>,
    at: u64,
    seq: u64,
    chain: u64,
    total: u64,
    synced: u64,
    flushed: u64,
    last_copied: u64,
    error: Option<io::Error>,
}

impl Snapshot {
    fn new(file: File, header: Header, last_seq: u64) -> Self {
        Self {
            file,
            header,
            frame: vec![0; FRAME_HEADER_LEN],
            records: 0,
            pending: Vec::new(),
            at: HEADER_LEN,
            seq: last_seq,
            chain: header.salt.get(),
            total: 0,
            synced: 0,
            flushed: 0,
            last_copied: 0,
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
        if self.frame.len() >= FRAME_GOAL {
            self.close_frame(shared);
        }
    }

    fn close_frame(&mut self, shared: &Shared) {
        if self.records == 0 {
            return;
        }
        self.seq += 1;
        self.total += u64::from(self.records);
        self.chain = format::seal_frame(&mut self.frame, self.records, self.seq, self.chain);
        self.pending.append(&mut self.frame);
        self.frame.resize(FRAME_HEADER_LEN, 0);
        self.records = 0;
        if self.pending.len() >= WRITE_GOAL {
            self.write_out(shared);
        }
    }

    /// Copies the batches of `tail` up to byte `end` of the old log.
    fn copy(&mut self, shared: &Shared, tail: &mut Tail, end: u64) -> Result<(), UpperError> {
        let path = shared.log_path();
        while tail.at.offset < end {
            let offset = tail.at.offset;
            let damaged = |why| corrupt(&path, offset, why);
            self.records = tail
                .next(&mut self.frame)
                .map_err(io_error("read", &path))?
                .map_err(damaged)?;
            let body = self.frame.get(FRAME_HEADER_LEN..).unwrap_or_default();
            let copied = has_copied(body).map_err(damaged)?;
            self.close_frame(shared);
            if copied {
                self.last_copied = self.seq;
            }
        }
        Ok(())
    }

    fn write_out(&mut self, shared: &Shared) {
        let written = shared
            .host
            .write_all(Op::Snapshot, &self.file, &self.pending, self.at);
        match written {
            Ok(()) => self.at += self.pending.len() as u64,
            Err(e) => self.error = self.error.take().or(Some(e)),
        }
        self.pending.clear();
    }

    fn check(&mut self) -> io::Result<()> {
        self.error.take().map_or(Ok(()), Err)
    }

    fn finish(self) -> io::Result<Log> {
        let end = LogEnd {
            end: self.at,
            last_seq: self.seq,
            chain: self.chain,
            salt: self.header.salt.get(),
            generation: self.header.generation.get(),
            records: self.total,
            last_copied: self.last_copied,
            durable: self.synced,
            flushed: self.flushed,
            slot: 0,
        };
        Log::new(Arc::new(self.file), end, None)
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
