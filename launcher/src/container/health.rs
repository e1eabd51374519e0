//! Whether a container's own files are whole: its state, its specification, its writable layer.

use std::path::{Path, PathBuf};

use pellicle_store::{Digest, Quarantine, Store};
use pellicle_union::Union;
use pellicle_upper::{Examined, JournalLower, LogDamage, Lost, Remedy, UpperError, examine, mend};

use super::{
    ContainerError, names,
    registry::Registry,
    root::{self, Upper},
    state::State,
};

/// Of the names that a cut loses, this many are said.
const SAID_MAX: usize = 20;
/// A container that runs may remove a data file between the log being read and its being looked for.
const LOOKS: usize = 3;

/// A container, and what is wrong with it.
#[derive(Debug)]
pub struct Health {
    /// Its id.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Its layers, lowest first; none if that is not known.
    pub diff_ids: Vec<Digest>,
    /// What is wrong.
    pub faults: Vec<Fault>,
}

/// Something that is wrong with a container.
#[derive(Debug)]
pub struct Fault {
    /// `container` for its state, `journal`, or `content` for a data file.
    pub what: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it, and what is lost of it.
    pub detail: String,
    /// What was done about it; `None` if it is as it was.
    pub mended: Option<String>,
    /// What to do.
    pub next: String,
}

/// Looks at container `id`; `None` if it went away. Changes nothing.
#[must_use]
pub fn look(store: &Store, registry: &Registry, id: &str) -> Option<Health> {
    let dir = registry.dir(id);
    let short = names::short(id).to_owned();
    let mut health = Health {
        id: id.to_owned(),
        name: short.clone(),
        diff_ids: Vec::new(),
        faults: Vec::new(),
    };
    let remove = format!("remove the container: `pellicle rm -f {short}`");
    let state = match State::load(&dir) {
        Ok(state) => state,
        Err(_) if !dir.exists() => return None,
        Err(error) => {
            let path = dir.join("state.json");
            health.fault("container", path, text(&error), remove);
            return Some(health);
        }
    };
    health.name.clone_from(&state.name);
    let ids = state.diff_ids.iter().map(|d| d.parse::<Digest>());
    health.diff_ids = ids.collect::<Result<_, _>>().unwrap_or_default();
    if let Err(error) = registry.spec(id) {
        let path = dir.join("config.json");
        health.fault("container", path, text(&error), remove);
    }
    health.look_at_upper(store, &state, &dir);
    Some(health)
}

/// Mends the journal of the container that `health` is of. What is changed is kept in `quarantine`
/// first.
///
/// # Errors
/// The host's.
pub fn repair(
    store: &Store,
    registry: &Registry,
    health: &mut Health,
    quarantine: &Quarantine,
) -> Result<(), ContainerError> {
    if !health.faults.iter().any(|f| f.what == "journal") {
        return Ok(());
    }
    let dir = registry.dir(&health.id);
    let lower = journal_lower(store, &health.diff_ids);
    let mut keep = |path: &Path, name: &str| {
        let name = format!("containers/{}/{name}", health.id);
        quarantine
            .keep(path, &name, "its journal is mended")
            .and_then(|_| quarantine.sync())
            .map_err(std::io::Error::other)
    };
    let done = match mend(&dir.join("upper"), lower.as_ref(), &mut keep) {
        Ok(done) => done,
        Err(error) => {
            let next = match &error {
                UpperError::InUse { .. } => format!(
                    "stop it (`pellicle stop {}`), then repair again",
                    health.name
                ),
                other => format!("it could not be mended: {}", text(other)),
            };
            for fault in health.faults.iter_mut().filter(|f| f.what == "journal") {
                fault.next.clone_from(&next);
            }
            return Ok(());
        }
    };
    if done.left.is_some() {
        return Ok(());
    }
    health.faults.retain(|f| f.what != "journal");
    let paths = Paths::of(store, &registry.dir(&health.id));
    for damage in &done.mended {
        let mut mended = did(&damage.remedy);
        if done.files_kept > 0 {
            mended.push_str(&format!(
                "; {} data files that nothing leads to now are set aside too",
                done.files_kept
            ));
        }
        health.faults.push(Fault {
            what: "journal",
            path: damage.path.clone(),
            detail: describe(damage, &paths),
            mended: Some(mended),
            next: String::new(),
        });
        let said = format!("{}: {}", damage.detail, everything(&damage.remedy, &paths));
        let name = format!("containers/{}/journal", health.id);
        quarantine.note(&name, &said)?;
    }
    // Behind the damage there may be more to find.
    if let Ok(state) = State::load(&dir) {
        health.look_at_upper(store, &state, &dir);
    }
    Ok(())
}

impl Health {
    fn fault(&mut self, what: &'static str, path: PathBuf, detail: String, next: String) {
        self.faults.push(Fault {
            what,
            path,
            detail,
            mended: None,
            next,
        });
    }

    fn look_at_upper(&mut self, store: &Store, state: &State, dir: &Path) {
        let upper = dir.join("upper");
        if !upper.join("journal").exists() {
            // One that never ran changed nothing.
            return;
        }
        let lower = journal_lower(store, &self.diff_ids);
        let log = upper.join("journal");
        let found = match look_again(&upper, lower.as_ref()) {
            Ok(found) => found,
            Err(error) => {
                let next = "see that its owner can read it; a container of another user's is \
                            looked at by that user"
                    .to_owned();
                return self.fault("journal", log, text(&error), next);
            }
        };
        if let Some(damage) = found.damage {
            let detail = describe(&damage, &Paths::of(store, dir));
            return self.fault("journal", log, detail, self.advice(&damage.remedy, dir));
        }
        // Only over a whole image can it be told whether the log makes sense.
        let Some(_) = lower else { return };
        match root::open(store, state, dir, Upper::Look) {
            Ok((union, _)) => {
                for ino in found.missing {
                    let path = upper.join("data").join(format!("{:016x}", ino.0));
                    let of = union.path_of(ino).unwrap_or_default();
                    let of = String::from_utf8_lossy(&of).into_owned();
                    let detail = format!("it is not there, and was the content of {of:?}");
                    let next = format!(
                        "put it back from a backup, or write or remove {of:?} in the container"
                    );
                    self.fault("content", path, detail, next);
                }
            }
            Err(error) => {
                let next = self.advice(&Remedy::Nothing, dir);
                self.fault("journal", log, text(&error), next);
            }
        }
    }

    fn advice(&self, remedy: &Remedy, dir: &Path) -> String {
        match remedy {
            Remedy::Nothing => format!(
                "what is in {} is all there is left of its files: copy what is wanted, then remove \
                 the container (`pellicle rm -f {}`)",
                dir.join("upper/data").display(),
                self.name
            ),
            _ => "`pellicle store verify --repair` does that, and sets the journal aside first"
                .to_owned(),
        }
    }
}

/// What the journal of a container over these layers is over, if their tree is whole.
fn journal_lower(store: &Store, diff_ids: &[Digest]) -> Option<JournalLower> {
    let tree = store.tree(&Digest::chain(diff_ids)?).ok()?;
    Some(JournalLower {
        identity: tree.identity().0,
        inode_count: tree.inode_count(),
    })
}

fn look_again(upper: &Path, lower: Option<&JournalLower>) -> Result<Examined, UpperError> {
    let mut found = examine(upper, lower)?;
    for _ in 1..LOOKS {
        if found.missing.is_empty() {
            break;
        }
        let again = examine(upper, lower)?;
        found.missing.retain(|ino| again.missing.contains(ino));
    }
    Ok(found)
}

/// Names of directories for what is lost: of the image alone, for the container's tree cannot be
/// read.
struct Paths(Option<Union>);

impl Paths {
    fn of(store: &Store, dir: &Path) -> Self {
        let image = State::load(dir).and_then(|state| root::bare(&root::lower(store, &state)?));
        Self(image.ok())
    }

    fn of_lost(&self, lost: &Lost) -> Vec<String> {
        let names = lost.names.iter().map(|(parent, name)| {
            let dir = self.0.as_ref().and_then(|union| union.path_of(*parent));
            let name = String::from_utf8_lossy(name);
            match dir.as_deref() {
                Some(b"/") => format!("/{name}"),
                Some(dir) => format!("{}/{name}", String::from_utf8_lossy(dir)),
                None => format!(".../{name}"),
            }
        });
        let named: Vec<String> = names.collect();
        let inodes = lost.inodes.iter().filter_map(|ino| {
            let path = self.0.as_ref()?.path_of(*ino)?;
            Some(String::from_utf8_lossy(&path).into_owned())
        });
        let mut all: Vec<String> = named.into_iter().chain(inodes).collect();
        all.sort();
        all.dedup();
        all
    }
}

fn describe(damage: &LogDamage, paths: &Paths) -> String {
    let what = match &damage.remedy {
        Remedy::TurnBit { .. } => {
            "one bit is turned, and nothing is lost by turning it back".into()
        }
        Remedy::NewHeader(_) => "its header can be made again from what else is known".into(),
        Remedy::Cut(lost) => {
            let names = paths.of_lost(lost);
            let more = names.len().saturating_sub(SAID_MAX);
            let said = names.into_iter().take(SAID_MAX).collect::<Vec<_>>();
            let mut text = format!("cutting it there loses {}", loss(lost));
            if !said.is_empty() {
                text.push_str(&format!(", which speak of {}", said.join(", ")));
            }
            if more > 0 {
                text.push_str(&format!(" and {more} more"));
            }
            text
        }
        Remedy::Nothing => "nothing is known that would help".to_owned(),
    };
    format!("at byte {}: {}; {what}", damage.offset, damage.detail)
}

fn loss(lost: &Lost) -> String {
    let first = lost.kept + 1;
    if lost.synced < first {
        return format!("batches {first} to {}, none of them synced", lost.last);
    }
    format!(
        "batches {first} to {}, of which those up to {} were synced",
        lost.last, lost.synced
    )
}

/// All that is lost, for the report.
fn everything(remedy: &Remedy, paths: &Paths) -> String {
    match remedy {
        Remedy::Cut(lost) => format!(
            "{} ({} bytes): {}",
            loss(lost),
            lost.bytes,
            paths.of_lost(lost).join(", ")
        ),
        other => did(other),
    }
}

fn did(remedy: &Remedy) -> String {
    match remedy {
        Remedy::TurnBit { .. } => "its bit was turned back",
        Remedy::NewHeader(_) => "its header was made again",
        Remedy::Cut(_) => "it was cut there",
        Remedy::Nothing => "nothing was done",
    }
    .to_owned()
}

fn text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    if let Some(cause) = error.source() {
        text.push_str(&format!(": {cause}"));
    }
    text
}
