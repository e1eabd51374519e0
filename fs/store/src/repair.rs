//! Putting right what [`Store::verify`] found, as far as what is intact allows.
//!
//! Everything damaged is first *kept*: a link to it goes into the quarantine, while it stays where it
//! is, and only when that is on disk is anything replaced (by a rename, so that running containers
//! see the old or the new one) or, if there is nothing to replace it with, taken away. A process that
//! is killed at any point leaves each thing damaged and in its place, or whole, or gone and kept; a
//! further repair goes on from there.
//!
//! What is tried, in this order: another copy of the same bytes (a blob with the content's digest, or
//! one the other way round, or what an earlier repair set aside); the blob of a layer, which gives its
//! contents and its tree once more; the trees of the layers, which give that of the image.
//!
//! Lock order: as in `lock`. The store's is shared with mounts and imports.

mod copies;
mod layers;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use crate::{
    Damage, DamagedDirectory, Digest, Quarantine, Store, StoreError,
    error::with_causes,
    lock::{repairing, taking_away},
    pool::Pool,
    temp::sync_dir,
    verify::{content_fault, directory_fault, file_fault},
};

/// What damaged things can be made of, as the images tell.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The blobs that hold each layer, by diff id.
    pub blobs: BTreeMap<Digest, BTreeSet<Digest>>,
    /// The diff ids of each image and container, lowest layer first.
    pub stacks: Vec<Vec<Digest>>,
}

/// What became of one damaged thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is whole again; of what it was made.
    Restored(String),
    /// It was taken away, and nothing is missed: nothing needs it, or it is made again when needed.
    NotNeeded,
    /// It was taken away (or was not there) and is missed; what was tried in vain, if anything.
    Lost(Option<String>),
    /// It is still there, damaged; why.
    Left(String),
}

impl Outcome {
    /// Whether all is well with it now.
    #[must_use]
    pub fn is_well(&self) -> bool {
        matches!(self, Self::Restored(_) | Self::NotNeeded)
    }
}

/// One damaged thing, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// What was wrong.
    pub damage: Damage,
    /// What became of it.
    pub outcome: Outcome,
    /// Where the damaged file is now, if there was one.
    pub aside: Option<PathBuf>,
}

/// A thing in the works.
#[derive(Debug)]
struct Item {
    damage: Damage,
    aside: Option<PathBuf>,
    outcome: Option<Outcome>,
    /// What was tried in vain.
    tried: Option<String>,
}

/// One repair.
struct Repair<'a> {
    store: &'a Store,
    sources: &'a Sources,
    items: Vec<Item>,
    progress: &'a dyn Fn(u64),
}

impl Store {
    /// Lets the owner into directories of the store again, as far as that can be done; gives those
    /// that were changed. To be called before verifying, which passes over the others.
    ///
    /// # Errors
    /// The host's, when the store itself cannot be listed.
    pub fn open_directories(&self) -> Result<Vec<DamagedDirectory>, StoreError> {
        let mut opened = Vec::new();
        let mut dirs = vec![self.root().join("trees"), self.blobs().0.top().to_owned()];
        let mut open = |path: PathBuf| {
            if let Some(detail) = directory_fault(&path)
                && path.is_dir()
                && set_mode(&path, 0o755).is_ok()
            {
                opened.push(DamagedDirectory { path, detail });
            }
        };
        open(self.objects().0.top().to_owned());
        dirs.extend(self.objects().0.directories()?);
        dirs.into_iter().for_each(open);
        Ok(opened)
    }

    /// Repairs what `damaged` names, which [`Store::verify`] found (or its caller missed). What
    /// cannot be made whole is taken away into `quarantine`, so that importing its image again brings
    /// it back. `progress` hears of bytes read.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if another repair or a collection is at work, and the host's. What was
    /// done until then stays done; another call goes on.
    pub fn repair(
        &self,
        damaged: &[Damage],
        sources: &Sources,
        quarantine: &Quarantine,
        progress: &dyn Fn(u64),
    ) -> Result<Vec<Repaired>, StoreError> {
        let _lock = self.lock_shared()?;
        let _one = repairing(self.root())?;
        let mut repair = Repair {
            store: self,
            sources,
            items: Vec::new(),
            progress,
        };
        for damage in damaged {
            repair.add(damage)?;
        }
        let done = repair.run(quarantine);
        for pool in [&self.objects().0, &self.blobs().0] {
            pool.trust_all();
        }
        done?;
        Ok(repair.finish())
    }
}

impl Repair<'_> {
    /// Takes `damage` up, or notes that all is well with it meanwhile.
    fn add(&mut self, damage: &Damage) -> Result<(), StoreError> {
        let item = |outcome| Item {
            damage: damage.clone(),
            aside: None,
            outcome,
            tried: None,
        };
        let locked_out = matches!(file_fault(&damage.path), Ok(Some(_)))
            && fs::symlink_metadata(&damage.path).is_ok_and(|m| m.is_file());
        if locked_out {
            set_mode(&damage.path, 0o444)?;
        }
        let outcome = match (self.fault(damage), locked_out) {
            (None, true) => Some(Outcome::Restored("its mode, which was put right".into())),
            (None, false) => Some(Outcome::Restored(
                "what somebody put there meanwhile".into(),
            )),
            (Some(_), _) => None,
        };
        self.items.push(item(outcome));
        Ok(())
    }

    /// What is wrong with it at this moment.
    fn fault(&self, damage: &Damage) -> Option<String> {
        match damage.what {
            "tree" => self
                .store
                .check_tree(&damage.id)
                .err()
                .map(|e| with_causes(&e)),
            _ => match content_fault(damage.id, &damage.path) {
                Some((fault, _)) => fault,
                None => Some("it is not there".to_owned()),
            },
        }
    }

    fn run(&mut self, quarantine: &Quarantine) -> Result<(), StoreError> {
        self.keep(quarantine)?;
        self.store.objects().0.distrust(self.open_ids("object"));
        self.store.blobs().0.distrust(self.open_ids("blob"));
        self.use_copies()?;
        self.use_blobs();
        self.use_layers();
        self.store.objects().0.sync()?;
        self.take_away(quarantine)
    }

    /// Sets a link to each thing aside.
    fn keep(&mut self, quarantine: &Quarantine) -> Result<(), StoreError> {
        for item in self.items.iter_mut().filter(|i| i.outcome.is_none()) {
            let path = &item.damage.path;
            let Ok(meta) = fs::symlink_metadata(path) else {
                quarantine.note(&name_of(&item.damage), &item.damage.detail)?;
                continue;
            };
            let (name, why) = (name_of(&item.damage), &item.damage.detail);
            // What is no file cannot be replaced by one.
            item.aside = Some(match meta.is_file() {
                true => quarantine.keep(path, &name, why)?,
                false => quarantine.take(path, &name, why)?,
            });
        }
        quarantine.sync()
    }

    fn pool(&self, what: &str) -> &Pool {
        match what {
            "blob" => &self.store.blobs().0,
            _ => &self.store.objects().0,
        }
    }

    /// The `what` that are still damaged.
    fn open_ids(&self, what: &str) -> BTreeSet<Digest> {
        let open = self.items.iter().filter(|i| i.outcome.is_none());
        open.filter(|i| i.damage.what == what)
            .map(|i| i.damage.id)
            .collect()
    }

    /// Takes away what could not be replaced.
    fn take_away(&mut self, quarantine: &Quarantine) -> Result<(), StoreError> {
        if self.items.iter().all(|i| i.outcome.is_some()) {
            return Ok(());
        }
        let hold = match taking_away(self.store.root()) {
            Ok(hold) => Some(hold),
            Err(StoreError::Busy { .. }) => None,
            Err(error) => return Err(error),
        };
        let mut dirs = BTreeSet::new();
        for at in 0..self.items.len() {
            let Some(item) = self.items.get(at).filter(|i| i.outcome.is_none()) else {
                continue;
            };
            let outcome = match (self.fault(&item.damage), &hold) {
                (None, _) => Outcome::Restored("what an import put there meanwhile".into()),
                (Some(_), None) => Outcome::Left(
                    "an import is in flight and may rely on it; repair again when it has ended"
                        .into(),
                ),
                (Some(_), Some(_)) => {
                    // A copy is in the quarantine.
                    match fs::remove_file(&item.damage.path) {
                        Err(e) if e.kind() != io::ErrorKind::NotFound => {
                            return Err(StoreError::io("take away", &item.damage.path)(e));
                        }
                        _ => {}
                    }
                    dirs.extend(item.damage.path.parent().map(Path::to_owned));
                    self.missed(item)
                }
            };
            let what = name_of(&item.damage);
            quarantine.note(&what, &format!("outcome: {outcome:?}"))?;
            if let Some(item) = self.items.get_mut(at) {
                item.outcome = Some(outcome);
            }
        }
        dirs.iter()
            .filter(|d| d.is_dir())
            .try_for_each(|d| sync_dir(d))
    }

    /// What it means that `item` is gone.
    fn missed(&self, item: &Item) -> Outcome {
        let damage = &item.damage;
        let needed = match damage.what {
            "object" => !damage.used_by.is_empty(),
            // A layer that no image and no container has, or an image tree, is missed by nobody.
            "tree" => self.sources.stacks.iter().any(|s| s.contains(&damage.id)),
            _ => true,
        };
        match needed {
            true => Outcome::Lost(item.tried.clone()),
            false => Outcome::NotNeeded,
        }
    }

    fn finish(self) -> Vec<Repaired> {
        let done = self.items.into_iter().map(|item| Repaired {
            damage: item.damage,
            outcome: item.outcome.unwrap_or(Outcome::Lost(item.tried)),
            aside: item.aside,
        });
        done.collect()
    }
}

/// Where it is in the store, and will be in the quarantine.
fn name_of(damage: &Damage) -> String {
    format!("{}s/{}", damage.what, damage.id.hex())
}

fn set_mode(path: &Path, mode: u32) -> Result<(), StoreError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(StoreError::io("change the mode of", path))
}
