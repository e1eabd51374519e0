//! The file of events: `events/journal` in the store, one JSON object a line.
//!
//! A line is appended by one write under a lock on the file, so that lines of several processes do not
//! mix. Who was killed while writing leaves a line without an end: the next writer ends it, and readers
//! pass over what they do not understand. When the file is full it becomes `journal.1`, in place of the
//! one before, so that the two are all there ever is.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::Event;

/// When a file is full. Some 30,000 events.
const FULL: u64 = 8 << 20;
/// Longest line; labels may be longer, and then are not in it.
const LINE_MAX: usize = 64 << 10;
/// How often another may take the file away under us.
const TRIES: usize = 8;

pub(super) fn dir(root: &Path) -> PathBuf {
    root.join("events")
}

pub(super) fn file(root: &Path) -> PathBuf {
    dir(root).join("journal")
}

/// The file before the current one.
pub(super) fn older(root: &Path) -> PathBuf {
    dir(root).join("journal.1")
}

pub(super) fn append(root: &Path, events: &[Event]) -> io::Result<()> {
    append_until(root, events, FULL)
}

fn append_until(root: &Path, events: &[Event], full: u64) -> io::Result<()> {
    let mut lines = Vec::new();
    for event in events {
        lines.extend(line(event)?);
    }
    let path = file(root);
    for _ in 0..TRIES {
        let file = open(root, &path)?;
        file.lock()?;
        let meta = file.metadata()?;
        // Another may have put it aside between the opening and the lock.
        if fs::metadata(&path).map(|m| m.ino()).ok() != Some(meta.ino()) {
            continue;
        }
        if meta.len() > 0 && meta.len() + lines.len() as u64 > full {
            fs::rename(&path, older(root))?;
            continue;
        }
        let mut last = [b'\n'];
        if meta.len() > 0 {
            file.read_at(&mut last, meta.len() - 1)?;
        }
        if last != [b'\n'] {
            lines.insert(0, b'\n');
        }
        return (&file).write_all(&lines);
    }
    Err(io::Error::other("other processes fill it too fast"))
}

fn open(root: &Path, path: &Path) -> io::Result<File> {
    let open = || {
        OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .custom_flags(SAFELY)
            .open(path)
            .and_then(regular)
    };
    match open() {
        Err(e) if e.kind() == io::ErrorKind::NotFound && root.is_dir() => {
            fs::create_dir_all(dir(root))?;
            open()
        }
        other => other,
    }
}

/// How a file of events is opened: through no link out of the store, and without waiting for the other end
/// of a FIFO.
pub(super) const SAFELY: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK;

/// `file`, if it is what can be a file of events.
pub(super) fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("the file of events is no regular file"))
    }
}

fn line(event: &Event) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(event)?;
    if text.len() > LINE_MAX {
        let mut short = event.clone();
        let known = |key: &str| matches!(key, "name" | "image" | "exitCode" | "signal");
        short.attributes.retain(|k, v| known(k) && v.len() < 4096);
        short.id.truncate(4096);
        text = serde_json::to_vec(&short)?;
    }
    text.push(b'\n');
    Ok(text)
}

/// The event of a line; `None` for what is none.
pub(super) fn parse(line: &[u8]) -> Option<Event> {
    serde_json::from_slice(line).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Kind;

    fn event(n: usize) -> Event {
        Event {
            time: i64::try_from(n).unwrap(),
            kind: Kind::Image,
            action: "pull".to_owned(),
            id: format!("sha256:{n}"),
            attributes: Default::default(),
        }
    }

    fn ids(path: &Path) -> Vec<String> {
        let text = fs::read(path).unwrap_or_default();
        let lines = text.split(|b| *b == b'\n');
        lines.filter_map(parse).map(|e| e.id).collect()
    }

    #[test]
    fn a_torn_line_costs_only_itself() {
        let root = tempfile::tempdir().unwrap();
        append(root.path(), &[event(1)]).unwrap();
        let mut file = OpenOptions::new()
            .append(true)
            .open(file(root.path()))
            .unwrap();
        file.write_all(b"{\"time\":2,\"kind\":\"ima").unwrap();
        append(root.path(), &[event(3), event(4)]).unwrap();
        assert_eq!(
            ids(&super::file(root.path())),
            ["sha256:1", "sha256:3", "sha256:4"]
        );
    }

    #[test]
    fn a_full_file_is_put_aside_and_the_one_before_it_goes() {
        let root = tempfile::tempdir().unwrap();
        for n in 0..60 {
            append_until(root.path(), &[event(n)], 1000).unwrap();
        }
        let sizes = [file(root.path()), older(root.path())].map(|p| fs::metadata(p).unwrap().len());
        assert!(sizes.iter().all(|s| *s <= 1000), "{sizes:?}");
        let all = [ids(&older(root.path())), ids(&file(root.path()))].concat();
        let last: Vec<String> = (60 - all.len()..60)
            .map(|n| format!("sha256:{n}"))
            .collect();
        assert_eq!(all, last, "the newest, and all in order");
    }

    #[test]
    fn what_is_no_file_is_neither_waited_for_nor_followed() {
        let root = tempfile::tempdir().unwrap();
        let (path, outside) = (file(root.path()), root.path().join("outside"));
        fs::create_dir(dir(root.path())).unwrap();
        fs::write(&outside, "mine").unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(append(root.path(), &[event(1)]).is_err());
        assert!(crate::events::read(root.path()).is_err());
        for target in [Path::new("/dev/full"), &outside] {
            fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink(target, &path).unwrap();
            assert!(append(root.path(), &[event(1)]).is_err());
            assert!(crate::events::read(root.path()).is_err());
        }
        assert_eq!(fs::read_to_string(&outside).unwrap(), "mine");
    }

    #[test]
    fn many_writers_lose_nothing() {
        let root = tempfile::tempdir().unwrap();
        std::thread::scope(|s| {
            for t in 0..8 {
                let root = root.path();
                s.spawn(move || {
                    for n in 0..50 {
                        append(root, &[event(t * 100 + n)]).unwrap();
                    }
                });
            }
        });
        assert_eq!(ids(&file(root.path())).len(), 400);
    }

    #[test]
    fn nothing_is_made_where_there_is_no_store() {
        let root = tempfile::tempdir().unwrap();
        let none = root.path().join("none");
        assert!(append(&none, &[event(1)]).is_err());
        assert!(!none.exists());
    }
}
