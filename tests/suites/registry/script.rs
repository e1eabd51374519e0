//! A registry that does what a test wants, wrong things above all.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{BufRead as _, BufReader, Read as _, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use pellicle_tests::archive::gzip;
use serde_json::{Value, json};

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The first byte that is wanted.
    pub(crate) fn from(&self) -> usize {
        let range = self.header("range").and_then(|r| r.strip_prefix("bytes="));
        range.map_or(0, |r| r.trim_end_matches('-').parse().expect("a number"))
    }
}

/// What is done with the stream of a request.
type Act = Box<dyn FnOnce(&mut TcpStream) -> std::io::Result<()> + Send>;

/// What to do with a request.
pub(crate) enum Answer {
    /// Status, headers (without a length), body.
    Whole(u16, Vec<(String, String)>, Vec<u8>),
    /// Whatever: it gets the stream.
    Raw(Act),
}

pub(crate) fn status(code: u16) -> Answer {
    Answer::Whole(code, Vec::new(), Vec::new())
}

pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Answer {
    Answer::Whole(200, Vec::new(), body.into())
}

/// A head that announces `announced` bytes, and `sent` after it; then the end.
pub(crate) fn cut(announced: usize, sent: Vec<u8>) -> Answer {
    Answer::Raw(Box::new(move |to| {
        write!(to, "HTTP/1.1 200 OK\r\nContent-Length: {announced}\r\n\r\n")?;
        to.write_all(&sent)
    }))
}

/// `sent`, in chunks of unknown number, over and over again if `endless`.
pub(crate) fn chunked(sent: Vec<u8>, endless: bool) -> Answer {
    Answer::Raw(Box::new(move |to| {
        write!(to, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        loop {
            write!(to, "{:x}\r\n", sent.len())?;
            to.write_all(&sent)?;
            to.write_all(b"\r\n")?;
            if !endless {
                return to.write_all(b"0\r\n\r\n");
            }
        }
    }))
}

/// The server; ends with the test.
pub(crate) struct Script {
    pub(crate) port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
    /// Connections that are not done with.
    open: Arc<AtomicUsize>,
    end: Arc<AtomicBool>,
}

impl Script {
    /// Answers each request as `handler` says; `/v2/` with 200 if it says nothing.
    pub(crate) fn start(
        handler: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let end = Arc::new(AtomicBool::new(false));
        let open = Arc::new(AtomicUsize::new(0));
        let (noted, ended, handler) = (Arc::clone(&asked), Arc::clone(&end), Arc::new(handler));
        let begun = Arc::clone(&open);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let (noted, handler) = (Arc::clone(&noted), Arc::clone(&handler));
                begun.fetch_add(1, Ordering::SeqCst);
                let open = Arc::clone(&begun);
                thread::spawn(move || {
                    serve(stream, &noted, &*handler);
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self {
            port,
            asked,
            open,
            end,
        }
    }

    pub(crate) fn name(&self, name: &str) -> String {
        format!("localhost:{}/{name}", self.port)
    }

    /// Waits until everything that was sent has been read and answered: what a client that has ended asked
    /// for last may be on its way still.
    pub(crate) fn settle(&self) {
        // Connections are taken in the order in which they were made.
        let mut last = TcpStream::connect(("127.0.0.1", self.port)).expect("connect");
        last.write_all(b"GET /settle HTTP/1.1\r\n\r\n")
            .expect("ask");
        last.read_to_end(&mut Vec::new()).expect("an answer");
        pellicle_tests::wait_for("the server", Duration::from_secs(60), || {
            (self.open.load(Ordering::SeqCst) == 0).then_some(())
        });
    }

    /// All requests so far whose path has `part` in it.
    pub(crate) fn asked(&self, part: &str) -> Vec<Asked> {
        let all = self.asked.lock().expect("no panic");
        all.iter()
            .filter(|a| a.path.contains(part))
            .cloned()
            .collect()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// One request a connection.
fn serve(
    mut stream: TcpStream,
    noted: &Mutex<Vec<Asked>>,
    handler: &dyn Fn(&Asked) -> Option<Answer>,
) {
    let Some(asked) = read(&stream) else { return };
    noted.lock().expect("no panic").push(asked.clone());
    let answer =
        handler(&asked).unwrap_or_else(|| status(if asked.path == "/v2/" { 200 } else { 404 }));
    let _ = match answer {
        Answer::Raw(act) => act(&mut stream),
        Answer::Whole(code, headers, body) => {
            let mut head = format!(
                "HTTP/1.1 {code} X\r\nConnection: close\r\nContent-Length: {}\r\n",
                body.len()
            );
            for (name, value) in headers {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            head.push_str("\r\n");
            let body = if asked.method == "HEAD" {
                &[][..]
            } else {
                &body
            };
            stream
                .write_all(head.as_bytes())
                .and_then(|()| stream.write_all(body))
        }
    };
    let _ = stream.shutdown(std::net::Shutdown::Write);
}

/// `None` for what is no HTTP, such as the first words of TLS.
fn read(stream: &TcpStream) -> Option<Asked> {
    let mut from = BufReader::new(stream);
    if !from.fill_buf().ok()?.first()?.is_ascii_uppercase() {
        return None;
    }
    let mut asked = Asked::default();
    let mut line = String::new();
    from.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    asked.method = words.next()?.to_owned();
    asked.path = words.next()?.to_owned();
    loop {
        line.clear();
        from.read_line(&mut line).ok()?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => {
                let name = name.to_ascii_lowercase();
                asked.headers.insert(name, value.trim().to_owned());
            }
            None => break,
        }
    }
    // The body of a PATCH is the handler's to break off: it gets at most a million bytes of it.
    if let Some(len) = asked
        .header("content-length")
        .and_then(|l| l.parse::<u64>().ok())
    {
        from.take(len.min(1_000_000))
            .read_to_end(&mut asked.body)
            .ok()?;
    }
    Some(asked)
}

/// An image in memory.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) manifest: Vec<u8>,
    pub(crate) config: Vec<u8>,
    pub(crate) layers: Vec<Vec<u8>>,
}

/// Made once for the same bytes: a server is not to keep its client waiting for it.
pub(crate) fn digest(bytes: &[u8]) -> String {
    static KNOWN: Mutex<BTreeMap<(u64, usize), String>> = Mutex::new(BTreeMap::new());
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    let key = (hasher.finish(), bytes.len());
    if let Some(known) = KNOWN.lock().expect("no panic").get(&key) {
        return known.clone();
    }
    let digest = sha256(bytes);
    KNOWN.lock().expect("no panic").insert(key, digest.clone());
    digest
}

fn sha256(bytes: &[u8]) -> String {
    use std::process::{Command, Stdio};

    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sha256sum");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(bytes)
        .expect("write");
    let out = child.wait_with_output().expect("sha256sum").stdout;
    format!("sha256:{}", String::from_utf8_lossy(&out[..64]))
}

impl Made {
    /// An image of these archives, compressed by gzip.
    pub(crate) fn of(archives: &[Vec<u8>]) -> Self {
        let diff_ids: Vec<String> = archives.iter().map(|a| digest(a)).collect();
        Self::with(archives.iter().map(|a| gzip(a)).collect(), &diff_ids)
    }

    /// An image that claims these layers.
    pub(crate) fn with(layers: Vec<Vec<u8>>, diff_ids: &[String]) -> Self {
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        })
        .to_string()
        .into_bytes();
        let listed: Vec<Value> = layers
            .iter()
            .map(|l| descriptor("application/vnd.oci.image.layer.v1.tar+gzip", l))
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": listed,
        });
        Self {
            manifest: manifest.to_string().into_bytes(),
            config,
            layers,
        }
    }

    /// What an honest registry answers.
    pub(crate) fn answer(&self, asked: &Asked) -> Option<Answer> {
        let last = asked.path.rsplit('/').next()?;
        if asked.path.contains("/manifests/") {
            return Some(ok(self.manifest.clone()));
        }
        let all = std::iter::once(&self.config).chain(&self.layers);
        let blob = all.into_iter().find(|b| digest(b) == last)?;
        Some(match asked.from() {
            0 => ok(blob.clone()),
            from => {
                let range = format!("bytes {from}-{}/{}", blob.len() - 1, blob.len());
                Answer::Whole(
                    206,
                    vec![("Content-Range".to_owned(), range)],
                    blob[from..].to_vec(),
                )
            }
        })
    }

    /// Whether the request is for the blob of that layer.
    pub(crate) fn is_layer(&self, asked: &Asked, at: usize) -> bool {
        asked.path.ends_with(&digest(&self.layers[at]))
    }
}

pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
}
