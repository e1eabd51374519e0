//! Images in layouts and archives, named as skopeo and podman name them.

use std::fs;

use pellicle_tests::{TestStore, Who, archive::Archive, skip};

use crate::{installed, json, program};

/// `oci:DIR` of a test's own directory.
fn place(s: &TestStore, kind: &str, name: &str) -> String {
    format!("{kind}:{}", s.path(name).display())
}

#[test]
fn a_pushed_layout_keeps_its_other_tags_and_is_read_by_all_commands() {
    for who in Who::all() {
        let s = TestStore::with_tools(who);
        let more = s.file("more.tar", Archive::new().file("x", "y").end());
        s.cmd(["import"]).arg(&more).arg("other").ok();
        s.directory("room");
        let at = place(&s, "oci", "room/layout");
        let (a, b) = (format!("{at}:a"), format!("{at}:b"));
        let digest = s.cmd(["push", "-q", "tools", &a]).ok();
        s.cmd(["push", "-q", "other", &b]).ok();
        assert_eq!(
            s.cmd(["push", "-q", "tools", &a]).ok(),
            digest,
            "the same bytes"
        );
        let index = fs::read_to_string(s.path("room/layout/index.json")).expect("read");
        assert_eq!(json(&index)["manifests"].as_array().map(Vec::len), Some(2));

        let t = TestStore::new(who);
        assert_eq!(t.run(&format!("{a} cat /etc/base")).ok(), "from the image");
        assert_eq!(
            t.cmd(["images", "--format", "{{.Repository}}"]).ok(),
            "<none>",
            "run gives it no name"
        );
        let told = json(&t.cmd(["pull", "-q", "--format", "json", &a]).ok());
        assert_eq!(told["Digest"], digest.as_str());
        assert_eq!(t.run("layout:a cat /etc/base").ok(), "from the image");
        let manifest = json(&t.cmd(["manifest", "inspect", &a]).ok());
        let kind = manifest["layers"][0]["mediaType"].as_str().expect("a type");
        assert!(kind.ends_with("tar+gzip"), "{kind}");
        let listed = t
            .cmd(["history", &b, "--format", "{{.CreatedBy}}", "--no-trunc"])
            .ok();
        assert!(listed.contains("pellicle import"), "{listed}");
        // The layer is compressed there; back here it is the same image.
        let id = |s: &TestStore, name: &str| s.cmd(["inspect", "-f", "{{.Id}}", name]).ok();
        assert_eq!(id(&t, "layout:a"), id(&s, "tools"));
        t.cmd(["pull", &at])
            .run()
            .failed_clearly(1, &["2 images", "there are b, a"]);
        t.cmd(["pull", &format!("{at}:none")])
            .run()
            .failed_clearly(1, &["no image none"]);
        assert_eq!(
            t.cmd(["pull", "-q", &format!("{at}:@1")]).ok(),
            t.cmd(["pull", "-q", &a]).ok(),
            "the newest is last"
        );
        t.cmd(["store", "verify"]).ok();
    }
}

#[test]
fn skopeo_and_umoci_read_what_is_pushed() {
    const TEST: &str = "skopeo_and_umoci_read_what_is_pushed";
    for name in ["skopeo", "umoci"] {
        if !installed(name) {
            return skip(TEST, &format!("{name} is not installed"));
        }
    }
    let s = TestStore::with_tools(Who::Root);
    s.directory("room");
    let layout = s.path("room/layout").display().to_string();
    let mut digests = Vec::new();
    for (format, tag) in [("gzip", "one"), ("zstd", "two")] {
        let to = format!("oci:{layout}:{tag}");
        let how = ["push", "-q", "--compression-format", format, "tools", &to];
        let digest = s.cmd(how).ok();
        let told = program("skopeo", &["inspect", &to]).succeeded().out();
        assert_eq!(json(&told)["Digest"], digest.as_str());
        digests.push(digest);
    }
    let tags = program("umoci", &["ls", "--layout", &layout]).succeeded();
    assert_eq!(tags.out().lines().collect::<Vec<_>>(), ["one", "two"]);
    let bundle = s.path("bundle").display().to_string();
    let image = format!("{layout}:one");
    let _ = program("umoci", &["unpack", "--image", &image, &bundle]).succeeded();
    let base = fs::read_to_string(s.path("bundle/rootfs/etc/base")).expect("read");
    assert_eq!(base.trim_end(), "from the image");
    let archive = place(&s, "oci-archive", "room/a.tar");
    let digest = s
        .cmd(["push", "-q", "tools", &format!("{archive}:one")])
        .ok();
    assert_eq!(digest, digests[0], "an archive holds the same");
    let told = program("skopeo", &["inspect", &archive]).succeeded().out();
    assert_eq!(json(&told)["Digest"], digest.as_str());
    let docker = place(&s, "docker-archive", "room/d.tar");
    s.cmd(["push", "-q", "tools", &format!("{docker}:some/name:1")])
        .ok();
    let told = program("skopeo", &["inspect", "--config", &docker]);
    assert_eq!(json(&told.succeeded().out())["os"], "linux");
}

#[test]
fn archives_are_pushed_pulled_run_mounted_and_loaded() {
    for who in Who::all() {
        let s = TestStore::with_tools(who);
        s.directory("room");
        let oci = place(&s, "oci-archive", "room/a.tar");
        let docker = place(&s, "docker-archive", "room/d.tar");
        s.cmd(["push", "-q", "tools", &format!("{oci}:v1")]).ok();
        s.cmd(["push", "-q", "tools", &format!("{docker}:some/name:v1")])
            .ok();
        s.cmd(["push", "tools", &docker])
            .run()
            .failed_clearly(1, &["d.tar", "already"]);
        let t = TestStore::new(who);
        for at in [&oci, &docker] {
            assert_eq!(t.run(&format!("{at} cat /etc/base")).ok(), "from the image");
        }
        t.cmd(["pull", "-q", &docker]).ok();
        assert_eq!(t.run("some/name:v1 cat /etc/base").ok(), "from the image");
        t.cmd(["load", "-q", "-i", &format!("{oci}:v1")]).ok();
        assert_eq!(t.run("a:v1 cat /etc/base").ok(), "from the image");
        let saved = t.path("saved.tar");
        t.cmd(["save", "-q", "-o"]).arg(&saved).arg(&oci).ok();
        assert!(fs::metadata(saved).expect("saved").len() > 0);
        // It is a layout as well.
        let manifest = json(&t.cmd(["manifest", "inspect", &docker]).ok());
        assert_eq!(manifest["layers"].as_array().map(Vec::len), Some(1));
        if who.ids().0 == nix::unistd::geteuid().as_raw() {
            let dir = t.directory("at");
            t.cmd(["mount", &oci]).arg(&dir).ok();
            assert!(dir.join("etc/base").exists());
            t.unmount(&dir);
        }
    }
}

#[test]
fn what_cannot_be_read_or_written_says_how_to_get_there() {
    let s = TestStore::with_tools(Who::Root);
    s.cmd(["run", "--rm", "containers-storage:debian", "true"])
        .run()
        .failed_clearly(125, &["containers-storage", "podman save"]);
    s.cmd(["pull", "docker-daemon:debian:12"])
        .run()
        .failed_clearly(1, &["docker-daemon", "docker save"]);
    s.cmd(["push", "tools", "dir:/tmp/x"])
        .run()
        .failed_clearly(1, &["dir", "skopeo copy"]);
    s.cmd(["pull", "oci:/nowhere/at/all:x"])
        .run()
        .failed_clearly(1, &["/nowhere/at/all"]);
    let full = s.directory("full");
    fs::write(full.join("file"), "mine").expect("write");
    s.cmd(["push", "tools", &place(&s, "oci", "full")])
        .run()
        .failed_clearly(1, &["full", "no OCI layout"]);
    assert_eq!(fs::read_dir(&full).expect("list").count(), 1, "untouched");
    s.cmd(["push", "tools", &format!("{}:@0", place(&s, "oci", "new"))])
        .run()
        .failed_clearly(2, &["@0"]);
    // A layer whose bytes are not what its name says.
    s.directory("room");
    let at = place(&s, "oci", "room/bad");
    s.cmd(["push", "-q", "tools", &format!("{at}:x")]).ok();
    let manifest = json(&s.cmd(["manifest", "inspect", &format!("{at}:x")]).ok());
    let layer = manifest["layers"][0]["digest"].as_str().expect("a digest");
    let blob = s
        .path("room/bad/blobs/sha256")
        .join(layer.trim_start_matches("sha256:"));
    let mut bytes = fs::read(&blob).expect("read");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&blob, bytes).expect("write");
    let t = TestStore::new(Who::Root);
    let out = t.cmd(["pull", &format!("{at}:x")]).run();
    out.failed_clearly(1, &["cannot pull"]);
    assert_eq!(t.cmd(["images", "-aq"]).ok(), "", "nothing is listed");
}

#[test]
fn pushes_into_one_layout_at_the_same_time_lose_nothing() {
    let s = TestStore::with_tools(Who::Root);
    s.directory("room");
    let at = place(&s, "oci", "room/layout");
    let tags: Vec<String> = (0..4).map(|n| format!("{at}:t{n}")).collect();
    let all: Vec<_> = tags
        .iter()
        .map(|to| s.cmd(["push", "-q", "tools", to]).spawn())
        .collect();
    let digests: Vec<String> = all
        .into_iter()
        .map(|r| r.wait().succeeded().out())
        .collect();
    assert!(digests.iter().all(|d| *d == digests[0]), "{digests:?}");
    for tag in &tags {
        s.cmd(["manifest", "inspect", tag]).ok();
    }
}
