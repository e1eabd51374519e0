//! Lists of a registry that come in pages: tags, the catalog, what a search finds (distribution-spec,
//! "Listing Tags"; docker's registry, `_catalog` and the index's `v1/search`).

use serde::{Deserialize, de::DeserializeOwned};
use ureq::http::{Method, Response, Uri};

use super::{
    Client, RegistryError,
    auth::{encode, read},
    client::Call,
    http::resolve,
};

/// Largest page taken.
const PAGE_MAX: u64 = 8 << 20;
/// More pages than any list has; bounds a registry that never ends.
const PAGES_MAX: usize = 1000;
/// Entries asked for at a time.
const AT_ONCE: &str = "1000";

#[derive(Deserialize)]
struct Tags {
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Catalog {
    repositories: Option<Vec<String>>,
}

/// What an index found (docker's `v1/search`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Found {
    /// The repository, without registry.
    #[serde(default)]
    pub name: String,
    /// What it is about.
    #[serde(default)]
    pub description: Option<String>,
    /// How many people like it.
    #[serde(default)]
    pub star_count: u64,
    /// It is one of docker's own.
    #[serde(default)]
    pub is_official: bool,
    /// It is built by the registry.
    #[serde(default)]
    pub is_automated: bool,
}

#[derive(Deserialize)]
struct Results {
    #[serde(default)]
    results: Vec<Found>,
}

impl Client {
    /// All tags of the repository, as the registry orders them.
    ///
    /// # Errors
    /// If there is no such repository.
    pub fn tags(&self) -> Result<Vec<String>, RegistryError> {
        let url = self.url(&format!("tags/list?n={AT_ONCE}"))?;
        let doing = format!("list the tags of {}", self.endpoint.full());
        let mut all = Vec::new();
        self.pages(&doing, url, self.pull_scope(), &mut |page: Tags| {
            all.extend(page.tags.into_iter().flatten());
            true
        })?;
        Ok(all)
    }

    /// Repositories of the registry, given to `each` until that has enough.
    ///
    /// # Errors
    /// If the registry does not tell.
    pub fn catalog(&self, each: &mut dyn FnMut(String) -> bool) -> Result<(), RegistryError> {
        let url = self.url_of(&format!("/v2/_catalog?n={AT_ONCE}"))?;
        let doing = format!("list the repositories of {}", self.registry());
        self.pages(&doing, url, "registry:catalog:*", &mut |page: Catalog| {
            page.repositories.into_iter().flatten().all(&mut *each)
        })
    }

    /// What the registry's index finds for `term`, if it has an index.
    ///
    /// # Errors
    /// If it has, but it cannot be asked.
    pub fn index_search(
        &self,
        term: &str,
        limit: usize,
    ) -> Result<Option<Vec<Found>>, RegistryError> {
        let limit = limit.to_string();
        let query = encode(&[("q", term), ("n", &limit)]);
        let answer = self.send(Call {
            doing: &format!("search {}", self.registry()),
            method: Method::GET,
            url: self.url_of(&format!("/v1/search?{query}"))?,
            headers: vec![("accept", "application/json".to_owned())],
            body: None,
            scope: "",
        });
        match answer {
            Ok(mut answer) => {
                let results: Results = self.document("the answer to the search", &mut answer)?;
                Ok(Some(results.results))
            }
            // A registry of version 2 alone has no such address, and may say so in many ways.
            Err(RegistryError::NotFound { .. } | RegistryError::Denied { .. }) => Ok(None),
            Err(RegistryError::Status { status, .. }) if status < 500 => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Reads page after page, until `take` has enough or there are no more.
    fn pages<T: DeserializeOwned>(
        &self,
        doing: &str,
        first: Uri,
        scope: &str,
        take: &mut dyn FnMut(T) -> bool,
    ) -> Result<(), RegistryError> {
        let mut url = first;
        for _ in 0..PAGES_MAX {
            let mut answer = self.send(Call {
                doing,
                method: Method::GET,
                url: url.clone(),
                headers: vec![("accept", "application/json".to_owned())],
                body: None,
                scope,
            })?;
            let next = next_page(&answer, &url);
            let page = self.document(&format!("the answer to \"{doing}\""), &mut answer)?;
            let more = take(page);
            let Some(next) = next.filter(|next| more && *next != url) else {
                return Ok(());
            };
            if !self.is_own(&next) {
                let what = format!("the answer to \"{doing}\"");
                return Err(RegistryError::invalid(what, "it goes on at another server"));
            }
            url = next;
        }
        Err(RegistryError::invalid(
            format!("the answer to \"{doing}\""),
            format!("it has more than {PAGES_MAX} pages"),
        ))
    }

    /// The JSON of an answer.
    pub(super) fn document<T: DeserializeOwned>(
        &self,
        what: &str,
        answer: &mut Response<ureq::Body>,
    ) -> Result<T, RegistryError> {
        let bytes = read(answer, PAGE_MAX, &self.http).map_err(|e| self.broken(what, e))?;
        let bytes = bytes.ok_or_else(|| {
            RegistryError::invalid(what, format!("it has more than {PAGE_MAX} bytes"))
        })?;
        serde_json::from_slice(&bytes).map_err(|e| RegistryError::invalid(what, e.to_string()))
    }
}

/// Where a list goes on (RFC 8288, `Link: <...>; rel="next"`).
fn next_page<B>(answer: &Response<B>, base: &Uri) -> Option<Uri> {
    let links = answer.headers().get("link")?.to_str().ok()?;
    links.split(',').find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let next = parameters
            .split(';')
            .any(|p| matches!(p.trim(), "rel=\"next\"" | "rel=next"));
        next.then(|| resolve(base, target))?
    })
}
