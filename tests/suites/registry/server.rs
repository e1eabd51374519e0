//! Debian's docker-registry on loopback.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use pellicle_tests::{scratch, skip, wait_for};
use tempfile::TempDir;

use crate::{installed, program};

pub(crate) const USER: &str = "me";
pub(crate) const PASSWORD: &str = "s3cret-word";
/// Begins the path of requests that only make sure of the log.
const MARK: &str = "/mark-";
/// A name of the registry's certificate that no name server knows.
pub(crate) const OUTSIDE: &str = "registry.test";

/// Whom a registry lets in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Guard {
    /// Everyone, without TLS.
    None,
    /// Who has the password.
    Password,
    /// Who shows a certificate of its authority.
    Certificate,
}

/// A registry; ends with the test.
pub(crate) struct Registry {
    child: Child,
    dir: TempDir,
    port: u16,
    /// Lines of the log that were looked at.
    seen: AtomicUsize,
}

impl Registry {
    /// One that speaks plain HTTP and lets everyone in; `None` where it cannot be had.
    pub(crate) fn plain(test: &str) -> Option<Self> {
        Self::start(test, Guard::None)
    }

    /// One with a certificate of its own authority (see [`Registry::certs`]) that wants [`USER`].
    pub(crate) fn guarded(test: &str) -> Option<Self> {
        Self::start(test, Guard::Password)
    }

    /// One that wants a certificate: see [`Registry::certs_to_show`].
    pub(crate) fn mutual(test: &str) -> Option<Self> {
        Self::start(test, Guard::Certificate)
    }

    fn start(test: &str, guard: Guard) -> Option<Self> {
        for needed in ["docker-registry", "htpasswd", "openssl"] {
            if !installed(needed) {
                skip(test, &format!("{needed} is not installed"));
                return None;
            }
        }
        let dir = tempfile::Builder::new()
            .prefix("pellicle-registry-")
            .tempdir_in(scratch())
            .expect("temporary directory");
        let at = |name: &str| dir.path().join(name).display().to_string();
        let mut config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n",
            at("data")
        );
        if guard == Guard::Certificate {
            certificates(&at("certs"));
            config.push_str(&format!(
                "http: {{addr: '127.0.0.1:0', tls: {{certificate: {}, key: {}, clientcas: [{}]}}}}\n",
                at("certs/server.pem"),
                at("certs/server-key.pem"),
                at("certs/ca/ca.crt"),
            ));
        } else if guard == Guard::Password {
            certificates(&at("certs"));
            let line = program("htpasswd", &["-Bbn", USER, PASSWORD])
                .succeeded()
                .out();
            fs::write(at("users"), line).expect("write");
            config.push_str(&format!(
                "auth: {{htpasswd: {{realm: test, path: {}}}}}\n\
                 http: {{addr: '127.0.0.1:0', tls: {{certificate: {}, key: {}}}}}\n",
                at("users"),
                at("certs/server.pem"),
                at("certs/server-key.pem")
            ));
        } else {
            config.push_str("http: {addr: '127.0.0.1:0'}\n");
        }
        fs::write(at("config.yml"), config).expect("write");
        let log = File::create(at("log")).expect("log");
        let child = Command::new("docker-registry")
            .args(["serve", &at("config.yml")])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log"))
            .stderr(log)
            .spawn()
            .expect("docker-registry");
        let mut registry = Self {
            child,
            dir,
            port: 0,
            seen: AtomicUsize::new(0),
        };
        // On a port that the kernel gives it, so that nobody else gets it first.
        registry.port = wait_for("the registry", Duration::from_secs(120), || {
            let ended = registry.child.try_wait().expect("wait");
            let log = registry.log();
            assert!(ended.is_none(), "{ended:?}: {log}");
            let (_, port) = log.split_once("listening on 127.0.0.1:")?;
            let end = port.find(|c: char| !c.is_ascii_digit())?;
            port[..end].parse().ok()
        });
        Some(registry)
    }

    /// `localhost:PORT/NAME`
    pub(crate) fn name(&self, name: &str) -> String {
        format!("localhost:{}/{name}", self.port)
    }

    pub(crate) fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// Directory with the authority's certificate, as `--cert-dir` takes it; readable by all.
    pub(crate) fn certs(&self) -> PathBuf {
        self.dir.path().join("certs/ca")
    }

    /// Directory with the authority's certificate and one that the registry lets in.
    pub(crate) fn certs_to_show(&self) -> PathBuf {
        self.dir.path().join("certs/shown")
    }

    /// As [`Registry::certs_to_show`], with one of version 1.
    pub(crate) fn certs_of_old(&self) -> PathBuf {
        self.dir.path().join("certs/old")
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).expect("log")
    }

    /// Asks for something that nobody else does, and waits until the log tells.
    fn see_to_it(&self) {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("{MARK}{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("connect");
        write!(
            stream,
            "GET {name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .expect("ask");
        stream.read_to_end(&mut Vec::new()).expect("an answer");
        let line = format!("\"GET {name} HTTP/1.1\"");
        wait_for("the log", Duration::from_secs(60), || {
            self.log().contains(&line).then_some(())
        });
    }

    /// What was asked for since the last look, as `METHOD /path STATUS`.
    pub(crate) fn requests(&self) -> Vec<String> {
        // The line of a request is written right after its answer: before those of two that come later,
        // one after the other.
        self.see_to_it();
        self.see_to_it();
        let text = self.log();
        let all: Vec<String> = text
            .lines()
            .filter(|line| !line.contains(MARK))
            .filter_map(|line| {
                let (_, rest) = line.split_once(" \"")?;
                let (request, rest) = rest.split_once(" HTTP/1.1\" ")?;
                Some(format!("{request} {}", rest.split(' ').next()?))
            })
            .collect();
        let before = self.seen.swap(all.len(), Ordering::Relaxed);
        all[before..].to_vec()
    }

    /// Digests of the blobs that were fetched since the last look, without configurations.
    pub(crate) fn blobs_got(&self) -> Vec<String> {
        let all = self.requests();
        let got = all
            .iter()
            .filter(|r| r.starts_with("GET ") && r.contains("/blobs/sha256:"));
        got.cloned().collect()
    }
}

const NEW_KEY: [&str; 5] = [
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
];

/// An authority, a certificate by it for a client, and one for localhost and 127.0.0.1.
fn certificates(dir: &str) {
    fs::create_dir_all(format!("{dir}/ca")).expect("mkdir");
    let at = |name: &str| format!("{dir}/{name}");
    let (key, ca) = (at("ca-key.pem"), at("ca/ca.crt"));
    let mut own = vec![
        "req",
        "-x509",
        "-days",
        "2",
        "-subj",
        "/CN=Test CA",
        "-keyout",
        &key,
        "-out",
        &ca,
    ];
    own.extend(NEW_KEY);
    let _ = program("openssl", &own).succeeded();
    fs::write(
        at("ext"),
        format!("subjectAltName=DNS:localhost,DNS:{OUTSIDE},IP:127.0.0.1\n"),
    )
    .expect("write");
    signed(
        &at,
        "localhost",
        "server.pem",
        "server-key.pem",
        Some("ext"),
    );
    fs::create_dir_all(at("shown")).expect("mkdir");
    fs::copy(&ca, at("shown/ca.crt")).expect("copy");
    fs::write(at("client-ext"), "extendedKeyUsage=clientAuth\n").expect("write");
    signed(
        &at,
        "client",
        "shown/client.cert",
        "shown/client.key",
        Some("client-ext"),
    );
    // Without extensions it is of version 1, which TLS here does not take.
    fs::create_dir_all(at("old")).expect("mkdir");
    fs::copy(&ca, at("old/ca.crt")).expect("copy");
    signed(&at, "client", "old/client.cert", "old/client.key", None);
    let dirs = dir.rsplit_once('/').expect("a path").0;
    let _ = program("chmod", &["-R", "a+rX", dirs]).succeeded();
}

/// A certificate by the authority.
fn signed(at: &dyn Fn(&str) -> String, name: &str, out: &str, key: &str, ext: Option<&str>) {
    let (subject, out, key, request) = (format!("/CN={name}"), at(out), at(key), at("request"));
    let asked = ["req", "-subj", &subject, "-keyout", &key, "-out", &request];
    let _ = program("openssl", &[&asked[..], &NEW_KEY].concat()).succeeded();
    let (ca, ca_key, ext) = (at("ca/ca.crt"), at("ca-key.pem"), ext.map(at));
    let mut sign = vec![
        "x509",
        "-req",
        "-days",
        "2",
        "-in",
        &request,
        "-CA",
        &ca,
        "-CAkey",
        &ca_key,
        "-CAcreateserial",
        "-CAserial",
    ];
    let serial = at("serial");
    sign.extend([serial.as_str(), "-out", &out]);
    if let Some(ext) = &ext {
        sign.extend(["-extfile", ext]);
    }
    let _ = program("openssl", &sign).succeeded();
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
