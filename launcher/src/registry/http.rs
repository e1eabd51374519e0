//! One HTTP exchange at a time: no redirect is followed and no status is an error here, so that those
//! who know what they carry decide.

use std::{
    collections::HashMap,
    io::{self, Read},
    sync::{Arc, Weak},
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use pellicle_store::import::Cancel;
use ureq::{
    Agent, AsSendBody, Body, Error, Proxy, SendBody, Timeout,
    http::{self, Method, Response, Uri},
    tls::TlsConfig,
};

use super::{RegistryError, TooSlow, error::TransportError, pace::Paced, proxy::Proxies};

/// How long a connection may take to come about: a host that does not answer is to be told of soon.
const CONNECT: Duration = Duration::from_secs(10);
/// How often a request to stop is looked for while an exchange may be blocked.
const LOOK: Duration = Duration::from_millis(100);

/// What goes with a request.
pub(super) enum Sent<'a> {
    Nothing,
    Bytes(&'a [u8]),
    /// As many bytes as said, or in chunks to the end of it.
    Stream(&'a mut dyn Read, Option<u64>),
}

/// A request to be sent once.
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) url: &'a Uri,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Sent<'a>,
}

/// Sends requests; connections are kept and used again.
pub(super) struct Http {
    tls: TlsConfig,
    stall: Duration,
    proxies: Proxies,
    /// By proxy; `None` is straight.
    agents: Mutex<HashMap<Option<String>, Agent>>,
    cancel: Cancel,
}

impl Http {
    /// `stall` is how long nothing may come. With `watched`, a request to stop ends also what is
    /// blocked in the network.
    pub(super) fn new(tls: TlsConfig, stall: Duration, cancel: Cancel, watched: bool) -> Arc<Self> {
        let http = Arc::new(Self {
            tls,
            stall,
            proxies: Proxies::from_env(),
            agents: Mutex::default(),
            cancel,
        });
        if watched {
            let weak = Arc::downgrade(&http);
            let watch = thread::Builder::new().name("cancel".to_owned());
            // Without it the flag is still seen, between two reads.
            if let Err(error) = watch.spawn(move || watch_over(&weak)) {
                tracing::warn!(%error, "no thread to watch for interruption");
            }
        }
        http
    }

    /// Whether the caller asked to stop.
    pub(super) fn check(&self) -> Result<(), RegistryError> {
        if self.cancel.is_cancelled() {
            return Err(RegistryError::Cancelled);
        }
        Ok(())
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Sends a request and waits for the head of the answer.
    pub(super) fn send(&self, request: Request<'_>) -> Result<Response<Body>, TransportError> {
        tracing::debug!(method = %request.method, url = %shown(request.url), "request");
        let mut builder = http::Request::builder()
            .method(request.method)
            .uri(request.url);
        for (name, value) in request.headers {
            let value = http::HeaderValue::from_str(&value).map(|mut value| {
                value.set_sensitive(name == "authorization");
                value
            });
            builder = builder.header(name, value.map_err(|_| broken("a header cannot be sent"))?);
        }
        let agent = self.agent(request.url)?;
        let answer = match request.body {
            Sent::Nothing => self.run(&agent, builder, ()),
            Sent::Bytes(bytes) => self.run(&agent, builder, bytes),
            Sent::Stream(from, len) => {
                if let Some(len) = len {
                    builder = builder.header("content-length", len);
                }
                self.run(&agent, builder, SendBody::from_reader(from))
            }
        }?;
        tracing::debug!(status = answer.status().as_u16(), "answer");
        Ok(answer)
    }

    fn run(
        &self,
        agent: &Agent,
        builder: http::request::Builder,
        body: impl AsSendBody,
    ) -> Result<Response<Body>, TransportError> {
        let request = builder
            .body(body)
            .map_err(|_| broken("the request cannot be written"))?;
        agent.run(request).map_err(|e| self.explain(e))
    }

    fn agent(&self, url: &Uri) -> Result<Agent, TransportError> {
        let https = url.scheme_str() == Some("https");
        let port = url.port_u16().unwrap_or(if https { 443 } else { 80 });
        let host = url.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let proxy = self.proxies.of(https, host, port).map(str::to_owned);
        let mut agents = self.agents.lock();
        if let Some(agent) = agents.get(&proxy) {
            return Ok(agent.clone());
        }
        let through = match &proxy {
            None => None,
            Some(text) => Some(
                Proxy::new(text)
                    .map_err(|_| broken("the proxy that the environment names is no address"))?,
            ),
        };
        let agent = Agent::new_with_config(
            Agent::config_builder()
                .tls_config(self.tls.clone())
                .proxy(through)
                .http_status_as_error(false)
                .max_redirects(0)
                .user_agent(concat!("pellicle/", env!("CARGO_PKG_VERSION")))
                // What is hashed is what was sent.
                .accept_encoding("identity")
                .timeout_resolve(Some(CONNECT))
                .timeout_connect(Some(CONNECT))
                // The head of an answer may not drip, either.
                .timeout_recv_response(Some(self.stall))
                .timeout_per_read(Some(self.stall))
                .timeout_per_write(Some(self.stall))
                .build(),
        );
        agents.insert(proxy, agent.clone());
        Ok(agent)
    }

    fn shut_down(&self) {
        for (_, agent) in self.agents.lock().drain() {
            agent.shutdown();
        }
    }

    /// The body of an answer, held to the least speed.
    pub(super) fn paced<R: Read>(&self, body: R) -> Paced<R> {
        Paced::new(body, self.stall)
    }

    /// What an error of the body of an answer means.
    pub(super) fn explain_io(&self, error: io::Error) -> TransportError {
        if let Some(slow) = inner::<TooSlow>(&error) {
            return TransportError::TooSlow(*slow);
        }
        match inner::<Error>(&error) {
            Some(Error::Timeout(which)) => self.stalled(*which),
            _ => certificate(&error).unwrap_or(TransportError::Io(error)),
        }
    }

    fn explain(&self, error: Error) -> TransportError {
        match error {
            Error::Timeout(which) => self.stalled(which),
            Error::HostNotFound => TransportError::NoSuchHost,
            Error::Io(error) => self.explain_io(error),
            Error::Rustls(error) => certificate_of(&error)
                .unwrap_or_else(|| TransportError::Protocol(error.to_string())),
            // Its text would have the address in it, and that may hold a secret.
            Error::BadUri(_) => broken("that is no address"),
            other => TransportError::Protocol(other.to_string()),
        }
    }

    fn stalled(&self, which: Timeout) -> TransportError {
        let (doing, limit) = match which {
            Timeout::Connect => ("connecting", CONNECT),
            Timeout::Resolve => ("looking up its address", CONNECT),
            Timeout::PerWrite => ("sending", self.stall),
            _ => ("waiting for an answer", self.stall),
        };
        TransportError::Stalled {
            doing,
            seconds: limit.as_secs(),
        }
    }
}

fn watch_over(http: &Weak<Http>) {
    while let Some(http) = http.upgrade() {
        if http.is_cancelled() {
            return http.shut_down();
        }
        drop(http);
        thread::sleep(LOOK);
    }
}

fn broken(why: &str) -> TransportError {
    TransportError::Protocol(why.to_owned())
}

/// The error of that type that `error` wraps.
fn inner<E: std::error::Error + 'static>(error: &io::Error) -> Option<&E> {
    error.get_ref()?.downcast_ref::<E>()
}

fn certificate(error: &io::Error) -> Option<TransportError> {
    certificate_of(inner::<rustls::Error>(error)?)
}

fn certificate_of(error: &rustls::Error) -> Option<TransportError> {
    use rustls::AlertDescription as Alert;

    match error {
        rustls::Error::InvalidCertificate(_) => {
            Some(TransportError::Certificate(error.to_string()))
        }
        rustls::Error::AlertReceived(
            Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied,
        ) => Some(TransportError::CertificateWanted(error.to_string())),
        _ => None,
    }
}

/// An address as it may be shown: what is behind a question mark can be a key to it.
pub(super) fn shown(url: &Uri) -> String {
    let scheme = url.scheme_str().unwrap_or_default();
    format!("{scheme}://{}{}", host_of(url), url.path())
}

/// Host and port, without the user that an address may begin with.
pub(super) fn host_of(url: &Uri) -> String {
    let host = url.host().unwrap_or_default();
    match url.port_u16() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Whether two addresses are of one server.
pub(super) fn same_origin(a: &Uri, b: &Uri) -> bool {
    let origin = |u: &Uri| {
        let https = u.scheme_str() == Some("https");
        let host = u.host().unwrap_or_default().to_ascii_lowercase();
        (
            https,
            host,
            u.port_u16().unwrap_or(if https { 443 } else { 80 }),
        )
    };
    origin(a) == origin(b)
}

/// The address that a `Location` in the answer of `base` leads to (RFC 3986, 5.2, as far as registries
/// use it).
pub(super) fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let scheme = base.scheme_str()?;
    let whole = if location.starts_with("http://") || location.starts_with("https://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{}{location}", base.authority()?)
    } else if location.starts_with('?') {
        format!("{scheme}://{}{}{location}", base.authority()?, base.path())
    } else {
        let (dir, _) = base.path().rsplit_once('/')?;
        format!("{scheme}://{}{dir}/{location}", base.authority()?)
    };
    let uri: Uri = whole.parse().ok()?;
    uri.host().filter(|h| !h.is_empty())?;
    Some(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_resolved_and_origins_compared() {
        let base: Uri = "https://r.example/v2/x/blobs/uploads/?a=1".parse().unwrap();
        for (location, whole) in [
            ("/v2/y", "https://r.example/v2/y"),
            ("http://cdn/z?sig=1", "http://cdn/z?sig=1"),
            ("//cdn/z", "https://cdn/z"),
            ("id?s=1", "https://r.example/v2/x/blobs/uploads/id?s=1"),
            ("?b=2", "https://r.example/v2/x/blobs/uploads/?b=2"),
        ] {
            assert_eq!(resolve(&base, location).unwrap().to_string(), whole);
        }
        assert!(resolve(&base, "http://").is_none());
        let u = |t: &str| t.parse::<Uri>().unwrap();
        assert!(same_origin(&base, &u("https://R.example:443/q")));
        for other in [
            "http://r.example/",
            "https://r.example:5000/",
            "https://e.example/",
        ] {
            assert!(!same_origin(&base, &u(other)), "{other}");
        }
        assert_eq!(shown(&u("https://u:p@h:1/a?token=x")), "https://h:1/a");
    }
}
