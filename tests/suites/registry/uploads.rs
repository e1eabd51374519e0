//! What can go wrong while an image is pushed.

use std::{
    io::Write as _,
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use pellicle_tests::{
    Cmd, TestStore, Who,
    archive::{Archive, gzip},
};

use crate::{
    noise,
    script::{Answer, Asked, Script, digest, status},
};

fn header(name: &str, value: impl Into<String>) -> (String, String) {
    (name.to_owned(), value.into())
}

/// A registry that takes blobs, but breaks off the first stream of more than 100,000 bytes after half a
/// million; gives what it has at the end.
fn breaking(at: Arc<AtomicUsize>, got: Arc<Mutex<Vec<Vec<u8>>>>) -> Script {
    let parts: Mutex<std::collections::BTreeMap<String, Vec<u8>>> = Mutex::default();
    let next = AtomicUsize::new(0);
    Script::start(move |asked: &Asked| {
        let upload = asked.path.split('?').next().unwrap_or_default().to_owned();
        Some(match asked.method.as_str() {
            "HEAD" => status(404),
            "POST" => {
                let n = next.fetch_add(1, SeqCst);
                Answer::Whole(
                    202,
                    vec![header(
                        "Location",
                        format!("/v2/x/blobs/uploads/{n}?state=a"),
                    )],
                    vec![],
                )
            }
            "PATCH" => {
                let mut parts = parts.lock().expect("no panic");
                let part = parts.entry(upload).or_default();
                if asked.body.len() > 100_000 && at.fetch_add(1, SeqCst) == 0 {
                    part.extend(&asked.body[..500_000]);
                    return Some(Answer::Raw(Box::new(|_| Ok(()))));
                }
                if let Some(range) = asked.header("content-range") {
                    assert!(range.starts_with(&format!("{}-", part.len())), "{range}");
                }
                part.extend(&asked.body);
                Answer::Whole(
                    202,
                    vec![header("Location", format!("{}&state=b", asked.path))],
                    vec![],
                )
            }
            "GET" if upload.contains("/uploads/") => {
                let parts = parts.lock().expect("no panic");
                let len = parts.get(&upload).map_or(0, Vec::len);
                let range = format!("0-{}", len.saturating_sub(1));
                Answer::Whole(
                    204,
                    vec![
                        header("Location", asked.path.clone()),
                        header("Range", range),
                    ],
                    vec![],
                )
            }
            "PUT" if upload.contains("/uploads/") => {
                let part = parts
                    .lock()
                    .expect("no panic")
                    .remove(&upload)
                    .unwrap_or_default();
                let promised = asked.path.rsplit_once("digest=").map(|d| d.1.to_owned());
                if promised.as_deref() != Some(&digest(&part)) {
                    return Some(status(400));
                }
                got.lock().expect("no panic").push(part);
                status(201)
            }
            "PUT" => status(201),
            _ => return None,
        })
    })
}

#[test]
fn an_upload_that_is_cut_goes_on_where_the_registry_has_got() {
    let s = TestStore::new(Who::Root);
    let layer = gzip(&Archive::new().file("f", noise(5, 900_000)).end());
    let file = s.file("l.tar.gz", &layer);
    s.cmd(["import"]).arg(file).arg("x").ok();
    let (cuts, got) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(Mutex::new(Vec::new())),
    );
    let r = breaking(Arc::clone(&cuts), Arc::clone(&got));
    s.cmd(["push", "-q", "--retry-delay", "10ms", "x", &r.name("x")])
        .ok();
    let sent: usize = r
        .asked("/uploads/")
        .iter()
        .filter(|a| a.method == "PATCH")
        .map(|a| a.body.len())
        .sum();
    let whole: Vec<_> = got.lock().expect("no panic").iter().map(Vec::len).collect();
    assert!(whole.contains(&layer.len()), "{whole:?}");
    assert!(
        sent < layer.len() + layer.len() - 400_000,
        "only the rest was sent again: {sent}"
    );
    assert!(
        r.asked("/uploads/")
            .iter()
            .any(|a| a.header("content-range").is_some())
    );
}

#[test]
fn a_registry_that_makes_something_else_of_the_manifest_is_told_of() {
    let s = TestStore::new(Who::Root);
    let file = s.file("l.tar.gz", gzip(&Archive::new().file("f", "f").end()));
    s.cmd(["import"]).arg(file).arg("x").ok();
    let r = Script::start(|asked| match asked.method.as_str() {
        "HEAD" => Some(status(200)),
        "PUT" => Some(Answer::Whole(
            201,
            vec![header("Docker-Content-Digest", digest(b"other"))],
            vec![],
        )),
        _ => None,
    });
    s.cmd(["push", "x", &r.name("x")])
        .run()
        .failed_clearly(1, &["manifest", "digest"]);
    let r = Script::start(|asked| match asked.method.as_str() {
        "HEAD" => Some(status(404)),
        "POST" => Some(Answer::Raw(Box::new(|to| {
            let text = r#"{"errors":[{"code":"DENIED","message":"no \u001b[31mroom"}]}"#;
            write!(
                to,
                "HTTP/1.1 403 X\r\nContent-Length: {}\r\n\r\n{text}",
                text.len()
            )
        }))),
        _ => None,
    });
    let out = s.cmd(["push", "x", &r.name("x")]).run();
    assert!(
        !out.err().contains('\u{1b}'),
        "what a registry says is shown as it is"
    );
    out.failed_clearly(1, &["refuses", "room"]);
}

/// A store with the image `x`, whose layer has `size` bytes.
fn with_image(size: usize) -> TestStore {
    let s = TestStore::new(Who::Root);
    let layer = gzip(&Archive::new().file("f", noise(6, size)).end());
    let file = s.file("l.tar.gz", &layer);
    s.cmd(["import"]).arg(file).arg("x").ok();
    s
}

fn push(s: &TestStore, to: &str) -> Cmd {
    s.cmd(["push", "-q", "--retry-delay", "10ms", "x", to])
}

/// A registry that has nothing and sends uploads to `upload`; `handler` does the rest.
fn sending_to(
    upload: &'static str,
    handler: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static,
) -> Script {
    Script::start(move |asked| match asked.method.as_str() {
        "HEAD" => Some(status(404)),
        "POST" => Some(Answer::Whole(202, vec![header("Location", upload)], vec![])),
        _ => handler(asked),
    })
}

fn raw(act: impl FnOnce(&mut TcpStream) -> std::io::Result<()> + Send + 'static) -> Option<Answer> {
    Some(Answer::Raw(Box::new(act)))
}

const UPLOAD: &str = "/v2/x/blobs/uploads/1";

#[test]
fn a_registry_that_takes_an_upload_and_falls_silent_is_given_up() {
    let s = with_image(1_000_000);
    let silent = |to: &mut TcpStream| {
        // What is sent is not read, and nothing answered.
        let _ = to.write_all(b"HTTP/1.1 102 Processing\r\n\r\n");
        std::thread::sleep(Duration::from_secs(20));
        Ok(())
    };
    let r = sending_to(UPLOAD, move |asked| {
        (asked.method == "PATCH").then(|| raw(silent)).flatten()
    });
    push(&s, &r.name("x"))
        .arg("--retry=1")
        .env("PELLICLE_REGISTRY_TIMEOUT", "1")
        .run()
        .failed_clearly(1, &["for 1 second"]);
    // One byte of the head now and then.
    let r = sending_to(UPLOAD, move |asked| {
        (asked.method == "PATCH").then(|| {
            raw(|to| {
                for byte in b"HTTP/1.1 202 Accepted\r\n".iter().cycle() {
                    to.write_all(&[*byte])?;
                    std::thread::sleep(Duration::from_millis(300));
                }
                Ok(())
            })
        })?
    });
    push(&s, &r.name("x"))
        .arg("--retry=1")
        .env("PELLICLE_REGISTRY_TIMEOUT", "1")
        .run()
        .failed_clearly(1, &["for 1 second"]);
}

#[test]
fn an_upload_that_leads_nowhere_is_said() {
    let s = with_image(1_000_000);
    let r = Script::start(|asked| match asked.method.as_str() {
        "HEAD" => Some(status(404)),
        "POST" => Some(status(202)),
        _ => None,
    });
    push(&s, &r.name("x"))
        .run()
        .failed_clearly(1, &["does not say where to send"]);
    for location in ["http://", "http://[::1", "ftp", "\u{7f}"] {
        let r = Script::start(move |asked| match asked.method.as_str() {
            "HEAD" => Some(status(404)),
            "POST" => Some(Answer::Whole(
                202,
                vec![header("Location", location)],
                vec![],
            )),
            _ => None,
        });
        push(&s, &r.name("x")).run().failed_clearly(1, &[]);
    }
}

#[test]
fn credentials_do_not_follow_an_upload_to_another_server() {
    let s = with_image(1_000_000);
    let other = Script::start(|asked| match asked.method.as_str() {
        "PATCH" => Some(status(202)),
        "PUT" => Some(status(201)),
        _ => None,
    });
    let there = format!("http://localhost:{}/put/1?key=k", other.port);
    let r = Script::start(move |asked| {
        if asked.header("authorization").is_none() {
            let basic = vec![header("WWW-Authenticate", "Basic realm=\"r\"")];
            return Some(Answer::Whole(401, basic, vec![]));
        }
        match asked.method.as_str() {
            "GET" => Some(status(200)),
            "HEAD" => Some(status(404)),
            "POST" => Some(Answer::Whole(
                202,
                vec![header("Location", there.clone())],
                vec![],
            )),
            "PUT" => Some(status(201)),
            _ => None,
        }
    });
    push(&s, &r.name("x")).arg("--creds=u:secret").ok();
    let came = other.asked("/put/1");
    assert!(came.iter().any(|a| a.method == "PATCH"), "{came:?}");
    assert!(came.iter().any(|a| a.method == "PUT"), "{came:?}");
    for asked in came {
        assert_eq!(asked.header("authorization"), None, "{}", asked.method);
        assert!(asked.path.contains("key=k"), "{}", asked.path);
    }
}

#[test]
fn a_registry_that_finds_a_layer_too_large_is_heard_though_it_closes_at_once() {
    // More than waits in the sockets on the way, so that it is cut.
    let s = with_image(16_000_000);
    let r = sending_to(UPLOAD, |asked| {
        (asked.method == "PATCH").then(|| {
            raw(|to| {
                let text = "<html>too large</html>";
                let length = text.len();
                write!(
                    to,
                    "HTTP/1.1 413 X\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{text}"
                )
            })
        })?
    });
    push(&s, &r.name("x")).run().failed_clearly(1, &["413"]);
}

#[test]
fn a_registry_that_wants_to_be_left_alone_for_a_while_is() {
    let s = with_image(1_000_000);
    let refused = Arc::new(Mutex::new(None::<Instant>));
    let waited = Arc::new(Mutex::new(Vec::new()));
    let (at, noted) = (Arc::clone(&refused), Arc::clone(&waited));
    let r = sending_to(UPLOAD, move |asked| {
        Some(match asked.method.as_str() {
            "PATCH" => {
                let mut at = at.lock().expect("no panic");
                match at.as_ref() {
                    None => {
                        *at = Some(Instant::now());
                        Answer::Whole(429, vec![header("Retry-After", "2")], vec![])
                    }
                    Some(at) => {
                        noted.lock().expect("no panic").push(at.elapsed());
                        status(202)
                    }
                }
            }
            "GET" if asked.path == UPLOAD => Answer::Whole(
                204,
                vec![header("Location", UPLOAD), header("Range", "0-0")],
                vec![],
            ),
            "PUT" => status(201),
            _ => return None,
        })
    });
    push(&s, &r.name("x")).ok();
    let waited = waited.lock().expect("no panic");
    assert!(
        waited.iter().any(|w| *w >= Duration::from_secs(2)),
        "{waited:?}"
    );
}
