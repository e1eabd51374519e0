//! Manifests out of a repository and into it, blobs out of it. Nothing is believed before its digest and size are right.

use std::{
    io::{self, Read},
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use pellicle_store::Digest;
use ureq::{
    BodyReader,
    http::{Method, Response, StatusCode},
};

use super::{
    Client, RegistryError,
    auth::read,
    client::{Call, worth_another},
    error::TransportError,
    media_type,
    pace::{LEAST, Paced},
};
use crate::image::MANIFEST_MAX;

/// A manifest or an index as the registry has it.
#[derive(Clone, Debug)]
pub struct Document {
    /// What it is.
    pub media_type: String,
    /// The digest of its bytes.
    pub digest: Digest,
    /// Itself.
    pub bytes: Vec<u8>,
}

impl Client {
    /// A manifest or an index, by tag or digest.
    ///
    /// # Errors
    /// If there is none, it is larger than [`MANIFEST_MAX`], or not what its digest says.
    pub fn manifest(&self, which: &str) -> Result<Document, RegistryError> {
        let expected = which.parse::<Digest>().ok();
        let what = match expected {
            Some(digest) => format!("the manifest {digest}"),
            None => format!("the manifest of {}:{which}", self.endpoint.full()),
        };
        let doing = format!("pull {what}");
        let mut failed = 0;
        let (kind, bytes) = loop {
            let mut answer = self.send(Call {
                doing: &doing,
                method: Method::GET,
                url: self.url(&format!("manifests/{which}"))?,
                headers: vec![("accept", media_type::ALL.join(", "))],
                body: None,
                scope: self.pull_scope(),
            })?;
            let large =
                || RegistryError::invalid(&what, format!("it has more than {MANIFEST_MAX} bytes"));
            if length(&answer).is_some_and(|len| len > MANIFEST_MAX) {
                return Err(large());
            }
            match read(&mut answer, MANIFEST_MAX, &self.http) {
                Ok(bytes) => break (content_type(&answer), bytes.ok_or_else(large)?),
                Err(error) if failed < self.retry.times && worth_another(&error) => {
                    failed += 1;
                    self.retry.pause(failed, None, &self.http)?;
                }
                Err(error) => {
                    self.http.check()?;
                    return Err(self.broken(&doing, error));
                }
            }
        };
        let digest = Digest::of(&bytes);
        if let Some(expected) = expected.filter(|e| *e != digest) {
            let why = format!("its bytes have the digest {digest}, not {expected}");
            return Err(RegistryError::invalid(what, why));
        }
        Ok(Document {
            media_type: media_type::of(&bytes).or(kind).unwrap_or_default(),
            digest,
            bytes,
        })
    }

    /// Gives the repository a manifest, whose blobs it must have, under `tag` or its digest. Whether the
    /// registry lists by itself what the manifest refers to (distribution-spec, `OCI-Subject`).
    pub(super) fn put_manifest(
        &self,
        tag: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<bool, RegistryError> {
        let digest = Digest::of(bytes);
        let answer = self.send(Call {
            doing: &format!("push the manifest of {}:{tag}", self.endpoint.full()),
            method: Method::PUT,
            url: self.url(&format!("manifests/{tag}"))?,
            headers: vec![("content-type", media_type.to_owned())],
            body: Some(bytes),
            scope: &self.push_scope(),
        })?;
        let told = answer
            .headers()
            .get("docker-content-digest")
            .and_then(|d| d.to_str().ok());
        match told.and_then(|d| d.parse::<Digest>().ok()) {
            Some(other) if other != digest => Err(RegistryError::invalid(
                "what the registry made of the manifest",
                format!("it has the digest {other}, not {digest}"),
            )),
            _ => Ok(answer.headers().contains_key("oci-subject")),
        }
    }

    /// A small blob of `size` bytes, whole and checked.
    ///
    /// # Errors
    /// As [`Client::manifest`]; or it has more than `max` bytes.
    pub fn small_blob(
        &self,
        digest: &Digest,
        size: u64,
        max: u64,
        what: &str,
    ) -> Result<Vec<u8>, RegistryError> {
        if size > max {
            return Err(RegistryError::invalid(
                what,
                format!("it claims more than {max} bytes"),
            ));
        }
        let mut bytes = Vec::new();
        let never = AtomicBool::new(false);
        let mut blob = Blob::new(self, *digest, size, &never);
        let read = (&mut blob).take(max + 1).read_to_end(&mut bytes);
        if let Err(e) = read {
            return Err(blob
                .failure
                .take()
                .unwrap_or_else(|| self.broken(&blob.doing, TransportError::Io(e))));
        }
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(RegistryError::invalid(
                what,
                format!("its bytes have the digest {found}"),
            ));
        }
        Ok(bytes)
    }

    /// Bytes of the blob `digest`, if the repository has it.
    ///
    /// # Errors
    /// If that cannot be found out.
    pub fn blob_size(&self, digest: &Digest, scope: &str) -> Result<Option<u64>, RegistryError> {
        let call = Call {
            doing: &format!("look for the blob {digest}"),
            method: Method::HEAD,
            url: self.url(&format!("blobs/{digest}"))?,
            headers: Vec::new(),
            body: None,
            scope,
        };
        match self.send(call) {
            Ok(answer) => Ok(Some(length(&answer).unwrap_or(0))),
            Err(RegistryError::NotFound { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

pub(super) fn length(answer: &Response<ureq::Body>) -> Option<u64> {
    answer
        .headers()
        .get("content-length")?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

fn content_type(answer: &Response<ureq::Body>) -> Option<String> {
    let value = answer.headers().get("content-type")?.to_str().ok()?;
    Some(value.split(';').next()?.trim().to_owned())
}

/// The bytes of a blob, as one stream over any number of connections: after a cut it goes on where it
/// was. It gives exactly the announced number of bytes, or an error.
pub struct Blob<'a> {
    client: &'a Client,
    digest: Digest,
    size: u64,
    at: u64,
    body: Option<Paced<BodyReader<'static>>>,
    /// Failures since it last came at a fair speed.
    failed: u32,
    /// When that was, and the bytes since.
    since: (Instant, u64),
    /// Raised when nobody needs it any more.
    stop: &'a AtomicBool,
    doing: String,
    /// Why it failed; what the reader of a stream gets to see is only a summary of it.
    pub failure: Option<RegistryError>,
}

impl<'a> Blob<'a> {
    /// The blob of that digest and size; nothing is asked for before the first read.
    #[must_use]
    pub fn new(client: &'a Client, digest: Digest, size: u64, stop: &'a AtomicBool) -> Self {
        Self {
            client,
            digest,
            size,
            at: 0,
            body: None,
            failed: 0,
            since: (Instant::now(), 0),
            stop,
            doing: format!("pull the blob {digest}"),
            failure: None,
        }
    }

    /// Leaves out the first `at` bytes, which the caller has.
    pub(super) fn start_at(&mut self, at: u64) {
        self.at = at;
    }

    fn next(&mut self, buffer: &mut [u8]) -> Result<usize, RegistryError> {
        loop {
            self.client.http.check()?;
            if self.stop.load(Ordering::Relaxed) {
                return Err(RegistryError::Cancelled);
            }
            if self.at == self.size && self.body.is_none() {
                return Ok(0);
            }
            let mut body = match self.body.take() {
                Some(body) => body,
                None => match self.open()? {
                    Some(body) => body,
                    None => continue,
                },
            };
            let left = usize::try_from(self.size - self.at).unwrap_or(usize::MAX);
            let error = if left == 0 {
                // Whether it ends here, too.
                match body.read(&mut [0]) {
                    Ok(0) => return Ok(0),
                    Ok(_) => return Err(self.wrong("it is longer than announced")),
                    // All that was announced is there.
                    Err(_) => return Ok(0),
                }
            } else {
                let len = left.min(buffer.len());
                match body.read(buffer.get_mut(..len).unwrap_or_default()) {
                    Ok(0) => TransportError::CutOff {
                        got: self.at,
                        announced: self.size,
                    },
                    Ok(n) => {
                        self.at += n as u64;
                        self.came(n);
                        self.body = Some(body);
                        return Ok(n);
                    }
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {
                        self.body = Some(body);
                        continue;
                    }
                    Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => TransportError::CutOff {
                        got: self.at,
                        announced: self.size,
                    },
                    Err(e) => self.client.http.explain_io(e),
                }
            };
            self.again(error)?;
        }
    }

    /// Forgives failures when bytes come as fast as they have to: a byte for each connection is none.
    fn came(&mut self, bytes: usize) {
        let (start, before) = self.since;
        let sum = before + bytes as u64;
        self.since.1 = sum;
        if sum >= LEAST.saturating_mul(start.elapsed().as_secs().max(1)) {
            self.failed = 0;
        }
    }

    /// Waits before going on after `error`, unless that happened too often.
    fn again(&mut self, error: TransportError) -> Result<(), RegistryError> {
        self.client.http.check()?;
        if self.failed == self.client.retry.times || !worth_another(&error) {
            return Err(self.client.broken(&self.doing, error));
        }
        self.failed += 1;
        tracing::info!(%error, at = self.at, "going on after a cut: {}", self.doing);
        self.client
            .retry
            .pause(self.failed, None, &self.client.http)?;
        self.since = (Instant::now(), 0);
        Ok(())
    }

    fn wrong(&self, why: impl Into<String>) -> RegistryError {
        RegistryError::invalid(format!("the blob {}", self.digest), why)
    }

    /// The body from where we are; `None` after a failure that was waited for.
    fn open(&mut self) -> Result<Option<Paced<BodyReader<'static>>>, RegistryError> {
        let mut headers = Vec::new();
        if self.at > 0 {
            headers.push(("range", format!("bytes={}-", self.at)));
        }
        let answer = self.client.send(Call {
            doing: &self.doing,
            method: Method::GET,
            url: self.client.url(&format!("blobs/{}", self.digest))?,
            headers,
            body: None,
            scope: self.client.pull_scope(),
        })?;
        let from = match answer.status() {
            StatusCode::PARTIAL_CONTENT => self.start_of_range(&answer)?,
            _ => 0,
        };
        if let Some(len) = length(&answer)
            && from + len != self.size
        {
            let why = format!(
                "it has {} bytes, and {} were announced",
                from + len,
                self.size
            );
            return Err(self.wrong(why));
        }
        let mut body = self.client.http.paced(answer.into_body().into_reader());
        // A registry that does not know ranges sends it from the beginning.
        let mut skip = (&mut body).take(self.at - from);
        match io::copy(&mut skip, &mut io::sink()) {
            Ok(n) if n == self.at - from => Ok(Some(body)),
            Ok(n) => {
                let (got, announced) = (from + n, self.size);
                self.again(TransportError::CutOff { got, announced })?;
                Ok(None)
            }
            Err(e) => {
                self.again(self.client.http.explain_io(e))?;
                Ok(None)
            }
        }
    }

    /// Where the part begins that the registry sends: `Content-Range: bytes 5-9/10`.
    fn start_of_range(&self, answer: &Response<ureq::Body>) -> Result<u64, RegistryError> {
        let value = answer
            .headers()
            .get("content-range")
            .and_then(|v| v.to_str().ok());
        let start = value
            .and_then(|v| v.trim().strip_prefix("bytes "))
            .and_then(|v| v.split_once('-'))
            .and_then(|(start, _)| start.trim().parse().ok());
        start
            .filter(|start| *start <= self.at)
            .ok_or_else(|| self.wrong("the registry sends another part than the one asked for"))
    }
}

impl Read for Blob<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.next(buffer).map_err(|error| {
            let summary = io::Error::other(error.to_string());
            self.failure = Some(error);
            summary
        })
    }
}
