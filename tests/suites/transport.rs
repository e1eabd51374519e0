//! Which way the kernel's requests come, and what opening a file means: asked for, told, and the same
//! file system either way.

use std::{fs, path::Path};

use pellicle_tests::{TestStore, Who, skip};
use serde_json::Value;

const SWITCH: &str = "/sys/module/fuse/parameters/enable_uring";

/// Has the kernel offer rings until dropped; then as before. `None`, said as a skip, where that is
/// not ours to say.
struct Offer {
    before: String,
    _lock: fs::File,
}

impl Offer {
    fn make(test: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            skip(test, "needs root");
            return None;
        }
        // One switch for the whole machine; the tests of fs/fuse take the same lock.
        let lock = fs::File::create("/run/lock/pellicle-test-uring").expect("lock file");
        lock.lock().expect("flock");
        let Ok(before) = fs::read_to_string(SWITCH) else {
            skip(test, "this kernel has no FUSE over io_uring");
            return None;
        };
        fs::write(SWITCH, "Y").expect("switch");
        Some(Self {
            before,
            _lock: lock,
        })
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        fs::write(SWITCH, self.before.trim()).expect("switch");
    }
}

fn info(s: &TestStore) -> Value {
    serde_json::from_str(&s.cmd(["info", "--format", "json"]).ok()).expect("JSON")
}

fn text<'a>(value: &'a Value, group: &str, name: &str) -> &'a str {
    value[group][name]
        .as_str()
        .unwrap_or_else(|| panic!("no {group} {name} in {value}"))
}

/// Where a mount's directory is told of, and who asks.
fn mounted(s: &TestStore, transport: &str) -> String {
    let dir = s.directory("mnt");
    s.cmd(["mount", "--transport", transport, "tools"])
        .arg(&dir)
        .ok();
    let told = text(&info(s), "Mounts", dir.to_str().expect("plain")).to_owned();
    let found = s.who().command(Path::new("find")).arg(&dir).output();
    assert!(found.expect("find").status.success());
    let stats = s.cmd(["mount", "--stats"]).ok();
    assert!(stats.contains("READDIRPLUS"), "{stats}");
    s.unmount(&dir);
    told
}

#[test]
fn mounts_say_which_way_requests_come() {
    let test = "mounts_say_which_way_requests_come";
    for who in Who::all() {
        let s = TestStore::with_tools(who);
        let told = mounted(&s, "dev");
        assert!(
            told.starts_with("/dev/fuse") && told.contains("asked"),
            "{told}"
        );
        if let Some(_offer) = Offer::make(test) {
            for transport in ["ring", "auto"] {
                let told = mounted(&s, transport);
                assert!(told.starts_with("io_uring"), "{transport}: {told}");
            }
        }
    }
}

/// What a container must find true however its files are served.
const WORK: &str = "cp /bin/cat /tmp/cat && cmp=$(cat /bin/cat | sha256sum) && \
    [ \"$cmp\" = \"$(cat /tmp/cat | sha256sum)\" ] && mv /tmp/cat /tmp/dog && rm -r /etc/passwd && \
    mkdir -p /a/b && ln /tmp/dog /a/b/c && ln -s c /a/b/d && [ \"$(cat /a/b/d | sha256sum)\" = \"$cmp\" ] && \
    find / -xdev | wc -l";

#[test]
fn containers_are_the_same_over_both_and_keep_the_choice() {
    let test = "containers_are_the_same_over_both_and_keep_the_choice";
    for who in Who::all() {
        let s = TestStore::with_tools(who);
        let Some(_offer) = Offer::make(test) else {
            return;
        };
        let mut listed = Vec::new();
        for (transport, way) in [("dev", "/dev/fuse"), ("ring", "io_uring")] {
            let ran = s
                .cmd(["run", "--rm", "--stats", "--transport", transport, "tools"])
                .args(["sh", "-c", WORK])
                .run()
                .succeeded();
            listed.push(ran.out());
            for said in [way, "OPERATION", "MKNOD", "RENAME"] {
                assert!(ran.err().contains(said), "{said}: {}", ran.err());
            }
        }
        assert_eq!(listed[0], listed[1]);

        let sleep = s.seconds();
        s.cmd(["run", "-d", "--name", "c", "--transport", "dev", "tools"])
            .args(["sleep", &sleep])
            .ok();
        let told = info(&s);
        assert!(text(&told, "Containers", "c").contains("asked for"));
        s.cmd(["stop", "-t", "0", "c"]).ok();
        s.cmd(["start", "c"]).ok();
        let told = info(&s);
        assert!(text(&told, "Containers", "c").contains("asked for"));
        s.cmd(["stop", "-t", "0", "c"]).ok();
        s.cmd(["start", "--transport", "auto", "c"]).ok();
        let told = info(&s);
        assert!(text(&told, "Containers", "c").starts_with("io_uring"));
        s.cmd(["rm", "-f", "c"]).ok();
    }
}

#[test]
fn containers_are_the_same_whatever_opening_a_file_means() {
    for who in Who::all() {
        let s = TestStore::with_tools(who);
        let mut listed = Vec::new();
        for opens in ["silent", "answered", "passthrough"] {
            let ran = s
                .cmd(["run", "--rm", "--stats", "--opens", opens, "tools"])
                .args(["sh", "-c", WORK])
                .run()
                .succeeded();
            listed.push(ran.out());
            let said = ran.err();
            let released = said.contains("RELEASE ");
            // Without root the kernel takes no host file, and opens by itself again.
            let answered = opens == "answered" || (opens == "passthrough" && who == Who::Root);
            assert_eq!(released, answered, "{opens}: {said}");
            let first = said
                .lines()
                .find(|l| l.contains("/dev/fuse") || l.contains("io_uring"));
            let first = first.unwrap_or_default();
            assert_eq!(
                first.contains("passthrough"),
                opens == "passthrough",
                "{said}"
            );
            assert_eq!(
                first.contains("takes root"),
                opens == "passthrough" && who == Who::User,
                "{said}"
            );
        }
        assert_eq!(listed[0], listed[1]);
        assert_eq!(listed[0], listed[2]);
    }
}

#[test]
fn a_read_only_mount_leaves_reading_to_the_kernel_with_passthrough() {
    let test = "a_read_only_mount_leaves_reading_to_the_kernel_with_passthrough";
    if let Some(why) = Who::Root.missing() {
        return skip(test, &why);
    }
    let s = TestStore::with_tools(Who::Root);
    let dir = s.directory("mnt");
    let mut reads = Vec::new();
    for opens in ["silent", "passthrough"] {
        s.cmd(["mount", "--opens", opens, "tools"]).arg(&dir).ok();
        let file = fs::read(dir.join("bin/sh")).expect("read");
        assert!(file.starts_with(b"\x7fELF"));
        let told = text(&info(&s), "Mounts", dir.to_str().expect("plain")).to_owned();
        assert_eq!(
            told.ends_with("; passthrough"),
            opens == "passthrough",
            "{told}"
        );
        reads.push(s.cmd(["mount", "--stats"]).ok().contains("\nREAD "));
        s.unmount(&dir);
    }
    assert_eq!(reads, [true, false]);
}

#[test]
fn without_the_kernels_offer_the_reason_is_logged_once() {
    let test = "without_the_kernels_offer_the_reason_is_logged_once";
    for who in Who::all() {
        let s = TestStore::with_tools(who);
        let Some(offer) = Offer::make(test) else {
            return;
        };
        fs::write(SWITCH, "N").expect("switch");
        let ran = s
            .cmd(["--log-level", "warn", "run", "--rm"])
            .args(["--transport", "ring", "tools", "true"])
            .run()
            .succeeded();
        let said = ran.err();
        let lines: Vec<&str> = said.lines().filter(|l| l.contains("/dev/fuse")).collect();
        assert_eq!(lines.len(), 1, "{}", ran.err());
        assert!(lines[0].contains("enable_uring"), "{}", lines[0]);
        let quiet = s
            .cmd(["--log-level", "warn", "run", "--rm", "tools", "true"])
            .run()
            .succeeded();
        assert_eq!(quiet.err(), "", "who asked for nothing is told nothing");
        drop(offer);
    }
}
