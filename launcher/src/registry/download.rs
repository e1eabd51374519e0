//! A file of any HTTP server, for ADD of an address: with the proxies, certificates, retries and limits
//! that registries are reached with, and nobody's credentials.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    sync::Arc,
};

use pellicle_store::{Digest, Hasher};
use ureq::{
    Body,
    http::{Method, Response, StatusCode, Uri},
};

use super::{
    Access, Endpoint, RegistryError,
    client::{drain, worth_another},
    content::length,
    error::TransportError,
    http::{Http, Request, Sent, host_of, resolve, same_origin, shown},
    retry::{date, retry_after},
    tls,
};

/// Redirects followed one after the other.
const HOPS: usize = 10;
/// Bytes read at a time.
const BUFFER: usize = 256 << 10;

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Download {
    /// The digest of its bytes.
    pub digest: Digest,
    /// The server's mark of this version.
    pub etag: Option<String>,
    /// When the server says that it was last changed, seconds since 1970.
    pub modified: Option<i64>,
}

/// Writes what is at `address` into `to`, an empty file; `None` if the server says that it is still what
/// had the mark `etag`.
///
/// # Errors
/// [`RegistryError`]; then anything may be in `to`.
pub fn download(
    access: &Access,
    address: &str,
    etag: Option<&str>,
    to: &mut File,
) -> Result<Option<Download>, RegistryError> {
    let url: Uri = address
        .parse()
        .ok()
        .filter(|url: &Uri| url.host().is_some_and(|host| !host.is_empty()))
        .ok_or_else(|| RegistryError::invalid(format!("{address:?}"), "it is no address"))?;
    let mut fetch = Fetch {
        access,
        doing: format!("fetch {}", shown(&url)),
        http: connect(access, &url)?,
        url,
    };
    let mut failed = 0;
    loop {
        let (error, asked) = match fetch.once(etag, to)? {
            Once::Came(came) => return Ok(Some(came)),
            Once::Same => return Ok(None),
            Once::Failed(error, asked) => (error, asked),
        };
        fetch.http.check()?;
        if failed == access.retry.times {
            return Err(error);
        }
        failed += 1;
        tracing::info!(%error, "trying again: {}", fetch.doing);
        access.retry.pause(failed, asked, &fetch.http)?;
    }
}

fn connect(access: &Access, url: &Uri) -> Result<Arc<Http>, RegistryError> {
    let endpoint = Endpoint {
        name: host_of(url),
        repository: String::new(),
        insecure: access.tls_verify == Some(false),
    };
    let tls = tls::settings(&endpoint, access.cert_dir.as_deref())?;
    let (stall, cancel) = (access.stall, access.cancel.clone());
    Ok(Http::new(tls, stall, cancel, access.watched))
}

/// How one try went.
enum Once {
    Came(Download),
    Same,
    /// Another try may fare better, after so long.
    Failed(RegistryError, Option<std::time::Duration>),
}

struct Fetch<'a> {
    access: &'a Access,
    doing: String,
    url: Uri,
    http: Arc<Http>,
}

impl Fetch<'_> {
    fn once(&mut self, etag: Option<&str>, to: &mut File) -> Result<Once, RegistryError> {
        self.http.check()?;
        let mut answer = match self.answer(etag)? {
            Ok(answer) => answer,
            Err(error) => return self.perhaps(error),
        };
        match answer.status() {
            StatusCode::NOT_MODIFIED if etag.is_some() => return Ok(Once::Same),
            status if status.is_success() => {}
            status => {
                let asked = header(&answer, "retry-after").and_then(retry_after);
                drain(&mut answer, &self.http);
                let error = self.refused(status);
                return match status.as_u16() {
                    429 | 500 | 502 | 503 | 504 => Ok(Once::Failed(error, asked)),
                    _ => Err(error),
                };
            }
        }
        match self.body(answer, to)? {
            Ok(came) => Ok(Once::Came(came)),
            Err(error) => self.perhaps(error),
        }
    }

    /// The answer behind all redirects.
    fn answer(
        &mut self,
        etag: Option<&str>,
    ) -> Result<Result<Response<Body>, TransportError>, RegistryError> {
        let (mut url, mut http) = (self.url.clone(), Arc::clone(&self.http));
        for _ in 0..=HOPS {
            let sent = http.send(Request {
                method: Method::GET,
                url: &url,
                headers: etag
                    .map(|etag| ("if-none-match", etag.to_owned()))
                    .into_iter()
                    .collect(),
                body: Sent::Nothing,
            });
            let mut answer = match sent {
                Ok(answer) => answer,
                Err(error) => return Ok(Err(error)),
            };
            let status = answer.status();
            if !status.is_redirection() || status == StatusCode::NOT_MODIFIED {
                return Ok(Ok(answer));
            }
            let next = header(&answer, "location").and_then(|l| resolve(&url, l));
            let next = next.ok_or_else(|| self.wrong("a redirect leads to no address"))?;
            if url.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                return Err(self.wrong("a redirect leads away from TLS"));
            }
            drain(&mut answer, &http);
            if !same_origin(&url, &next) {
                // Certificates that are shown to one server are not for another.
                http = connect(self.access, &next)?;
            }
            url = next;
        }
        Err(self.wrong("there is another redirect behind each"))
    }

    fn body(
        &self,
        answer: Response<Body>,
        to: &mut File,
    ) -> Result<Result<Download, TransportError>, RegistryError> {
        let file = |e: io::Error| {
            RegistryError::io("write", std::path::Path::new("a file for what is fetched"))(e)
        };
        to.set_len(0).and_then(|()| to.rewind()).map_err(file)?;
        let announced = length(&answer);
        let etag = header(&answer, "etag").map(str::to_owned);
        let modified = header(&answer, "last-modified").and_then(date);
        let mut body = self.http.paced(answer.into_body().into_reader());
        let mut hash = Hasher::default();
        let (mut buffer, mut got) = (vec![0; BUFFER], 0_u64);
        loop {
            self.http.check()?;
            let n = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Ok(Err(self.http.explain_io(e))),
            };
            let piece = buffer.get(..n).unwrap_or_default();
            hash.update(piece);
            to.write_all(piece).map_err(file)?;
            got += n as u64;
        }
        if let Some(announced) = announced.filter(|a| *a != got) {
            return Ok(Err(TransportError::CutOff { got, announced }));
        }
        Ok(Ok(Download {
            digest: hash.finish().0,
            etag,
            modified,
        }))
    }

    fn perhaps(&self, error: TransportError) -> Result<Once, RegistryError> {
        self.http.check()?;
        let again = worth_another(&error);
        let error = RegistryError::Broken {
            doing: self.doing.clone(),
            host: host_of(&self.url),
            source: error,
        };
        if again {
            Ok(Once::Failed(error, None))
        } else {
            Err(error)
        }
    }

    fn refused(&self, status: StatusCode) -> RegistryError {
        RegistryError::Status {
            doing: self.doing.clone(),
            host: host_of(&self.url),
            status: status.as_u16(),
            detail: status.canonical_reason().unwrap_or_default().to_owned(),
        }
    }

    fn wrong(&self, why: &str) -> RegistryError {
        RegistryError::invalid(shown(&self.url), why)
    }
}

fn header<'a>(answer: &'a Response<Body>, name: &str) -> Option<&'a str> {
    answer.headers().get(name)?.to_str().ok()
}
