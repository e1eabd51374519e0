//! Debian's docker-registry on loopback, with a storage of its own. It ends with the value, and with
//! this process, however that ends.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::setup::Setup;

pub(super) const PROGRAM: &str = "docker-registry";
/// How long it may take to listen.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is asked for to see that the log is complete; nothing is there.
const NOTHING: &str = "/nothing-";

/// A running one.
pub(super) struct Registry {
    child: Child,
    dir: PathBuf,
    /// `127.0.0.1:PORT`
    pub(super) host: String,
}

/// A place in the log.
#[derive(Clone, Copy)]
pub(super) struct Mark(usize);

/// What went over the wire, by the registry's own account; heads not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    /// Bytes that it sent.
    pub(super) sent: u64,
    /// Bytes of the blobs and manifests that it was given.
    pub(super) received: u64,
}

impl Registry {
    /// Starts one, on a port that the kernel chooses.
    pub(super) fn start(setup: &Setup) -> Result<Self> {
        let dir = setup.directory("registry")?;
        let config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: '{}'}}}}\n\
             http: {{addr: '127.0.0.1:0'}}\n",
            dir.join("data").display()
        );
        let path = dir.join("config.yml");
        fs::write(&path, config)?;
        let log = File::create(dir.join("log"))?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", PROGRAM, "serve"])
            .arg(&path)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .current_dir("/")
            .spawn()
            .context("cannot run setpriv")?;
        let mut registry = Self {
            child,
            dir,
            host: String::new(),
        };
        registry.host = registry.listening(setup)?;
        Ok(registry)
    }

    fn listening(&mut self, setup: &Setup) -> Result<String> {
        let start = Instant::now();
        loop {
            let log = self.log()?;
            if let Some((_, rest)) = log.split_once("listening on ") {
                let end = |c: char| c == '"' || c.is_whitespace();
                return Ok(rest.split(end).next().unwrap_or_default().to_owned());
            }
            if self.child.try_wait()?.is_some() || start.elapsed() > PATIENCE {
                let last = log.lines().last().unwrap_or_default();
                bail!("{PROGRAM} does not listen: {last}");
            }
            setup.go_on()?;
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self) -> Result<String> {
        let path = self.dir.join("log");
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// The log with the lines of all requests so far. Each is written right after the answer: before those
    /// of two that come later, one after the other.
    fn whole_log(&self) -> Result<String> {
        for n in 0..2 {
            let name = format!("{NOTHING}{}-{n}", self.log()?.len());
            let mut stream = TcpStream::connect(&self.host).context("the registry is gone")?;
            write!(
                stream,
                "GET {name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            )?;
            stream.read_to_end(&mut Vec::new())?;
            let start = Instant::now();
            while !self.log()?.contains(&name) {
                if start.elapsed() > PATIENCE {
                    bail!("{PROGRAM} writes no log");
                }
                thread::sleep(Duration::from_millis(2));
            }
        }
        self.log()
    }

    /// Where the log ends now.
    pub(super) fn mark(&self) -> Result<Mark> {
        Ok(Mark(self.whole_log()?.len()))
    }

    /// What went over the wire since then.
    pub(super) fn traffic_since(&self, mark: Mark) -> Result<Traffic> {
        let log = self.whole_log()?;
        let mut traffic = Traffic::default();
        for request in requests(log.get(mark.0..).unwrap_or_default()) {
            match &request {
                Request::Got(bytes) => traffic.sent += bytes,
                Request::Put(what) => traffic.received += self.size_of(what)?,
            }
        }
        Ok(traffic)
    }

    fn size_of(&self, what: &Put) -> Result<u64> {
        let hex = match what {
            Put::Digest(hex) => hex.clone(),
            Put::Tag { repository, tag } => {
                let link = format!("repositories/{repository}/_manifests/tags/{tag}/current/link");
                let path = self.storage(&link);
                let text = fs::read_to_string(&path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                text.trim().trim_start_matches("sha256:").to_owned()
            }
        };
        let first = hex.get(..2).context("an upload without a digest")?;
        let path = self.storage(&format!("blobs/sha256/{first}/{hex}/data"));
        let meta = fs::metadata(&path).with_context(|| format!("no {}", path.display()))?;
        Ok(meta.len())
    }

    fn storage(&self, path: &str) -> PathBuf {
        self.dir.join("data/docker/registry/v2").join(path)
    }

    /// Takes everything out of `repository` but the blobs of these digests and the tag `tag`. It keeps
    /// nothing in memory, so nobody has to tell it.
    pub(super) fn keep_only(
        &self,
        repository: &str,
        tag: &str,
        digests: &BTreeSet<&str>,
    ) -> Result<()> {
        let wanted = |name: &str| digests.contains(format!("sha256:{name}").as_str());
        let own = |path: &str| self.storage(&format!("repositories/{repository}/{path}"));
        for links in [
            own("_layers/sha256"),
            own("_manifests/revisions/sha256"),
            own(&format!("_manifests/tags/{tag}/index/sha256")),
        ] {
            remove_others(&links, &wanted)?;
        }
        remove_others(&own("_manifests/tags"), &|name| name == tag)?;
        for entry in list(&self.storage("blobs/sha256"))? {
            remove_others(&entry, &wanted)?;
        }
        Ok(())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

fn remove_others(dir: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<()> {
    for path in list(dir)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !wanted(&name) {
            fs::remove_dir_all(&path)
                .with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// A request that moved content.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    /// So many bytes were sent.
    Got(u64),
    Put(Put),
}

#[derive(Debug, PartialEq, Eq)]
enum Put {
    /// The blob of that digest, in hexadecimal.
    Digest(String),
    Tag {
        repository: String,
        tag: String,
    },
}

/// The requests of an access log (Apache's combined format) that moved content. An upload counts at
/// the request that ends it.
fn requests(log: &str) -> impl Iterator<Item = Request> {
    log.lines().filter_map(|line| {
        let (_, rest) = line.split_once("] \"")?;
        let (request, rest) = rest.split_once("\" ")?;
        let mut words = request.split(' ');
        let (method, uri) = (words.next()?, words.next()?);
        let mut numbers = rest.split(' ');
        let (status, bytes) = (numbers.next()?, numbers.next()?);
        match (method, status) {
            ("GET", "200" | "206") => Some(Request::Got(bytes.parse().ok()?)),
            ("PUT" | "POST", "201") => put(uri).map(Request::Put),
            _ => None,
        }
    })
}

fn put(uri: &str) -> Option<Put> {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let path = path.strip_prefix("/v2/")?;
    if let Some((repository, which)) = path.split_once("/manifests/") {
        return Some(match which.strip_prefix("sha256:") {
            Some(hex) => Put::Digest(hex.to_owned()),
            None => Put::Tag {
                repository: repository.to_owned(),
                tag: which.to_owned(),
            },
        });
    }
    // One that was mounted has the parameter `mount` instead: nothing was sent.
    let digest = query.split('&').find_map(|p| p.strip_prefix("digest="))?;
    let hex = digest.replace("%3A", ":").replace("%3a", ":");
    Some(Put::Digest(hex.strip_prefix("sha256:")?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_log_tells_what_was_sent_and_what_was_given() {
        let log = r#"time="2026" level=info msg="response completed" http.request.uri=/v2/ http.response.written=2
127.0.0.1 - - [27/Nov/2026:21:48:57 +0000] "GET /v2/a/b/blobs/sha256:aa HTTP/1.1" 200 1234 "" "x"
127.0.0.1 - - [27/Nov/2026:21:48:57 +0000] "GET /v2/a/b/blobs/sha256:aa HTTP/1.1" 206 34 "" "x"
127.0.0.1 - - [27/Nov/2026:21:48:57 +0000] "GET /v2/a/b/blobs/sha256:bb HTTP/1.1" 404 157 "" "x"
127.0.0.1 - - [27/Nov/2026:21:48:57 +0000] "HEAD /v2/a/b/blobs/sha256:aa HTTP/1.1" 200 1234 "" "x"
127.0.0.1 - - [27/Nov/2026:21:48:57 +0000] "POST /v2/a/b/blobs/uploads/ HTTP/1.1" 202 0 "" "x"
127.0.0.1 - - [27/Nov/2026:21:48:57 +0000] "POST /v2/a/b/blobs/uploads/?mount=sha256%3Aaa&from=c HTTP/1.1" 201 0 "" "x"
127.0.0.1 - - [27/Nov/2026:21:48:57 +0000] "PATCH /v2/a/b/blobs/uploads/1?_state=x HTTP/1.1" 202 0 "" "x"
127.0.0.1 - - [27/Nov/2026:21:48:57 +0000] "PUT /v2/a/b/blobs/uploads/1?_state=x&digest=sha256%3Acc HTTP/1.1" 201 0 "" "x"
127.0.0.1 - - [27/Nov/2026:21:48:57 +0000] "PUT /v2/a/b/manifests/two HTTP/1.1" 201 0 "" "x"
"#;
        let tag = Put::Tag {
            repository: "a/b".to_owned(),
            tag: "two".to_owned(),
        };
        let expected = [
            Request::Got(1234),
            Request::Got(34),
            Request::Put(Put::Digest("cc".to_owned())),
            Request::Put(tag),
        ];
        assert_eq!(requests(log).collect::<Vec<_>>(), expected);
    }
}
