//! Names without a registry (containers-registries.conf(5), "Short-Name Aliasing"): an alias says where they
//! belong, else the registries that are searched for them, else docker.io. Of several registries the person at
//! the terminal chooses one, and the choice is noted as an alias where podman notes them.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, fcntl_lock};
use serde::Deserialize;

use super::{Registries, RegistryError, config::ShortNames};
use crate::image::{Reference, short_name};

/// What a name that is to be pulled may stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meant {
    /// To be tried in this order.
    pub all: Vec<Reference>,
    /// Its short form, if the only one of them was chosen by a person.
    chosen: Option<String>,
}

/// Asks a person which of several names is meant; `None` if there is nobody to ask.
pub type Ask<'a> = &'a dyn Fn(&[Reference]) -> Result<Option<Reference>, RegistryError>;

impl Registries {
    /// The registries that short names are looked for in; none if that is not said.
    #[must_use]
    pub fn searched(&self) -> &[String] {
        &self.searched
    }

    /// The full names that `text` may stand for, to be tried in this order; its own if it has a registry.
    ///
    /// # Errors
    /// A text that is no name.
    pub fn candidates(&self, text: &str) -> Result<Vec<Reference>, RegistryError> {
        let own: Reference = text.parse()?;
        let Some((name, rest)) = short_name(text) else {
            return Ok(vec![own]);
        };
        if let Some(full) = self.aliases.get(name) {
            return Ok(vec![format!("{full}{rest}").parse()?]);
        }
        if self.searched.is_empty() {
            return Ok(vec![own]);
        }
        let all: Vec<String> = self
            .searched
            .iter()
            .map(|registry| format!("{registry}/{text}"))
            .collect();
        Ok(all
            .iter()
            .map(|name| name.parse())
            .collect::<Result<Vec<Reference>, _>>()?)
    }

    /// What `text` stands for when it is to be pulled: of several registries the one that a person chooses, if
    /// there is one to `ask` and `short-name-mode` does not say otherwise.
    ///
    /// # Errors
    /// As [`Registries::candidates`] and `ask`; if one must be chosen (`enforcing`), and nobody is there to.
    pub fn meant(&self, text: &str, ask: Ask<'_>) -> Result<Meant, RegistryError> {
        let all = self.candidates(text)?;
        if all.len() < 2 {
            return Ok(Meant { all, chosen: None });
        }
        let chosen = match self.short_names {
            ShortNames::Disabled => None,
            ShortNames::Enforcing | ShortNames::Permissive => ask(&all)?,
        };
        match (chosen, self.short_names) {
            (Some(one), _) => Ok(Meant {
                all: vec![one],
                chosen: short_name(text).map(|(name, _)| name.to_owned()),
            }),
            (None, ShortNames::Enforcing) => {
                let names: Vec<String> = all.iter().map(ToString::to_string).collect();
                Err(RegistryError::invalid(
                    format!("the short name {text}"),
                    format!(
                        "registries.conf forbids to try several registries (short-name-mode), and there is no terminal to ask at; give one of {}",
                        names.join(", ")
                    ),
                ))
            }
            (None, _) => Ok(Meant { all, chosen: None }),
        }
    }
}

impl Meant {
    /// Notes the choice, if there was one, so that it is not asked for again: once the image was there.
    ///
    /// # Errors
    /// If it cannot be noted.
    pub fn note(&self) -> Result<(), RegistryError> {
        match (&self.chosen, self.all.as_slice(), noted()) {
            (Some(short), [full], Some(path)) => note(&path, short, &full.repository()),
            _ => Ok(()),
        }
    }
}

/// What podman's file has; nothing else is ever in it.
#[derive(Default, Deserialize)]
struct Noted {
    #[serde(default)]
    aliases: BTreeMap<String, String>,
}

/// Puts an alias into the file at `path`, in turn with podman, which locks it so.
fn note(path: &Path, short: &str, full: &str) -> Result<(), RegistryError> {
    let bad = |why: String| RegistryError::File {
        path: path.to_owned(),
        why,
    };
    check(short, full).map_err(bad)?;
    let dir = path.parent().unwrap_or(Path::new("/"));
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(RegistryError::io("make", dir))?;
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    let lock = PathBuf::from(lock);
    let held: File = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&lock)
        .map_err(RegistryError::io("open", &lock))?;
    fcntl_lock(&held, FlockOperation::LockExclusive)
        .map_err(|e| RegistryError::io("lock", &lock)(e.into()))?;
    let mut noted: Noted = match fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text).map_err(|e| bad(e.to_string()))?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Noted::default(),
        Err(e) => return Err(RegistryError::io("read", path)(e)),
    };
    noted.aliases.insert(short.to_owned(), full.to_owned());
    let mut text = "[aliases]\n".to_owned();
    for (short, full) in &noted.aliases {
        // Names have nothing in them that would end a text of TOML's.
        check(short, full).map_err(bad)?;
        text.push_str(&format!("  \"{short}\" = \"{full}\"\n"));
    }
    let written = tempfile::NamedTempFile::new_in(dir).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.persist(path)?;
        Ok(())
    });
    written.map_err(RegistryError::io("write", path))
}

/// The file that podman keeps a user's choices in.
pub(super) fn noted() -> Option<PathBuf> {
    const NAME: &str = "containers/short-name-aliases.conf";
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/var/cache").join(NAME));
    }
    let dir = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    let cache = dir("XDG_CACHE_HOME").or_else(|| dir("HOME").map(|home| home.join(".cache")));
    cache.map(|cache| cache.join(NAME))
}

/// Whether an alias is a short name for a full one without tag and digest. An empty one takes it away.
pub(super) fn check(short: &str, full: &str) -> Result<(), String> {
    let bare = |text: &str| {
        let reference: Reference = text.parse().ok()?;
        let name = text.rsplit('/').next().unwrap_or_default();
        (reference.digest().is_none() && !name.contains(':')).then_some(())
    };
    if short_name(short).is_none() || bare(short).is_none() {
        return Err(format!("the alias {short:?} is no name without a registry"));
    }
    let is_full = short_name(full).is_none() && bare(full).is_some();
    if full.is_empty() || is_full {
        return Ok(());
    }
    Err(format!(
        "the alias {short:?} stands for {full:?}, which is no name with a registry and without a tag"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(conf: &str, text: &str) -> Result<Vec<String>, RegistryError> {
        let found = Registries::parse(conf).unwrap().candidates(text)?;
        Ok(found.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_short_name_is_its_alias_or_one_of_the_registries_that_are_searched() {
        let conf = "unqualified-search-registries = ['a.io', 'docker.io']\n[aliases]\n'fedora' = 'f.org/fedora'\n'u/x' = 'q.io/u/x'";
        assert_eq!(all(conf, "fedora:40").unwrap(), ["f.org/fedora:40"]);
        assert_eq!(all(conf, "u/x").unwrap(), ["q.io/u/x:latest"]);
        assert_eq!(
            all(conf, "debian:12").unwrap(),
            ["a.io/debian:12", "docker.io/library/debian:12"]
        );
        assert_eq!(all(conf, "b.io/fedora").unwrap(), ["b.io/fedora:latest"]);
        assert_eq!(
            all("", "debian").unwrap(),
            ["docker.io/library/debian:latest"]
        );
        let digest = pellicle_store::Digest::of(b"");
        assert_eq!(
            all(conf, &format!("fedora@{digest}")).unwrap(),
            [format!("f.org/fedora@{digest}")]
        );
        assert!(all(conf, "No Name").is_err());
    }

    #[test]
    fn one_of_several_registries_is_chosen_where_somebody_can_be_asked() {
        let conf =
            "unqualified-search-registries = ['a.io', 'b.io']\n[aliases]\n'known' = 'c.io/known'";
        let meant = |mode: &str, text: &str, choice: Option<usize>| {
            let conf = Registries::parse(&format!("{mode}\n{conf}")).unwrap();
            let ask = |all: &[Reference]| Ok(choice.map(|at| all[at].clone()));
            conf.meant(text, &ask)
        };
        let (enforcing, disabled) = (
            "short-name-mode = 'enforcing'",
            "short-name-mode = 'disabled'",
        );
        for mode in ["", enforcing] {
            let found = meant(mode, "x:1", Some(1)).unwrap();
            assert_eq!(found.all, ["b.io/x:1".parse().unwrap()]);
            assert_eq!(found.chosen.as_deref(), Some("x"));
        }
        assert_eq!(meant("", "x", None).unwrap().all.len(), 2);
        assert_eq!(meant(disabled, "x", Some(1)).unwrap().all.len(), 2);
        let refused = meant(enforcing, "x", None).unwrap_err().to_string();
        assert!(
            refused.contains("a.io/x:latest, b.io/x:latest"),
            "{refused}"
        );
        for text in ["known", "d.io/x"] {
            assert_eq!(meant(enforcing, text, None).unwrap().chosen, None, "{text}");
        }
    }

    #[test]
    fn a_choice_is_noted_beside_those_that_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache/containers/short-name-aliases.conf");
        note(&path, "debian", "docker.io/library/debian").unwrap();
        note(&path, "u/x", "a.io:5000/u/x").unwrap();
        note(&path, "debian", "b.io/debian").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let noted = Registries::parse(&text).unwrap().aliases;
        let noted: Vec<(&str, &str)> = noted.iter().map(|(k, v)| (&**k, &**v)).collect();
        assert_eq!(noted, [("debian", "b.io/debian"), ("u/x", "a.io:5000/u/x")]);
        assert!(note(&path, "a.io/x", "b.io/x").is_err());
        fs::write(&path, "nonsense").unwrap();
        assert!(note(&path, "x", "b.io/x").is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "nonsense");
    }
}
