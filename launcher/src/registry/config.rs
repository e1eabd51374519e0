//! `registries.conf` (containers-registries.conf(5), version 2): which registries may be spoken to
//! without TLS, where names are really to be looked for, and mirrors.

mod files;

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{RegistryError, proxy::is_loopback};
use crate::image::Reference;

/// Docker's name for its registry, and the host that answers for it.
const HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// What is known of registries before they are asked.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    rules: Vec<Rule>,
    /// What short names are looked for in.
    pub(super) searched: Vec<String>,
    pub(super) short_names: ShortNames,
    /// Full names, by short name.
    pub(super) aliases: BTreeMap<String, String>,
}

/// How a short name is looked for in several registries (`short-name-mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ShortNames {
    /// Where the person at the terminal chooses, or nowhere.
    Enforcing,
    /// Where the person at the terminal chooses, else in one after the other.
    #[default]
    Permissive,
    /// In one after the other.
    Disabled,
}

/// A place where an image can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The registry as people name it, `docker.io`, with its port if given.
    pub name: String,
    /// The repository there.
    pub repository: String,
    /// Whether TLS is not demanded, and certificates are not looked at.
    pub insecure: bool,
}

impl Endpoint {
    /// Host and port that are connected to.
    #[must_use]
    pub fn host(&self) -> &str {
        if self.name == HUB.0 {
            HUB.1
        } else {
            &self.name
        }
    }

    /// Whether the registry runs on this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        let host = match self.name.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => host,
            _ => &self.name,
        };
        is_loopback(host)
    }

    /// `registry/repository`, without tag.
    #[must_use]
    pub fn full(&self) -> String {
        format!("{}/{}", self.name, self.repository)
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Rule {
    prefix: Option<String>,
    location: Option<String>,
    insecure: bool,
    blocked: bool,
    mirror: Vec<Mirror>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Mirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: Option<String>,
}

impl Registries {
    /// Where to look for an image, the first place first: mirrors, then the registry itself.
    /// `tls_verify` is what the command line says, which outweighs the file.
    ///
    /// # Errors
    /// If the file blocks that registry, or sends it where nothing can be.
    pub fn places(
        &self,
        reference: &Reference,
        tls_verify: Option<bool>,
    ) -> Result<Vec<Endpoint>, RegistryError> {
        let name = reference.repository();
        let insecure = |here: bool| tls_verify.map_or(here, |verify| !verify);
        let found = self.rules.iter().find_map(|rule| {
            let rest = rest_behind(&name, rule.prefix.as_deref()?)?;
            Some((rule, rest))
        });
        let Some((rule, rest)) = found else {
            return Ok(vec![Endpoint {
                name: reference.domain().to_owned(),
                repository: reference.path().to_owned(),
                insecure: insecure(false),
            }]);
        };
        if rule.blocked {
            return Err(RegistryError::invalid(
                format!("the name {name}"),
                "registries.conf blocks its registry",
            ));
        }
        let by_digest = reference.digest().is_some();
        let mirrors = rule
            .mirror
            .iter()
            .filter(|m| match m.pull_from_mirror.as_deref() {
                Some("digest-only") => by_digest,
                Some("tag-only") => !by_digest,
                _ => true,
            });
        let own = rule.location.as_ref().map(|l| (l, rule.insecure));
        let mut places = Vec::new();
        for (location, at) in mirrors.map(|m| (&m.location, m.insecure)).chain(own) {
            places.push(place(&format!("{location}{rest}"), insecure(at))?);
        }
        if own.is_none() {
            places.push(place(&name, insecure(rule.insecure))?);
        }
        Ok(places)
    }

    /// Where an image goes: the registry itself, never a mirror.
    ///
    /// # Errors
    /// As [`Registries::places`].
    pub fn home(
        &self,
        reference: &Reference,
        tls_verify: Option<bool>,
    ) -> Result<Endpoint, RegistryError> {
        let none = || RegistryError::invalid(reference.to_string(), "it has no registry");
        self.places(reference, tls_verify)?.pop().ok_or_else(none)
    }
}

/// What follows `prefix` in a repository's name, if it begins so at a boundary. `*.example.com`
/// stands for every host of that domain.
fn rest_behind<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = match prefix.strip_prefix("*.") {
        Some(domain) => {
            let (host, path) = name.split_once('/')?;
            let (_, path) = (host.strip_suffix(domain)?.strip_suffix('.')?, path);
            return name.get(name.len() - path.len() - 1..);
        }
        None => name.strip_prefix(prefix)?,
    };
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

fn place(location: &str, insecure: bool) -> Result<Endpoint, RegistryError> {
    let bad = |why: &str| {
        RegistryError::invalid(format!("the location {location:?} of registries.conf"), why)
    };
    let (name, repository) = location
        .split_once('/')
        .ok_or_else(|| bad("it is no registry with a repository"))?;
    // Checked as a name given by hand is: it becomes part of an address.
    let checked: Reference = format!("{name}/{repository}")
        .parse()
        .map_err(|_| bad("it is no registry's name"))?;
    if checked.domain() != name {
        return Err(bad("it is no registry's name"));
    }
    Ok(Endpoint {
        name: name.to_owned(),
        repository: checked.path().to_owned(),
        insecure,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONF: &str = r#"
unqualified-search-registries = ["docker.io"]
short-name-mode = "enforcing"
[[registry]]
location = "registry.lan:5000"
insecure = true
[[registry]]
prefix = "docker.io/library"
location = "hub.lan/official"
[[registry.mirror]]
location = "mirror.lan:80/hub"
insecure = true
[[registry.mirror]]
location = "pinned.lan/hub"
pull-from-mirror = "digest-only"
[[registry]]
prefix = "bad.example"
blocked = true
[[registry]]
prefix = "*.wild.example"
insecure = true
"#;

    fn places(name: &str, verify: Option<bool>) -> Vec<String> {
        let all = Registries::parse(CONF).unwrap();
        let found = all.places(&name.parse().unwrap(), verify).unwrap();
        let shown = found.iter().map(|e| {
            let mark = if e.insecure { "!" } else { "" };
            format!("{mark}{}", e.full())
        });
        shown.collect()
    }

    #[test]
    fn rules_rewrite_mark_and_mirror_names() {
        assert_eq!(
            places("registry.lan:5000/a/b:1", None),
            ["!registry.lan:5000/a/b"]
        );
        assert_eq!(
            places("registry.lan:5000/a", Some(true)),
            ["registry.lan:5000/a"]
        );
        assert_eq!(
            places("debian:12", None),
            ["!mirror.lan:80/hub/debian", "hub.lan/official/debian"]
        );
        let pinned = format!("debian@{}", pellicle_store::Digest::of(b""));
        assert_eq!(places(&pinned, None).len(), 3);
        assert_eq!(places("docker.io/user/x", None), ["docker.io/user/x"]);
        assert_eq!(places("a.wild.example/x", None), ["!a.wild.example/x"]);
        assert_eq!(places("wild.example/x", None), ["wild.example/x"]);
        assert_eq!(places("quay.io/x", Some(false)), ["!quay.io/x"]);
        let all = Registries::parse(CONF).unwrap();
        assert!(all.places(&"bad.example/x".parse().unwrap(), None).is_err());
        let home = all.home(&"debian".parse().unwrap(), None).unwrap();
        assert_eq!(home.full(), "hub.lan/official/debian");
    }

    #[test]
    fn a_file_that_makes_no_sense_is_refused() {
        for bad in [
            "registry = 3",
            "[[registry]]\ninsecure = true",
            "[[registry]]\nlocation = 1",
            "short-name-mode = 'x'",
            "[aliases]\nx = 'no registry'",
            "[aliases]\n'a.io/x' = 'a.io/y'",
            "x",
        ] {
            assert!(Registries::parse(bad).is_err(), "{bad}");
        }
        let odd = Registries::parse("[[registry]]\nprefix='a.b'\nlocation='no host'").unwrap();
        assert!(odd.places(&"a.b/c".parse().unwrap(), None).is_err());
    }

    #[test]
    fn the_hub_is_asked_under_its_hosts_name_and_loopback_is_known() {
        let of = |name: &str| {
            let r: Reference = name.parse().unwrap();
            Registries::default().home(&r, None).unwrap()
        };
        assert_eq!(of("debian").host(), "registry-1.docker.io");
        assert_eq!(of("debian").repository, "library/debian");
        assert!(of("localhost:5000/x").is_local() && of("127.0.0.1:1/x").is_local());
        assert!(of("[::1]:5000/x").is_local() && !of("quay.io/x").is_local());
    }
}
