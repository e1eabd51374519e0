//! Reading events: those there are, and those to come.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify,
};

use super::{Event, journal};

/// How long a wait lasts at most; the directory may have been replaced meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Longer lines are none of ours.
const LINE_MAX: usize = 1 << 20;

/// All events of the store at `root` that are still known, oldest first.
///
/// # Errors
/// The host's.
pub fn read(root: &Path) -> io::Result<Vec<Event>> {
    let mut follow = Follow::from_start(root);
    follow.more()
}

/// A reader that keeps its place.
pub struct Follow {
    root: PathBuf,
    /// The older file was read, or is not wanted.
    older_read: bool,
    file: Option<File>,
    /// The start of a line whose end is not there yet.
    part: Vec<u8>,
}

impl Follow {
    /// From the oldest event that is known.
    #[must_use]
    pub fn from_start(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            older_read: false,
            file: None,
            part: Vec::new(),
        }
    }

    /// The events that came since the last call.
    ///
    /// # Errors
    /// The host's.
    pub fn more(&mut self) -> io::Result<Vec<Event>> {
        let mut events = Vec::new();
        if !self.older_read {
            self.older_read = true;
            if let Some(file) = opened(&journal::older(&self.root))? {
                self.take(&file, &mut events)?;
                self.part.clear();
            }
        }
        loop {
            if let Some(file) = self.file.take() {
                self.take(&file, &mut events)?;
                self.file = Some(file);
            }
            let path = journal::file(&self.root);
            let newest = fs::metadata(&path).map(|m| m.ino()).ok();
            let ours = match &self.file {
                Some(file) => Some(file.metadata()?.ino()),
                None => None,
            };
            if newest.is_none() || newest == ours {
                return Ok(events);
            }
            // Put aside, as far as it was read to its end just now; a last line may have come since.
            if let Some(old) = self.file.take() {
                self.take(&old, &mut events)?;
            }
            self.part.clear();
            self.file = opened(&path)?;
        }
    }

    fn take(&mut self, mut file: &File, events: &mut Vec<Event>) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let n = match file.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            let mut lines = buffer.get(..n).unwrap_or_default().split(|b| *b == b'\n');
            self.part.extend(lines.next().unwrap_or_default());
            for next in lines {
                events.extend(journal::parse(&self.part));
                self.part.clear();
                self.part.extend(next);
            }
            if self.part.len() > LINE_MAX {
                self.part.clear();
            }
        }
    }

    /// Waits until there may be more, or `until`.
    ///
    /// # Errors
    /// The host's.
    pub fn wait(&self, until: Option<Instant>) -> io::Result<()> {
        let left = until.map_or(LOOK_AGAIN, |until| {
            until
                .saturating_duration_since(Instant::now())
                .min(LOOK_AGAIN)
        });
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let flags = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO;
        // A store without events yet has no such directory.
        let watched = inotify::add_watch(&watch, journal::dir(&self.root), flags)
            .or_else(|_| inotify::add_watch(&watch, &self.root, flags));
        // What came between the last look and the watch.
        if watched.is_ok() && self.is_behind()? {
            return Ok(());
        }
        let time = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(1),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match poll(&mut [PollFd::new(&watch, PollFlags::IN)], Some(&time)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn is_behind(&self) -> io::Result<bool> {
        use std::io::Seek as _;

        let there = fs::metadata(journal::file(&self.root)).ok();
        match (&self.file, there) {
            (None, there) => Ok(there.is_some()),
            (Some(_), None) => Ok(true),
            (Some(file), Some(there)) => {
                let mut at = file;
                let read = at.stream_position()?;
                Ok(file.metadata()?.ino() != there.ino() || there.len() > read)
            }
        }
    }
}

fn opened(path: &Path) -> io::Result<Option<File>> {
    let open = File::options()
        .read(true)
        .custom_flags(journal::SAFELY)
        .open(path);
    match open.and_then(journal::regular) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{Kind, note};

    fn event(n: usize) -> Event {
        Event {
            time: 0,
            kind: Kind::Container,
            action: "start".to_owned(),
            id: n.to_string(),
            attributes: Default::default(),
        }
    }

    #[test]
    fn events_that_come_are_given_once_and_in_order() {
        let root = tempfile::tempdir().unwrap();
        let mut follow = Follow::from_start(root.path());
        assert_eq!(follow.more().unwrap(), []);
        note(root.path(), &[event(1)]);
        follow.wait(None).unwrap();
        assert_eq!(follow.more().unwrap(), [event(1)]);
        note(root.path(), &[event(2)]);
        // Put aside, as when it is full.
        fs::rename(journal::file(root.path()), journal::older(root.path())).unwrap();
        note(root.path(), &[event(3)]);
        assert_eq!(follow.more().unwrap(), [event(2), event(3)]);
        assert_eq!(follow.more().unwrap(), []);
        assert_eq!(read(root.path()).unwrap(), [event(1), event(2), event(3)]);
    }
}
