//! One repository of one registry, over HTTP (OCI distribution-spec 1.1).
//!
//! A request is shown credentials or a token when the registry asks (401), is tried again after a cut,
//! a 429 or a 5xx, and follows redirects by itself: to another server nothing goes along that only the
//! registry may see.

use std::{path::PathBuf, sync::Arc, time::Duration};

use pellicle_store::import::Cancel;
use serde::Deserialize;
use ureq::{
    Body,
    http::{Method, Response, StatusCode, Uri},
};

use super::{
    Endpoint, Registries, RegistryError,
    auth::{Auth, read},
    credentials::Source,
    error::TransportError,
    http::{Http, Request, Sent, resolve, same_origin},
    retry::{Retry, retry_after},
    tls,
};

/// Redirects followed one after the other.
const HOPS: usize = 5;
/// Longest message of a registry that is looked at.
const MESSAGE_MAX: u64 = 64 << 10;
/// How much of it is shown, in characters.
const SHOWN_MAX: usize = 300;

/// How registries are to be reached; the settings of one command.
#[derive(Clone, Debug)]
pub struct Access {
    /// `registries.conf`.
    pub registries: Registries,
    /// Where credentials come from.
    pub credentials: Source,
    /// Whether TLS is demanded and verified; what `registries.conf` says if not given.
    pub tls_verify: Option<bool>,
    /// Directory of certificates instead of `certs.d`.
    pub cert_dir: Option<PathBuf>,
    /// How often what failed is tried again.
    pub retry: Retry,
    /// How long nothing may come before a connection counts as dead.
    pub stall: Duration,
    /// A request to stop.
    pub cancel: Cancel,
    /// Whether that request is watched for by a thread of its own, so that it also ends what is blocked
    /// in the network. Not for a process that forks.
    pub watched: bool,
}

/// One repository.
pub struct Client {
    pub(super) http: Arc<Http>,
    pub(super) endpoint: Endpoint,
    pub(super) retry: Retry,
    auth: Auth,
    scheme: &'static str,
    pull: String,
}

/// How one try went, and the authorization that the registry saw.
type Once = (Result<Response<Body>, TransportError>, Option<String>);

/// A request that can be sent again as it is.
pub(super) struct Call<'a> {
    /// What errors say was being done, `pull the manifest of x`.
    pub(super) doing: &'a str,
    pub(super) method: Method,
    pub(super) url: Uri,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Option<&'a [u8]>,
    pub(super) scope: &'a str,
}

impl Client {
    /// Finds out how to speak to the registry of `endpoint`. A name that leads nowhere is an error at
    /// once, without further tries.
    ///
    /// # Errors
    /// [`RegistryError::Unreachable`], files of certificates or credentials that are of no use.
    pub fn connect(access: &Access, endpoint: Endpoint) -> Result<Self, RegistryError> {
        let tls = tls::settings(&endpoint, access.cert_dir.as_deref())?;
        let http = Http::new(tls, access.stall, access.cancel.clone(), access.watched);
        let credentials = access.credentials.find(&endpoint.full())?;
        let may_be_plain =
            endpoint.insecure || (endpoint.is_local() && access.tls_verify != Some(true));
        let mut client = Self {
            http,
            retry: access.retry,
            auth: Auth::new(credentials, may_be_plain),
            scheme: "https",
            pull: format!("repository:{}:pull", endpoint.repository),
            endpoint,
        };
        let refused = match client.ping() {
            Ok(()) => return Ok(client),
            Err(error) => error,
        };
        // A registry that speaks TLS, and whose certificate is not believed or that does not believe ours,
        // is not spoken to without.
        let speaks_tls = matches!(
            refused,
            TransportError::Certificate(_) | TransportError::CertificateWanted(_)
        );
        if may_be_plain && !speaks_tls {
            client.scheme = "http";
            if client.ping().is_ok() {
                return Ok(client);
            }
        }
        client.http.check()?;
        Err(RegistryError::Unreachable {
            host: client.endpoint.host().to_owned(),
            source: refused,
        })
    }

    /// Whether anything answers there, and what it wants to see (distribution-spec, "Determining
    /// Support").
    fn ping(&self) -> Result<(), TransportError> {
        let url = self
            .url_of("/v2/")
            .map_err(|_| TransportError::Protocol("that is no address".to_owned()))?;
        let answer = self.http.send(Request {
            method: Method::GET,
            url: &url,
            headers: Vec::new(),
            body: Sent::Nothing,
        })?;
        match answer.status() {
            StatusCode::UNAUTHORIZED => {
                self.auth.refused(&answer, "", None);
            }
            // What a server of TLS says to who speaks without, among others.
            StatusCode::BAD_REQUEST => {
                let why = "it takes the question whether it is a registry for a bad request";
                return Err(TransportError::Protocol(why.to_owned()));
            }
            _ => {}
        }
        Ok(())
    }

    /// Checks that the registry takes the credentials.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] if not, and the transport's.
    pub fn check_login(&self) -> Result<(), RegistryError> {
        let call = Call {
            doing: "log in",
            method: Method::GET,
            url: self.url_of("/v2/")?,
            headers: Vec::new(),
            body: None,
            scope: "",
        };
        self.send(call).map(drop)
    }

    /// The name that people know the registry by.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.endpoint.name
    }

    /// The scope of reading.
    pub(super) fn pull_scope(&self) -> &str {
        &self.pull
    }

    /// An address in this repository: `manifests/latest`.
    pub(super) fn url(&self, below: &str) -> Result<Uri, RegistryError> {
        self.url_of(&format!("/v2/{}/{below}", self.endpoint.repository))
    }

    pub(super) fn url_of(&self, path: &str) -> Result<Uri, RegistryError> {
        let whole = format!("{}://{}{path}", self.scheme, self.endpoint.host());
        let bad = |_| {
            RegistryError::invalid(
                format!("the name {}", self.endpoint.full()),
                "it gives no address",
            )
        };
        whole.parse().map_err(bad)
    }

    /// Sends a request until it succeeds (a 2xx) or there is no sense in trying on.
    pub(super) fn send(&self, call: Call<'_>) -> Result<Response<Body>, RegistryError> {
        let mut failed = 0;
        let mut shown = false;
        loop {
            let (result, sent) = self.once(&call)?;
            let mut answer = match result {
                Ok(answer) => answer,
                Err(error) => {
                    self.http.check()?;
                    if failed == self.retry.times || !worth_another(&error) {
                        return Err(self.broken(call.doing, error));
                    }
                    failed += 1;
                    tracing::info!(%error, "trying again: {}", call.doing);
                    self.retry.pause(failed, None, &self.http)?;
                    continue;
                }
            };
            let status = answer.status();
            if status.is_success() {
                return Ok(answer);
            }
            // A token may also have ended by now: then a new one is fetched, once.
            if status == StatusCode::UNAUTHORIZED && !shown {
                shown = true;
                if self.auth.refused(&answer, call.scope, sent.as_deref()) {
                    drain(&mut answer, &self.http);
                    continue;
                }
            }
            let again = matches!(status.as_u16(), 429 | 500 | 502 | 503 | 504);
            if again && failed < self.retry.times {
                failed += 1;
                // The next try may need a new token again.
                shown = false;
                let asked = answer.headers().get("retry-after");
                let asked = asked.and_then(|v| v.to_str().ok()).and_then(retry_after);
                drain(&mut answer, &self.http);
                tracing::info!(%status, "trying again: {}", call.doing);
                self.retry.pause(failed, asked, &self.http)?;
                continue;
            }
            return Err(self.failure(call.doing, answer));
        }
    }

    /// Sends a request with all its redirects.
    fn once(&self, call: &Call<'_>) -> Result<Once, RegistryError> {
        self.http.check()?;
        let sent = self.authorization(call.scope)?;
        let mut url = call.url.clone();
        for _ in 0..=HOPS {
            let mut headers = call.headers.clone();
            if self.is_own(&url) {
                headers.extend(sent.clone().map(|a| ("authorization", a)));
            }
            let answer = self.http.send(Request {
                method: call.method.clone(),
                url: &url,
                headers,
                body: call.body.map_or(Sent::Nothing, Sent::Bytes),
            });
            let mut answer = match answer {
                Ok(answer) => answer,
                Err(error) => return Ok((Err(error), sent)),
            };
            let reads = matches!(call.method, Method::GET | Method::HEAD);
            if !reads || !answer.status().is_redirection() {
                return Ok((Ok(answer), sent));
            }
            let location = answer
                .headers()
                .get("location")
                .and_then(|l| l.to_str().ok());
            let next = location.and_then(|l| resolve(&url, l));
            let next = next.ok_or_else(|| {
                RegistryError::invalid("the registry's redirect", "it leads to no address")
            })?;
            if url.scheme_str() == Some("https")
                && next.scheme_str() != Some("https")
                && !self.endpoint.insecure
            {
                return Err(RegistryError::invalid(
                    "the registry's redirect",
                    "it leads away from TLS",
                ));
            }
            drain(&mut answer, &self.http);
            url = next;
        }
        Err(RegistryError::invalid(
            "the registry's redirect",
            "there is another behind it, and another",
        ))
    }

    /// Whether an address is the registry's own, which may see what is meant for it.
    pub(super) fn is_own(&self, url: &Uri) -> bool {
        self.url_of("/v2/").is_ok_and(|own| same_origin(&own, url))
    }

    /// Takes note of what a refusal asks for; whether it makes sense to try again.
    pub(super) fn refused(&self, answer: &Response<Body>, scope: &str, sent: Option<&str>) -> bool {
        self.auth.refused(answer, scope, sent)
    }

    /// The header for a request of that scope.
    pub(super) fn authorization(&self, scope: &str) -> Result<Option<String>, RegistryError> {
        self.auth
            .header(scope, &self.http, &self.retry)
            .map_err(|e| match e {
                // A token server refuses in the name of the registry.
                RegistryError::Denied {
                    doing,
                    host,
                    anonymous,
                    detail,
                    ..
                } => RegistryError::Denied {
                    doing,
                    host,
                    login: self.endpoint.name.clone(),
                    anonymous,
                    detail,
                },
                other => other,
            })
    }

    pub(super) fn broken(&self, doing: &str, source: TransportError) -> RegistryError {
        RegistryError::Broken {
            doing: doing.to_owned(),
            host: self.endpoint.host().to_owned(),
            source,
        }
    }

    /// What an answer that is none of success means.
    pub(super) fn failure(&self, doing: &str, mut answer: Response<Body>) -> RegistryError {
        let status = answer.status();
        let detail = message(&mut answer, &self.http);
        let (doing, host) = (doing.to_owned(), self.endpoint.host().to_owned());
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RegistryError::Denied {
                doing,
                host,
                login: self.endpoint.name.clone(),
                anonymous: self.auth.is_anonymous(),
                detail,
            },
            StatusCode::NOT_FOUND => RegistryError::NotFound {
                doing,
                host,
                detail,
            },
            status => RegistryError::Status {
                doing,
                host,
                status: status.as_u16(),
                detail,
            },
        }
    }
}

/// Whether the same request may fare better a moment later.
pub(super) fn worth_another(error: &TransportError) -> bool {
    match error {
        TransportError::Io(_)
        | TransportError::Stalled { .. }
        | TransportError::TooSlow(_)
        | TransportError::CutOff { .. } => true,
        TransportError::NoSuchHost
        | TransportError::Certificate(_)
        | TransportError::CertificateWanted(_)
        | TransportError::Protocol(_) => false,
    }
}

/// Reads a short body to its end, so that the connection can be used again.
pub(super) fn drain(answer: &mut Response<Body>, http: &Http) {
    let _ = read(answer, MESSAGE_MAX, http);
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<OneError>,
}

#[derive(Deserialize)]
struct OneError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// What the registry says about it (distribution-spec, "Error Codes"), in one line.
fn message(answer: &mut Response<Body>, http: &Http) -> String {
    let Ok(Some(text)) = read(answer, MESSAGE_MAX, http) else {
        return String::new();
    };
    let Ok(Errors { errors }) = serde_json::from_slice(&text) else {
        return String::new();
    };
    let texts = errors.iter().take(3).map(|e| match e.message.as_str() {
        "" => e.code.clone(),
        message => message.to_owned(),
    });
    one_line(&texts.collect::<Vec<_>>().join("; "))
}

/// A text from elsewhere as it may be put on a terminal.
pub(super) fn one_line(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(SHOWN_MAX).collect()
}
