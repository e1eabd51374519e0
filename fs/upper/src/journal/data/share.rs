//! Data files that have become contents of a store (commit): one more name of them is there.
//!
//! Such a file may be read as ever, and must not be written to. Its link count tells it, or, once
//! the store has given its name up again, that nobody may write to it. It is parted from the store
//! before it is written to: copied, and the copy put in its place.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
    sync::Arc,
};

use pellicle_store::Ino;
use rustix::{
    fs::{AtFlags, Mode, OFlags, SeekFrom, fchmod, seek, statat},
    io::Errno,
};

use super::{DataFiles, file_name};
use crate::{
    UpperError,
    host::{Host, Op, open_at},
    journal::io_error,
};

/// Ends the name of a copy that is not whole yet.
const UNFINISHED: &str = ".new";
/// Bytes moved at a time where the kernel cannot do it by itself.
const BUFFER: usize = 256 << 10;

impl DataFiles {
    /// Opens the file of `ino`; whether it must not be written to.
    pub(super) fn open_file(&self, ino: u64) -> io::Result<(File, bool)> {
        let name = file_name(ino);
        if self.read_only {
            return Ok((open_at(&self.dir, &name, OFlags::RDONLY)?, false));
        }
        match open_at(&self.dir, &name, OFlags::RDWR) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                Ok((open_at(&self.dir, &name, OFlags::RDONLY)?, true))
            }
            opened => {
                let file = opened?;
                let shared = file.metadata()?.nlink() > 1;
                Ok((file, shared))
            }
        }
    }

    /// The file of `ino`, which is going to be written to.
    pub(in crate::journal) fn get_to_write(
        &self,
        host: &Host,
        ino: Ino,
        durable: bool,
    ) -> Result<Arc<File>, UpperError> {
        let file = self.get(ino)?;
        if !self.state.lock().shared.contains(&ino.0) {
            return Ok(file);
        }
        let own = self
            .part(host, ino.0, &file, durable)
            .map(Arc::new)
            .map_err(io_error("part from the store", &self.path_of(ino.0)))?;
        let mut state = self.state.lock();
        state.shared.remove(&ino.0);
        state.names_dirty = true;
        state.touched.insert(ino.0, Arc::downgrade(&own));
        let old = state.open.push(ino.0, Arc::clone(&own));
        drop(state);
        drop(old);
        Ok(own)
    }

    fn part(&self, host: &Host, ino: u64, shared: &File, durable: bool) -> io::Result<File> {
        let name = file_name(ino);
        if shared.metadata()?.nlink() == 1 {
            fchmod(shared, Mode::RUSR | Mode::WUSR)?;
            return open_at(&self.dir, &name, OFlags::RDWR);
        }
        let new = format!("{name}{UNFINISHED}");
        let copied = host.create(Op::Create, &self.dir, &new).and_then(|file| {
            copy(host, shared, &file)?;
            if durable {
                // What it takes the place of may be on disk.
                host.sync_data(&file)?;
            }
            host.rename(&self.dir, &new, &name)?;
            Ok(file)
        });
        if copied.is_err() {
            // The error to tell is the one that was met first.
            let _ = host.remove(&self.dir, &new);
        }
        copied
    }

    /// Takes the name of `ino` from a file that must not be written to, and so not be emptied.
    pub(super) fn clear_way(&self, host: &Host, ino: u64) -> io::Result<()> {
        match statat(&self.dir, file_name(ino), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if stat.st_nlink > 1 || stat.st_mode & 0o200 == 0 => {
                host.remove(&self.dir, &file_name(ino))
            }
            _ => Ok(()),
        }
    }

    /// Removes copies that a process before this one did not finish.
    pub(in crate::journal) fn remove_unfinished(&self, host: &Host) -> io::Result<()> {
        for entry in rustix::fs::Dir::read_from(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name().to_str().unwrap_or_default();
            if name.ends_with(UNFINISHED) {
                host.remove(&self.dir, name)?;
            }
        }
        Ok(())
    }
}

/// Copies all of `from` into the empty file `to`: shared where the host can, holes left as holes.
fn copy(host: &Host, from: &File, to: &File) -> io::Result<()> {
    if host.clone_data(from, to).is_ok() {
        return Ok(());
    }
    let length = from.metadata()?.len();
    let mut at = 0;
    while at < length {
        let start = match seek(from, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            // A host that knows no holes.
            Err(_) => at,
        };
        let end = seek(from, SeekFrom::Hole(start))
            .unwrap_or(length)
            .min(length);
        copy_run(host, from, to, start, end.max(start + 1).min(length))?;
        at = end.max(start + 1);
    }
    host.truncate_data(to, length)
}

fn copy_run(host: &Host, from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let (mut at, mut done) = (start, start);
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(usize::MAX >> 1);
        match host.copy_data(from, &mut at, to, &mut done, want) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    let mut buffer = vec![0; BUFFER];
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(BUFFER).min(BUFFER);
        let part = buffer.get_mut(..want).unwrap_or_default();
        let n = match from.read_at(part, at) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        host.write_all_data(to, part.get(..n).unwrap_or_default(), at)?;
        at += n as u64;
    }
    Ok(())
}
