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

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{MetadataExt as _, symlink},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use oci_spec::runtime::Spec;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FlockOperation, flock},
};

use super::{
    ContainerError, names, spare,
    state::{self, State, Status},
};

/// The writable layer in a container's directory.
pub(super) const UPPER: &str = "upper";

/// The containers of one store.
#[derive(Clone, Debug)]
pub struct Registry {
    root: PathBuf,
}

/// A container whose lock this process holds.
#[derive(Debug)]
pub struct Held {
    /// Its directory.
    pub dir: PathBuf,
    lock: File,
}

/// One container of a listing.
#[derive(Debug)]
pub enum Listed {
    /// As its state says.
    Known(Box<State>),
    /// Its state cannot be read.
    Damaged {
        /// Its id.
        id: String,
        /// Why.
        error: ContainerError,
    },
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

    fn marker(&self, id: &str) -> PathBuf {
        self.root.join("running").join(id)
    }

    fn name_link(&self, name: &str) -> PathBuf {
        self.root.join("names").join(name)
    }

    /// Makes a container of `state` and `spec` and holds it. An empty name is replaced by a new
    /// one.
    ///
    /// # Errors
    /// [`ContainerError::NameTaken`]; the host's errors. Nothing is left then.
    pub fn create(&self, state: &mut State, spec: &Spec) -> Result<Held, ContainerError> {
        let dir = self.dir(&state.id);
        let new = dir.with_file_name(format!(".new-{}", state.id));
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
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
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
                    let holder = fs::read_link(&link).unwrap_or_default();
                    let holder = holder.to_string_lossy().into_owned();
                    if !names::is_id(&holder) || !self.exists(&holder) {
                        // Its container was being made or removed when its process died.
                        match fs::remove_file(&link) {
                            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                                return Err(ContainerError::file("remove", link)(e));
                            }
                            _ => {}
                        }
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
        let dir = self.dir(id);
        dir.exists() || dir.with_file_name(format!(".new-{id}")).exists()
    }

    fn mark(&self, id: &str) -> Result<(), ContainerError> {
        let marker = self.marker(id);
        File::create(&marker)
            .map(drop)
            .map_err(ContainerError::file("make", marker))
    }

    /// The id of the container that `wanted` names: a name, an id, or the unique start of one.
    ///
    /// # Errors
    /// [`ContainerError::NotFound`], [`ContainerError::Ambiguous`].
    pub fn find(&self, wanted: &str) -> Result<String, ContainerError> {
        let not_found = || ContainerError::NotFound(wanted.to_owned());
        if names::is_id(wanted) && self.dir(wanted).is_dir() {
            return Ok(wanted.to_owned());
        }
        if names::check(wanted).is_ok()
            && let Ok(target) = fs::read_link(self.name_link(wanted))
            && let Some(id) = target.to_str().filter(|id| names::is_id(id))
            && self.dir(id).is_dir()
        {
            return Ok(id.to_owned());
        }
        if wanted.is_empty() || !wanted.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(not_found());
        }
        let mut hits = self.ids()?.into_iter().filter(|id| id.starts_with(wanted));
        let hit = hits.next().ok_or_else(not_found)?;
        match hits.next() {
            None => Ok(hit),
            Some(_) => Err(ContainerError::Ambiguous(wanted.to_owned())),
        }
    }

    /// The ids of all containers, in no order.
    ///
    /// # Errors
    /// The host's; a store without containers has none.
    pub fn ids(&self) -> Result<Vec<String>, ContainerError> {
        entries(&self.root.join("containers"))
            .map(|names| names.into_iter().filter(|n| names::is_id(n)).collect())
    }

    /// All containers, the newest first.
    ///
    /// # Errors
    /// The host's. A container that goes away meanwhile is left out.
    pub fn list(&self) -> Result<Vec<Listed>, ContainerError> {
        let mut all: Vec<Listed> = Vec::new();
        for id in self.ids()? {
            let dir = self.dir(&id);
            match State::load(&dir) {
                Ok(state) => all.push(Listed::Known(Box::new(state))),
                Err(_) if !dir.exists() => {}
                Err(error) => all.push(Listed::Damaged { id, error }),
            }
        }
        all.sort_by(|a, b| b.created().cmp(a.created()));
        Ok(all)
    }

    /// The runtime specification of container `id`.
    ///
    /// # Errors
    /// Damage, or the host's errors.
    pub fn spec(&self, id: &str) -> Result<Spec, ContainerError> {
        state::read_json(&self.dir(id).join("config.json"))
    }

    /// Takes the lock of container `id`, for which other commands get a moment to finish.
    ///
    /// # Errors
    /// [`ContainerError::Running`] or [`ContainerError::Busy`] while somebody else has it.
    pub fn hold(&self, id: &str) -> Result<Held, ContainerError> {
        let dir = self.dir(id);
        let lock = open_lock(&dir.join("lock"))?;
        let patience = Instant::now() + Duration::from_secs(1);
        while flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let running = State::load(&dir).is_ok_and(|s| s.status == Status::Running);
            if running && Instant::now() + Duration::from_millis(800) > patience {
                return Err(ContainerError::Running(names::short(id).to_owned()));
            }
            if Instant::now() > patience {
                return Err(ContainerError::Busy(names::short(id).to_owned()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        if !dir.is_dir() {
            return Err(ContainerError::NotFound(id.to_owned()));
        }
        Ok(Held { dir, lock })
    }

    /// As [`Registry::hold`], and notes that a supervisor is about to run.
    ///
    /// # Errors
    /// As [`Registry::hold`].
    pub fn hold_to_run(&self, id: &str) -> Result<Held, ContainerError> {
        let held = self.hold(id)?;
        self.mark(id)?;
        // What the last run left there is not this one's exit code.
        held.lock
            .set_len(0)
            .map_err(ContainerError::file("write", held.dir.join("lock")))?;
        Ok(held)
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

    /// Ends a run: leaves the exit code for those who wait, and forgets that it ran.
    pub fn release(&self, mut held: Held, id: &str, code: i32) {
        leave_code(&mut held.lock, code);
        let _ = fs::remove_file(self.marker(id));
    }

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
            Some(name) => self.remove_name(name, id),
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
            self.remove_name(&name, id);
        }
    }

    fn remove_name(&self, name: &str, id: &str) {
        let link = self.name_link(name);
        if fs::read_link(&link).is_ok_and(|target| target == Path::new(id)) {
            let _ = fs::remove_file(link);
        }
    }

    /// Ids of the containers that run or whose supervisor died.
    ///
    /// # Errors
    /// The host's.
    pub fn marked(&self) -> Result<Vec<String>, ContainerError> {
        entries(&self.root.join("running"))
            .map(|names| names.into_iter().filter(|n| names::is_id(n)).collect())
    }

    /// Takes the lock of container `id` if its supervisor is gone. `None` while that lives, and
    /// for a container that is being made or was removed.
    #[must_use]
    pub fn hold_orphan(&self, id: &str) -> Option<Held> {
        let dir = self.dir(id);
        match OpenOptions::new()
            .read(true)
            .write(true)
            .open(dir.join("lock"))
        {
            Ok(lock) => {
                flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
                Some(Held { dir, lock })
            }
            Err(_) => {
                // Its marker comes before the container itself: gone only if nobody makes it.
                let new = dir.with_file_name(format!(".new-{id}"));
                if !dir.exists() && is_free(&new.join("lock")) {
                    let _ = fs::remove_dir_all(new);
                    let _ = fs::remove_file(self.marker(id));
                }
                None
            }
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

    /// Prepares to wait for the end of container `id`'s supervisor.
    ///
    /// # Errors
    /// The host's.
    pub fn watch(&self, id: &str) -> Result<Watch, ContainerError> {
        let path = self.dir(id).join("lock");
        let lock = open_lock(&path)?;
        Ok(Watch { lock, path })
    }
}

/// Waits for the end of a container's supervisor.
#[derive(Debug)]
pub struct Watch {
    lock: File,
    path: PathBuf,
}

impl Watch {
    /// Waits as long as it takes; the exit code, if one was left.
    ///
    /// # Errors
    /// The host's.
    pub fn wait(mut self) -> Result<Option<i32>, ContainerError> {
        flock(&self.lock, FlockOperation::LockShared)
            .map_err(ContainerError::file("lock", &self.path))?;
        Ok(read_code(&mut self.lock))
    }

    /// Waits until `deadline`; whether the supervisor is done.
    #[must_use]
    pub fn wait_until(&self, deadline: Instant) -> bool {
        loop {
            if flock(&self.lock, FlockOperation::NonBlockingLockShared).is_ok() {
                let _ = flock(&self.lock, FlockOperation::Unlock);
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Waits until the process that `pidfd` is open at has ended, or `deadline`; whether it has.
pub fn ended_by(pidfd: impl std::os::fd::AsFd, deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

impl Listed {
    /// When it was made; empty if unknown.
    #[must_use]
    pub fn created(&self) -> &str {
        match self {
            Self::Known(state) => &state.created,
            Self::Damaged { .. } => "",
        }
    }
}

fn open_lock(path: &Path) -> Result<File, ContainerError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => {
                let dir = path.parent().and_then(Path::file_name).unwrap_or_default();
                ContainerError::NotFound(dir.to_string_lossy().into_owned())
            }
            _ => ContainerError::file("open", path)(e),
        })
}

fn leave_code(lock: &mut File, code: i32) {
    // Over what is there, not after cutting it off: that would make ext4 write it to the disk when
    // it is closed. Those who wait can do without: they look at the state then.
    let text = format!("{code:<12}");
    let _ = lock.rewind().and_then(|()| lock.write_all(text.as_bytes()));
}

fn read_code(lock: &mut File) -> Option<i32> {
    let mut text = String::new();
    lock.rewind().ok()?;
    lock.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn is_free(lock: &Path) -> bool {
    match File::open(lock) {
        Ok(file) => flock(&file, FlockOperation::NonBlockingLockShared).is_ok(),
        Err(e) => e.kind() == io::ErrorKind::NotFound,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::state::Settings;

    fn registry() -> (tempfile::TempDir, Registry) {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::new(dir.path());
        (dir, registry)
    }

    fn make(registry: &Registry, name: &str) -> Result<(String, Held), ContainerError> {
        let mut state = State::new(names::new_id(), name.to_owned(), Settings::default());
        let held = registry.create(&mut state, &Spec::default())?;
        Ok((state.id, held))
    }

    #[test]
    fn containers_are_found_by_name_id_and_start_of_id() {
        let (_dir, registry) = registry();
        let (id, held) = make(&registry, "web").unwrap();
        drop(held);
        for wanted in ["web", &id, &id[..12], &id[..40]] {
            assert_eq!(registry.find(wanted).unwrap(), id);
        }
        for wanted in ["", "we", "../names/web", "zz", "."] {
            assert!(registry.find(wanted).is_err(), "{wanted}");
        }
    }

    #[test]
    fn a_name_has_one_owner_and_is_free_again_after_removal() {
        let (_dir, registry) = registry();
        let (id, held) = make(&registry, "web").unwrap();
        assert!(matches!(
            make(&registry, "web"),
            Err(ContainerError::NameTaken { .. })
        ));
        assert_eq!(registry.ids().unwrap(), std::slice::from_ref(&id));
        registry.remove(held, &id, Some("web"), None).unwrap();
        assert!(registry.ids().unwrap().is_empty());
        assert!(registry.marked().unwrap().is_empty());
        make(&registry, "web").unwrap();
    }

    #[test]
    fn a_held_container_is_no_orphan_and_a_left_one_is() {
        let (_dir, registry) = registry();
        let (id, held) = make(&registry, "").unwrap();
        assert_eq!(registry.marked().unwrap(), std::slice::from_ref(&id));
        assert!(registry.hold_orphan(&id).is_none());
        drop(held);
        assert!(registry.hold_orphan(&id).is_some());
    }

    #[test]
    fn who_waits_learns_the_code_of_a_container_that_is_gone_by_then() {
        let (_dir, registry) = registry();
        let (id, held) = make(&registry, "").unwrap();
        let watch = registry.watch(&id).unwrap();
        assert!(!watch.wait_until(Instant::now()));
        let waiter = std::thread::spawn(move || watch.wait().unwrap());
        registry.remove(held, &id, None, Some(42)).unwrap();
        assert_eq!(waiter.join().unwrap(), Some(42));
    }

    #[test]
    fn what_died_half_made_is_swept_and_its_name_is_free() {
        let (dir, registry) = registry();
        let (id, held) = make(&registry, "web").unwrap();
        drop(held);
        let containers = dir.path().join("containers");
        fs::rename(registry.dir(&id), containers.join(format!(".gone-{id}"))).unwrap();
        registry.sweep();
        assert_eq!(fs::read_dir(&containers).unwrap().count(), 0);
        assert!(registry.hold_orphan(&id).is_none());
        assert!(registry.marked().unwrap().is_empty());
        make(&registry, "web").unwrap();
    }

    #[test]
    fn what_is_being_emptied_for_the_next_is_not_swept() {
        let (dir, registry) = registry();
        let gone = dir.path().join("containers/.gone-1");
        fs::create_dir_all(&gone).unwrap();
        registry.sweep();
        assert!(gone.exists());
        fs::write(gone.join("lock"), "").unwrap();
        registry.sweep();
        assert!(!gone.exists(), "with a lock that nobody holds it is dead");
    }

    #[test]
    fn what_is_no_directory_is_swept_and_no_link_is_followed() {
        let (dir, registry) = registry();
        let (containers, outside) = (dir.path().join("containers"), dir.path().join("outside"));
        fs::create_dir(&containers).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("lock"), "").unwrap();
        fs::write(containers.join(".new-1"), "x").unwrap();
        symlink("nothing", containers.join(".new-2")).unwrap();
        symlink(&outside, containers.join(".gone-3")).unwrap();
        registry.sweep();
        assert_eq!(fs::read_dir(&containers).unwrap().count(), 0);
        assert!(outside.join("lock").exists());
        let id = names::new_id();
        symlink(&outside, containers.join(&id)).unwrap();
        fs::create_dir(dir.path().join("names")).unwrap();
        symlink(&id, dir.path().join("names/web")).unwrap();
        registry.remove_stray(&id).unwrap().unwrap();
        assert!(outside.join("lock").exists());
        assert!(registry.ids().unwrap().is_empty());
        let (web, _held) = make(&registry, "web").unwrap();
        assert!(registry.remove_stray(&web).is_none());
    }

    #[test]
    fn a_name_that_cannot_be_freed_is_said() {
        let (dir, registry) = registry();
        fs::create_dir_all(dir.path().join("names/web/x")).unwrap();
        let said = make(&registry, "web").unwrap_err().to_string();
        assert!(said.contains("names/web"), "{said}");
        assert!(registry.ids().unwrap().is_empty());
    }

    #[test]
    fn damaged_containers_are_listed_beside_the_others() {
        let (_dir, registry) = registry();
        let (bad, _held) = make(&registry, "bad").unwrap();
        let (_good, _held2) = make(&registry, "good").unwrap();
        fs::write(registry.dir(&bad).join("state.json"), b"{").unwrap();
        let listed = registry.list().unwrap();
        assert_eq!(listed.len(), 2);
        assert!(
            listed
                .iter()
                .any(|l| matches!(l, Listed::Damaged { id, .. } if *id == bad))
        );
    }
}
