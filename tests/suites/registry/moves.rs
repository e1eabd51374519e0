//! Images to and from a registry.

use pellicle_tests::{
    TestStore, Who,
    archive::{Archive, gzip},
};

use crate::{json, listed, noise, server::Registry};

/// A store with the image `two`: a plain layer, and a gzip one of noise.
fn store_with_two(who: Who) -> TestStore {
    let s = TestStore::new(who);
    let base = s.file(
        "base.tar",
        Archive::new().dir("etc/").file("etc/base", "base\n").end(),
    );
    let top = s.file(
        "top.tar.gz",
        gzip(&Archive::new().file("big", noise(1, 2_000_000)).end()),
    );
    s.cmd(["import"])
        .arg(base)
        .arg("two")
        .arg("--layer")
        .arg(top)
        .ok();
    s
}

#[test]
fn an_image_comes_back_as_it_was_pushed_and_goes_out_again_with_the_same_digest() {
    let Some(r) = Registry::plain("an_image_comes_back_as_it_was_pushed") else {
        return;
    };
    for who in Who::all() {
        let s = TestStore::with_tools(who);
        let name = r.name(&format!("a/{who:?}").to_lowercase());
        let digest = s.cmd(["push", "-q", "tools", &name]).ok();
        assert!(digest.starts_with("sha256:"), "{digest}");

        let t = TestStore::new(who);
        let told = json(&t.cmd(["pull", "-q", "--format", "json", &name]).ok());
        assert_eq!(told["Digest"], digest.as_str());
        assert_eq!(told["Layers"][0]["Fetched"], true);
        assert_eq!(
            t.run(&format!("{name} cat /etc/base")).ok(),
            "from the image"
        );
        // By digest, and to another repository, where the registry takes the blobs over.
        let other = format!("{name}-2");
        r.requests();
        assert_eq!(t.cmd(["push", "-q", &name, &other]).ok(), digest);
        let asked = r.requests();
        assert_eq!(
            asked
                .iter()
                .filter(|a| a.contains("mount=") && a.ends_with("201"))
                .count(),
            2,
            "{asked:#?}"
        );
        assert!(!asked.iter().any(|a| a.starts_with("PATCH")), "{asked:#?}");
        // What nothing needs goes with its last name.
        t.cmd(["tag", &name, "kept"]).ok();
        t.cmd(["rmi", &name]).ok();
        let pinned = format!("docker://{name}@{digest}");
        t.cmd(["pull", "-q", &pinned]).ok();
        assert!(r.blobs_got().is_empty(), "all of it is in the store");
        t.cmd(["store", "verify"]).ok();
    }
}

#[test]
fn only_what_is_new_is_fetched_and_sent() {
    let Some(r) = Registry::plain("only_what_is_new_is_fetched_and_sent") else {
        return;
    };
    let s = store_with_two(Who::Root);
    let (one, three) = (r.name("shared/one"), r.name("shared/three"));
    s.cmd(["push", "two", &one]).ok();
    let more = s.file(
        "more.tar.gz",
        gzip(&Archive::new().file("more", noise(2, 100_000)).end()),
    );
    let (base, top) = (s.path("base.tar"), s.path("top.tar.gz"));
    s.cmd(["import"])
        .arg(base)
        .arg("three")
        .arg("--layer")
        .arg(top)
        .arg("--layer")
        .arg(more)
        .ok();
    r.requests();
    s.cmd(["push", "three", &three]).ok();
    let asked = r.requests();
    let sent = asked.iter().filter(|a| a.starts_with("PATCH")).count();
    assert_eq!(sent, 2, "the new layer and the configuration: {asked:#?}");
    s.cmd(["push", "three", &three]).ok();
    let asked = r.requests();
    assert!(
        !asked
            .iter()
            .any(|a| a.starts_with("PATCH") || a.starts_with("POST")),
        "{asked:#?}"
    );

    let t = TestStore::new(Who::Root);
    t.cmd(["pull", &one]).ok();
    r.requests();
    let out = t.cmd(["pull", &three]).run().succeeded();
    assert_eq!(
        r.blobs_got().len(),
        2,
        "the new layer and the configuration"
    );
    assert_eq!(
        out.err().matches("already in the store").count(),
        2,
        "{out}"
    );
    assert_eq!(
        t.cmd(["pull", "-q", &three]).ok(),
        s.cmd(["images", "-q", "--no-trunc", "three"]).ok()
    );
}

#[test]
fn what_was_made_here_is_compressed_once_and_comes_back_the_same() {
    let Some(r) = Registry::plain("what_was_made_here_is_compressed_once") else {
        return;
    };
    for who in Who::all() {
        let s = TestStore::with_tools(who);
        s.cmd([
            "run",
            "--name",
            "c",
            "tools",
            "sh",
            "-c",
            "echo changed >/etc/base; rm /etc/group",
        ])
        .ok();
        s.cmd(["commit", "c", "made"]).ok();
        for format in ["gzip", "zstd"] {
            let name = r.name(&format!("made/{who:?}-{format}").to_lowercase());
            let push = || {
                s.cmd(["push", "-q", "--compression-format", format, "made", &name])
                    .ok()
            };
            let digest = push();
            r.requests();
            assert_eq!(push(), digest, "the same bytes");
            let asked = r.requests();
            assert!(
                !asked.iter().any(|a| a.starts_with("PATCH")),
                "nothing is made again: {asked:#?}"
            );
            let inspected = json(&s.cmd(["manifest", "inspect", &name]).ok());
            let kind = inspected["layers"][1]["mediaType"]
                .as_str()
                .expect("a type")
                .to_owned();
            assert!(kind.ends_with(&format!("tar+{format}")), "{kind}");

            let t = TestStore::new(who);
            t.cmd(["pull", "-q", &name]).ok();
            assert_eq!(t.run(&format!("{name} cat /etc/base")).ok(), "changed");
            let _ = t
                .run(&format!("{name} ls /etc/group"))
                .run()
                .exited(2)
                .err();
            assert_eq!(t.cmd(["push", "-q", &name]).ok(), digest);
            let id = |s: &TestStore, name: &str| s.cmd(["images", "-q", "--no-trunc", name]).ok();
            assert_eq!(id(&t, &name), id(&s, "made"));
        }
        s.cmd(["rm", "c"]).ok();
    }
}

#[test]
fn run_pulls_what_is_missing_and_when_it_is_told_to() {
    let Some(r) = Registry::plain("run_pulls_what_is_missing") else {
        return;
    };
    let s = TestStore::with_tools(Who::Root);
    let name = r.name("run/tools");
    s.cmd(["push", "-q", "tools", &name]).ok();
    let t = TestStore::new(Who::Root);
    let run = |policy: &str| t.cmd(["run", "--rm", "--pull", policy, &name, "echo", "hi"]);
    run("never").run().failed_clearly(125, &["no image"]);
    assert_eq!(run("missing").ok(), "hi");
    r.requests();
    assert_eq!(run("missing").ok(), "hi");
    assert!(r.requests().is_empty(), "the registry is not asked");
    assert_eq!(run("always").ok(), "hi");
    assert_eq!(
        r.requests()
            .iter()
            .filter(|a| a.contains("/manifests/"))
            .count(),
        1
    );
    // At once: the default is to try again and again for longer.
    t.cmd(["run", "--rm", "localhost:1/nobody/there", "true"])
        .run()
        .failed_clearly(125, &["localhost:1/nobody/there", "cannot reach"]);
    t.cmd(["run", "--rm", &r.name("run/none"), "true"])
        .run()
        .failed_clearly(125, &["none"]);
    assert_eq!(listed(&t), 1);
}

#[test]
fn names_follow_registries_conf_and_mirrors_are_asked_first() {
    let Some(r) = Registry::plain("names_follow_registries_conf") else {
        return;
    };
    let s = store_with_two(Who::Root);
    s.cmd(["push", "-q", "two", &r.name("mirrored/x")]).ok();
    let conf = format!(
        "[[registry]]\nprefix = \"docker.io/library\"\nlocation = \"localhost:1/gone\"\n\
         [[registry.mirror]]\nlocation = \"localhost:1/dead\"\n\
         [[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n",
        r.name("mirrored")
    );
    let conf = s.file("registries.conf", conf);
    let t = TestStore::new(Who::Root);
    let out = t
        .cmd(["pull", "x"])
        .env("CONTAINERS_REGISTRIES_CONF", &conf)
        .run()
        .succeeded();
    assert!(
        out.err().contains("mirror localhost:1 is passed over"),
        "{out}"
    );
    assert!(
        t.cmd(["images"]).ok().lines().any(|l| l.starts_with("x ")),
        "under its own name"
    );
    s.file("registries.conf", "nonsense");
    t.cmd(["pull", "y"])
        .env("CONTAINERS_REGISTRIES_CONF", &conf)
        .run()
        .failed_clearly(1, &["registries.conf"]);
}

#[test]
fn a_layer_that_is_here_under_another_compression_is_not_fetched_and_the_image_is_whole() {
    let Some(r) = Registry::plain("a_layer_that_is_here_under_another_compression") else {
        return;
    };
    let s = TestStore::with_tools(Who::Root);
    s.cmd([
        "run",
        "--name",
        "c",
        "tools",
        "sh",
        "-c",
        "echo changed >/etc/base",
    ])
    .ok();
    s.cmd(["commit", "c", "made"]).ok();
    s.cmd(["rm", "c"]).ok();
    let name = r.name("again/made");
    let digest = s.cmd(["push", "-q", "made", &name]).ok();
    r.requests();
    s.cmd(["pull", "-q", &name]).ok();
    assert!(r.blobs_got().is_empty(), "its layers are here");
    s.cmd(["store", "gc"]).ok();
    s.cmd(["store", "verify"]).ok();
    // Unchanged, as far as the registry is concerned.
    assert_eq!(s.cmd(["push", "-q", &name]).ok(), digest);
    assert_eq!(
        s.cmd(["push", "-q", &name, &r.name("again/too")]).ok(),
        digest
    );
    // Another registry gets the very blobs, from the one that has them.
    let other = Registry::plain("another").expect("there was one");
    r.requests();
    let there = s.cmd(["push", "-q", &name, &other.name("x")]).ok();
    assert_eq!(there, digest);
    assert!(!r.blobs_got().is_empty(), "they were brought");
    s.cmd(["store", "verify"]).ok();
    // They are kept from then on.
    let third = Registry::plain("a third").expect("there was one");
    assert_eq!(s.cmd(["push", "-q", &name, &third.name("x")]).ok(), digest);
    assert!(r.blobs_got().is_empty(), "they are here");
    let t = TestStore::new(Who::Root);
    assert_eq!(
        t.run(&format!("{} cat /etc/base", other.name("x"))).ok(),
        "changed"
    );
    let file = s.path("saved.tar");
    s.cmd(["save", "-q", "-o"]).arg(&file).arg(&name).ok();
    let u = TestStore::new(Who::Root);
    u.cmd(["load", "-q", "-i"]).arg(&file).ok();
    assert_eq!(
        u.run(&format!("--pull never {name} cat /etc/base")).ok(),
        "changed"
    );
    u.cmd(["store", "verify"]).ok();
}

#[test]
fn a_blob_that_is_neither_here_nor_to_be_had_is_told_of_when_its_layer_is_made_anew() {
    let Some(r) = Registry::plain("a_blob_that_is_neither_here_nor_to_be_had") else {
        return;
    };
    let s = TestStore::with_tools(Who::Root);
    let name = r.name("gone/x");
    let change = [
        "run",
        "--name",
        "c",
        "tools",
        "sh",
        "-c",
        "echo new >/etc/base",
    ];
    s.cmd(change).ok();
    s.cmd(["commit", "c", "made"]).ok();
    s.cmd(["rm", "c"]).ok();
    s.cmd(["push", "-q", "made", &name]).ok();
    s.cmd(["pull", "-q", &name]).ok();
    let other = Registry::plain("another").expect("there was one");
    drop(r);
    let out = s
        .cmd(["push", "--retry", "0", &name, &other.name("x")])
        .run()
        .succeeded();
    assert!(out.err().contains("compressed anew"), "{out}");
    let u = TestStore::new(Who::Root);
    let says = u.run(&format!("{} cat /etc/base", other.name("x"))).ok();
    assert_eq!(says, "new");
}
