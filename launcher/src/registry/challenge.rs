//! What a registry wants to see before it answers: the `WWW-Authenticate` header (RFC 9110, 11.6.1).

use std::collections::BTreeMap;

/// How a registry wants to be told who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Name and password with each request.
    Basic,
    /// A token that another server gives out (distribution-spec's token authentication).
    Bearer {
        /// Address of that server.
        realm: String,
        /// What the token is to be for.
        service: Option<String>,
        /// What it is to allow, where the registry says so.
        scope: Option<String>,
    },
}

/// The best of the challenges in a response's headers; `None` if none is known here.
pub(super) fn choose<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut all: Vec<Challenge> = headers.flat_map(parse).collect();
    let bearer = all
        .iter()
        .position(|c| matches!(c, Challenge::Bearer { .. }));
    match bearer {
        Some(at) => Some(all.swap_remove(at)),
        None => all.pop(),
    }
}

/// All challenges of one header that are understood.
fn parse(header: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut rest = header;
    while let Some((scheme, params, left)) = next(rest) {
        let get = |name: &str| params.get(name).cloned();
        match scheme.to_ascii_lowercase().as_str() {
            "basic" => found.push(Challenge::Basic),
            "bearer" => found.extend(get("realm").map(|realm| Challenge::Bearer {
                realm,
                service: get("service"),
                scope: get("scope").filter(|s| !s.is_empty()),
            })),
            _ => {}
        }
        rest = left;
    }
    found
}

/// One scheme with its parameters, and what follows.
fn next(text: &str) -> Option<(&str, BTreeMap<String, String>, &str)> {
    let text = text.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == ',');
    let (scheme, mut rest) = token(text)?;
    let mut params = BTreeMap::new();
    loop {
        let here = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == ',');
        // Without an equals sign it is the next scheme.
        let Some((name, after)) = token(here) else {
            return Some((scheme, params, ""));
        };
        let Some(value) = after.trim_start().strip_prefix('=') else {
            return Some((scheme, params, here));
        };
        let (value, left) = parameter(value.trim_start())?;
        params.insert(name.to_ascii_lowercase(), value);
        rest = left;
    }
}

fn token(text: &str) -> Option<(&str, &str)> {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)))
        .unwrap_or(text.len());
    let (token, rest) = text.split_at_checked(end)?;
    (!token.is_empty()).then_some((token, rest))
}

fn parameter(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        let (value, rest) = text.split_at_checked(end)?;
        return Some((value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, quoted.get(at + 1..)?)),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        }
    }

    #[test]
    fn challenges_parse_with_quotes_commas_and_several_schemes() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/x:pull,push""#;
        assert_eq!(
            choose([hub].into_iter()),
            Some(bearer(
                "https://auth.docker.io/token",
                Some("registry.docker.io"),
                Some("repository:library/x:pull,push")
            ))
        );
        assert_eq!(
            choose([r#"basic realm="a \"b\", c""#].into_iter()),
            Some(Challenge::Basic)
        );
        let both = r#"Negotiate, Basic realm="x", Bearer realm=http://t , service="s""#;
        assert_eq!(
            choose([both].into_iter()),
            Some(bearer("http://t", Some("s"), None))
        );
        assert_eq!(
            choose(["Basic realm=x", r#"Bearer realm="r""#].into_iter()),
            Some(bearer("r", None, None))
        );
    }

    #[test]
    fn what_is_no_challenge_gives_none() {
        for bad in [
            "",
            ",,,",
            "Negotiate",
            "Bearer",
            "Bearer realm=\"x",
            "Bearer service=x",
            "=",
            "\u{fc}",
        ] {
            assert_eq!(choose([bad].into_iter()), None, "{bad:?}");
        }
    }
}
