//! Proxies that the environment names. The registry has a name that only the proxy knows.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use pellicle_tests::{Cmd, TestStore, Who, archive::Archive};

use crate::{
    listed,
    script::{Made, Script},
    server::{OUTSIDE, PASSWORD, Registry, USER},
};

/// A proxy to which [`OUTSIDE`] is this machine; ends with the test.
struct Proxy {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    end: Arc<AtomicBool>,
}

impl Proxy {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let end = Arc::new(AtomicBool::new(false));
        let (noted, ended) = (Arc::clone(&asked), Arc::clone(&end));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let noted = Arc::clone(&noted);
                thread::spawn(move || pass_on(stream, &noted));
            }
        });
        Self { port, asked, end }
    }

    fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The first lines of requests since the last look.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().expect("no panic"))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// One tunnel.
fn pass_on(mut client: TcpStream, noted: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut from = BufReader::new(client.try_clone()?);
    let mut line = String::new();
    from.read_line(&mut line)?;
    noted.lock().expect("no panic").push(line.trim().to_owned());
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let [method, target, ..] = words.as_slice() else {
        return Ok(());
    };
    loop {
        line.clear();
        if from.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
    }
    let port = target
        .strip_prefix(OUTSIDE)
        .and_then(|rest| rest.strip_prefix(':'))
        .and_then(|port| port.parse::<u16>().ok());
    let Some(port) = port.filter(|_| method == "CONNECT") else {
        return client.write_all(b"HTTP/1.1 502 X\r\nContent-Length: 0\r\n\r\n");
    };
    let mut server = TcpStream::connect(("127.0.0.1", port))?;
    client.write_all(b"HTTP/1.1 200 X\r\n\r\n")?;
    let mut back = server.try_clone()?;
    let mut to = client.try_clone()?;
    let other = thread::spawn(move || {
        let _ = io::copy(&mut back, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
    // What the reader has already is the beginning of what follows.
    server.write_all(from.buffer())?;
    let mut buffer = [0; 16_384];
    loop {
        let n = client.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        server.write_all(&buffer[..n])?;
    }
    let _ = server.shutdown(Shutdown::Write);
    let _ = other.join();
    Ok(())
}

fn store() -> TestStore {
    TestStore::new(Who::User.missing().map_or(Who::User, |_| Who::Root))
}

#[test]
fn a_registry_of_plain_http_is_reached_through_the_proxy_and_only_where_it_should() {
    let made = Made::of(&[Archive::new().file("a", "a").end()]);
    let r = Script::start(move |asked| made.answer(asked));
    let proxy = Proxy::start();
    let name = format!("{OUTSIDE}:{}/x", r.port);
    let s = store();
    let pull = |name: &str| -> Cmd {
        s.cmd(["pull", "-q", "--retry", "0", "--tls-verify=false", name])
            .env("http_proxy", proxy.address())
            .env("https_proxy", proxy.address())
    };
    pull(&name).ok();
    let asked = proxy.asked();
    let tunnel = format!("CONNECT {OUTSIDE}:{} ", r.port);
    assert!(
        !asked.is_empty() && asked.iter().all(|line| line.starts_with(&tunnel)),
        "{asked:#?}"
    );
    assert!(!r.asked("/blobs/").is_empty(), "they came from it");
    assert_eq!(listed(&s), 1);
    // Not for these: the name means nothing without the proxy.
    for exempt in [OUTSIDE, ".test", "*"] {
        pull(&name)
            .env("no_proxy", exempt)
            .run()
            .failed_clearly(1, &["cannot reach the registry", OUTSIDE]);
        assert_eq!(proxy.asked(), Vec::<String>::new(), "{exempt}");
    }
    // And never for this machine.
    pull(&r.name("x")).ok();
    assert_eq!(proxy.asked(), Vec::<String>::new());
    // Nor does another rule concern it.
    pull(&name).env("NO_PROXY", "other.test,10.0.0.0/8").ok();
    assert!(!proxy.asked().is_empty());
}

#[test]
fn tls_goes_through_a_tunnel_of_the_proxy_to_the_end() {
    let Some(r) = Registry::guarded("tls_goes_through_a_tunnel") else {
        return;
    };
    let proxy = Proxy::start();
    let s = store();
    let layer = s.file("l.tar", Archive::new().file("f", "f").end());
    s.cmd(["import"]).arg(layer).arg("x").ok();
    let name = format!("{OUTSIDE}:{}/x", r.port());
    let on = |args: &[&str], proxy: &str| -> Cmd {
        s.cmd(args)
            .args(["--retry", "0", "--creds", &format!("{USER}:{PASSWORD}")])
            .arg("--cert-dir")
            .arg(r.certs())
            .env("HTTPS_PROXY", proxy)
    };
    on(&["push", "x", &name], &proxy.address()).ok();
    on(&["pull", &name], &proxy.address()).ok();
    let asked = proxy.asked();
    let tunnel = format!("CONNECT {OUTSIDE}:{}", r.port());
    assert!(
        !asked.is_empty() && asked.iter().all(|line| line.starts_with(&tunnel)),
        "{asked:#?}"
    );
    // A proxy that is not there, and one that is no address.
    on(&["pull", &name], "http://127.0.0.1:1")
        .run()
        .failed_clearly(1, &["cannot reach the registry"]);
    on(&["pull", &name], "no address at all")
        .run()
        .failed_clearly(1, &["proxy"]);
}
