//! Names of images, as docker writes and reads them (github.com/distribution/reference).
//!
//! `debian` is short for `docker.io/library/debian:latest`: that full form is what the store keeps
//! and what registries will be asked for; people see the short one ([`Reference::familiar`]).
//! The first component is a registry only if it has a dot or a port, or is `localhost`.

use std::{fmt, str::FromStr};

use pellicle_store::Digest;

use super::ImageError;

const DEFAULT_DOMAIN: &str = "docker.io";
const OFFICIAL: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// Longest name without tag and digest (distribution/reference, `NameTotalLengthMax`).
const NAME_MAX: usize = 255;

/// A name with what it says of version: a tag, a manifest's digest, both or none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// The registry: `docker.io` unless the name gives another.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository at the registry: `library/debian`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag; `latest` if neither tag nor digest is given.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        match (&self.tag, &self.digest) {
            (None, None) => Some(DEFAULT_TAG),
            (tag, _) => tag.as_deref(),
        }
    }

    /// The manifest's digest, if given.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// `docker.io/library/debian`
    #[must_use]
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The repository as people write it: `debian`, `user/tool`, `quay.io/x/y`.
    #[must_use]
    pub fn familiar_repository(&self) -> String {
        if self.domain == DEFAULT_DOMAIN {
            let path = self.path.strip_prefix(OFFICIAL).unwrap_or(&self.path);
            // `library/a/b` must not turn into `a/b`, which means another repository.
            if path.contains('/') {
                self.path.clone()
            } else {
                path.to_owned()
            }
        } else {
            self.repository()
        }
    }

    /// The full name with its tag, under which the store keeps an image: no digest in it. `None`
    /// for a reference by digest alone.
    #[must_use]
    pub fn tagged(&self) -> Option<String> {
        self.tag().map(|tag| format!("{}:{tag}", self.repository()))
    }

    /// The same name at the registry `localhost`, where podman and buildah put what is made locally.
    #[must_use]
    pub fn at_localhost(&self) -> Option<Self> {
        (self.domain == DEFAULT_DOMAIN).then(|| Self {
            domain: "localhost".to_owned(),
            path: self
                .path
                .strip_prefix(OFFICIAL)
                .unwrap_or(&self.path)
                .to_owned(),
            ..self.clone()
        })
    }

    /// As people write it: `debian:12`.
    #[must_use]
    pub fn familiar(&self) -> String {
        let mut text = self.familiar_repository();
        if let Some(tag) = self.tag() {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        text
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository())?;
        if let Some(tag) = self.tag() {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        parse(text).map_err(|why| ImageError::BadReference {
            text: text.chars().take(100).collect(),
            why,
        })
    }
}

/// What people see for a full name; the name itself if it does not parse.
#[must_use]
pub fn familiar(full: &str) -> String {
    full.parse::<Reference>()
        .map_or_else(|_| full.to_owned(), |r| r.familiar())
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => {
            let digest = digest
                .parse()
                .map_err(|_| "what follows @ must be sha256: and 64 hex digits")?;
            (rest, Some(digest))
        }
        None => (text, None),
    };
    // A colon after the last slash begins a tag, one before it a registry's port.
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    if is_hex_id(name) {
        return Err("64 hex digits are an image's id, not a name");
    }
    let (domain, path) = match name.split_once('/') {
        Some((first, path)) if is_domain(first) => (first, path.to_owned()),
        Some(_) => (DEFAULT_DOMAIN, name.to_owned()),
        None => (DEFAULT_DOMAIN, format!("{OFFICIAL}{name}")),
    };
    // Docker's old name for its registry.
    let domain = if domain == "index.docker.io" {
        DEFAULT_DOMAIN
    } else {
        domain
    };
    let path = if domain == DEFAULT_DOMAIN && !path.contains('/') {
        format!("{OFFICIAL}{path}")
    } else {
        path
    };
    check_domain(domain)?;
    check_path(&path)?;
    if domain.len() + 1 + path.len() > NAME_MAX {
        return Err("it is longer than 255 characters");
    }
    Ok(Reference {
        domain: domain.to_owned(),
        path,
        tag: tag.map(str::to_owned),
        digest,
    })
}

/// A text's registry, if it begins with one, and the rest.
#[must_use]
pub fn split_domain(text: &str) -> (Option<&str>, &str) {
    match text.split_once('/') {
        Some((first, rest)) if is_domain(first) => (Some(first), rest),
        _ => (None, text),
    }
}

/// A name without a registry, and its tag and digest with what goes before them; `None` for a name with a
/// registry.
#[must_use]
pub fn short_name(text: &str) -> Option<(&str, &str)> {
    let (None, text) = split_domain(text) else {
        return None;
    };
    let end = text.find(['@', ':']).unwrap_or(text.len());
    text.split_at_checked(end)
}

fn is_hex_id(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_domain(first: &str) -> bool {
    first.contains(['.', ':'])
        || first == "localhost"
        || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn check_domain(domain: &str) -> Result<(), &'static str> {
    let (host, port) = match domain.rsplit_once(':') {
        // An IPv6 address keeps its brackets: [::1]:5000.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (domain, None),
    };
    if let Some(port) = port
        && (port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()))
    {
        return Err("the registry's port must be a number");
    }
    let good = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(|label| {
            let b = label.as_bytes();
            b.first().is_some_and(u8::is_ascii_alphanumeric)
                && b.last().is_some_and(u8::is_ascii_alphanumeric)
                && b.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'-')
        }),
    };
    if good {
        Ok(())
    } else {
        Err("the part before the first / is no host name")
    }
}

/// Components of lower-case letters and digits, separated inside by `.`, `_`, `__` or any number of
/// `-` (distribution/reference, `path-component`).
fn check_path(path: &str) -> Result<(), &'static str> {
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("it must be lower case");
    }
    if path.split('/').all(is_component) {
        Ok(())
    } else {
        Err(
            "each part between slashes must be letters and digits, joined by '.', '_', '__' or dashes",
        )
    }
}

fn is_component(part: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !part.starts_with(alphanumeric) || !part.ends_with(alphanumeric) {
        return false;
    }
    part.split(alphanumeric)
        .filter(|gap| !gap.is_empty())
        .all(|gap| matches!(gap, "." | "_" | "__") || gap.bytes().all(|b| b == b'-'))
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    let b = tag.as_bytes();
    if b.len() <= 128
        && b.first().is_some_and(word)
        && b.iter().all(|c| word(c) || matches!(c, b'.' | b'-'))
    {
        Ok(())
    } else {
        Err(
            "the tag must be 1 to 128 letters, digits, '_', '.' and '-', not starting with '.' or '-'",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_expand_and_shorten_as_docker_has_them() {
        for (given, full, familiar) in [
            ("debian", "docker.io/library/debian:latest", "debian:latest"),
            ("debian:12", "docker.io/library/debian:12", "debian:12"),
            (
                "user/tool",
                "docker.io/user/tool:latest",
                "user/tool:latest",
            ),
            (
                "docker.io/debian",
                "docker.io/library/debian:latest",
                "debian:latest",
            ),
            ("index.docker.io/a/b:1", "docker.io/a/b:1", "a/b:1"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            (
                "localhost:5000/x:y",
                "localhost:5000/x:y",
                "localhost:5000/x:y",
            ),
            (
                "quay.io/a/b/c:v1.2-rc_3",
                "quay.io/a/b/c:v1.2-rc_3",
                "quay.io/a/b/c:v1.2-rc_3",
            ),
            ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
            (
                "library/a/b",
                "docker.io/library/a/b:latest",
                "library/a/b:latest",
            ),
            (
                "a__b--c.d/e",
                "docker.io/a__b--c.d/e:latest",
                "a__b--c.d/e:latest",
            ),
        ] {
            if given == "a__b--c.d/e" {
                // The dot makes the first part a registry, which may hold no underscore.
                assert!(given.parse::<Reference>().is_err());
                continue;
            }
            let r: Reference = given.parse().unwrap();
            assert_eq!(r.to_string(), full, "{given}");
            assert_eq!(r.familiar(), familiar, "{given}");
            assert_eq!(
                familiar.parse::<Reference>().unwrap(),
                full.parse().unwrap(),
                "{given}"
            );
        }
    }

    #[test]
    fn a_digest_stands_beside_or_instead_of_a_tag() {
        let r: Reference = format!("debian@{D}").parse().unwrap();
        assert_eq!((r.tag(), r.tagged()), (None, None));
        assert_eq!(r.familiar(), format!("debian@{D}"));
        let r: Reference = format!("debian:12@{D}").parse().unwrap();
        assert_eq!(r.tag(), Some("12"));
        assert_eq!(r.digest().unwrap().to_string(), D);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let hex = "a".repeat(64);
        let long = "a".repeat(256);
        for bad in [
            "",
            ":",
            "/",
            "a/",
            "/a",
            "a//b",
            "Debian",
            "a:b:c/",
            "a:",
            "a: b",
            "a b",
            "a:.x",
            "a@x",
            "a@sha256:00",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "_a",
            "a/../b",
            "a\nb",
            "ä",
            "x.y:port/z",
            "host:/x",
            "-.io/x",
            hex.as_str(),
            long.as_str(),
            &format!("a:{}", "t".repeat(129)),
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad:?} was taken");
        }
    }
}
