//! Names without a registry (containers-registries.conf(5), "Short-Name Aliasing"): an alias says where they
//! belong, else the registries that are searched for them, else docker.io.

use std::path::PathBuf;

use super::{Registries, RegistryError, config::ShortNames};
use crate::image::{Reference, short_name};

impl Registries {
    /// The registries that short names are looked for in; none if that is not said.
    #[must_use]
    pub fn searched(&self) -> &[String] {
        &self.searched
    }

    /// The full names that `text` may stand for, to be tried in this order; its own if it has a registry.
    ///
    /// # Errors
    /// A text that is no name; a short one that several registries may have, where the file forbids to try.
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
        if self.short_names == ShortNames::Enforcing && all.len() > 1 {
            return Err(RegistryError::invalid(
                format!("the short name {text}"),
                format!(
                    "registries.conf forbids to try several registries (short-name-mode); give one of {}",
                    all.join(", ")
                ),
            ));
        }
        Ok(all
            .iter()
            .map(|name| name.parse())
            .collect::<Result<Vec<Reference>, _>>()?)
    }
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
        let enforcing = format!("short-name-mode = 'enforcing'\n{conf}");
        assert!(all(&enforcing, "debian").is_err());
        assert!(all(&enforcing, "fedora").is_ok());
        assert!(all(conf, "No Name").is_err());
    }
}
