//! What a container changed becomes an image; containers and images become archives.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::sys::signal::Signal;
use pellicle_tests::{
    Cmd, LET_GO, Outcome, Terminal, TestStore, Who, skip, tools_image, tree, wait_for,
};
use serde_json::Value;

/// Changes of every kind that an ordinary user's container can make, over the image `base` of
/// [`with_base`].
const CHANGES: &str = r#"
    set -e
    echo new >/root/new
    mkdir -p /srv/deep/er
    echo x >"/srv/deep/er/name with  spaces and ü"
    rm /base/gone
    rm -r /base/gone-dir
    mv /base/moved-dir /srv/moved
    mv /base/moved /srv/moved-file
    echo more >>/base/changed
    chmod 4711 /base/mode
    chown 7:8 /base/owner
    touch -d '2001-02-03 04:05:06.000000007' /base/time
    ln /base/linked /srv/link-to-lower
    ln /root/new /srv/link-to-new
    rm -r /base/replaced
    mkdir /base/replaced
    echo only >/base/replaced/only
    rm /base/file-to-dir
    mkdir /base/file-to-dir
    rm -r /base/dir-to-file
    echo file >/base/dir-to-file
    ln -s ../nowhere /srv/symlink
    dd if=/dev/zero of=/srv/zeros bs=1000 count=300 2>/dev/null
    dd if=/dev/zero of=/srv/sparse bs=1 count=1 seek=5000000 2>/dev/null
    sha256sum /srv/* >/srv/sums 2>/dev/null || true
    mknod /srv/fifo p
    touch -d '1960-01-02 03:04:05' /srv
"#;

/// Everything a program sees of the tree, but what no archive tells and where things are mounted.
const LIST: &str = r#"
    find / -xdev ! -path '/proc*' ! -path '/sys*' ! -path '/dev*' ! -path '/etc*' ! -path / \
        -printf '%p %y %m %U:%G %s %n %T@ %l\n' | sed 's/^\(.* d [0-7]* [0-9:]*\) [0-9]*/\1/' | sort
    find /base /srv /root -type f | sort | while read -r f; do sha256sum "$f"; done
"#;

/// A store with an image `base` that has something to be changed in every way.
fn with_base(who: Who) -> TestStore {
    let s = TestStore::with_tools(who);
    let dir = s.directory("base");
    let make = r#"
        set -e
        mkdir base; cd base
        for f in gone moved changed mode owner time linked file-to-dir; do echo $f >$f; done
        mkdir gone-dir moved-dir replaced dir-to-file
        for d in gone-dir moved-dir replaced dir-to-file; do echo $d >$d/one; head -c 9000 /bin/sh >$d/two; done
        ln moved-dir/two moved-dir/three
    "#;
    let mut sh = Command::new("sh");
    sh.args(["-c", make]).current_dir(&dir);
    Cmd::new(sh).ok();
    // A directory would become a layer that not everyone reads (zstd).
    let layer = s.path("base.tar");
    let owner = ["--owner=0", "--group=0", "-cf"];
    let tar = [&owner[..], &[path(&layer), "-C", path(&dir), "base"]].concat();
    let _ = program("tar", &tar).succeeded();
    s.cmd([
        "import",
        "-q",
        "-c",
        "ENV FROM=image",
        "-c",
        "LABEL from=image",
    ])
    .arg(tools_image())
    .arg("base")
    .arg("--layer")
    .arg(&layer)
    .ok();
    s
}

fn program(name: &str, args: &[&str]) -> Outcome {
    let mut command = Command::new(name);
    command.args(args);
    Cmd::new(command).limit(Duration::from_secs(300)).run()
}

fn installed(name: &str) -> bool {
    Command::new("sh")
        .args(["-c", &format!("command -v {name}")])
        .output()
        .is_ok_and(|o| o.status.success())
}

fn inspect(s: &TestStore, image: &str) -> Value {
    let text = s.cmd(["inspect", image]).ok();
    let all: Value = serde_json::from_str(&text).expect("JSON");
    all.get(0).expect("one image").clone()
}

fn layers(s: &TestStore, image: &str) -> Vec<String> {
    let told = inspect(s, image);
    let list = told.pointer("/RootFS/Layers").expect("layers");
    serde_json::from_value(list.clone()).expect("a list of texts")
}

fn images(s: &TestStore) -> String {
    s.cmd(["images", "-a", "-q"]).run().out()
}

fn path(p: &Path) -> &str {
    p.to_str().expect("plain")
}

#[test]
fn an_image_of_a_container_shows_what_the_container_saw() {
    for who in Who::all() {
        let s = with_base(who);
        let script = format!("{CHANGES}\n{LIST}");
        let saw = s
            .cmd(["run", "--name", "c", "base", "sh", "-c", &script])
            .ok();
        let id = s
            .cmd(["commit", "-a", "A. Author", "-m", "a remark", "c", "new:1"])
            .ok();
        assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
        let shows = s.sh("new:1", LIST).ok();
        let (saw, shows): (BTreeSet<_>, BTreeSet<_>) =
            (saw.lines().collect(), shows.lines().collect());
        let gone: Vec<_> = saw.difference(&shows).collect();
        let new: Vec<_> = shows.difference(&saw).collect();
        assert!(
            gone.is_empty() && new.is_empty(),
            "gone {gone:#?}\nnew {new:#?}"
        );
        assert!(saw.len() > 60, "{}", saw.len());

        let all = layers(&s, "new:1");
        assert_eq!(all.len(), layers(&s, "base").len() + 1);
        let told = inspect(&s, "new:1");
        assert_eq!(told["Author"], "A. Author");
        let history = s.cmd(["history", "--format", "{{.Comment}}", "new:1"]).ok();
        assert_eq!(history.lines().next(), Some("a remark"));
        s.cmd(["store", "verify"]).ok();

        // The same changes are the same layer, also after the container ran once more.
        s.cmd(["commit", "-q", "c", "new:2"]).ok();
        assert_eq!(layers(&s, "new:2"), all);
        s.cmd(["commit", "-q", "--squash", "c", "new:3"]).ok();
        assert_eq!(layers(&s, "new:3").len(), 1);
        let squashed = s.sh("new:3", LIST).ok();
        assert_eq!(squashed.lines().collect::<BTreeSet<_>>(), shows);
        s.cmd(["rm", "c"]).ok();
        s.cmd(["store", "gc"]).ok();
        assert_eq!(s.sh("new:1", "cat /srv/link-to-new").ok(), "new");
        s.cmd(["store", "verify"]).ok();
    }
}

#[test]
fn an_image_runs_as_its_container_did_unless_told_otherwise() {
    for who in Who::all() {
        let s = with_base(who);
        s.cmd([
            "run",
            "--name",
            "c",
            "-e",
            "A=1",
            "-w",
            "/srv",
            "-u",
            "3:4",
            "-l",
            "mine=yes",
            "base",
            "sh",
            "-c",
            "echo $A $FROM $(pwd) $(id -u)",
        ])
        .ok();
        s.cmd(["commit", "-q", "c", "same"]).ok();
        assert_eq!(s.run("same").ok(), "1 image /srv 3");
        let config = inspect(&s, "same")["Config"].clone();
        let env: Vec<String> = serde_json::from_value(config["Env"].clone()).expect("texts");
        assert_eq!(
            env,
            ["FROM=image", "A=1"],
            "and not what every container has"
        );
        assert_eq!(config["Labels"]["mine"], "yes");
        assert_eq!(config["Labels"]["from"], "image");

        let changes = [
            "-c",
            "CMD [\"sh\",\"-c\",\"echo $B\"]",
            "-c",
            "ENV B=2",
            "-c",
            "USER 0",
        ];
        s.cmd(["commit", "-q"])
            .args(changes)
            .args(["c", "other"])
            .ok();
        assert_eq!(s.run("other").ok(), "2");

        // Nothing was changed by this one: no layer is added.
        s.cmd(["run", "--name", "idle", "base", "true"]).ok();
        s.cmd(["commit", "-q", "idle", "idle"]).ok();
        assert_eq!(layers(&s, "idle"), layers(&s, "base"));
        s.cmd(["rm", "c", "idle"]).ok();
    }
}

fn only_data_file(s: &TestStore) -> PathBuf {
    let containers = s.root().join("containers");
    let mut files = Vec::new();
    for container in fs::read_dir(containers).expect("list").flatten() {
        let data = container.path().join("upper/data");
        for file in fs::read_dir(data).into_iter().flatten().flatten() {
            if file.metadata().is_ok_and(|m| m.len() > 1 << 20) {
                files.push(file.path());
            }
        }
    }
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

fn object_with(s: &TestStore, ino: u64) -> Option<PathBuf> {
    let heads = fs::read_dir(s.root().join("objects"))
        .expect("list")
        .flatten();
    let all = heads.flat_map(|head| fs::read_dir(head.path()).into_iter().flatten().flatten());
    let found = all
        .into_iter()
        .find(|o| o.metadata().is_ok_and(|m| m.ino() == ino));
    found.map(|o| o.path())
}

#[test]
fn a_large_file_is_moved_into_the_store_and_parted_from_it_when_it_is_written_to() {
    for who in Who::all() {
        let s = TestStore::with_tools(who);
        let write = "dd if=/dev/zero bs=1M count=1024 2>/dev/null | tr '\\0' x >/big";
        s.cmd(["run", "--name", "c", "tools", "sh", "-c"])
            .arg(format!("[ -e /big ] && {{ printf y | dd of=/big conv=notrunc 2>/dev/null; exit; }}; {write}"))
            .limit(Duration::from_secs(300))
            .ok();
        let data = only_data_file(&s);
        // Until it is on the disk the host's file system only guesses what it takes there.
        let file = fs::File::open(&data).expect("open");
        file.sync_all().expect("fsync");
        drop(file);
        let before = fs::metadata(&data).expect("stat");
        assert_eq!(before.len(), 1 << 30);
        let used = || {
            let du = program("du", &["-s", "--block-size=1M", path(&s.root())]).succeeded();
            let text = du.out();
            text.split_whitespace()
                .next()
                .expect("a number")
                .parse::<u64>()
                .expect("a number")
        };
        let mib = used();
        s.cmd(["commit", "-q", "c", "big"])
            .limit(Duration::from_secs(300))
            .ok();
        let object = object_with(&s, before.ino()).expect("the data file is an object");
        assert_eq!(
            fs::metadata(&object).expect("stat").blocks(),
            before.blocks()
        );
        assert!(used() <= mib + 1, "{} MiB, and {mib} before", used());

        s.cmd(["start", "-a", "c"])
            .limit(Duration::from_secs(300))
            .ok();
        let now = fs::metadata(only_data_file(&s)).expect("stat");
        assert_ne!(
            now.ino(),
            before.ino(),
            "written to, it is the container's own"
        );
        assert_eq!(s.sh("big", "head -c 2 /big").ok(), "xx");
        s.cmd(["run", "--rm", "big", "sh", "-c", "stat -c %s /big"])
            .ok();
        s.cmd(["rm", "c"]).ok();
    }
}

/// What an extracted archive or a mount shows: but change times, and the times of directories that
/// the image does not name or that things are mounted in; with numbers that do not depend on others.
fn shown(dir: &Path) -> BTreeMap<PathBuf, tree::Node> {
    let mut seen = tree::tree(dir);
    let mut firsts = HashMap::new();
    for (path, node) in &mut seen {
        // The first of several names is the number.
        node.ino = *firsts.entry(node.ino).or_insert_with(|| {
            let mut hasher = DefaultHasher::new();
            path.hash(&mut hasher);
            hasher.finish()
        });
        node.times[1] = (0, 0);
        node.accessed = (0, 0);
        if node.mode & 0o170_000 == 0o040_000 {
            node.size = 0;
            let given = ["", "etc", "lib", "lib64", "lib/x86_64-linux-gnu"];
            if given.iter().any(|dir| path == Path::new(dir)) {
                node.times[0] = (0, 0);
            }
        }
    }
    seen
}

#[test]
fn an_exported_container_is_its_tree() {
    let test = "an_exported_container_is_its_tree";
    if let Some(why) = Who::Root.missing() {
        return skip(test, &why);
    }
    let s = with_base(Who::Root);
    s.cmd(["run", "--name", "c", "base", "sh", "-c", CHANGES])
        .ok();
    s.cmd(["commit", "-q", "c", "new"]).ok();
    let archive = s.path("c.tar");
    s.cmd(["export", "-o"]).arg(&archive).arg("c").ok();
    let listed = program("tar", &["tf", path(&archive)]).succeeded().out();
    assert!(listed.lines().any(|l| l == "srv/deep/er/"), "{listed}");
    let streamed = s.cmd(["export", "c"]).run().succeeded().stdout;
    assert!(
        fs::read(&archive).expect("read") == streamed,
        "the same twice"
    );

    let unpacked = s.directory("unpacked");
    let tar = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf"];
    let tar = [&tar[..], &[path(&archive), "-C", path(&unpacked)]].concat();
    let _ = program("tar", &tar).succeeded();
    let mounted = s.directory("mounted");
    s.cmd(["mount", "new"]).arg(&mounted).ok();
    let (tar, image) = (shown(&unpacked), shown(&mounted));
    let sparse = fs::metadata(unpacked.join("srv/sparse")).expect("stat");
    s.unmount(&mounted);
    // What the container's mounts are on is no part of the image.
    let tar = tar
        .into_iter()
        .filter(|(p, _)| image.contains_key(p))
        .collect();
    tree::assert_same(&image, &tar, "the archive and the image of the container");
    assert!(sparse.blocks() * 512 < 100_000, "the hole was filled");

    let image = s.path("image.tar");
    s.cmd(["export", "-q", "-o"]).arg(&image).arg("new").ok();
    let other = s.directory("other");
    let _ = program("tar", &["-xpf", path(&image), "-C", path(&other)]).succeeded();
    assert_eq!(
        fs::read(other.join("srv/link-to-new")).expect("read"),
        b"new\n"
    );
    s.cmd(["rm", "c"]).ok();
}

#[test]
fn archives_are_not_written_to_a_terminal_nor_left_half_written() {
    for who in Who::all() {
        let s = TestStore::with_tools(who);
        for command in ["export", "save"] {
            let terminal = Terminal::start(s.cmd([command, "tools"]));
            terminal.expect("standard output is a terminal");
            assert_eq!(terminal.exit_code(), 2);
            s.cmd([command, "nothing"])
                .run()
                .failed_clearly(1, &["nothing", "no "]);
            s.cmd([command, "-o", "/nowhere/x", "tools"])
                .run()
                .failed_clearly(1, &["/nowhere/x"]);
            s.cmd([command, "-o", "/dev/full", "tools"])
                .run()
                .failed_clearly(1, &["no space left"]);
            let dir = s.directory("there");
            s.cmd([command, "-o"])
                .arg(&dir)
                .arg("tools")
                .run()
                .failed_clearly(2, &["directory"]);
            // A reader that goes away is no error worth a message.
            let line = "{ \"$@\"; echo $? >&2; } | head -c 10 >/dev/null";
            let inner = s.cmd([command, "-q", "tools"]).into_command();
            let mut sh = Command::new("sh");
            sh.args(["-c", line, "sh"])
                .arg(inner.get_program())
                .args(inner.get_args());
            for (name, value) in inner.get_envs() {
                sh.env(name, value.expect("set"));
            }
            let out = Cmd::new(sh).run().succeeded();
            assert_eq!(out.err(), "141\n", "{command}");
            assert_eq!(fs::read_dir(&dir).expect("list").count(), 0);
        }
        s.cmd(["save", "--format", "oci-dir", "tools"])
            .run()
            .failed_clearly(2, &["-o"]);
    }
}

#[test]
fn saved_images_are_read_back_as_they_are() {
    for who in Who::all() {
        let s = with_base(who);
        s.cmd(["run", "--name", "c", "base", "sh", "-c", CHANGES])
            .ok();
        s.cmd(["commit", "-q", "c", "app:1"]).ok();
        s.cmd(["tag", "app:1", "registry.example.com/app:2"]).ok();
        s.cmd(["rm", "c"]).ok();
        let names = ["app:1", "registry.example.com/app:2", "base"];
        for (format, input) in [
            ("docker-archive", "a.tar"),
            ("oci-archive", "b.tar"),
            ("oci-dir", "c"),
        ] {
            let file = s.path(input);
            s.cmd(["save", "--format", format, "-o"])
                .arg(&file)
                .args(names)
                .ok();
            let other = TestStore::new(who);
            other.cmd(["load", "-i"]).arg(&file).ok();
            for name in names {
                let id = |s: &TestStore| inspect(s, name)["Id"].clone();
                assert_eq!(id(&other), id(&s), "{name} by {format}");
                assert_eq!(layers(&other, name), layers(&s, name));
            }
            let (a, b) = (s.sh("app:1", LIST).ok(), other.sh("app:1", LIST).ok());
            assert_eq!(a, b);
        }
        let again = s.cmd(["save", "app:1"]).run().succeeded().stdout;
        assert!(again == s.cmd(["save", "app:1"]).run().succeeded().stdout);
        s.cmd(["save", "--format", "oci-dir", "-o"])
            .arg(s.path("c"))
            .arg("base")
            .run()
            .failed_clearly(2, &["there already"]);
    }
}

#[test]
fn other_programs_read_what_is_saved() {
    let test = "other_programs_read_what_is_saved";
    if let Some(why) = Who::Root.missing() {
        return skip(test, &why);
    }
    for tool in ["skopeo", "umoci", "podman"] {
        if !installed(tool) {
            return skip(test, &format!("needs {tool}"));
        }
    }
    let s = with_base(Who::Root);
    s.cmd(["run", "--name", "c", "base", "sh", "-c", CHANGES])
        .ok();
    s.cmd(["commit", "-q", "c", "app:1"]).ok();
    let (oci, docker, dir) = (s.path("o.tar"), s.path("d.tar"), s.path("dir"));
    for (format, to) in [
        ("oci-archive", &oci),
        ("docker-archive", &docker),
        ("oci-dir", &dir),
    ] {
        s.cmd(["save", "-q", "--format", format, "-o"])
            .arg(to)
            .arg("app:1")
            .ok();
    }
    let wanted = layers(&s, "app:1");
    for source in [
        format!("oci-archive:{}", path(&oci)),
        format!("docker-archive:{}", path(&docker)),
        format!("oci:{}:1", path(&dir)),
    ] {
        let config = program("skopeo", &["inspect", "--config", &source]).succeeded();
        let config: Value = serde_json::from_str(&config.out()).expect("JSON");
        let found: Vec<String> =
            serde_json::from_value(config["rootfs"]["diff_ids"].clone()).expect("texts");
        assert_eq!(found, wanted, "{source}");
    }
    let bundle = s.path("bundle");
    let image = format!("{}:1", path(&dir));
    let _ = program("umoci", &["unpack", "--image", &image, path(&bundle)]).succeeded();
    let mounted = s.directory("mounted");
    s.cmd(["mount", "app:1"]).arg(&mounted).ok();
    let (theirs, ours) = (shown(&bundle.join("rootfs")), shown(&mounted));
    s.unmount(&mounted);
    tree::assert_same(&ours, &theirs, "as umoci unpacks it");

    let root = s.directory("podman");
    let podman = |args: &[&str]| {
        let own = [
            "--root",
            path(&root),
            "--runroot",
            path(&root),
            "--storage-driver",
            "vfs",
        ];
        program("podman", &[&own[..], args].concat())
            .succeeded()
            .out()
    };
    for (archive, name) in [
        (&docker, "docker.io/library/app:1"),
        (&oci, "docker.io/library/app:1"),
    ] {
        podman(&["load", "-i", path(archive)]);
        let at = podman(&["image", "mount", name]);
        let mut theirs = shown(Path::new(&at));
        // podman has no times before 1970.
        let srv = theirs.get_mut(Path::new("srv")).expect("srv");
        assert_eq!(srv.times[0], (0, 0));
        srv.times[0] = ours[Path::new("srv")].times[0];
        podman(&["image", "umount", name]);
        tree::assert_same(&ours, &theirs, "as podman loads it");
        podman(&["rmi", name]);
    }
    let _ = program("rm", &["-rf", path(&root)]);
    s.cmd(["rm", "c"]).ok();
}

#[test]
fn a_running_container_is_committed_and_goes_on() {
    for who in Who::all() {
        let s = TestStore::with_tools(who);
        let count = "i=0; while :; do i=$((i+1)); echo $i >/a; echo $i >/b; echo $i >>/log; done";
        for limit in [&["--pids-limit", "50"][..], &[]] {
            let started = s
                .cmd(["run", "-d", "--name", "c"])
                .args(limit)
                .args(["tools", "sh", "-c", count])
                .run();
            if started.code() != 0 && !limit.is_empty() {
                // No cgroup for this user: then it runs on meanwhile.
                continue;
            }
            wait_for("some work", Duration::from_secs(60), || {
                let n = s.cmd(["exec", "c", "sh", "-c", "wc -l </log"]).run().out();
                n.trim().parse::<u64>().is_ok_and(|n| n > 20).then_some(())
            });
            let told = s.cmd(["commit", "c", "moment"]).run().succeeded().err();
            let paused = !told.contains("no cgroup to be paused by");
            assert!(!paused || !limit.is_empty(), "{told}");
            let number = |file: &str| {
                let text = s.sh("moment", &format!("tail -n 1 {file}")).ok();
                // Empty between the opening that empties it and the write.
                text.parse::<u64>().ok()
            };
            let log = number("/log").expect("it only grows");
            for at in [number("/a"), number("/b")].into_iter().flatten() {
                assert!(!paused || at == log || at == log + 1, "{at} and {log}");
            }
            let log = || s.cmd(["exec", "c", "sh", "-c", "wc -l </log"]).ok();
            let before: u64 = log().trim().parse().expect("a number");
            wait_for("it to go on", Duration::from_secs(60), || {
                (log().trim().parse::<u64>().expect("a number") > before).then_some(())
            });
            s.cmd(["export", "-q", "-o", "/dev/null", "c"]).ok();
            s.cmd(["rm", "-f", "c"]).ok();
        }
    }
}

#[test]
fn a_commit_that_is_killed_leaves_no_image_and_the_container_as_it_was() {
    for who in Who::all() {
        let s = TestStore::with_tools(who);
        let fill = "for i in 1 2 3 4 5 6 7 8; do head -c 5000000 /dev/zero | tr '\\0' $i >/f$i; done; sha256sum /f? >/sums";
        let check = "sha256sum --quiet -c /sums && echo whole";
        s.cmd(["run", "--name", "c", "tools", "sh", "-c"])
            .arg(format!(
                "[ -e /sums ] && {{ {check}; echo z >>/f1; sha256sum /f? >/sums; exit; }}; {fill}"
            ))
            .limit(Duration::from_secs(300))
            .ok();
        let before = images(&s);
        for milliseconds in [1, 5, 15, 25, 40, 60, 90, 150] {
            let running = s.cmd(["commit", "-q", "c", "half"]).spawn();
            std::thread::sleep(Duration::from_millis(milliseconds));
            running.signal(Signal::SIGKILL);
            let ended = running.wait();
            // It may have been done before, the last of its work even when the signal found it alive.
            if ended.code() == 0 || images(&s) != before {
                assert_eq!(s.sh("half", check).ok(), "whole");
                s.cmd(["rmi", "half"]).ok();
            }
            assert_eq!(images(&s), before, "after {milliseconds} ms");
        }
        assert_eq!(
            s.cmd(["start", "-a", "c"])
                .limit(Duration::from_secs(300))
                .ok(),
            "whole"
        );
        s.cmd(["commit", "-q", "c", "whole"]).ok();
        assert_eq!(s.sh("whole", check).ok(), "whole");
        s.cmd(["rmi", "whole"]).ok();
        s.cmd(["store", "gc"]).ok();
        assert_eq!(
            s.cmd(["start", "-a", "c"])
                .limit(Duration::from_secs(300))
                .ok(),
            "whole"
        );
        s.cmd(["store", "verify"]).ok();
        s.cmd(["rm", "c"]).ok();
    }
}

#[test]
fn a_paused_container_goes_on_when_the_commit_is_killed() {
    let test = "a_paused_container_goes_on_when_the_commit_is_killed";
    if let Some(why) = Who::Root.missing() {
        return skip(test, &why);
    }
    let s = TestStore::with_tools(Who::Root);
    let fill = "head -c 300000000 /dev/zero | tr '\\0' x >/big; i=0; while :; do i=$((i+1)); echo $i >/n; done";
    let started = s
        .cmd([
            "run",
            "-d",
            "--name",
            "c",
            "--pids-limit",
            "50",
            "tools",
            "sh",
            "-c",
            fill,
        ])
        .run();
    if started.code() != 0 {
        return skip(
            test,
            &format!("no cgroup can be made here ({})", started.err().trim()),
        );
    }
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        s.cmd(["rm", "-f", "c"]).ok();
        return skip(test, "cgroups are of version 1 here");
    }
    let n = || {
        s.cmd(["exec", "c", "sh", "-c", "cat /n"])
            .run()
            .out()
            .trim()
            .parse::<u64>()
            .ok()
    };
    wait_for("the file", Duration::from_secs(300), n);
    for milliseconds in [20, 60, 150] {
        let running = s.cmd(["commit", "-q", "c", "half"]).spawn();
        std::thread::sleep(Duration::from_millis(milliseconds));
        running.signal(Signal::SIGKILL);
        let _ = running.wait();
        let before = wait_for("it to be resumed", Duration::from_secs(60), n);
        wait_for("it to go on", Duration::from_secs(60), || {
            n().filter(|now| *now > before)
        });
    }
    s.cmd(["rm", "-f", "c"]).ok();
}

#[test]
fn on_a_full_disk_nothing_is_tagged_and_the_container_is_whole() {
    let test = "on_a_full_disk_nothing_is_tagged_and_the_container_is_whole";
    if let Some(why) = Who::Root.missing() {
        return skip(test, &why);
    }
    let s = TestStore::new(Who::Root);
    let small = s.directory("small");
    let pellicle = format!(
        "{} --root {}/store",
        pellicle_tests::pellicle().display(),
        small.display()
    );
    let script = format!(
        r#"
        set -e
        {LET_GO}
        mount -t tmpfs -o size=120m none {small}
        {pellicle} import -q {tools} tools >/dev/null
        {pellicle} run --name c tools sh -c 'if [ -e /f ]; then sha256sum -c /sum; else head -c 20000000 /dev/zero | tr "\0" x >/f; sha256sum /f >/sum; i=0; while [ $i -lt 500 ]; do head -c 3000 /bin/sh >/s$i; i=$((i+1)); done; fi'
        dd if=/dev/zero of={small}/full bs=4k 2>/dev/null || true
        {pellicle} commit c half 2>{small}.err && echo committed
        cat {small}.err
        {pellicle} images -q -a | wc -l
        rm {small}/full
        {pellicle} start -a c
        {pellicle} commit -q c whole >/dev/null
        {pellicle} run --rm whole sha256sum -c /sum
        {pellicle} store verify
        "#,
        small = small.display(),
        tools = tools_image().display(),
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]);
    let out = Cmd::new(command)
        .limit(Duration::from_secs(300))
        .run()
        .succeeded();
    let text = out.out();
    assert!(text.contains("No space left on device"), "{out}");
    assert!(!text.contains("committed"), "{out}");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.contains(&"1"), "only the image `tools`: {out}");
    assert_eq!(lines.iter().filter(|l| **l == "/f: OK").count(), 2, "{out}");
}

#[test]
fn what_cannot_be_committed_is_refused_before_anything_is_done() {
    for who in Who::all() {
        let s = TestStore::with_tools(who);
        s.cmd(["run", "--name", "c", "tools", "sh", "-c", "echo x >/x"])
            .ok();
        let before = images(&s);
        for (args, code, words) in [
            (&["nothing"][..], 1, &["nothing"][..]),
            (&["c", "No Name"], 1, &["No Name"]),
            (
                &[
                    "c",
                    "x@sha256:0000000000000000000000000000000000000000000000000000000000000000",
                ],
                2,
                &["digest"],
            ),
            (&["-c", "RUN x", "c"], 2, &["RUN x"]),
            (&["-c", "ENV", "c"], 2, &["no value"]),
            (&["--pause=maybe", "c"], 2, &["maybe"]),
        ] {
            s.cmd(["commit"])
                .args(args)
                .run()
                .failed_clearly(code, words);
        }
        assert_eq!(images(&s), before);
        let id = s.path("id");
        s.directory("");
        let printed = s.cmd(["commit", "-q", "--iidfile"]).arg(&id).arg("c").ok();
        assert_eq!(fs::read_to_string(&id).expect("read"), printed);

        // Without its image there is nothing to put a layer on.
        s.cmd(["rmi", "-f", &printed]).ok();
        s.cmd(["rmi", "-f", "tools"]).ok();
        s.cmd(["commit", "c", "x"])
            .run()
            .failed_clearly(1, &["image", "export"]);
        s.cmd(["export", "-q", "-o", "/dev/null", "c"]).ok();
        s.cmd(["rm", "c"]).ok();
    }
}

#[test]
fn objects_of_a_container_are_readable_and_nobody_s_to_write() {
    let s = TestStore::with_tools(Who::all()[0]);
    s.cmd([
        "run",
        "--name",
        "c",
        "tools",
        "sh",
        "-c",
        "head -c 2000000 /dev/zero | tr '\\0' x >/f",
    ])
    .ok();
    let ino = fs::metadata(only_data_file(&s)).expect("stat").ino();
    s.cmd(["commit", "-q", "c", "x"]).ok();
    let object = object_with(&s, ino).expect("moved");
    assert_eq!(
        fs::metadata(object).expect("stat").permissions().mode() & 0o777,
        0o444
    );
    s.cmd(["rm", "c"]).ok();
}
