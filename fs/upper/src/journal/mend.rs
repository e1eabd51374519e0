//! Mending a damaged log, when somebody asked for it.
//!
//! The mended log is made beside the old one, as a compaction makes one, and takes its name when it
//! is whole and on disk; before that the old one, and every data file that only the lost part may
//! have led to, were kept elsewhere by the caller. So a process that is killed at any point leaves
//! the old log in place or the new one, and in both cases nothing is gone.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

use rustix::fs::OFlags;
use zerocopy::IntoBytes;

use super::{
    JournalLower, LOG,
    compact::NEW,
    data::{DataFiles, file_name},
    examine::{Diagnosis, LogDamage, Remedy, data_files, diagnose},
    format::{SYNCED_AT, Synced},
    io_error, lock, open_dir,
    recover::Replayed,
    scan::read_front_over_any,
};
use crate::{
    UpperError,
    host::{Host, Op, open_at},
};

/// Bytes of the log copied at a time.
const PIECE: usize = 256 << 10;

/// Remedies tried one after the other before it is given up.
const ROUNDS: usize = 64;

/// What [`mend`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mended {
    /// What was wrong, each with the remedy that was used; empty if nothing was.
    pub mended: Vec<LogDamage>,
    /// What is still wrong; then nothing was changed.
    pub left: Option<LogDamage>,
    /// Data files that were kept because nothing leads to them now.
    pub files_kept: u64,
}

/// Mends the log of the upper in `dir`, over `lower` if that is known.
///
/// `keep` is given a file of the upper, and the name to keep it under, before anything is done to
/// it; it returns once it has a copy or a link on disk.
///
/// # Errors
/// [`UpperError::InUse`] while a container runs on it; as [`super::examine`]; what `keep` returns.
/// Then nothing was changed.
pub fn mend(
    dir: &Path,
    lower: Option<&JournalLower>,
    keep: &mut dyn FnMut(&Path, &str) -> io::Result<()>,
) -> Result<Mended, UpperError> {
    mend_on(&Host::default(), dir, lower, keep)
}

/// [`mend`] by the calls of `host`.
pub(super) fn mend_on(
    host: &Host,
    dir: &Path,
    lower: Option<&JournalLower>,
    keep: &mut dyn FnMut(&Path, &str) -> io::Result<()>,
) -> Result<Mended, UpperError> {
    let opened = open_dir(dir).map_err(io_error("open", dir))?;
    let path = dir.join(LOG);
    let _lock = lock::take(&opened, dir)?;
    let old = open_at(&opened, LOG, OFlags::RDWR).map_err(io_error("open", &path))?;
    if let Diagnosis::Sound(_) = diagnose(&old, &path, lower)? {
        return Ok(Mended::default());
    }
    let done = Mending {
        path: &path,
        lower,
        host,
    }
    .run(&opened, dir, &old, keep);
    if !matches!(&done, Ok(mended) if mended.left.is_none()) {
        // What is left of it is removed by the next opening as well.
        let _ = host.remove(&opened, NEW);
    }
    done
}

struct Mending<'a> {
    path: &'a Path,
    lower: Option<&'a JournalLower>,
    host: &'a Host,
}

impl Mending<'_> {
    fn run(
        &self,
        opened: &File,
        dir: &Path,
        old: &File,
        keep: &mut dyn FnMut(&Path, &str) -> io::Result<()>,
    ) -> Result<Mended, UpperError> {
        let fail = || io_error("mend", self.path);
        let new = self.copy(opened, old).map_err(fail())?;
        let mut done = Mended::default();
        let found = loop {
            match diagnose(&new, self.path, self.lower)? {
                Diagnosis::Sound(found) => break found,
                Diagnosis::Damaged(damage) => {
                    let tried = done.mended.len() < ROUNDS;
                    if !(tried && self.apply(&new, &damage).map_err(fail())?) {
                        done.left = Some(*damage);
                        done.mended.clear();
                        return Ok(done);
                    }
                    done.mended.push(*damage);
                }
            }
        };
        let files = data_files(opened, dir)?;
        let strays = keep_strays(&files, &found, keep)?;
        done.files_kept = strays.len() as u64;
        keep(self.path, LOG).map_err(io_error("set aside", self.path))?;
        self.host
            .sync_log(&new)
            .and_then(|()| self.host.rename(opened, NEW, LOG))
            .and_then(|()| self.host.sync_dir(opened))
            .map_err(fail())?;
        // A new file of the same number would be written into what was kept, where that is a link.
        for ino in strays {
            self.host
                .remove(files.dir(), &file_name(ino))
                .map_err(fail())?;
        }
        Ok(done)
    }

    /// A new file with the log's bytes.
    fn copy(&self, dir: &File, old: &File) -> io::Result<File> {
        let new = self.host.create(Op::CreateLog, dir, NEW)?;
        let mut piece = vec![0; PIECE];
        let mut at = 0;
        loop {
            let n = match old.read_at(&mut piece, at) {
                Ok(0) => return Ok(new),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            let part = piece.get(..n).unwrap_or_default();
            self.host.write_all(Op::Snapshot, &new, part, at)?;
            at += n as u64;
        }
    }

    /// Uses the remedy on `new`; false if there is none.
    fn apply(&self, new: &File, damage: &LogDamage) -> Result<bool, io::Error> {
        match &damage.remedy {
            Remedy::Nothing => return Ok(false),
            Remedy::TurnBit { offset, mask } => {
                let mut byte = [0];
                new.read_exact_at(&mut byte, *offset)?;
                let turned = byte.map(|b| b ^ mask);
                self.host.write_all(Op::Rewrite, new, &turned, *offset)?;
            }
            Remedy::NewHeader(page) => self.host.write_all(Op::Rewrite, new, page, 0)?,
            Remedy::Cut(lost) => {
                self.host.truncate(new, damage.offset)?;
                let front = read_front_over_any(new, self.path).map_err(io::Error::other)?;
                let mark = Synced::new(lost.kept.min(lost.synced), front.header.salt.get());
                for at in SYNCED_AT {
                    self.host.write_all(Op::Mark, new, mark.as_bytes(), at)?;
                }
            }
        }
        Ok(true)
    }
}

/// Keeps the data files that nothing in the mended log leads to; gives their numbers.
fn keep_strays(
    files: &DataFiles,
    found: &Replayed,
    keep: &mut dyn FnMut(&Path, &str) -> io::Result<()>,
) -> Result<Vec<u64>, UpperError> {
    let mut strays = Vec::new();
    files.for_each(&mut |ino, _| {
        if !found.data.contains_key(&ino) {
            strays.push(ino);
        }
    })?;
    strays.sort_unstable();
    for ino in &strays {
        let name = file_name(*ino);
        let path = files.path().join(&name);
        keep(&path, &format!("data/{name}")).map_err(io_error("set aside", &path))?;
    }
    Ok(strays)
}
