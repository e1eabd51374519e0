//! Images that other programs read, and base images that they made.

use std::{fs, process::Command, time::Duration};

use pellicle_tests::{Cmd, LET_GO, Outcome, Who, skip};
use serde_json::Value;

use crate::support::{Site, installed};

const TEXT: &str = "FROM tools\nRUN echo one >/one && rm /etc/base && mkdir /d\nCOPY --chown=7:8 f /d/\n\
                    ENV A=1\nHEALTHCHECK CMD true\nCMD [\"cat\", \"/one\", \"/d/f\"]\n";

/// crun takes no mixture of cgroups of both versions.
const WITH_CGROUPS: &str = r#"
    eval "$LET_GO"
    if [ ! -e /sys/fs/cgroup/cgroup.controllers ]; then
        umount -R -l /sys/fs/cgroup 2>/dev/null
        mount -t cgroup2 cgroup2 /sys/fs/cgroup || exit 99
    fi
    exec "$@"
"#;

const LIMIT: Duration = Duration::from_secs(300);

fn program(name: &str, args: &[&str]) -> Outcome {
    let mut command = Command::new(name);
    command.args(args);
    Cmd::new(command).limit(LIMIT).run()
}

#[test]
fn skopeo_umoci_and_podman_read_what_is_built() {
    let test = "skopeo_umoci_and_podman_read_what_is_built";
    for who in Who::all() {
        let b = Site::new(who);
        b.file("f", "copied\n");
        b.built(TEXT, &[]);
        let layout = b.s.path("layout");
        let archive = b.s.path("x.tar");
        b.s.cmd(["save", "--format", "oci-dir", "-o"])
            .arg(&layout)
            .arg("x")
            .ok();
        b.s.cmd(["save", "-o"]).arg(&archive).arg("x").ok();
        for name in ["skopeo", "umoci"] {
            if !installed(name) {
                skip(test, &format!("{name} is not installed"));
            }
        }
        let oci = format!("oci:{}", layout.display());
        if installed("skopeo") {
            let told = program("skopeo", &["inspect", "--config", &oci])
                .succeeded()
                .out();
            let told: Value = serde_json::from_str(&told).unwrap();
            assert_eq!(told.pointer("/config/Cmd/0").unwrap(), "cat");
            let steps = told.get("history").and_then(Value::as_array).unwrap();
            let layers = told
                .pointer("/rootfs/diff_ids")
                .and_then(Value::as_array)
                .unwrap();
            let full = steps
                .iter()
                .filter(|s| s.get("empty_layer").is_none())
                .count();
            assert_eq!((full, layers.len()), (3, 3), "history and layers fit");
            let copy = format!("dir:{}", b.s.path("copy").display());
            let _ = program("skopeo", &["copy", &oci, &copy]).succeeded();
        }
        if installed("umoci") && nix::unistd::geteuid().is_root() {
            let bundle = b.s.path("bundle");
            let image = format!("{}:latest", layout.display());
            let _ = program(
                "umoci",
                &["unpack", "--image", &image, bundle.to_str().unwrap()],
            )
            .succeeded();
            let root = bundle.join("rootfs");
            assert_eq!(fs::read_to_string(root.join("d/f")).unwrap(), "copied\n");
            assert!(!root.join("etc/base").exists());
        }
    }
}

#[test]
fn podman_runs_what_is_built_and_we_build_on_what_it_saves() {
    let test = "podman_runs_what_is_built_and_we_build_on_what_it_saves";
    if !installed("podman") || !nix::unistd::geteuid().is_root() {
        skip(test, "podman is not installed, or this is not root");
        return;
    }
    let Some(who) = Who::all().into_iter().find(|w| *w == Who::Root) else {
        return;
    };
    let b = Site::new(who);
    b.file("f", "copied\n");
    b.built(TEXT, &[]);
    let archive = b.s.path("x.tar");
    b.s.cmd(["save", "-o"]).arg(&archive).arg("x").ok();
    let (root, run) = (b.s.directory("podman"), b.s.directory("podman-run"));
    let podman = |args: &[&str]| {
        let places = [
            "--root",
            root.to_str().unwrap(),
            "--runroot",
            run.to_str().unwrap(),
            "--storage-driver=vfs",
        ];
        let start = ["-m", "sh", "-c", WITH_CGROUPS, "sh", "podman"];
        let mut command = Command::new("unshare");
        command
            .args([&start[..], &places, args].concat())
            .env("LET_GO", LET_GO);
        Cmd::new(command).limit(LIMIT).run()
    };
    let loaded = podman(&["load", "-q", "-i", archive.to_str().unwrap()]).succeeded();
    let name = loaded
        .out()
        .rsplit(": ")
        .next()
        .unwrap_or_default()
        .trim()
        .to_owned();
    // Of the limits that podman would set, some are more than may be had here.
    let limits = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"];
    let run = ["run", "--rm", "--network=none", "--cgroups=disabled"];
    let ran = podman(&[&run[..], &limits, &[name.as_str()]].concat());
    assert_eq!(ran.succeeded().out(), "one\ncopied");
    let saved = b.s.path("podman.tar");
    let _ = podman(&[
        "save",
        "-q",
        "--format",
        "oci-archive",
        "-o",
        saved.to_str().unwrap(),
        &name,
    ])
    .succeeded();
    let text = format!(
        "FROM oci-archive:{}\nRUN cat /d/f >/again\n",
        saved.display()
    );
    b.built(&text, &[]);
    assert_eq!(b.says("cat /again"), "copied");
    let _ = podman(&["rmi", "-f", "-a"]);
}

#[test]
fn base_images_come_from_layouts_and_archives() {
    for who in Who::all() {
        let b = Site::new(who);
        let (layout, archive) = (b.s.path("layout"), b.s.path("a.tar"));
        b.s.cmd(["save", "--format", "oci-dir", "-o"])
            .arg(&layout)
            .arg("tools")
            .ok();
        b.s.cmd(["save", "-o"]).arg(&archive).arg("tools").ok();
        b.s.cmd(["rmi", "tools"]).ok();
        for from in [
            format!("oci:{}", layout.display()),
            format!("oci:{}:latest", layout.display()),
            format!("docker-archive:{}", archive.display()),
        ] {
            b.built(&format!("FROM {from}\nRUN echo {} >/f\n", from.len()), &[]);
            assert_eq!(b.says("cat /f"), from.len().to_string());
        }
        b.build(&format!("FROM oci:{}:none\n", layout.display()), &[])
            .run()
            .failed_clearly(1, &["Containerfile:1", "none"]);
        b.build("FROM oci:/no/such\n", &[])
            .run()
            .failed_clearly(1, &["Containerfile:1", "/no/such"]);
    }
}

#[test]
fn history_and_inspect_tell_of_the_steps() {
    for who in Who::all().into_iter().take(1) {
        let b = Site::new(who);
        b.file("f", "copied\n");
        b.built(TEXT, &[]);
        let told = b.s.cmd(["history", "--no-trunc", "x"]).ok();
        for line in [
            "RUN echo one",
            "COPY --chown=7:8 f /d/",
            "ENV A=1",
            "CMD [\"cat\"",
        ] {
            assert!(told.contains(line), "{told}");
        }
    }
}
