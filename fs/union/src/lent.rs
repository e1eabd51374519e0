//! Data files that the kernel reads and writes by itself (passthrough).
//!
//! While a data file is *lent*, its length and modification time are the host's, and the union's are
//! as of the last look. Whoever needs them, or holds the content lock to change the content, looks
//! first and takes over what it finds ([`Union::look`]). The kernel may write at any moment, also
//! during a look: so a look never shortens the file and counts as seen only what it saw. One who
//! changes the content sees to it with [`Union::change_lent`] that the file is then at least as long as
//! the inode says, since that is how far the kernel will read.

use std::{fs::File, io, os::unix::fs::MetadataExt, sync::Arc};

use pellicle_store::{Ino, Time};
use pellicle_upper::ContentSource;
use rustix::fs::{FallocateFlags, fallocate, ftruncate};

use crate::{
    Union,
    content::{fit, host},
    error::Error,
    inode::{ContentLock, Inode, Stamp},
    request::KillSetId,
    table::Found,
};

/// A change of the content of a lent file; with its end the host file is as long as the inode says.
pub(crate) struct LentChange<'l> {
    inode: &'l Arc<Inode>,
    file: Arc<File>,
}

impl Drop for LentChange<'_> {
    fn drop(&mut self) {
        let Ok(now) = self.inode.now() else { return };
        if let Err(error) = grow(&self.file, now.size) {
            tracing::warn!(%error, ino = now.ino.0, "a lent data file is too short");
        }
        if let Ok(stamp) = stamp(&self.file) {
            let mut state = self.inode.state.write();
            if state.data.lent.is_some() {
                // Not the host's size: what a write beside this added is still to be seen.
                let size = now.size;
                state.data.lent = Some(Stamp { size, ..stamp });
            }
        }
    }
}

/// Makes `file` at least `size` bytes long without a moment at which bytes could be cut off that
/// somebody else just added.
fn grow(file: &File, size: u64) -> io::Result<()> {
    if size <= file.metadata()?.len() {
        return Ok(());
    }
    match fallocate(file, FallocateFlags::empty(), size - 1, 1) {
        Err(rustix::io::Errno::OPNOTSUPP) => Ok(ftruncate(file, size)?),
        done => Ok(done?),
    }
}

fn stamp(file: &File) -> std::io::Result<Stamp> {
    let meta = file.metadata()?;
    Ok(Stamp {
        size: meta.len(),
        modified: Time {
            sec: meta.mtime(),
            nsec: u32::try_from(meta.mtime_nsec()).unwrap_or(0),
        },
    })
}

impl Union {
    /// Takes over what the kernel did to a lent data file; nothing for any other. Whether there was
    /// something.
    pub(crate) fn look(&self, lock: &ContentLock<'_>) -> Result<bool, Error> {
        let inode = lock.inode;
        let Some(seen) = inode.state.read().data.lent else {
            return Ok(false);
        };
        let file = self.upper()?.data(inode.ino)?;
        let found = stamp(&file).map_err(host(inode.ino, "stat"))?;
        if found == seen {
            return Ok(false);
        }
        self.commit_content(lock, ContentSource::Data, |change, inode| {
            // Who wrote is not known.
            self.wrote(change, inode, found.size, KillSetId::Stranger)?;
            change.edit(inode, |node| {
                node.size = found.size;
                node.mtime = found.modified;
            })
        })?;
        inode.data_changed(true);
        inode.state.write().data.lent = Some(found);
        Ok(true)
    }

    /// To be held, inside the content lock, by whoever changes the content.
    pub(crate) fn change_lent<'l>(
        &self,
        lock: &ContentLock<'l>,
    ) -> Result<Option<LentChange<'l>>, Error> {
        self.look(lock)?;
        let inode = lock.inode;
        if inode.state.read().data.lent.is_none() {
            return Ok(None);
        }
        let file = self.upper()?.data(inode.ino)?;
        Ok(Some(LentChange { inode, file }))
    }

    /// As [`Union::look`] for who does not hold the content lock.
    pub(crate) fn look_if_lent(&self, inode: &Arc<Inode>) -> Result<bool, Error> {
        if inode.state.read().data.lent.is_none() {
            return Ok(false);
        }
        self.look(&inode.lock_content())
    }

    /// Lends the data file of `ino` to the kernel, which may then read and write it until
    /// [`Union::take_back`]: one host file of exactly the inode's size. With `write` a file of the
    /// lower tree is copied up first. `None` says that there is no such file: without `write` there
    /// may be no data file yet, so that lending would show what a later copy-up leaves behind; and
    /// the content of a large lower file is in two places once it was changed.
    ///
    /// # Errors
    /// As [`Union::write`].
    pub fn lend(&self, ino: Ino, write: bool) -> Result<Option<Arc<File>>, Error> {
        self.refuse_if_read_only()?;
        let inode = self.regular(ino)?;
        let lock = inode.lock_content();
        self.look(&lock)?;
        let now = inode.now()?;
        let is_whole = now.content == ContentSource::Data;
        if now.content == ContentSource::Mixed || !is_whole && !write {
            return Ok(None);
        }
        let sink = self.sink(&lock)?;
        if sink.mixed.is_some() {
            self.give_up(&lock, &sink);
            return Ok(None);
        }
        let file = sink.file.clone();
        let fitted = fit(self.host(), &file, now.size).and_then(|()| stamp(&file));
        let mut seen = match fitted {
            Ok(seen) => seen,
            Err(error) => {
                self.give_up(&lock, &sink);
                return Err(host(ino, "fit")(error));
            }
        };
        if !is_whole {
            self.keep(&lock, sink, |_, _| Ok(()))?;
            // A dir upper gave the copy the times of the inode.
            seen = stamp(&file).map_err(host(ino, "stat"))?;
        }
        inode.data_changed(true);
        inode.state.write().data.lent = Some(seen);
        Ok(Some(file))
    }

    /// Takes over what the kernel did to a lent data file so far; whether there was something.
    ///
    /// # Errors
    /// As [`Union::write`].
    pub fn look_at_lent(&self, ino: Ino) -> Result<bool, Error> {
        match self.table.find(ino) {
            Found::Inode(inode) => self.look_if_lent(&inode),
            Found::Untouched | Found::Absent => Ok(false),
        }
    }

    /// The kernel has let go of the data file; whether it had changed it since the last look.
    ///
    /// # Errors
    /// As [`Union::write`].
    pub fn take_back(&self, ino: Ino) -> Result<bool, Error> {
        let Found::Inode(inode) = self.table.find(ino) else {
            return Ok(false);
        };
        let lock = inode.lock_content();
        let changed = self.look(&lock)?;
        let was_lent = inode.state.write().data.lent.take().is_some();
        if was_lent {
            // Whatever a late writer leaves behind the end is cut off as after a crash.
            inode.data_changed(false);
        }
        Ok(changed)
    }
}
