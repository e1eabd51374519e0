//! skopeo and podman on the other side.

use std::path::Path;

use pellicle_tests::{Outcome, TestStore, Who, archive::Archive, skip};

use crate::{installed, json, noise, program, server::Registry};

fn skopeo(args: &[&str]) -> Outcome {
    let all: Vec<&str> = ["--insecure-policy"].iter().chain(args).copied().collect();
    program("skopeo", &all)
}

/// podman with a storage of its own.
fn podman(dir: &Path, args: &[&str]) -> Outcome {
    let at = |name: &str| dir.join(name).display().to_string();
    let (root, run) = (at("podman"), at("podman-run"));
    let fixed = [
        "--root",
        &root,
        "--runroot",
        &run,
        "--storage-driver",
        "vfs",
        "--cgroup-manager",
        "cgroupfs",
    ];
    let all: Vec<&str> = fixed.iter().chain(args).copied().collect();
    program("podman", &all)
}

#[test]
fn skopeo_reads_what_is_pushed_and_what_it_writes_is_pulled() {
    const TEST: &str = "skopeo_reads_what_is_pushed";
    let Some(r) = Registry::plain(TEST) else {
        return;
    };
    if !installed("skopeo") {
        return skip(TEST, "skopeo is not installed");
    }
    let s = TestStore::new(Who::Root);
    let layer = s.file(
        "l.tar",
        Archive::new().dir("d/").file("d/f", noise(7, 50_000)).end(),
    );
    s.cmd(["import"]).arg(layer).arg("x").ok();
    for format in ["gzip", "zstd"] {
        let name = r.name(&format!("ours-{format}"));
        let digest = s
            .cmd(["push", "-q", "--compression-format", format, "x", &name])
            .ok();
        let source = format!("docker://{name}");
        let told = json(
            &skopeo(&["inspect", "--tls-verify=false", &source])
                .succeeded()
                .out(),
        );
        assert_eq!(told["Digest"], digest.as_str());
        let dir = format!("dir:{}", s.path(format).display());
        let _ = skopeo(&["copy", "--src-tls-verify=false", &source, &dir]).succeeded();
    }
    let diff_ids =
        |s: &TestStore, name: &str| json(&s.cmd(["inspect", name]).ok())[0]["RootFS"].clone();
    let source = format!("docker://{}", r.name("ours-gzip"));
    for (to, more) in [
        (
            "oci-gzip",
            &["--format", "oci", "--dest-compress-format", "gzip"][..],
        ),
        (
            "oci-zstd",
            &["--format", "oci", "--dest-compress-format", "zstd"],
        ),
        ("schema-2", &["--format", "v2s2"]),
    ] {
        let name = r.name(&format!("theirs-{to}"));
        let dest = format!("docker://{name}");
        let mut args = vec!["copy", "--src-tls-verify=false", "--dest-tls-verify=false"];
        args.extend(more);
        args.extend([source.as_str(), &dest]);
        let _ = skopeo(&args).succeeded();
        let theirs = json(
            &skopeo(&["inspect", "--tls-verify=false", &dest])
                .succeeded()
                .out(),
        )["Digest"]
            .clone();
        let t = TestStore::new(Who::Root);
        t.cmd(["pull", "-q", &name]).ok();
        assert_eq!(diff_ids(&t, &name), diff_ids(&s, "x"), "{to}");
        // Unchanged, it keeps its digest.
        let back = t
            .cmd(["push", "-q", &name, &r.name(&format!("back-{to}"))])
            .ok();
        assert_eq!(theirs, back.as_str(), "{to}");
    }
}

#[test]
fn podman_pulls_what_is_pushed_and_what_it_pushes_is_pulled() {
    const TEST: &str = "podman_pulls_what_is_pushed";
    let Some(r) = Registry::plain(TEST) else {
        return;
    };
    if let Some(why) = Who::Root.missing() {
        return skip(TEST, &why);
    }
    if !installed("podman") {
        return skip(TEST, "podman is not installed");
    }
    let s = TestStore::with_tools(Who::Root);
    let dir = s.directory("p");
    for format in ["gzip", "zstd"] {
        let name = r.name(&format!("ours-{format}"));
        s.cmd(["push", "-q", "--compression-format", format, "tools", &name])
            .ok();
        let _ = podman(&dir, &["pull", "-q", "--tls-verify=false", &name]).succeeded();
        let id = podman(&dir, &["image", "inspect", "--format", "{{.Id}}", &name])
            .succeeded()
            .out();
        assert!(
            s.cmd(["images", "-q", "--no-trunc", "tools"])
                .ok()
                .ends_with(&id)
        );
    }
    for format in ["oci", "v2s2"] {
        let name = r.name(&format!("theirs-{format}"));
        let ours = r.name("ours-gzip");
        let _ = podman(
            &dir,
            &[
                "push",
                "-q",
                "--tls-verify=false",
                "--format",
                format,
                &ours,
                &name,
            ],
        )
        .succeeded();
        let t = TestStore::new(Who::Root);
        assert_eq!(
            t.run(&format!("{name} cat /etc/base")).ok(),
            "from the image"
        );
    }
    let _ = podman(&dir, &["rmi", "-af"]).succeeded();
}

#[test]
fn a_manifest_has_the_form_that_is_asked_for_and_skopeo_reads_it() {
    const TEST: &str = "a_manifest_has_the_form_that_is_asked_for";
    let Some(r) = Registry::plain(TEST) else {
        return;
    };
    if !installed("skopeo") {
        return skip(TEST, "skopeo is not installed");
    }
    let s = TestStore::new(Who::Root);
    let layer = s.file("l.tar", Archive::new().file("f", noise(9, 50_000)).end());
    s.cmd(["import"]).arg(layer).arg("x").ok();
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    let oci = "application/vnd.oci.image.manifest.v1+json";
    let raw = |at: &str| {
        json(
            &skopeo(&["inspect", "--raw", "--tls-verify=false", at])
                .succeeded()
                .out(),
        )
    };
    let push = |args: &[&str], name: &str| s.cmd(["push", "-q"]).args(args).arg("x").arg(name).ok();
    let (first, second) = (r.name("form:oci"), r.name("form:docker"));
    push(&[], &first);
    let told = json(&push(&["--format", "v2s2", "-f", "json"], &second));
    for (name, kind) in [(&first, oci), (&second, docker)] {
        let source = format!("docker://{name}");
        assert_eq!(raw(&source)["mediaType"], kind);
        let (dir, flag) = (
            format!("dir:{}", s.path("copy").display()),
            "--src-tls-verify=false",
        );
        let _ = skopeo(&["copy", flag, &source, &dir]).succeeded();
    }
    let layers = |name: &str| raw(&format!("docker://{name}"))["layers"][0]["digest"].clone();
    assert_eq!(
        layers(&first),
        layers(&second),
        "only the manifest is another"
    );
    let digest = told["Digest"].as_str().expect("a digest");
    // From docker's form to OCI's, with the same image in it.
    let t = TestStore::new(Who::Root);
    let pinned = format!("{}@{digest}", r.name("form"));
    let id = t.cmd(["pull", "-q", &pinned]).ok();
    assert_eq!(s.cmd(["inspect", "-f", "{{.Id}}", "x"]).ok(), id);
    let back = r.name("back:1");
    t.cmd(["push", "-q", "--format", "oci", &pinned, &back])
        .ok();
    assert_eq!(raw(&format!("docker://{back}"))["mediaType"], oci);
    let layout = format!("oci:{}:1", t.path("layout").display());
    t.cmd(["push", "-q", "--format", "oci", &pinned, &layout])
        .ok();
    assert_eq!(raw(&layout)["mediaType"], oci);
    // A directory for skopeo and podman.
    let dir = s.path("saved");
    s.cmd(["save", "-q", "--format", "docker-dir", "-o"])
        .arg(&dir)
        .arg("x")
        .ok();
    let source = format!("dir:{}", dir.display());
    assert_eq!(raw(&source)["mediaType"], docker);
    let copied = r.name("copied:1");
    let target = format!("docker://{copied}");
    let _ = skopeo(&["copy", "--dest-tls-verify=false", &source, &target]).succeeded();
    assert_eq!(t.cmd(["pull", "-q", &copied]).ok(), id);
    // And back, also as skopeo writes it.
    for from in [&dir, &s.path("copy")] {
        let u = TestStore::new(Who::Root);
        u.cmd(["load", "-q", "--name", "back", "-i"]).arg(from).ok();
        assert_eq!(u.cmd(["inspect", "-f", "{{.Id}}", "back"]).ok(), id);
    }
    let manifest = s.path("copy").join("manifest.json");
    std::fs::write(&manifest, r#"{"schemaVersion":2,"manifests":[]}"#).expect("write");
    t.cmd(["load", "-i"])
        .arg(s.path("copy"))
        .run()
        .failed_clearly(1, &["manifest"]);
    // What cannot be.
    let refused = |args: &[&str], code: i32, words: &[&str]| {
        s.cmd(["push", "-q"])
            .args(args)
            .run()
            .failed_clearly(code, words);
    };
    refused(
        &["--format", "v2s2", "x", &layout],
        2,
        &["OCI", "docker-dir"],
    );
    let zstd = ["--compression-format", "zstd"];
    refused(
        &[&zstd[..], &["--format", "docker", "x", &first]].concat(),
        2,
        &["zstd"],
    );
    push(&zstd, &r.name("z:1"));
    let z = TestStore::new(Who::Root);
    z.cmd(["pull", "-q", &r.name("z:1")]).ok();
    z.cmd([
        "push",
        "-q",
        "--format",
        "v2s2",
        &r.name("z:1"),
        &r.name("z:2"),
    ])
    .run()
    .failed_clearly(1, &["zstd", "--format oci"]);
    z.cmd(["save", "-q", "--format", "docker-dir", "-o"])
        .arg(z.path("saved"))
        .arg(r.name("z:1"))
        .run()
        .failed_clearly(1, &["zstd", "--format"]);
    assert!(!z.path("saved").exists(), "nothing is left");
    let other = s.file("o.tar", Archive::new().file("o", "other").end());
    s.cmd(["import", "-q"]).arg(other).arg("other").ok();
    s.cmd(["save", "--format", "docker-dir", "-o"])
        .arg(s.path("two"))
        .args(["x", "other"])
        .run()
        .failed_clearly(2, &["one image"]);
}
