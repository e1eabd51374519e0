//! Blobs into a repository (distribution-spec, "Pushing Blobs").
//!
//! A blob goes as one stream (PATCH) and is named at the end (PUT), so that its digest need not be known
//! before. After a cut the registry is asked how far it got, and only the rest is sent again.

use std::{
    fs::File,
    io::{self, Read},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use pellicle_store::{
    Digest, Hasher, Store,
    import::{Cancel, Progress},
};
use ureq::http::{Method, Response, StatusCode, Uri};

use super::{
    Client, RegistryError,
    client::{Call, worth_another},
    compress::{Compression, with_archive},
    http::{Request, Sent, resolve},
    retry::retry_after,
};

/// What is sent.
pub(super) enum Content<'a> {
    /// A blob of the store, of that digest and size.
    Kept(Digest, u64),
    /// A layer, compressed on the way.
    Layer(Digest, Compression, &'a Cancel),
}

/// How an upload began.
enum Begun {
    /// The registry took the blob from one of its other repositories.
    Mounted,
    /// It is to be sent there.
    At(Uri),
}

/// What became of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The repository had it.
    There,
    /// The registry took it from another of its repositories.
    Mounted,
    /// It was sent.
    Sent,
}

/// What is known about an upload from outside.
pub(super) struct Along<'a> {
    pub(super) stop: &'a AtomicBool,
    pub(super) progress: &'a dyn Progress,
}

/// How a stream is sent.
#[derive(Clone, Copy)]
struct Start {
    /// The first byte of it that the registry has not got.
    at: u64,
    /// The registry is asked before whether it takes it (`Expect: 100-continue`, RFC 9110, 10.1.1). One
    /// that refuses and closes while the stream comes is not heard, which looks like a cut: so not the
    /// first time, since it costs a round trip, and a second where the registry does not know of it.
    asks: bool,
}

/// A part of a stream that could not be sent.
enum Cut {
    /// It may be tried again, after as long as the registry said.
    Again(Box<RegistryError>, Option<Duration>),
    Final(RegistryError),
}

impl Client {
    /// The scope of writing.
    pub(super) fn push_scope(&self) -> String {
        format!("repository:{}:pull,push", self.endpoint.repository)
    }

    /// Whether the repository has the blob, or the registry can take it from one of `siblings`.
    pub(super) fn has_or_mounts(
        &self,
        blob: &Digest,
        siblings: &[String],
    ) -> Result<Option<How>, RegistryError> {
        if self.blob_size(blob, &self.push_scope())?.is_some() {
            return Ok(Some(How::There));
        }
        // The newest two: a repository that is gone or may not be read costs a request each.
        for sibling in siblings.iter().take(2) {
            match self.begin(Some((blob, sibling)))? {
                Begun::Mounted => return Ok(Some(How::Mounted)),
                Begun::At(upload) => self.abandon(upload),
            }
        }
        Ok(None)
    }

    /// Sends a blob; gives its digest and size.
    pub(super) fn upload(
        &self,
        store: &Store,
        content: &Content<'_>,
        along: &Along<'_>,
    ) -> Result<(Digest, u64), RegistryError> {
        let mut at = 0;
        let mut failed = 0;
        let mut upload = self.fresh()?;
        loop {
            let start = Start {
                at,
                asks: failed > 0,
            };
            let (error, asked) = match self.stream(store, content, &upload, start, along) {
                Ok((next, digest, size)) => {
                    self.finish(&next, &digest)?;
                    return Ok((digest, size));
                }
                Err(Cut::Final(error)) => return Err(error),
                Err(Cut::Again(error, asked)) => (*error, asked),
            };
            self.http.check()?;
            if along.stop.load(Ordering::Relaxed) {
                return Err(RegistryError::Cancelled);
            }
            if failed == self.retry.times {
                return Err(error);
            }
            failed += 1;
            tracing::info!(%error, "going on after a cut of an upload");
            self.retry.pause(failed, asked, &self.http)?;
            match self.progress_of(&upload) {
                Ok((next, reached)) => {
                    if reached > at {
                        failed = 1;
                    }
                    (upload, at) = (next, reached);
                }
                // The registry no longer knows of it: from the beginning.
                Err(RegistryError::NotFound { .. } | RegistryError::Status { .. }) => {
                    (upload, at) = (self.fresh()?, 0);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn fresh(&self) -> Result<Uri, RegistryError> {
        match self.begin(None)? {
            Begun::At(upload) => Ok(upload),
            Begun::Mounted => Err(RegistryError::invalid(
                "the registry's answer to an upload",
                "it says that it is done",
            )),
        }
    }

    fn begin(&self, mount: Option<(&Digest, &str)>) -> Result<Begun, RegistryError> {
        let mut below = "blobs/uploads/".to_owned();
        let mut scope = self.push_scope();
        if let Some((blob, from)) = mount {
            below.push_str(&format!("?mount={blob}&from={from}"));
            scope.push_str(&format!(" repository:{from}:pull"));
        }
        let url = self.url(&below)?;
        let answer = self.send(Call {
            doing: &format!("push to {}", self.endpoint.full()),
            method: Method::POST,
            url: url.clone(),
            headers: Vec::new(),
            body: Some(b""),
            scope: &scope,
        })?;
        match answer.status() {
            StatusCode::CREATED if mount.is_some() => Ok(Begun::Mounted),
            _ => Ok(Begun::At(self.location(&answer, &url)?)),
        }
    }

    /// Lets go of an upload that a mount turned into; the registry forgets it in time anyway.
    fn abandon(&self, upload: Uri) {
        let gone = self.send(Call {
            doing: "end an upload",
            method: Method::DELETE,
            url: upload,
            headers: Vec::new(),
            body: None,
            scope: &self.push_scope(),
        });
        if let Err(error) = gone {
            tracing::debug!(%error, "an upload is left to the registry");
        }
    }

    fn location<B>(&self, answer: &Response<B>, base: &Uri) -> Result<Uri, RegistryError> {
        let location = answer
            .headers()
            .get("location")
            .and_then(|l| l.to_str().ok());
        let what = "the registry's answer to an upload";
        let next = location
            .and_then(|l| resolve(base, l))
            .ok_or_else(|| RegistryError::invalid(what, "it does not say where to send"))?;
        let secure = |url: &Uri| url.scheme_str() == Some("https");
        if secure(base) && !secure(&next) && !self.endpoint.insecure {
            return Err(RegistryError::invalid(what, "it leads away from TLS"));
        }
        Ok(next)
    }

    /// Where an upload goes on: at the same place if nothing else is said.
    fn next<B>(&self, answer: &Response<B>, upload: &Uri) -> Result<Uri, RegistryError> {
        if answer.headers().contains_key("location") {
            self.location(answer, upload)
        } else {
            Ok(upload.clone())
        }
    }

    /// How many bytes of an upload the registry has.
    fn progress_of(&self, upload: &Uri) -> Result<(Uri, u64), RegistryError> {
        let answer = self.send(Call {
            doing: "go on with an upload",
            method: Method::GET,
            url: upload.clone(),
            headers: Vec::new(),
            body: None,
            scope: &self.push_scope(),
        })?;
        let range = answer.headers().get("range").and_then(|r| r.to_str().ok());
        let end = range.and_then(|r| r.rsplit_once('-')?.1.trim().parse::<u64>().ok());
        // `0-0` is nothing, though it could be one byte: that one is then sent again.
        let reached = end.map_or(0, |end| if end == 0 { 0 } else { end.saturating_add(1) });
        Ok((self.next(&answer, upload)?, reached))
    }

    /// Sends `content` as `start` says; gives where it is to be finished, and digest and size of all
    /// of it.
    fn stream(
        &self,
        store: &Store,
        content: &Content<'_>,
        upload: &Uri,
        start: Start,
        along: &Along<'_>,
    ) -> Result<(Uri, Digest, u64), Cut> {
        match content {
            Content::Kept(digest, size) => {
                let file: File = store
                    .blobs()
                    .open(digest)
                    .map_err(|e| Cut::Final(e.into()))?;
                let (next, found, len) =
                    self.patch(&mut &file, Some(*size), upload, start, along)?;
                if found != *digest {
                    let why = format!(
                        "its bytes have the digest {found}; `pellicle store verify --repair` tells more"
                    );
                    return Err(Cut::Final(RegistryError::invalid(
                        format!("the blob {digest} of the store"),
                        why,
                    )));
                }
                Ok((next, found, len))
            }
            Content::Layer(diff_id, how, cancel) => {
                let mut cut = None;
                let made = with_archive(store, diff_id, *how, cancel, |archive| {
                    match self.patch(archive, None, upload, start, along) {
                        Ok(sent) => Ok(Some(sent)),
                        Err(Cut::Final(error)) => Err(error),
                        Err(again) => {
                            cut = Some(again);
                            Ok(None)
                        }
                    }
                });
                match (cut, made) {
                    // Who makes the archive fails, too, when nobody takes it.
                    (Some(cut), _) => Err(cut),
                    (None, Ok(Some(sent))) => Ok(sent),
                    (None, Ok(None)) => Err(Cut::Final(RegistryError::Cancelled)),
                    (None, Err(error)) => Err(Cut::Final(error)),
                }
            }
        }
    }

    fn patch(
        &self,
        from: &mut dyn Read,
        size: Option<u64>,
        upload: &Uri,
        Start { at, asks }: Start,
        along: &Along<'_>,
    ) -> Result<(Uri, Digest, u64), Cut> {
        let doing = format!("push to {}", self.endpoint.full());
        let scope = self.push_scope();
        let mut counted = Counted {
            from,
            hash: Hasher::default(),
            client: self,
            along,
        };
        let skipped = io::copy(&mut (&mut counted).take(at), &mut io::sink());
        let short = || {
            RegistryError::invalid(
                "the registry's answer to an upload",
                "it has more than there is",
            )
        };
        match skipped {
            Ok(n) if n == at => {}
            Ok(_) => return Err(Cut::Final(short())),
            Err(e) => {
                return Err(Cut::Final(RegistryError::Layer(
                    pellicle_union::CommitError::Write { source: e },
                )));
            }
        }
        let left = size.map(|s| s.saturating_sub(at));
        let mut headers = vec![("content-type", "application/octet-stream".to_owned())];
        if let (true, Some(size)) = (at > 0, size.filter(|s| *s > at)) {
            headers.push(("content-range", format!("{at}-{}", size - 1)));
        }
        if asks {
            headers.push(("expect", "100-continue".to_owned()));
        }
        let sent = self.authorization(&scope).map_err(Cut::Final)?;
        if self.is_own(upload) {
            headers.extend(sent.clone().map(|a| ("authorization", a)));
        }
        let answer = self.http.send(Request {
            method: Method::PATCH,
            url: upload,
            headers,
            body: Sent::Stream(&mut counted, left),
        });
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.http.check().map_err(Cut::Final)?;
                let again = worth_another(&error);
                let error = self.broken(&doing, error);
                return Err(if again {
                    Cut::Again(Box::new(error), None)
                } else {
                    Cut::Final(error)
                });
            }
        };
        match answer.status().as_u16() {
            200..=299 => {
                let next = self.next(&answer, upload).map_err(Cut::Final)?;
                // All of it must have been read, or the digest is not that of the blob.
                io::copy(&mut counted, &mut io::sink()).map_err(|source| {
                    Cut::Final(RegistryError::Layer(pellicle_union::CommitError::Write {
                        source,
                    }))
                })?;
                let (digest, len) = counted.hash.finish();
                Ok((next, digest, len))
            }
            401 if self.refused(&answer, &scope, sent.as_deref()) => {
                Err(Cut::Again(Box::new(self.failure(&doing, answer)), None))
            }
            408 | 416 | 429 | 500..=599 => {
                let asked = answer.headers().get("retry-after");
                let asked = asked.and_then(|v| v.to_str().ok()).and_then(retry_after);
                Err(Cut::Again(Box::new(self.failure(&doing, answer)), asked))
            }
            _ => Err(Cut::Final(self.failure(&doing, answer))),
        }
    }

    fn finish(&self, upload: &Uri, digest: &Digest) -> Result<(), RegistryError> {
        let joint = if upload.query().is_some() { '&' } else { '?' };
        let url: Uri = format!("{upload}{joint}digest={digest}")
            .parse()
            .map_err(|_| {
                RegistryError::invalid(
                    "the registry's answer to an upload",
                    "it does not say where to send",
                )
            })?;
        let finished = self.send(Call {
            doing: &format!("push the blob {digest}"),
            method: Method::PUT,
            url,
            headers: vec![("content-type", "application/octet-stream".to_owned())],
            body: Some(b""),
            scope: &self.push_scope(),
        });
        match finished {
            Ok(_) => Ok(()),
            // The answer to an earlier try may have been lost on the way.
            Err(error @ RegistryError::NotFound { .. }) => {
                match self.blob_size(digest, &self.push_scope())? {
                    Some(_) => Ok(()),
                    None => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }
}

/// Hashes and counts what passes; ends when nobody needs it any more.
struct Counted<'a> {
    from: &'a mut dyn Read,
    hash: Hasher,
    client: &'a Client,
    along: &'a Along<'a>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.client.http.is_cancelled() || self.along.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("the upload was given up"));
        }
        let n = self.from.read(buffer)?;
        self.hash.update(buffer.get(..n).unwrap_or_default());
        self.along.progress.bytes(n as u64);
        Ok(n)
    }
}
