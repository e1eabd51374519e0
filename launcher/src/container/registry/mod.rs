//! The containers of a store: their directories, names and locks.
//!
//! ```text
//! containers/<id>/   config.json state.json lock log upper/
//! names/<name>       a link whose target is the id; making it is what takes the name
//! running/<id>       there while a supervisor lives or died without clearing up; says which way
//!                    requests for its files come
//! ```
//!
//! `lock` is held exclusively (flock(2)) by whoever may change the container: its supervisor while
//! it runs, else the command at work. It goes with its process however that ends, so a container
//! that says "running" and whose lock is free lost its supervisor. When a supervisor is done it
//! writes the exit code into the lock file and then lets go of it: `wait` holds that file open and
//! so learns the code even when the directory is gone by then.
//!
//! A container appears by a rename of its whole directory, from a name beginning with `.new-`, and
//! goes by a rename to `.gone-`; what is left of either after a crash is removed by [`sweep`]. A few that
//! are emptied are kept as `.spare-` for containers that are removed at their end (`spare`).
//! Reconciliation looks only at `running/`, so that its cost does not grow with what is stopped.
//!
//! [`sweep`]: Registry::sweep

mod create;
mod find;
mod lock;
mod remove;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use oci_spec::runtime::Spec;
use pellicle_store::Hold;

pub use self::{
    find::Listed,
    lock::{Held, Watch},
};
use super::{ContainerError, names, state};

/// The writable layer in a container's directory.
pub(super) const UPPER: &str = "upper";

/// The containers of one store.
#[derive(Clone, Debug)]
pub struct Registry {
    root: PathBuf,
}

impl Registry {
    /// The containers of the store at `root`; touches nothing yet.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// The store's root.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of container `id`.
    #[must_use]
    pub fn dir(&self, id: &str) -> PathBuf {
        self.root.join("containers").join(id)
    }

    /// Where container `id` is while it is being made.
    fn new_dir(&self, id: &str) -> PathBuf {
        self.root.join("containers").join(format!(".new-{id}"))
    }

    /// Where the writable layer of container `id` is.
    #[must_use]
    pub fn upper(&self, id: &str) -> PathBuf {
        self.dir(id).join(UPPER)
    }

    fn marker(&self, id: &str) -> PathBuf {
        self.root.join("running").join(id)
    }

    fn name_link(&self, name: &str) -> PathBuf {
        self.root.join("names").join(name)
    }

    /// Frees `name` if it still leads to `holder`, or if it is no link and was none (`None`): of two who find
    /// it left by a container that is gone, none takes away what the other has put in its place.
    fn free_name(&self, name: &str, holder: Option<&Path>) -> io::Result<()> {
        let link = self.name_link(name);
        // Without the lock, as where nothing more can be made, the name is freed all the same.
        let _guard = Hold::brief(&self.root, "names");
        match fs::read_link(&link) {
            // Who makes a name anew does not take the lock.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            now if now.as_deref().ok() == holder => fs::remove_file(link),
            _ => Ok(()),
        }
    }

    /// The runtime specification of container `id`.
    ///
    /// # Errors
    /// Damage, or the host's errors.
    pub fn spec(&self, id: &str) -> Result<Spec, ContainerError> {
        state::read_json(&self.dir(id).join("config.json"))
    }

    fn mark(&self, id: &str) -> Result<(), ContainerError> {
        let marker = self.marker(id);
        File::create(&marker)
            .map(drop)
            .map_err(ContainerError::file("make", marker))
    }

    /// Ids of the containers that run or whose supervisor died.
    ///
    /// # Errors
    /// The host's.
    pub fn marked(&self) -> Result<Vec<String>, ContainerError> {
        entries(&self.root.join("running"))
            .map(|names| names.into_iter().filter(|n| names::is_id(n)).collect())
    }

    /// Notes which way requests for the files of running container `id` come, and why.
    ///
    /// # Errors
    /// The host's.
    pub fn note_served(&self, id: &str, served: &str) -> Result<(), ContainerError> {
        let marker = self.marker(id);
        OpenOptions::new()
            .write(true)
            .open(&marker)
            .and_then(|mut file| file.write_all(served.as_bytes()))
            .map_err(ContainerError::file("write", marker))
    }

    /// What [`Registry::note_served`] noted; `None` if the container does not run.
    #[must_use]
    pub fn served(&self, id: &str) -> Option<String> {
        fs::read_to_string(self.marker(id)).ok()
    }
}

fn entries(dir: &Path) -> Result<Vec<String>, ContainerError> {
    let reading = |e: io::Error| ContainerError::file("list", dir)(e);
    match fs::read_dir(dir) {
        Ok(entries) => entries
            .filter_map(|e| e.map(|e| e.file_name().into_string().ok()).transpose())
            .collect::<Result<_, _>>()
            .map_err(reading),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(reading(e)),
    }
}
