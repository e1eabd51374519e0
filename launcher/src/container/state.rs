//! What is known of a container from one process to the next: `state.json`.
//!
//! Replaced by rename, without fsync: after a crash of the host the last change may be missing,
//! which reconciliation finds out by itself, and a start need not wait for the disk.

use std::{collections::BTreeMap, fs, io, path::Path};

use serde::{Deserialize, Serialize};

use super::process::ProcessId;
use super::{ContainerError, cgroup::Cgroup};
use crate::transport::{Opens, Transport};

/// Version of the file.
const VERSION: u32 = 1;

/// No `state.json` of ours is as large; a larger one is not read.
const SIZE_MAX: u64 = 4 << 20;

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Made, never started.
    Created,
    /// Its first process runs, or is about to.
    Running,
    /// Its first process ended.
    Exited,
}

/// What a container was asked to be, beyond what the runtime specification can say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Remove it when it ends.
    pub auto_remove: bool,
    /// It was started in the background.
    pub detached: bool,
    /// Standard input stays open.
    pub open_stdin: bool,
    /// A process of ours is its first one and reaps zombies.
    pub init: bool,
    /// The network of the host.
    pub host_network: bool,
    /// One id only.
    pub single_id: bool,
    /// The writable layer is never synced to disk.
    pub volatile: bool,
    /// Which way requests for its files are to come.
    pub transport: Transport,
    /// What it means to open its files.
    pub opens: Opens,
    /// `user[:group]` as given.
    pub user: String,
    /// HOME was set by the person or the image, so that the user's is not.
    pub home_given: bool,
    /// The signal that asks it to end.
    pub stop_signal: String,
    /// Seconds between that and SIGKILL.
    pub stop_timeout: u32,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// `state.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// Version of this structure.
    pub version: u32,
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The image as the person named it.
    pub image: String,
    /// The image's id, `sha256:...`.
    pub image_id: String,
    /// Its layers, lowest first, `sha256:...`.
    pub diff_ids: Vec<String>,
    /// What runs in it.
    pub command: Vec<String>,
    /// Where it is in its life.
    pub status: Status,
    /// Its first process, while it runs.
    pub process: Option<ProcessId>,
    /// The command's process, where the first one is our init process.
    #[serde(default)]
    pub command_process: Option<ProcessId>,
    /// Its cgroups, while it runs.
    #[serde(default)]
    pub cgroup: Cgroup,
    /// When it was made, RFC 3339.
    pub created: String,
    /// When it was last started.
    pub started: Option<String>,
    /// When it last ended.
    pub finished: Option<String>,
    /// Its exit code, once it ended.
    pub exit_code: Option<i32>,
    /// Why it ended, if not by itself.
    pub error: Option<String>,
    /// Paths that were made to mount something on, which `diff` leaves out.
    #[serde(default)]
    pub mount_points: Vec<String>,
    /// What it was asked to be.
    pub settings: Settings,
}

impl State {
    /// A new container's.
    #[must_use]
    pub fn new(id: String, name: String, settings: Settings) -> Self {
        Self {
            version: VERSION,
            id,
            name,
            image: String::new(),
            image_id: String::new(),
            diff_ids: Vec::new(),
            command: Vec::new(),
            status: Status::Created,
            process: None,
            command_process: None,
            cgroup: Cgroup::default(),
            created: now(),
            started: None,
            finished: None,
            exit_code: None,
            error: None,
            mount_points: Vec::new(),
            settings,
        }
    }

    /// Reads the state in container directory `dir`.
    ///
    /// # Errors
    /// [`ContainerError::Damaged`], also for a version of the future, and the host's errors.
    pub fn load(dir: &Path) -> Result<Self, ContainerError> {
        let path = dir.join("state.json");
        let state: Self = read_json(&path)?;
        let damaged = |detail: String| ContainerError::Damaged {
            path: path.clone(),
            detail,
        };
        if state.version != VERSION {
            return Err(damaged(format!(
                "it has version {}, this program knows {VERSION}",
                state.version
            )));
        }
        if dir.file_name().and_then(|n| n.to_str()) != Some(state.id.as_str()) {
            return Err(damaged("it is of another container".to_owned()));
        }
        Ok(state)
    }

    /// Writes the state to container directory `dir`.
    ///
    /// # Errors
    /// The host's; the old state then stays.
    pub fn save(&self, dir: &Path) -> Result<(), ContainerError> {
        write_json(&dir.join("state.json"), self)
    }
}

/// Reads a JSON file of ours, within bounds.
///
/// # Errors
/// [`ContainerError::Damaged`] and the host's errors.
pub(super) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, ContainerError> {
    let meta = fs::metadata(path).map_err(ContainerError::file("read", path))?;
    let size = meta.len();
    let damaged = |detail: String| ContainerError::Damaged {
        path: path.to_owned(),
        detail,
    };
    if !meta.is_file() {
        return Err(damaged("it is no regular file".to_owned()));
    }
    if size > SIZE_MAX {
        return Err(damaged(format!("it has {size} bytes")));
    }
    let bytes = fs::read(path).map_err(ContainerError::file("read", path))?;
    serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))
}

/// Replaces a JSON file.
///
/// # Errors
/// The host's.
pub(super) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), ContainerError> {
    let new = path.with_extension("new");
    write_first_json(&new, value)?;
    fs::rename(&new, path).map_err(ContainerError::file("write", path))
}

/// Writes a JSON file that nobody looks for yet.
///
/// # Errors
/// The host's.
pub(super) fn write_first_json<T: Serialize>(path: &Path, value: &T) -> Result<(), ContainerError> {
    let text = serde_json::to_vec(value)
        .map_err(|e| ContainerError::file("write", path)(io::Error::other(e)))?;
    fs::write(path, text).map_err(ContainerError::file("write", path))
}

/// Now, as RFC 3339 has it, UTC, with nanoseconds.
#[must_use]
pub fn now() -> String {
    jiff::Timestamp::now().to_string()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn dir() -> (tempfile::TempDir, PathBuf) {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("c".repeat(64));
        fs::create_dir(&dir).unwrap();
        (top, dir)
    }

    #[test]
    fn state_survives_a_round_trip() {
        let (_top, dir) = dir();
        let mut state = State::new("c".repeat(64), "x-y".into(), Settings::default());
        state.command = vec!["a b".into(), "\u{1f600}".into()];
        state.save(&dir).unwrap();
        let again = State::load(&dir).unwrap();
        assert_eq!(again.command, state.command);
        assert_eq!(again.status, Status::Created);
    }

    #[test]
    fn torn_and_foreign_state_files_are_damage_and_no_panic() {
        let (_top, dir) = dir();
        let state = State::new("c".repeat(64), "x-y".into(), Settings::default());
        state.save(&dir).unwrap();
        let path = dir.join("state.json");
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let e = State::load(&dir).unwrap_err();
            assert!(matches!(e, ContainerError::Damaged { .. }), "{cut}: {e}");
        }
        for bytes in [&b"null"[..], b"[]", b"\xff\xfe", b"{\"version\":1}"] {
            fs::write(&path, bytes).unwrap();
            assert!(State::load(&dir).is_err());
        }
        let text = String::from_utf8(whole).unwrap();
        fs::write(&path, text.replacen("\"version\":1", "\"version\":2", 1)).unwrap();
        assert!(
            State::load(&dir)
                .unwrap_err()
                .to_string()
                .contains("version 2")
        );
        fs::write(&path, text.replace('c', "d")).unwrap();
        assert!(State::load(&dir).is_err());
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let e = State::load(&dir).unwrap_err();
        assert!(matches!(e, ContainerError::Damaged { .. }), "a FIFO: {e}");
    }
}
