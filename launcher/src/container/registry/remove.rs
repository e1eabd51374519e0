//! How a container goes from the store, and what is done with remains of one.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    Held, Registry, entries,
    lock::{is_free, leave_code},
};
use crate::container::{ContainerError, names, spare};

impl Registry {
    /// Removes a container with everything that belongs to it; without its `name`, one that has its id.
    /// `code` is left for those who wait.
    ///
    /// # Errors
    /// The host's; what is left then is swept later.
    pub fn remove(
        &self,
        mut held: Held,
        id: &str,
        name: Option<&str>,
        code: Option<i32>,
    ) -> Result<(), ContainerError> {
        let gone = held.dir.with_file_name(format!(".gone-{id}"));
        fs::rename(&held.dir, &gone).map_err(ContainerError::file("remove", &held.dir))?;
        match name.filter(|n| names::check(n).is_ok()) {
            Some(name) => {
                let _ = self.free_name(name, Some(Path::new(id)));
            }
            None => self.remove_names(id),
        }
        let _ = fs::remove_file(self.marker(id));
        if let Some(code) = code {
            leave_code(&mut held.lock, code);
        }
        if spare::keep(&self.root.join("containers"), &gone) {
            return Ok(());
        }
        fs::remove_dir_all(&gone).map_err(ContainerError::file("remove", gone))
    }

    /// Removes what has the id of a container for its name and is no directory. `None` if it is one.
    ///
    /// # Errors
    /// The host's.
    pub fn remove_stray(&self, id: &str) -> Option<Result<(), ContainerError>> {
        let path = self.dir(id);
        if spare::is_directory(&path) {
            return None;
        }
        self.remove_names(id);
        let _ = fs::remove_file(self.marker(id));
        Some(match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(ContainerError::file("remove", path)(e))
            }
            _ => Ok(()),
        })
    }

    /// Frees the names of container `id`, whichever they are.
    fn remove_names(&self, id: &str) {
        for name in entries(&self.root.join("names")).unwrap_or_default() {
            let _ = self.free_name(&name, Some(Path::new(id)));
        }
    }

    /// Removes what processes left behind that died while they made or removed a container.
    pub fn sweep(&self) {
        let parent = self.root.join("containers");
        for name in entries(&parent).unwrap_or_default() {
            let path = parent.join(&name);
            // One without a lock is just being made, or emptied for the next (`spare`), unless it is old.
            let lock = path.join("lock");
            let dead = is_free(&lock)
                && match name.strip_prefix(".new-") {
                    Some(_) => is_old(&path),
                    None => name.starts_with(".gone-") && (lock.exists() || is_old(&path)),
                };
            // No container, nor on its way to or from being one.
            let passing = name.starts_with(".new-") || name.starts_with(".gone-");
            let stray = passing && fs::symlink_metadata(&path).is_ok_and(|meta| !meta.is_dir());
            if dead || stray {
                spare::discard(&path);
            }
        }
    }
}

/// A directory is there for a moment before its lock is. One that was taken over is as old as its name.
fn is_old(path: &Path) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    match (now, fs::metadata(path)) {
        (Ok(now), Ok(meta)) => {
            let changed = u64::try_from(meta.ctime()).unwrap_or(0);
            now.as_secs().saturating_sub(changed) > 10
        }
        _ => false,
    }
}
