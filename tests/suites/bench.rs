//! `pellicle-bench` measures, cleans up after itself, and makes a page that a browser shows. No time
//! is asserted: what is measured here is far too small to mean anything.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::sys::signal::Signal;
use pellicle_tests::{
    Cmd, Running, TestStore, Who, debian_layers, pellicle, pellicle_overlay, skip, wait_for,
};
use serde_json::Value;

/// A workload over a small directory, that takes no time.
const WORKLOAD: &str = r#"
name = "tiny"
about = "change a tiny tree"
lower = "LOWER"
setup = ["touch prepared"]
run = ["test -e {dir}/prepared", "echo more >>a/file", "rm b", "ls a >{work}/listed"]
cleanup = ["grep -q file {work}/listed"]
"#;

/// `pellicle-bench`, built beside this test.
fn bench() -> PathBuf {
    let path = pellicle().with_file_name("pellicle-bench");
    assert!(
        path.is_file(),
        "{} is missing: build it first (cargo build -p pellicle-bench)",
        path.display()
    );
    path
}

/// Why nothing can be measured here, if so.
fn missing(who: Who) -> Option<String> {
    if !Path::new("/dev/fuse").exists() {
        return Some("there is no /dev/fuse".to_owned());
    }
    who.missing()
}

/// A store with what a run needs: `tiny.toml` and the tree that it is about.
fn prepared(who: Who) -> TestStore {
    let s = TestStore::new(who);
    for dir in ["lower", "lower/a", "work", "cache"] {
        s.directory(dir);
    }
    s.file("lower/a/file", "one\n");
    s.file("lower/b", "two\n");
    let lower = s.path("lower").display().to_string();
    s.file("tiny.toml", WORKLOAD.replace("LOWER", &lower));
    s
}

/// `pellicle-bench run` with what every test gives.
fn run(s: &TestStore, args: &[&str]) -> Cmd {
    let mut command = Command::new(bench());
    command.current_dir(s.path("work"));
    Cmd::new(command)
        .arg("run")
        .arg("--pellicle")
        .arg(pellicle())
        .arg("--overlay")
        .arg(pellicle_overlay())
        .arg("--work")
        .arg(s.path("work"))
        .arg("--cache")
        .arg(s.path("cache"))
        .args(args)
        .limit(Duration::from_secs(900))
}

fn read(path: &Path) -> Value {
    let text = fs::read_to_string(path).expect("the result is there");
    serde_json::from_str(&text).expect("it is JSON")
}

/// What is left in the directory that the run works in.
fn left_in(s: &TestStore) -> Vec<String> {
    fs::read_dir(s.path("work"))
        .expect("work")
        .map(|entry| {
            entry
                .expect("entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect()
}

/// The names of the drivers of `workload`'s rows.
fn drivers<'a>(report: &'a Value, workload: &str) -> Vec<&'a str> {
    let results = report["results"].as_array().expect("results");
    let result = results
        .iter()
        .find(|result| result["workload"] == workload)
        .unwrap_or_else(|| panic!("no {workload} in {report}"));
    let rows = result["rows"].as_array().expect("rows");
    rows.iter()
        .map(|row| row["driver"].as_str().expect("a name"))
        .collect()
}

const DRIVERS: [&str; 4] = ["overlayfs", "plain", "pellicle-dev", "overlay-dir-dev"];

fn measured_on_every_driver(s: &TestStore, rootless: bool) -> Value {
    let (file, output) = (s.path("tiny.toml"), s.path("out.json"));
    let mut args = vec![
        "--rounds",
        "2",
        "--driver",
        "plain",
        "--driver",
        "pellicle-dev",
        "--driver",
        "overlay-dir-dev",
        "--format",
        "json",
    ];
    let (file, output) = (file.to_str().expect("text"), output.to_str().expect("text"));
    args.extend(["--workload", file, "--output", output]);
    if rootless {
        args.push("--rootless");
    }
    let said = run(s, &args).ok();
    let report = read(Path::new(output));
    assert_eq!(serde_json::from_str::<Value>(&said).expect("JSON"), report);
    assert_eq!(report["rootless"], rootless);
    assert_eq!(drivers(&report, "tiny"), DRIVERS);
    for row in report["results"][0]["rows"].as_array().expect("rows") {
        assert_eq!(row["summary"]["samples"].as_array().map(Vec::len), Some(2));
        let ours = row["ours"] == true;
        let told = row["messages"].as_object().is_some_and(|m| !m.is_empty());
        assert_eq!(ours, told, "messages of {}", row["driver"]);
        assert_eq!(row["ratio"].is_null(), row["driver"] == "overlayfs");
    }
    // The lower tree is as it was.
    let file = fs::read_to_string(s.path("lower/a/file")).expect("read");
    assert_eq!(file, "one\n");
    assert!(s.path("lower/b").exists());
    assert!(left_in(s).is_empty(), "{:?}", left_in(s));
    report
}

#[test]
fn a_workload_of_a_file_is_measured_on_every_driver() {
    if let Some(why) = missing(Who::Root) {
        return skip("a_workload_of_a_file_is_measured_on_every_driver", &why);
    }
    measured_on_every_driver(&prepared(Who::Root), false);
}

#[test]
fn the_same_without_root() {
    let test = "the_same_without_root";
    if let Some(why) = missing(Who::Root).or_else(|| missing(Who::User)) {
        return skip(test, &why);
    }
    // Copying up needs an owner that the namespace knows.
    measured_on_every_driver(&prepared(Who::User), true);
}

#[test]
fn a_driver_that_fails_is_told_and_the_others_are_measured() {
    let test = "a_driver_that_fails_is_told_and_the_others_are_measured";
    if let Some(why) = missing(Who::Root) {
        return skip(test, &why);
    }
    let s = prepared(Who::Root);
    let odd = s.path("lower").display().to_string();
    // What is true on one driver only.
    s.file(
        "odd.toml",
        format!("name = 'odd'\nlower = '{odd}'\nrun = ['findmnt -n {{dir}} | grep -q overlay']"),
    );
    let (file, output) = (s.path("odd.toml"), s.path("out.json"));
    let outcome = run(&s, &["--rounds", "1", "--driver", "plain"])
        .arg("--workload")
        .arg(file)
        .arg("--output")
        .arg(&output)
        .run()
        .exited(1);
    assert!(outcome.out().contains("failed plain"), "{outcome}");
    let report = read(&output);
    assert_eq!(drivers(&report, "odd"), ["overlayfs"]);
    assert_eq!(report["results"][0]["left_out"][0]["driver"], "plain");
    assert!(left_in(&s).is_empty(), "{:?}", left_in(&s));
}

/// A run with work that takes seconds, in the first of its rounds; it writes to `output`, if given.
fn in_its_first_work(s: &TestStore, output: Option<&Path>) -> Running {
    let (lower, begun) = (s.path("lower"), s.path("begun"));
    let _ = fs::remove_file(&begun);
    s.file(
        "slow.toml",
        format!(
            "name = 'slow'\nlower = '{}'\nrun = [': >{}', 'exec sleep 2']",
            lower.display(),
            begun.display()
        ),
    );
    let mut bench = run(s, &["--rounds", "50", "--driver", "pellicle-dev"])
        .arg("--workload")
        .arg(s.path("slow.toml"));
    if let Some(output) = output {
        bench = bench.arg("--output").arg(output);
    }
    let running = bench.spawn();
    wait_for("the first work", Duration::from_secs(60), || {
        begun.exists().then_some(())
    });
    running
}

#[test]
fn an_interrupted_run_leaves_nothing_and_keeps_what_it_has() {
    let test = "an_interrupted_run_leaves_nothing_and_keeps_what_it_has";
    if let Some(why) = missing(Who::Root) {
        return skip(test, &why);
    }
    let s = prepared(Who::Root);
    let output = s.path("out.json");
    let running = in_its_first_work(&s, Some(&output));
    running.signal(Signal::SIGINT);
    let outcome = running.wait().exited(130);
    assert!(outcome.out().contains("interrupted"), "{outcome}");
    assert!(
        read(&output)["warnings"]
            .to_string()
            .contains("interrupted")
    );
    assert!(left_in(&s).is_empty(), "{:?}", left_in(&s));
    assert_eq!(s.left_behind(), Vec::<String>::new());
}

#[test]
fn what_a_killed_run_left_is_cleared_by_the_next_and_a_live_one_is_let_be() {
    let test = "what_a_killed_run_left_is_cleared_by_the_next_and_a_live_one_is_let_be";
    if let Some(why) = missing(Who::Root) {
        return skip(test, &why);
    }
    let s = prepared(Who::Root);
    let killed = in_its_first_work(&s, None);
    killed.signal(Signal::SIGKILL);
    let _ = killed.wait();
    let left = left_in(&s);
    assert_eq!(left.len(), 1, "{left:?}");
    let live = in_its_first_work(&s, None);
    let after = left_in(&s);
    assert_eq!(after.len(), 1, "{after:?}");
    assert_ne!(after, left, "the live run's own");
    let output = s.path("out.json");
    run(&s, &["--rounds", "1", "--driver", "plain"])
        .arg("--workload")
        .arg(s.path("tiny.toml"))
        .arg("--output")
        .arg(&output)
        .ok();
    assert_eq!(left_in(&s), after);
    let told = read(&output)["warnings"].to_string();
    assert!(!told.contains("killed"), "{told}");
    live.signal(Signal::SIGINT);
    let told = live.wait().exited(130);
    let line = format!(
        "a run that was killed left {}",
        s.path("work").join(&left[0]).display()
    );
    assert!(told.out().contains(&line), "{told}");
    assert!(left_in(&s).is_empty(), "{:?}", left_in(&s));
}

/// Small enough to take no time.
const IMAGE_MB: &str = "8";

#[test]
fn registries_are_measured_and_only_what_is_new_crosses_the_wire() {
    let test = "registries_are_measured_and_only_what_is_new_crosses_the_wire";
    if let Some(why) = missing(Who::Root) {
        return skip(test, &why);
    }
    let missing: Vec<&str> = ["docker-registry", "podman", "buildah", "skopeo", "curl"]
        .into_iter()
        .filter(|program| !installed(program))
        .collect();
    if !missing.is_empty() {
        return skip(test, &format!("{} are not installed", missing.join(", ")));
    }
    let s = prepared(Who::Root);
    let output = s.path("out.json");
    run(
        &s,
        &[
            "pull",
            "pull-shared",
            "push-shared",
            "ten-images",
            "--rounds",
            "1",
        ],
    )
    .args(["--image-size", IMAGE_MB, "--output"])
    .arg(&output)
    .ok();
    let report = read(&output);
    let least = "curl | gzip | sha256sum";
    assert_eq!(drivers(&report, "pull"), ["pellicle", "podman", least]);
    for workload in ["pull-shared", "push-shared"] {
        assert_eq!(drivers(&report, workload), ["pellicle", "podman"]);
    }
    assert_eq!(drivers(&report, "ten-images"), ["pellicle", "buildah"]);
    let extra = |workload: &str, name: &str| {
        let results = report["results"].as_array().expect("results");
        let result = results.iter().find(|r| r["workload"] == workload);
        let value = result.expect("measured")["rows"][0]["extra"][name].as_f64();
        value.unwrap_or_else(|| panic!("no {name} of {workload}"))
    };
    let whole = extra("pull", "wire_bytes");
    for workload in ["pull-shared", "push-shared"] {
        let part = extra(workload, "wire_bytes") / whole;
        assert!(
            (0.1..0.3).contains(&part),
            "{workload}: {part} of the image"
        );
    }
    assert!(extra("ten-images", "space_ratio") > 0.5);
    let over_base = extra("ten-images", "space_over_base_ratio");
    assert!((0.5..2.0).contains(&over_base), "{over_base}");
    let figures = report["figures"].to_string();
    for word in [least, "push-shared", "disk of 10 images"] {
        assert!(figures.contains(word), "{word}: {figures}");
    }
    assert!(left_in(&s).is_empty(), "{:?}", left_in(&s));
    assert_eq!(s.left_behind(), Vec::<String>::new());
}

#[test]
fn builds_and_starts_are_measured_beside_buildah_and_podman() {
    let test = "builds_and_starts_are_measured_beside_buildah_and_podman";
    if let Some(why) = missing(Who::Root) {
        return skip(test, &why);
    }
    if let Some(program) = ["podman", "buildah"].into_iter().find(|p| !installed(p)) {
        return skip(test, &format!("{program} is not installed"));
    }
    let Some(layers) = debian_layers() else {
        return skip(test, "there is no Debian image");
    };
    let s = prepared(Who::Root);
    let (output, image) = (s.path("out.json"), s.directory("image"));
    for (n, layer) in layers.iter().enumerate() {
        let packed = layer.extension().is_some_and(|e| e == "gz");
        let name = format!("layer-{n}.tar{}", if packed { ".gz" } else { "" });
        fs::hard_link(layer, image.join(name)).expect("link");
    }
    run(&s, &["build", "rebuild", "--rounds", "1", "--image"])
        .arg(image)
        .arg("--output")
        .arg(&output)
        .ok();
    let report = read(&output);
    for workload in ["build", "rebuild"] {
        assert_eq!(
            drivers(&report, workload),
            ["pellicle", "buildah"],
            "{report}"
        );
    }
    assert!(left_in(&s).is_empty(), "{:?}", left_in(&s));
}

fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

#[test]
fn what_is_wrong_on_the_command_line_is_said() {
    let s = TestStore::new(if nix::unistd::geteuid().is_root() {
        Who::Root
    } else {
        Who::User
    });
    let bench = |args: &[&str]| Cmd::new(Command::new(bench())).args(args).run();
    let none = s.path("none.json").display().to_string();
    for (args, code, word) in [
        (&["run"][..], 2, "WORKLOAD"),
        (&["run", "no-such"], 1, "pellicle-bench list"),
        (&["run", "untar", "--driver", "aufs"], 1, "overlay-dir-dev"),
        (&["run", "untar", "--rounds", "0"], 2, "rounds"),
        (
            &["run", "untar", "--output", "/no/such/dir/x"],
            1,
            "/no/such",
        ),
        (&["compare", &none, &none], 1, "none.json"),
        (&["report", &none, "-o", "-"], 1, "none.json"),
    ] {
        let outcome = bench(args).exited(code);
        assert!(outcome.err().contains(word), "{word}: {outcome}");
    }
}

#[test]
fn the_page_of_a_result_is_shown_by_a_browser() {
    let test = "the_page_of_a_result_is_shown_by_a_browser";
    if let Some(why) = missing(Who::Root) {
        return skip(test, &why);
    }
    let Some(browser) = browser() else {
        return skip(test, "there is no chromium");
    };
    let s = prepared(Who::Root);
    let (json, html) = (s.path("out.json"), s.path("out.html"));
    run(
        &s,
        &[
            "first-byte/4KiB",
            "first-byte/64KiB",
            "depth/1",
            "depth/8",
            "--rounds",
            "2",
        ],
    )
    .args(["--driver", "plain", "--driver", "pellicle-dev"])
    .arg("--output")
    .arg(&json)
    .ok();
    Cmd::new(Command::new(bench()))
        .arg("report")
        .arg(&json)
        .arg("-o")
        .arg(&html)
        .ok();
    let shown = dom(&browser, &s, &html);

    let count = |what: &str| shown.matches(what).count();
    // A table row and a place in the chart for each of the four workloads.
    assert_eq!(count("<tr data-workload="), 4, "{shown}");
    assert_eq!(count("<g class=\"row\" data-workload="), 4, "{shown}");
    // Two series with a line for each of the three drivers, and the chart.
    assert_eq!(count("<polyline"), 6, "{shown}");
    assert_eq!(count("class=\"plot\""), 3, "{shown}");
    assert_eq!(count("<details>"), 4, "{shown}");
    for id in [
        "machine",
        "figures",
        "ratios",
        "first-byte",
        "depth",
        "matrix",
        "warnings",
    ] {
        assert_eq!(count(&format!("id=\"{id}\"")), 1, "{id}");
    }
    let same = Cmd::new(Command::new(bench()))
        .args(["compare"])
        .arg(&json)
        .arg(&json)
        .ok();
    assert_eq!(same.matches("within the noise").count(), 12, "{same}");
}

fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .flat_map(|dir| {
            ["chromium", "chromium-browser", "google-chrome"].map(|name| dir.join(name))
        })
        .find(|file| file.is_file())
}

/// The document as the browser has it once it is loaded.
fn dom(browser: &Path, s: &TestStore, page: &Path) -> String {
    let profile = s.directory("profile");
    Cmd::new(Command::new(browser))
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg("--dump-dom")
        .arg(format!("file://{}", page.display()))
        .env("HOME", &profile)
        .limit(Duration::from_secs(300))
        .ok()
}
