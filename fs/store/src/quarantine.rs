//! Where a repair sets aside what is damaged.
//!
//! ```text
//! quarantine/<when>-<pid>/report.jsonl   one JSON object a line: what, from where, why, when
//! quarantine/<when>-<pid>/objects/...    the things themselves, under what they were in the store
//! ```
//!
//! A directory for each repair, made when the first thing is set aside. Nothing here is ever removed
//! by itself, and the same name is never used twice. A line of the report is on disk before anything
//! happens to what it speaks of.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use parking_lot::Mutex;

use crate::{StoreError, temp::sync_dir};

const DIR: &str = "quarantine";
const REPORT: &str = "report.jsonl";

/// The quarantine of one repair.
#[derive(Debug)]
pub struct Quarantine {
    all: PathBuf,
    when: String,
    made: Mutex<Option<Made>>,
}

#[derive(Debug)]
struct Made {
    dir: PathBuf,
    report: File,
}

impl Quarantine {
    /// For a repair of the store at `root` that begins at `when` (RFC 3339). Touches nothing yet.
    #[must_use]
    pub fn new(root: &Path, when: String) -> Self {
        Self {
            all: root.join(DIR),
            when,
            made: Mutex::new(None),
        }
    }

    /// Its directory, if anything was set aside.
    #[must_use]
    pub fn dir(&self) -> Option<PathBuf> {
        self.made.lock().as_ref().map(|made| made.dir.clone())
    }

    /// Sets a copy of `path` aside under `name`, without taking it away: a link where the host has
    /// them. Is only sure to be on disk after [`Quarantine::sync`].
    ///
    /// # Errors
    /// The host's.
    pub fn keep(&self, path: &Path, name: &str, why: &str) -> Result<PathBuf, StoreError> {
        self.set_aside(path, name, why, &|to| {
            fs::hard_link(path, to).or_else(|_| {
                let mut from = File::open(path)?;
                let mut copy = File::options().write(true).create_new(true).open(to)?;
                io::copy(&mut from, &mut copy)?;
                copy.sync_all()
            })
        })
    }

    /// Moves `path` there, as `name`.
    ///
    /// # Errors
    /// The host's.
    pub fn take(&self, path: &Path, name: &str, why: &str) -> Result<PathBuf, StoreError> {
        self.set_aside(path, name, why, &|to| fs::rename(path, to))
    }

    /// Adds a line to the report about something that nothing is set aside of.
    ///
    /// # Errors
    /// The host's.
    pub fn note(&self, what: &str, why: &str) -> Result<(), StoreError> {
        self.report(what, None, why).map(drop)
    }

    /// Makes what was kept so far durable.
    ///
    /// # Errors
    /// The host's.
    pub fn sync(&self) -> Result<(), StoreError> {
        let Some(path) = self.dir() else {
            return Ok(());
        };
        File::open(&path)
            .and_then(|dir| Ok(rustix::fs::syncfs(dir)?))
            .map_err(StoreError::io("sync", &path))
    }

    fn set_aside(
        &self,
        path: &Path,
        name: &str,
        why: &str,
        how: &dyn Fn(&Path) -> io::Result<()>,
    ) -> Result<PathBuf, StoreError> {
        let wanted = self.report(name, Some(path), why)?.join(name);
        if let Some(parent) = wanted.parent() {
            fs::create_dir_all(parent).map_err(StoreError::io("create", parent))?;
        }
        let mut to = wanted.clone();
        for n in 1.. {
            if fs::symlink_metadata(&to).is_err() {
                break;
            }
            to = wanted.with_added_extension(n.to_string());
        }
        how(&to).map_err(StoreError::io("set aside", path))?;
        Ok(to)
    }

    /// Adds a line to the report; gives the directory.
    fn report(&self, what: &str, from: Option<&Path>, why: &str) -> Result<PathBuf, StoreError> {
        let line = serde_json::json!({
            "when": self.when,
            "what": what,
            "from": from.map(|path| path.display().to_string()),
            "why": why,
        });
        let mut made = self.made.lock();
        let made = match &mut *made {
            Some(made) => made,
            none => none.insert(self.make()?),
        };
        made.report
            .write_all(format!("{line}\n").as_bytes())
            .and_then(|()| made.report.sync_data())
            .map_err(StoreError::io("write to", &made.dir.join(REPORT)))?;
        Ok(made.dir.clone())
    }

    fn make(&self) -> Result<Made, StoreError> {
        fs::create_dir_all(&self.all).map_err(StoreError::io("create", &self.all))?;
        let pid = std::process::id();
        let mut base = format!("{}-{pid}", self.when.replace(':', "-"));
        let dir = loop {
            let dir = self.all.join(&base);
            match fs::create_dir(&dir) {
                Ok(()) => break dir,
                // Process numbers come again, in containers every time.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => base.push('x'),
                Err(e) => return Err(StoreError::io("create", &dir)(e)),
            }
        };
        let path = dir.join(REPORT);
        let report = File::create(&path).map_err(StoreError::io("create", &path))?;
        for dir in dir.ancestors().take(3) {
            sync_dir(dir)?;
        }
        Ok(Made { dir, report })
    }
}

/// Files of the name `name` (as `objects/<hex>`) that earlier repairs of the store at `root` set
/// aside: what was unreadable then may be whole.
pub(crate) fn earlier(root: &Path, name: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(root.join(DIR))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join(name))
        .filter(|path| path.is_file())
        .collect();
    found.sort();
    found
}
