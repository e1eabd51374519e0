//! Showing a registry who asks: nothing, name and password, or tokens (distribution-spec, "Token
//! Authentication"; docker's registry, "Token Authentication Specification").

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde::Deserialize;
use ureq::http::{Method, Response, Uri};

use super::{
    RegistryError,
    challenge::{self, Challenge},
    credentials::{Credentials, Secret},
    error::TransportError,
    http::{Http, Request, Sent, host_of},
    retry::Retry,
};

/// Longest answer of a token server.
const TOKEN_MAX: u64 = 1 << 20;
/// What a token lives if its server does not say, and at least (the token specification).
const LIFE: Duration = Duration::from_secs(60);
/// Tokens are no longer used so long before they end: a request takes time.
const MARGIN: Duration = Duration::from_secs(5);

/// Who asks, and what the registry gave for it so far.
pub(super) struct Auth {
    credentials: Option<Credentials>,
    /// Without TLS credentials go only where the person said so.
    may_be_plain: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    challenge: Option<Challenge>,
    /// By scope.
    tokens: HashMap<String, Token>,
}

struct Token {
    value: Secret,
    until: Instant,
}

#[derive(Deserialize)]
struct Given {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Auth {
    pub(super) fn new(credentials: Option<Credentials>, may_be_plain: bool) -> Self {
        Self {
            credentials,
            may_be_plain,
            state: Mutex::default(),
        }
    }

    pub(super) fn is_anonymous(&self) -> bool {
        self.credentials.is_none()
    }

    /// The `Authorization` header for a request of that scope; `None` while the registry has asked for
    /// none.
    pub(super) fn header(
        &self,
        scope: &str,
        http: &Http,
        retry: &Retry,
    ) -> Result<Option<String>, RegistryError> {
        let mut state = self.state.lock();
        let Some(challenge) = state.challenge.clone() else {
            return Ok(None);
        };
        match challenge {
            Challenge::Basic => Ok(self.credentials.as_ref().map(Credentials::basic)),
            Challenge::Bearer { realm, service, .. } => {
                let fresh = |t: &&Token| Instant::now() + MARGIN < t.until;
                if let Some(token) = state.tokens.get(scope).filter(fresh) {
                    return Ok(Some(format!("Bearer {}", token.value.expose())));
                }
                let token = self.fetch(&realm, service.as_deref(), scope, http, retry)?;
                let header = format!("Bearer {}", token.value.expose());
                state.tokens.insert(scope.to_owned(), token);
                Ok(Some(header))
            }
        }
    }

    /// Takes note of what a refusal (401) asks for. `sent` is the header that was refused; whether it
    /// makes sense to try again.
    pub(super) fn refused<B>(&self, answer: &Response<B>, scope: &str, sent: Option<&str>) -> bool {
        let headers = answer.headers().get_all("www-authenticate");
        let Some(challenge) = challenge::choose(headers.iter().filter_map(|h| h.to_str().ok()))
        else {
            return false;
        };
        let basic = challenge == Challenge::Basic;
        let mut state = self.state.lock();
        if let Some(value) = sent.and_then(|s| s.strip_prefix("Bearer ")) {
            // Another thread may have a newer one by now.
            if state
                .tokens
                .get(scope)
                .is_some_and(|t| t.value.expose() == value)
            {
                state.tokens.remove(scope);
            }
        }
        state.challenge = Some(challenge);
        !basic || (self.credentials.is_some() && sent.is_none())
    }

    fn fetch(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: &str,
        http: &Http,
        retry: &Retry,
    ) -> Result<Token, RegistryError> {
        let bad = |why: &str| RegistryError::invalid("the registry's token server", why);
        let base: Uri = realm.parse().map_err(|_| bad("its address is none"))?;
        if base.host().is_none_or(str::is_empty) {
            return Err(bad("its address is none"));
        }
        if base.scheme_str() != Some("https") && self.credentials.is_some() && !self.may_be_plain {
            return Err(bad(
                "it wants the password without TLS, which is done only with --tls-verify=false",
            ));
        }
        let mut pairs = Vec::new();
        pairs.extend(service.map(|s| ("service", s)));
        let scopes = scope.split(' ').filter(|s| !s.is_empty());
        let host = host_of(&base);
        let identity = self
            .credentials
            .as_ref()
            .and_then(|c| c.identity_token.as_ref());
        let asked = Instant::now();
        let request = match identity {
            Some(identity) => {
                pairs.extend([
                    ("grant_type", "refresh_token"),
                    ("refresh_token", identity.expose()),
                    ("client_id", "pellicle"),
                ]);
                let scopes = scopes.collect::<Vec<_>>().join(" ");
                pairs.push(("scope", &scopes));
                Wanted {
                    url: base,
                    form: Some(encode(&pairs)),
                    basic: None,
                }
            }
            None => {
                pairs.extend(scopes.map(|s| ("scope", s)));
                let user = self.credentials.as_ref().map(|c| c.user.as_str());
                pairs.extend(user.filter(|u| !u.is_empty()).map(|u| ("account", u)));
                let joint = if realm.contains('?') { '&' } else { '?' };
                let query = encode(&pairs);
                let url = match query.as_str() {
                    "" => base,
                    query => format!("{realm}{joint}{query}")
                        .parse()
                        .map_err(|_| bad("its address is none"))?,
                };
                Wanted {
                    url,
                    form: None,
                    basic: self.credentials.as_ref().map(Credentials::basic),
                }
            }
        };
        let text = request.get(&host, self.credentials.is_none(), http, retry)?;
        let given: Given =
            serde_json::from_slice(&text).map_err(|_| bad("its answer is no token"))?;
        let value = given.token.or(given.access_token).filter(|t| !t.is_empty());
        let life = Duration::from_secs(given.expires_in.unwrap_or(0).min(86_400)).max(LIFE);
        Ok(Token {
            value: Secret::new(value.ok_or_else(|| bad("its answer has no token in it"))?),
            until: asked + life,
        })
    }
}

/// A request for a token.
struct Wanted {
    url: Uri,
    form: Option<String>,
    basic: Option<String>,
}

impl Wanted {
    fn get(
        &self,
        host: &str,
        anonymous: bool,
        http: &Http,
        retry: &Retry,
    ) -> Result<Vec<u8>, RegistryError> {
        let doing = || format!("get a token from {host}");
        let mut failed = 0;
        loop {
            http.check()?;
            let mut headers = vec![("accept", "application/json".to_owned())];
            headers.extend(self.basic.clone().map(|b| ("authorization", b)));
            let body = match &self.form {
                Some(form) => {
                    let kind = "application/x-www-form-urlencoded";
                    headers.push(("content-type", kind.to_owned()));
                    Sent::Bytes(form.as_bytes())
                }
                None => Sent::Nothing,
            };
            let method = if self.form.is_some() {
                Method::POST
            } else {
                Method::GET
            };
            let request = Request {
                method,
                url: &self.url,
                headers,
                body,
            };
            let answer = http.send(request).and_then(|mut answer| {
                let text = read(&mut answer, TOKEN_MAX, http)?;
                Ok((answer.status().as_u16(), text))
            });
            let may_retry = failed < retry.times;
            match answer {
                Ok((200, Some(text))) => return Ok(text),
                Ok((401 | 403, _)) => {
                    return Err(RegistryError::Denied {
                        doing: doing(),
                        host: host.to_owned(),
                        login: host.to_owned(),
                        anonymous,
                        detail: String::new(),
                    });
                }
                Ok((429 | 500..=599, _)) if may_retry => {}
                Ok((status, _)) => {
                    return Err(RegistryError::Status {
                        doing: doing(),
                        host: host.to_owned(),
                        status,
                        detail: String::new(),
                    });
                }
                Err(TransportError::Io(_) | TransportError::Stalled { .. }) if may_retry => {}
                Err(source) => {
                    http.check()?;
                    return Err(RegistryError::Broken {
                        doing: doing(),
                        host: host.to_owned(),
                        source,
                    });
                }
            }
            failed += 1;
            retry.pause(failed, None, http)?;
        }
    }
}

/// All of a small body; `None` if it has more than `max` bytes.
pub(super) fn read(
    answer: &mut Response<ureq::Body>,
    max: u64,
    http: &Http,
) -> Result<Option<Vec<u8>>, TransportError> {
    use std::io::Read as _;

    let mut bytes = Vec::new();
    let body = http.paced(answer.body_mut().as_reader());
    body.take(max + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| http.explain_io(e))?;
    Ok((bytes.len() as u64 <= max).then_some(bytes))
}

/// `application/x-www-form-urlencoded`, which is also a query.
pub(super) fn encode(pairs: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z'
                | b'a'..=b'z'
                | b'0'..=b'9'
                | b'-'
                | b'.'
                | b'_'
                | b'~'
                | b'/'
                | b':' => {
                    text.push(char::from(byte));
                }
                other => text.push_str(&format!("%{other:02X}")),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_plain_is_percent_encoded() {
        let pairs = [("scope", "repository:a/b:pull,push"), ("account", "é&=+ ")];
        assert_eq!(
            encode(&pairs),
            "scope=repository:a/b:pull%2Cpush&account=%C3%A9%26%3D%2B%20"
        );
    }
}
