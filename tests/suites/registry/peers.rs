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
