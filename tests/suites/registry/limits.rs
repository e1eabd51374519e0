//! Layers that come slowly, in pieces over several pulls, or claim to be of a size that nobody has.

use std::{
    fs,
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use pellicle_tests::{TestStore, Who, archive::Archive, wait_for};
use serde_json::json;

use crate::{
    listed, noise,
    script::{Answer, Asked, Made, Script, descriptor, digest, ok},
};

/// Large enough to be kept when its pull is cut.
fn large() -> Made {
    Made::of(&[Archive::new().file("a", noise(21, 4_000_000)).end()])
}

fn store() -> TestStore {
    TestStore::new(Who::User.missing().map_or(Who::User, |_| Who::Root))
}

/// A file for each large layer of which something came.
fn kept(s: &TestStore) -> Vec<u64> {
    let dir = fs::read_dir(s.root().join("registry/partial"));
    dir.into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some(entry.metadata().ok()?.len()))
        .collect()
}

#[test]
fn a_registry_that_drips_is_given_up() {
    // Body, and head.
    let body = || {
        let len = image_layer().len();
        Answer::Raw(Box::new(move |to| {
            write!(to, "HTTP/1.1 200 X\r\nContent-Length: {len}\r\n\r\n")?;
            loop {
                to.write_all(b"x")?;
                thread::sleep(Duration::from_millis(50));
            }
        }))
    };
    let head = || {
        Answer::Raw(Box::new(|to| {
            write!(to, "HTTP/1.1 200 X\r\nX-Long: ")?;
            loop {
                to.write_all(b"x")?;
                thread::sleep(Duration::from_millis(50));
            }
        }))
    };
    let image = large();
    for (drips, word) in [
        (body as fn() -> Answer, "bytes came in"),
        (head, "nothing came"),
    ] {
        let image = image.clone();
        let r = Script::start(move |asked| {
            if image.is_layer(asked, 0) {
                return Some(drips());
            }
            image.answer(asked)
        });
        let s = store();
        s.cmd(["pull", "-q", "--retry", "2", "--retry-delay", "10ms"])
            .arg(r.name("x"))
            .env("PELLICLE_REGISTRY_TIMEOUT", "1")
            .run()
            .failed_clearly(1, &["pull the blob", word]);
        let tries = r.asked(&digest(&image_layer())).len();
        assert_eq!(tries, 3, "a byte now and then is no progress");
        assert_eq!(listed(&s), 0);
    }
    // Of a manifest, too.
    let r = Script::start(move |asked| asked.path.contains("/manifests/").then(drip_short));
    store()
        .cmd(["pull", "-q", "--retry", "0"])
        .arg(r.name("x"))
        .env("PELLICLE_REGISTRY_TIMEOUT", "1")
        .run()
        .failed_clearly(1, &["manifest", "bytes came in"]);
}

fn drip_short() -> Answer {
    Answer::Raw(Box::new(|to| {
        write!(to, "HTTP/1.1 200 X\r\nContent-Length: 100000\r\n\r\n")?;
        loop {
            to.write_all(b"x")?;
            thread::sleep(Duration::from_millis(50));
        }
    }))
}

fn image_layer() -> Vec<u8> {
    large().layers.remove(0)
}

/// The layer, held after `half` bytes as long as `hold` is raised.
fn held(image: &Made, asked: &Asked, hold: &Arc<AtomicBool>) -> Option<Answer> {
    if !image.is_layer(asked, 0) || !hold.load(SeqCst) {
        return image.answer(asked);
    }
    let (layer, hold) = (image.layers[0].clone(), Arc::clone(hold));
    Some(Answer::Raw(Box::new(move |to| {
        let len = layer.len();
        write!(to, "HTTP/1.1 200 X\r\nContent-Length: {len}\r\n\r\n")?;
        to.write_all(&layer[..len / 2])?;
        while hold.load(SeqCst) {
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    })))
}

/// A store in which a pull was killed in the middle of the layer.
fn killed_half_way(r: &Script, hold: &AtomicBool, half: u64) -> TestStore {
    let s = store();
    let running = s.cmd(["pull", "-q", &r.name("x")]).spawn();
    wait_for("half of the layer", Duration::from_secs(60), || {
        (kept(&s) == [half]).then_some(())
    });
    running.signal(Signal::SIGKILL);
    let _ = running.wait();
    hold.store(false, SeqCst);
    assert_eq!(listed(&s), 0);
    s
}

#[test]
fn a_layer_of_which_half_came_before_a_kill_is_fetched_from_there() {
    let image = large();
    let hold = Arc::new(AtomicBool::new(true));
    let (own, flag) = (image.clone(), Arc::clone(&hold));
    let r = Script::start(move |asked| held(&own, asked, &flag));
    let half = image.layers[0].len() / 2;
    let s = killed_half_way(&r, &hold, half as u64);
    s.cmd(["pull", "-q", &r.name("x")]).ok();
    let asked = r.asked(&digest(&image.layers[0]));
    let ranges: Vec<_> = asked.iter().map(|a| a.header("range")).collect();
    let rest = format!("bytes={half}-");
    assert_eq!(ranges, [None, Some(rest.as_str())], "only the rest");
    assert_eq!(kept(&s), Vec::<u64>::new(), "the layer is complete");
    s.cmd(["store", "verify"]).ok();
}

#[test]
fn what_was_kept_of_a_layer_and_is_damaged_costs_a_second_try_and_no_more() {
    let image = large();
    let hold = Arc::new(AtomicBool::new(true));
    let (own, flag) = (image.clone(), Arc::clone(&hold));
    let r = Script::start(move |asked| held(&own, asked, &flag));
    let half = image.layers[0].len() / 2;
    let s = killed_half_way(&r, &hold, half as u64);
    let dir = s.root().join("registry/partial");
    let file = fs::read_dir(dir).expect("kept").next().expect("one");
    let path = file.expect("an entry").path();
    let mut bytes = fs::read(&path).expect("read");
    for byte in &mut bytes[half / 2..] {
        *byte ^= 0x55;
    }
    fs::write(&path, bytes).expect("write");
    s.cmd(["pull", "-q", &r.name("x")]).ok();
    let asked = r.asked(&digest(&image.layers[0]));
    assert_eq!(asked.last().expect("asked").header("range"), None);
    assert_eq!(kept(&s), Vec::<u64>::new());
    s.cmd(["store", "verify"]).ok();
}

#[test]
fn what_is_kept_of_a_layer_goes_with_a_collection() {
    let image = large();
    let hold = Arc::new(AtomicBool::new(true));
    let (own, flag) = (image.clone(), Arc::clone(&hold));
    let r = Script::start(move |asked| held(&own, asked, &flag));
    let half = image.layers[0].len() / 2;
    let s = killed_half_way(&r, &hold, half as u64);
    s.cmd(["store", "gc"]).ok();
    assert_eq!(kept(&s), Vec::<u64>::new());
}

#[test]
fn a_layer_of_a_terabyte_that_is_none_is_refused() {
    let good = large();
    let mut manifest: serde_json::Value = serde_json::from_slice(&good.manifest).expect("JSON");
    manifest["layers"][0]["size"] = json!(1_u64 << 40);
    let mut liar = good.clone();
    liar.manifest = manifest.to_string().into_bytes();
    // It says how long it is, or does not.
    let short = liar.clone();
    let r = Script::start(move |asked| short.answer(asked));
    let s = store();
    let pull = |r: &Script| {
        s.cmd(["pull", "-q", "--retry", "1", "--retry-delay", "10ms"])
            .arg(r.name("x"))
    };
    pull(&r)
        .run()
        .failed_clearly(1, &["1099511627776 were announced"]);
    let layer = good.layers[0].clone();
    let r = Script::start(move |asked| {
        if liar.is_layer(asked, 0) {
            return Some(crate::script::chunked(layer.clone(), false));
        }
        liar.answer(asked)
    });
    pull(&r).run().failed_clearly(1, &["1099511627776"]);
    assert_eq!(listed(&s), 0);
}

#[test]
fn a_manifest_of_a_million_layers_is_refused() {
    let good = large();
    let one = descriptor("application/vnd.oci.image.layer.v1.tar", b"x").to_string();
    let layers = vec![one.as_str(); 1_000_000].join(",");
    let config = descriptor("application/vnd.oci.image.config.v1+json", &good.config);
    let text = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layers}]}}"#);
    let r =
        Script::start(move |asked| asked.path.contains("/manifests/").then(|| ok(text.clone())));
    store()
        .cmd(["pull", "-q", &r.name("x")])
        .run()
        .failed_clearly(1, &["manifest", "more than 4194304 bytes"]);
}
