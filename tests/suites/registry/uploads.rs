//! What can go wrong while an image is pushed.

use std::{
    io::Write as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use pellicle_tests::{
    TestStore, Who,
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
