//! ADD of an address: the file that a server has there.
//!
//! With `--checksum` the step's key needs no network. Without, the server is asked each time; what it
//! said of the file last time (`builds/downloads/<digest of the address>`) saves fetching one that did
//! not change.

use std::{
    error::Error as _,
    fs::File,
    io::{self, Seek as _},
    path::PathBuf,
};

use parking_lot::Mutex;
use pellicle_store::{Digest, Time};

use super::{BuildError, Fetch, cache::Cache};
use crate::registry::{Download, RegistryError};

/// Whether `text` in an ADD is an address and no path.
pub(super) fn is_address(text: &str) -> bool {
    let schemes = ["http://", "https://", "git@", "git://", "ssh://"];
    schemes.iter().any(|scheme| text.starts_with(scheme))
}

/// A file of a server.
pub(super) struct Remote<'a> {
    address: String,
    digest: Digest,
    /// Unknown where nothing was fetched yet.
    modified: Option<Time>,
    /// It is to have the digest, by `--checksum`.
    is_given: bool,
    fetch: &'a Fetch<'a>,
    /// Where files without a name are made.
    work: PathBuf,
    content: Mutex<Option<(File, Time)>>,
}

impl<'a> Remote<'a> {
    /// Finds out what is at `address`, which is to have the digest `checksum`, if that is given.
    ///
    /// # Errors
    /// An address that cannot be fetched from, and what its server says.
    pub(super) fn look(
        address: &str,
        checksum: Option<Digest>,
        fetch: &'a Fetch<'a>,
        cache: &Cache,
    ) -> Result<Self, BuildError> {
        if !is_http(address) {
            return Err(BuildError::request(
                format!("ADD cannot clone the repository {address}"),
                "clone it before the build and COPY it, or clone it in a RUN with --network=host",
            ));
        }
        let remote = |digest, modified, content| Self {
            address: address.to_owned(),
            digest,
            modified,
            is_given: checksum.is_some(),
            fetch,
            work: cache.work(),
            content: Mutex::new(content),
        };
        if let Some(digest) = checksum {
            return Ok(remote(digest, None, None));
        }
        let known = cache.download(address);
        let etag = known.as_ref().and_then(|known| known.etag.as_deref());
        let mut file = new_file(&cache.work())?;
        match (fetch(address, etag, &mut file).map_err(failed)?, known) {
            (Some(got), _) => {
                cache.note_download(address, &got)?;
                let time = time(&got);
                Ok(remote(got.digest, Some(time), Some((file, time))))
            }
            (None, Some(known)) => Ok(remote(known.digest, Some(time(&known)), None)),
            (None, None) => Err(BuildError::request(
                format!("{address} is said not to have changed, and was never fetched"),
                "the server breaks the rules of HTTP: fetch the file before the build",
            )),
        }
    }

    /// What names it in messages.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The name in its path; empty if that has none.
    pub(super) fn name(&self) -> &str {
        let path = self.address.split(['?', '#']).next().unwrap_or_default();
        let path = path.split_once("://").map_or("", |(_, rest)| rest);
        match path.rsplit_once('/') {
            Some((_, name)) if name != "." && name != ".." => name,
            _ => "",
        }
    }

    /// What a step that takes it depends on.
    pub(super) fn fingerprint(&self) -> String {
        format!("{} {} {:?}", self.name(), self.digest, self.modified)
    }

    /// Its bytes, and when it was last changed.
    ///
    /// # Errors
    /// What the server says; another content than the one that was looked at.
    pub(super) fn open(&self) -> Result<(File, Time), BuildError> {
        let mut content = self.content.lock();
        if content.is_none() {
            let mut file = new_file(&self.work)?;
            let got = (self.fetch)(&self.address, None, &mut file).map_err(failed)?;
            let got = got.filter(|got| got.digest == self.digest || self.is_given);
            let got = got.ok_or_else(|| {
                let what = format!("{} changed while it was looked at", self.address);
                BuildError::request(what, "build again")
            })?;
            if got.digest != self.digest {
                return Err(BuildError::request(
                    format!(
                        "{} has the digest {}, and --checksum says {}",
                        self.address, got.digest, self.digest
                    ),
                    "if the file is the one that is meant, mend --checksum",
                ));
            }
            *content = Some((file, time(&got)));
        }
        let fail = |e| BuildError::io("read", &self.work)(e);
        let (file, time) = content
            .as_ref()
            .ok_or_else(|| fail(io::ErrorKind::NotFound.into()))?;
        let mut file = file.try_clone().map_err(fail)?;
        file.rewind().map_err(fail)?;
        Ok((file, *time))
    }
}

/// Without a time of the server it is 1970, so that the same file gives the same layer.
fn time(got: &Download) -> Time {
    Time {
        sec: got.modified.unwrap_or(0),
        nsec: 0,
    }
}

fn is_http(address: &str) -> bool {
    let http = address.starts_with("http://") || address.starts_with("https://");
    let repository = address.split('#').next().unwrap_or_default();
    http && !repository.ends_with(".git")
}

fn new_file(dir: &std::path::Path) -> Result<File, BuildError> {
    tempfile::tempfile_in(dir).map_err(BuildError::io("make a file in", dir))
}

fn failed(error: RegistryError) -> BuildError {
    if matches!(error, RegistryError::Cancelled) {
        return BuildError::Cancelled;
    }
    let mut what = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        what = format!("{what}: {source}");
        cause = source.source();
    }
    let next = error
        .hint()
        .unwrap_or_else(|| "check the address and the network".to_owned());
    BuildError::request(what, next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pellicle_store::Store;

    fn remote<'a>(address: &str, fetch: &'a Fetch<'a>, cache: &Cache) -> Remote<'a> {
        Remote::look(address, Some(Digest::of(b"x")), fetch, cache).unwrap()
    }

    #[test]
    fn addresses_have_names_and_repositories_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let cache = Cache::open(&store).unwrap();
        let fetch = |_: &str, _: Option<&str>, _: &mut File| Ok(None);
        for (address, name) in [
            ("https://a.example/b/c.tar.gz?x=/y#z", "c.tar.gz"),
            ("http://a.example/b/", ""),
            ("http://a.example", ""),
            ("http://a.example/b/..", ""),
        ] {
            assert_eq!(remote(address, &fetch, &cache).name(), name, "{address}");
        }
        for address in [
            "git@a.example:b/c",
            "https://a.example/b.git",
            "https://a.example/b.git#v1:sub",
            "ssh://a.example/b",
        ] {
            assert!(is_address(address));
            let error = Remote::look(address, None, &fetch, &cache).err().unwrap();
            assert!(error.to_string().contains("clone"), "{address}: {error}");
        }
        assert!(!is_address("httpd.conf"));
    }
}
