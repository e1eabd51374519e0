//! Looking for images at registries.

use super::{Access, Client, Endpoint, RegistryError, lists::Found};
use crate::image::{Reference, split_domain};

/// Docker's registry, and where its index answers.
const HUB: (&str, &str) = ("docker.io", "index.docker.io");

/// What was found at one registry.
#[derive(Clone, Debug)]
pub struct Hit {
    /// The registry.
    pub registry: String,
    /// What it says.
    pub found: Found,
}

/// Looks for `term`, which may begin with a registry; without, in those of registries.conf that are searched
/// for short names, or at docker.io. At most `limit` of each.
///
/// # Errors
/// The first registry that cannot be searched.
pub fn search(access: &Access, term: &str, limit: usize) -> Result<Vec<Hit>, RegistryError> {
    let (domain, rest) = match split_domain(term) {
        (Some(domain), rest) => (Some(domain), rest),
        (None, rest) => (None, rest),
    };
    let registries = match domain {
        Some(domain) => vec![domain.to_owned()],
        None => match access.registries.searched() {
            [] => vec![HUB.0.to_owned()],
            some => some.to_vec(),
        },
    };
    let mut hits = Vec::new();
    for registry in registries {
        for found in at(access, &registry, rest, limit)? {
            hits.push(Hit {
                registry: registry.clone(),
                found,
            });
        }
    }
    Ok(hits)
}

fn at(
    access: &Access,
    registry: &str,
    term: &str,
    limit: usize,
) -> Result<Vec<Found>, RegistryError> {
    // Any repository of it: what is said of the registry counts for all.
    let name: Reference = format!("{registry}/search").parse()?;
    let home = access.registries.home(&name, access.tls_verify)?;
    let host = if registry == HUB.0 { HUB.1 } else { registry };
    let client = Client::connect(
        access,
        Endpoint {
            name: host.to_owned(),
            ..home
        },
    )?;
    if !term.is_empty()
        && let Some(mut found) = client.index_search(term, limit)?
    {
        found.truncate(limit);
        return Ok(found);
    }
    let mut found = Vec::new();
    client.catalog(&mut |name| {
        if name.contains(term) && found.len() < limit {
            found.push(Found {
                name,
                ..Found::default()
            });
        }
        found.len() < limit
    })?;
    Ok(found)
}
