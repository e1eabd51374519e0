//! The program as a person meets it: exit codes and messages.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's helpers fail the test that calls them"
)]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn pellicle(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_pellicle"))
            .args(args)
            .current_dir(self.path())
            .env("PELLICLE_ROOT", self.path().join("store"))
            .env_remove("PELLICLE_LOG")
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap()
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.pellicle(args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A directory that makes a small image.
    fn rootfs(&self) {
        fs::create_dir_all(self.path().join("rootfs/bin")).unwrap();
        fs::write(self.path().join("rootfs/bin/sh"), "no shell\n").unwrap();
    }

    fn shell(&self, line: &str) {
        let status = Command::new("sh")
            .arg("-ec")
            .arg(line)
            .current_dir(self.path())
            .status();
        assert!(status.unwrap().success(), "{line}");
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_mistake_gives_one_message_with_the_right_exit_code() {
    let home = Home::new();
    fs::write(home.path().join("junk"), [b'x'; 4096]).unwrap();
    fs::write(home.path().join("empty"), "").unwrap();
    fs::create_dir(home.path().join("dir")).unwrap();
    for (args, code, says) in [
        (&["imprt", "x"][..], 2, "import"),
        (&[], 2, "no command given"),
        (&["import", "absent.tar", "x"], 1, "absent.tar"),
        (&["import", "dir", "No Name"], 1, "is no image name"),
        (&["import", "dir", "x@sha256:00"], 1, "64 hex digits"),
        (
            &["import", "-c", "RUN true", "dir", "x"],
            2,
            "CMD, ENTRYPOINT",
        ),
        (&["import", "junk", "x"], 1, "junk"),
        (&["import", "empty", "x"], 1, "empty"),
        (&["import", "-", "x", "--layer", "-"], 2, "only one"),
        (&["load", "-i", "absent"], 1, "absent"),
        (&["load", "-i", "junk"], 1, "tar"),
        (&["load", "-i", "empty"], 1, "empty"),
        (&["load", "-i", "dir"], 1, "holds no images"),
        (&["load", "--platform", "windows/amd64"], 2, "linux"),
        (&["rmi", "absent"], 1, "no image"),
        (&["tag", "absent", "x"], 1, "no image"),
        (&["tag", "absent", "UPPER"], 1, "lower case"),
        (&["inspect", "absent"], 1, "pellicle import"),
        (&["history", "absent"], 1, "no image"),
        (&["images", "--format", "{{.Nope"], 125, "is no format"),
        (&["mount", "absent", "dir"], 1, "no image"),
        (&["mount", "absent", "nowhere"], 1, "mkdir"),
        (&["mount", "./absent.tar", "dir"], 1, "absent.tar"),
        (&["mount", "./dir", "dir"], 1, "is a directory"),
        (&["umount", "dir"], 1, "nothing of Pellicle's"),
        (&["store", "gc", "--nope"], 2, "--nope"),
        (&["--log-level", "a=b=c", "images"], 2, "log level"),
        (&["--root", "/proc/nowhere", "images"], 1, "/proc/nowhere"),
        (&["--root", "junk/store", "images"], 1, "junk/store"),
        (&["run", "--no-such-flag"], 125, "--no-such-flag"),
        (&["exec", "--no-such-flag"], 125, "--no-such-flag"),
    ] {
        let output = home.pellicle(args);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        assert!(text.starts_with("pellicle: error: "), "{args:?}: {text}");
        assert!(
            text.contains(says),
            "{args:?} does not say {says:?}: {text}"
        );
        assert_eq!(
            text.matches("pellicle: error:").count(),
            1,
            "{args:?}: {text}"
        );
        assert!(!text.contains("panicked"), "{args:?}: {text}");
    }
}

#[test]
fn help_completion_and_version_need_no_home() {
    for args in [
        &["--help"][..],
        &["run", "--help"],
        &["completion", "bash"],
        &["completion", "zsh"],
        &["version"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_pellicle"))
            .args(args)
            .env_clear()
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        assert!(!output.stdout.is_empty());
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_program_quietly() {
    let home = Home::new();
    let line = format!(
        "exec 3>&1; {} completion bash 2>err | true; test ! -s err",
        env!("CARGO_BIN_EXE_pellicle")
    );
    home.shell(&line);
}

#[test]
fn an_imported_image_is_listed_tagged_and_removed() {
    let home = Home::new();
    home.rootfs();
    let id = home.ok(&[
        "import", "-q", "-c", "ENV A=1", "-m", "why", "rootfs", "x:1",
    ]);
    assert!(id.starts_with("sha256:"), "{id}");
    home.ok(&["tag", "x:1", "quay.io/a/b"]);
    let list = home.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    assert!(
        list.contains("x:1\n") && list.contains("quay.io/a/b:latest\n"),
        "{list}"
    );
    let inspect: serde_json::Value = serde_json::from_str(&home.ok(&["inspect", "x:1"])).unwrap();
    assert_eq!(inspect[0]["Id"], id.trim());
    assert_eq!(inspect[0]["Config"]["Cmd"][0], "/bin/sh");
    assert_eq!(inspect[0]["Config"]["Env"][0], "A=1");
    assert!(home.ok(&["history", "x:1"]).contains("why"));
    assert_eq!(home.ok(&["rmi", "x:1"]), "Untagged: x:1\n");
    let gone = home.ok(&["rmi", "quay.io/a/b"]);
    assert!(gone.contains(&format!("Deleted: {}", id.trim())), "{gone}");
    assert_eq!(home.ok(&["images", "-q"]), "");
    let df = home.ok(&["store", "df", "--format", "{{.Type}} {{.Files}}"]);
    assert!(
        df.contains("trees 0\n") && df.contains("blobs 0\n"),
        "collected: {df}"
    );
}

#[test]
fn a_failed_import_leaves_no_image_and_no_layer() {
    let home = Home::new();
    home.rootfs();
    home.shell("tar cf good.tar rootfs; head -c 1500 good.tar >cut.tar");
    let output = home.pellicle(&["import", "good.tar", "x", "--layer", "cut.tar"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cut.tar"), "{}", stderr(&output));
    assert_eq!(home.ok(&["images", "-q"]), "");
    let df = home.ok(&["store", "df", "--format", "{{.Type}} {{.Files}}"]);
    assert!(df.contains("trees 0\n"), "{df}");
}

#[test]
fn damage_is_found_and_the_image_it_touches_is_named() {
    let home = Home::new();
    home.rootfs();
    home.ok(&["import", "rootfs", "x:1"]);
    assert!(home.ok(&["store", "verify"]).contains("no damage"));
    home.shell("f=$(find store/blobs -type f | head -1); chmod u+w \"$f\"; printf x >>\"$f\"");
    let output = home.pellicle(&["store", "verify"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("damaged blob") && text.contains("x:1"),
        "{text}"
    );
}

#[test]
fn an_image_in_use_by_a_container_stays() {
    let home = Home::new();
    home.rootfs();
    let id = home.ok(&["import", "-q", "rootfs", "x"]);
    let inspect: serde_json::Value = serde_json::from_str(&home.ok(&["inspect", "x"])).unwrap();
    let dir = home.path().join("store/containers/c0ffee");
    fs::create_dir_all(&dir).unwrap();
    let config = serde_json::json!({
        "image_id": id.trim(), "diff_ids": inspect[0]["RootFS"]["Layers"],
    });
    fs::write(dir.join("state.json"), config.to_string()).unwrap();
    let output = home.pellicle(&["rmi", "x"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("c0ffee"), "{}", stderr(&output));
    home.ok(&["rmi", "-f", "x"]);
    let df = home.ok(&["store", "df", "--format", "{{.Type}} {{.Files}}"]);
    assert!(
        !df.contains("trees 0\n"),
        "the container keeps its layers: {df}"
    );
}
