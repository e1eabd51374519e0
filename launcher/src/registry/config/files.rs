//! Which files `registries.conf` is, and what they say together.
//!
//! The first file there is counts: `$CONTAINERS_REGISTRIES_CONF`, the user's, the system's. To the last two
//! are added the files of `registries.conf.d` (containers-registries.conf.d(5)): the user's alone if the user
//! has a file, else the system's and then the user's, each in the order of their names. The choices of short names that were
//! noted come last, whichever file counts. What a later file says of a registry, an alias or a setting replaces what an earlier one does.

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{Registries, RegistryError, Rule, ShortNames};
use crate::registry::{config_home, short_names};

const SYSTEM: &str = "/etc/containers";
const DROP_INS: &str = "registries.conf.d";

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Document {
    registry: Vec<Rule>,
    unqualified_search_registries: Option<Vec<String>>,
    short_name_mode: Option<ShortNames>,
    aliases: BTreeMap<String, String>,
}

impl Registries {
    /// Reads the files there are; none is no error.
    ///
    /// # Errors
    /// If one cannot be read or is no such file.
    pub fn load() -> Result<Self, RegistryError> {
        if let Some(path) = env::var_os("CONTAINERS_REGISTRIES_CONF").filter(|p| !p.is_empty()) {
            let path = PathBuf::from(path);
            let mut all = Self::default();
            if !all.add(&path)? {
                return Err(RegistryError::File {
                    path,
                    why: "there is no such file, and CONTAINERS_REGISTRIES_CONF names it"
                        .to_owned(),
                });
            }
            return all.with_choices();
        }
        let own = config_home().map(|dir| dir.join("containers"));
        let file = |dir: &Path| dir.join("registries.conf");
        let system = Path::new(SYSTEM);
        let mut all = Self::default();
        let own_file = match &own {
            Some(dir) => all.add(&file(dir))?,
            None => false,
        };
        if !own_file {
            all.add(&file(system))?;
            all.add_dir(&system.join(DROP_INS))?;
        }
        if let Some(own) = &own {
            all.add_dir(&own.join(DROP_INS))?;
        }
        all.with_choices()
    }

    /// Adds what podman and this program have noted of the choices of this user.
    fn with_choices(mut self) -> Result<Self, RegistryError> {
        if let Some(noted) = short_names::noted() {
            self.add(&noted)?;
        }
        Ok(self)
    }

    /// Adds what a file says; whether there is one.
    fn add(&mut self, path: &Path) -> Result<bool, RegistryError> {
        let bad = |why| RegistryError::File {
            path: path.to_owned(),
            why,
        };
        match fs::read_to_string(path) {
            Ok(text) => self.add_text(&text).map(|()| true).map_err(bad),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(RegistryError::io("read", path)(e)),
        }
    }

    /// Adds what the files `*.conf` of a directory say, in the order of their names.
    fn add_dir(&mut self, dir: &Path) -> Result<(), RegistryError> {
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(RegistryError::io("list", dir)(e)),
        };
        let mut files: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
        files.retain(|p| p.extension().is_some_and(|e| e == "conf") && p.is_file());
        files.sort();
        files.iter().try_for_each(|path| self.add(path).map(drop))
    }

    fn add_text(&mut self, text: &str) -> Result<(), String> {
        let document: Document = toml::from_str(text).map_err(|e| e.to_string())?;
        for mut rule in document.registry {
            let prefix = rule.prefix.take().or_else(|| rule.location.clone());
            rule.prefix = Some(prefix.ok_or("a [[registry]] has neither prefix nor location")?);
            self.rules.retain(|r| r.prefix != rule.prefix);
            self.rules.push(rule);
        }
        // The longest prefix that fits decides.
        self.rules
            .sort_by_key(|r| std::cmp::Reverse(r.prefix.as_ref().map_or(0, String::len)));
        if let Some(searched) = document.unqualified_search_registries {
            self.searched = searched;
        }
        self.short_names = document.short_name_mode.unwrap_or(self.short_names);
        for (short, full) in document.aliases {
            short_names::check(&short, &full)?;
            if full.is_empty() {
                self.aliases.remove(&short);
            } else {
                self.aliases.insert(short, full);
            }
        }
        Ok(())
    }

    #[cfg(test)]
    pub(in crate::registry) fn parse(text: &str) -> Result<Self, String> {
        let mut all = Self::default();
        all.add_text(text).map(|()| all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_files_replace_what_earlier_ones_say() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write(
            "10-a.conf",
            "unqualified-search-registries = ['a.io']\n[aliases]\nx = 'a.io/x'\ny = 'a.io/y'\n[[registry]]\nprefix = 'r.io'\ninsecure = true",
        );
        write(
            "20-b.conf",
            "short-name-mode = 'enforcing'\n[aliases]\nx = 'b.io/x'\ny = ''\n[[registry]]\nprefix = 'r.io'\nlocation = 's.io'",
        );
        write("30.txt", "nonsense");
        let mut all = Registries::default();
        all.add_dir(dir.path()).unwrap();
        assert_eq!(all.searched, ["a.io"]);
        assert_eq!(all.short_names, ShortNames::Enforcing);
        assert_eq!(all.aliases.len(), 1);
        assert_eq!(all.aliases["x"], "b.io/x");
        let place = all.home(&"r.io/z".parse().unwrap(), None).unwrap();
        assert_eq!((place.full().as_str(), place.insecure), ("s.io/z", false));
        write("40-c.conf", "nonsense");
        assert!(
            all.add_dir(dir.path())
                .unwrap_err()
                .to_string()
                .contains("40-c.conf")
        );
    }
}
