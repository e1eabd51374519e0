//! What a registry can send that is wrong: a clear error, nothing listed, and the next try works.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use pellicle_tests::{
    Cmd, TestStore, Who,
    archive::{Archive, gzip},
};
use serde_json::json;

use crate::{
    listed, noise,
    script::{Answer, Asked, Made, Script, chunked, cut, descriptor, digest, ok, status},
};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn made() -> Made {
    Made::of(&[
        Archive::new().file("a", noise(3, 700_000)).end(),
        Archive::new().file("b", "small").end(),
    ])
}

fn store() -> TestStore {
    TestStore::new(Who::User.missing().map_or(Who::User, |_| Who::Root))
}

fn pull(s: &TestStore, r: &Script) -> Cmd {
    s.cmd(["pull", "-q", "--retry-delay", "10ms", &r.name("x")])
}

/// The image with `wrong` instead of its first layer, as often as the pull asks; then as it is.
fn fails_then_works(wrong: impl Fn() -> Answer + Send + Sync + 'static, words: &[&str]) {
    let image = made();
    let honest = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let switch = Arc::clone(&honest);
    let r = Script::start(move |asked| {
        if image.is_layer(asked, 0) && !switch.load(SeqCst) {
            return Some(wrong());
        }
        image.answer(asked)
    });
    let s = store();
    pull(&s, &r).run().failed_clearly(1, words);
    assert_eq!(listed(&s), 0, "half an image is listed");
    honest.store(true, SeqCst);
    let second = digest(&made().layers[1]);
    let complete = s
        .root()
        .join("blobs")
        .join(second.replace(':', "/"))
        .exists();
    r.settle();
    let before = r.asked(&second).len();
    pull(&s, &r).ok();
    assert_eq!(listed(&s), 1);
    s.cmd(["store", "verify"]).ok();
    // What was complete is not fetched again.
    let again = r.asked(&second).len() - before;
    assert_eq!(again, usize::from(!complete));
}

#[test]
fn a_layer_that_stops_half_way_goes_on_where_it_was() {
    let image = made();
    let half = image.layers[0].len() / 2;
    let times = AtomicUsize::new(0);
    let r = Script::start(move |asked| {
        if image.is_layer(asked, 0) && times.fetch_add(1, SeqCst) == 0 {
            return Some(cut(image.layers[0].len(), image.layers[0][..half].to_vec()));
        }
        image.answer(asked)
    });
    let s = store();
    pull(&s, &r).ok();
    let asked = r.asked(&digest(&made().layers[0]));
    let froms: Vec<usize> = asked.iter().map(Asked::from).collect();
    assert_eq!(froms, [0, half]);
    s.cmd(["store", "verify"]).ok();
}

#[test]
fn a_registry_without_ranges_is_read_from_the_beginning() {
    let image = made();
    let times = AtomicUsize::new(0);
    let r = Script::start(move |asked| {
        if image.is_layer(asked, 0) {
            return Some(match times.fetch_add(1, SeqCst) {
                0 => cut(image.layers[0].len(), image.layers[0][..1000].to_vec()),
                _ => ok(image.layers[0].clone()),
            });
        }
        image.answer(asked)
    });
    pull(&store(), &r).ok();
}

#[test]
fn what_always_stops_half_way_ends_with_an_error() {
    let layer = made().layers[0].clone();
    fails_then_works(
        move || cut(layer.len(), Vec::new()),
        &["the connection", "bytes"],
    );
}

#[test]
fn a_wrong_digest_is_refused() {
    let mut layer = made().layers[0].clone();
    let last = layer.len() - 1;
    layer[last / 2] ^= 1;
    fails_then_works(move || ok(layer.clone()), &["layer"]);
}

#[test]
fn a_wrong_length_is_refused() {
    let layer = made().layers[0].clone();
    let longer = [layer.clone(), b"more".to_vec()].concat();
    let chunks = longer.clone();
    fails_then_works(move || ok(longer.clone()), &["announced"]);
    fails_then_works(
        move || chunked(chunks.clone(), false),
        &["longer than announced"],
    );
    let shorter = layer[..layer.len() - 1].to_vec();
    fails_then_works(move || ok(shorter.clone()), &["announced"]);
}

#[test]
fn an_endless_body_is_ended() {
    fails_then_works(
        || chunked(vec![0; 65_536], true),
        &["longer than announced"],
    );
    let layer = made().layers[0].clone();
    fails_then_works(
        move || chunked(layer.clone(), true),
        &["longer than announced"],
    );
}

#[test]
fn a_registry_in_trouble_is_asked_again_and_one_that_refuses_is_not() {
    let image = made();
    let times = AtomicUsize::new(0);
    let r = Script::start(move |asked| match times.fetch_add(1, SeqCst) {
        1 | 3 => Some(status(500)),
        5 => Some(Answer::Whole(
            429,
            vec![("Retry-After".into(), "1".into())],
            vec![],
        )),
        _ => image.answer(asked),
    });
    let began = std::time::Instant::now();
    pull(&store(), &r).ok();
    assert!(began.elapsed().as_millis() > 900, "Retry-After is heeded");
    let r = Script::start(|asked| asked.path.contains("/manifests/").then(|| status(503)));
    let s = store();
    s.cmd(["pull", "--retry", "2", "--retry-delay", "1ms", &r.name("x")])
        .run()
        .failed_clearly(1, &["503"]);
    assert_eq!(r.asked("/manifests/").len(), 3);
    let r = Script::start(|asked| asked.path.contains("/manifests/").then(|| status(418)));
    pull(&s, &r).run().failed_clearly(1, &["418"]);
    assert_eq!(r.asked("/manifests/").len(), 1);
}

#[test]
fn a_registry_that_falls_silent_is_given_up() {
    fn silent() -> Answer {
        Answer::Raw(Box::new(|to| {
            use std::io::Write as _;
            to.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nx")?;
            std::thread::sleep(std::time::Duration::from_secs(600));
            Ok(())
        }))
    }
    let r = Script::start(|asked| asked.path.contains("/manifests/").then(silent));
    pull(&store(), &r)
        .arg("--retry=1")
        .env("PELLICLE_REGISTRY_TIMEOUT", "1")
        .limit(std::time::Duration::from_secs(120))
        .run()
        .failed_clearly(1, &["nothing came for 1 second"]);
}

#[test]
fn a_manifest_of_a_hundred_megabytes_is_not_read() {
    let s = store();
    for answer in [
        (|| cut(100 << 20, vec![b' '; 5 << 20])) as fn() -> Answer,
        || chunked(vec![b' '; 65_536], true),
    ] {
        let r = Script::start(move |asked| asked.path.contains("/manifests/").then(answer));
        pull(&s, &r)
            .run()
            .failed_clearly(1, &["manifest", "more than 4194304 bytes"]);
    }
}

#[test]
fn indexes_that_nest_lead_in_circles_or_have_no_image_for_us_are_refused() {
    let index = |inner: &[u8], platform: &str| {
        let mut entry = descriptor(INDEX, inner);
        entry["platform"] = json!({"os": "linux", "architecture": platform});
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]})
            .to_string()
            .into_bytes()
    };
    let s = store();
    // Six real ones, one in the other.
    let mut nest = vec![index(b"{}", "amd64")];
    for _ in 0..5 {
        let last = nest.last().expect("one").clone();
        nest.push(index(&last, "amd64"));
    }
    let all = nest.clone();
    let top = nest.last().expect("one").clone();
    let r = Script::start(move |asked| {
        let which = asked.path.rsplit_once("/manifests/")?.1.to_owned();
        if which == "latest" {
            return Some(ok(top.clone()));
        }
        all.iter()
            .find(|i| digest(i) == which)
            .map(|i| ok(i.clone()))
    });
    pull(&s, &r).run().failed_clearly(1, &["nest deeper"]);
    // One that claims to lead to itself.
    let own = index(b"itself", "amd64");
    let r = Script::start(move |asked| asked.path.contains("/manifests/").then(|| ok(own.clone())));
    pull(&s, &r).run().failed_clearly(1, &["manifest"]);
    let foreign = index(b"{}", "s390x");
    let r = Script::start(move |asked| {
        asked
            .path
            .contains("/manifests/")
            .then(|| ok(foreign.clone()))
    });
    s.cmd(["pull", "--platform", "linux/arm64", &r.name("x")])
        .run()
        .failed_clearly(1, &["s390x", "--platform"]);
    assert_eq!(listed(&s), 0);
}

#[test]
fn documents_that_make_no_sense_are_refused() {
    let s = store();
    let good = made();
    let no_image = json!({"schemaVersion": 2, "config": descriptor("application/vnd.cncf.helm.config.v1+json", b"{}"), "layers": []});
    let many: Vec<_> = (0..1001)
        .map(|_| descriptor("application/vnd.oci.image.layer.v1.tar", b"x"))
        .collect();
    let many = json!({"schemaVersion": 2, "config": descriptor("application/vnd.oci.image.config.v1+json", &good.config), "layers": many});
    let schema_1 = json!({"schemaVersion": 1, "mediaType": "application/vnd.docker.distribution.manifest.v1+prettyjws"});
    for (text, word) in [
        ("", "manifest"),
        ("[]", "manifest"),
        ("{\"schemaVersion\":2,\"layers\":[]}", "manifest"),
        (&no_image.to_string(), "no image"),
        (&many.to_string(), "more than 1000 layers"),
        (&schema_1.to_string(), "schema 1"),
    ] {
        let text = text.to_owned();
        let r = Script::start(move |asked| {
            asked.path.contains("/manifests/").then(|| ok(text.clone()))
        });
        pull(&s, &r).run().failed_clearly(1, &[word]);
    }
    // A configuration that promises another layer than comes.
    let layer = gzip(&Archive::new().file("a", "a").end());
    let liar = Made::with(vec![layer], &[digest(b"another")]);
    let r = Script::start(move |asked| liar.answer(asked));
    pull(&s, &r).run().failed_clearly(1, &["diff id"]);
    assert_eq!(listed(&s), 0);
}
