//! How a container comes into the store: whole, by one rename, and with a name of its own.

use std::{fs, io, os::unix::fs::symlink, path::Path};

use oci_spec::runtime::Spec;
use rustix::{
    fs::{FlockOperation, flock},
    io::retry_on_intr,
};

use super::{Held, Registry, UPPER, lock::open_lock};
use crate::container::{
    ContainerError, names, spare,
    state::{self, State},
};

impl Registry {
    /// Makes a container of `state` and `spec` and holds it. An empty name is replaced by a new
    /// one.
    ///
    /// # Errors
    /// [`ContainerError::NameTaken`]; the host's errors. Nothing is left then.
    pub fn create(&self, state: &mut State, spec: &Spec) -> Result<Held, ContainerError> {
        let dir = self.dir(&state.id);
        let new = self.new_dir(&state.id);
        for part in ["containers", "names", "running"] {
            let path = self.root.join(part);
            match fs::create_dir(&path) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(ContainerError::file("make", path)(e));
                }
                _ => {}
            }
        }
        // What a crash of the host leaves of a container that lasts must be its own.
        if !state.settings.auto_remove || !spare::take(&self.root.join("containers"), &new) {
            fs::create_dir(&new).map_err(ContainerError::file("make", &new))?;
        }
        let made = self.fill(&new, &dir, state, spec);
        if made.is_err() {
            let _ = fs::remove_dir_all(&new);
            let _ = fs::remove_file(self.marker(&state.id));
        }
        made
    }

    fn fill(
        &self,
        new: &Path,
        dir: &Path,
        state: &mut State,
        spec: &Spec,
    ) -> Result<Held, ContainerError> {
        let lock = open_lock(&new.join("lock"))?;
        // Who looks for remains of others has it for an instant.
        retry_on_intr(|| flock(&lock, FlockOperation::LockExclusive))
            .map_err(ContainerError::file("lock", new.join("lock")))?;
        let upper = new.join(UPPER);
        match fs::create_dir(&upper) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(ContainerError::file("make", upper)(e));
            }
            _ => {}
        }
        state::write_first_json(&new.join("config.json"), spec)?;
        self.take_name(state)?;
        let done = state::write_first_json(&new.join("state.json"), state)
            .and_then(|()| self.mark(&state.id))
            .and_then(|()| fs::rename(new, dir).map_err(ContainerError::file("make", dir)));
        if let Err(e) = done {
            let _ = fs::remove_file(self.name_link(&state.name));
            return Err(e);
        }
        Ok(Held {
            dir: dir.to_owned(),
            lock,
        })
    }

    fn take_name(&self, state: &mut State) -> Result<(), ContainerError> {
        let made_up = state.name.is_empty();
        if !made_up {
            names::check(&state.name)?;
        }
        for attempt in 0..1000 {
            if made_up {
                state.name = names::new_name(attempt);
            }
            let link = self.name_link(&state.name);
            match symlink(&state.id, &link) {
                Ok(()) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    let target = fs::read_link(&link).ok();
                    let holder = target.as_deref().unwrap_or(Path::new(""));
                    let holder = holder.to_string_lossy().into_owned();
                    if !names::is_id(&holder) || !self.exists(&holder) {
                        // Its container was being made or removed when its process died.
                        self.free_name(&state.name, target.as_deref())
                            .map_err(ContainerError::file("remove", link))?;
                    } else if !made_up {
                        return Err(ContainerError::NameTaken {
                            name: state.name.clone(),
                            holder: names::short(&holder).to_owned(),
                        });
                    }
                }
                Err(e) => return Err(ContainerError::file("make", link)(e)),
            }
        }
        Err(ContainerError::NameTaken {
            name: state.name.clone(),
            holder: "(many)".to_owned(),
        })
    }

    /// Also while it is being made.
    fn exists(&self, id: &str) -> bool {
        // In the order in which it has the two: it may be on the way from one to the other.
        self.new_dir(id).exists() || self.dir(id).exists()
    }
}
