//! What cannot be done is said once, clearly, with the right exit code, and leaves nothing.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command, time::Duration};

use pellicle_tests::{
    Cmd, LET_GO, Outcome, TestStore, Who,
    archive::{Archive, gzip, kind, zstd},
    pellicle, skip, tools_image,
};

/// Imports `bytes`, which must fail naming `words`, and leave no image, no object and no layer.
#[track_caller]
fn import_fails(what: &str, bytes: &[u8], words: &[&str]) {
    for who in Who::all() {
        let s = TestStore::new(who);
        s.cmd(["images"]).ok();
        let before = contents(&s);
        let file = s.file("bad.tar", bytes);
        eprintln!("{what} as {who:?}");
        s.cmd(["import"])
            .arg(file)
            .arg("bad")
            .run()
            .failed_clearly(1, words);
        assert_eq!(s.cmd(["images", "-q"]).ok(), "", "{what} left an image");
        assert_eq!(contents(&s), before, "{what} left files in the store");
    }
}

/// Regular files in the store, but for lock files.
fn contents(s: &TestStore) -> String {
    let mut find = Command::new("find");
    find.arg(s.root()).args([
        "-type",
        "f",
        "-not",
        "-path",
        "*/locks/*",
        "-not",
        "-name",
        "*lock*",
    ]);
    Cmd::new(find).run().out()
}

/// Imports `bytes` as a layer over the tools image and gives what `script` in it prints.
fn over_tools(who: Who, bytes: &[u8], script: &str) -> Outcome {
    let s = TestStore::new(who);
    let file = s.file("odd.tar", bytes);
    s.cmd(["import"])
        .arg(tools_image())
        .arg("odd")
        .arg("--layer")
        .arg(file)
        .ok();
    s.sh("odd", script).run()
}

#[test]
fn names_that_lead_outside_never_do() {
    for who in Who::all() {
        for name in [
            "../../etc/pellicle-escape",
            "/../../etc/pellicle-escape",
            "a/../../../etc/pellicle-escape",
        ] {
            let s = TestStore::new(who);
            let file = s.file(
                "odd.tar",
                Archive::new().dir("a/").file(name, "escaped").end(),
            );
            let out = s.cmd(["import"]).arg(file).arg("odd").run();
            assert!(!Path::new("/etc/pellicle-escape").exists());
            assert!(!s.path("etc").exists() && !s.root().join("etc").exists());
            // Refused, naming the entry, or kept inside: both are sound.
            if out.code() != 0 {
                out.failed_clearly(1, &["pellicle-escape"]);
            }
        }
    }
}

#[test]
fn an_absolute_name_is_taken_from_the_images_root() {
    for who in Who::all() {
        let out = over_tools(
            who,
            &Archive::new().file("/etc/absolute", "inside").end(),
            "cat /etc/absolute",
        );
        assert_eq!(out.out(), "inside", "{out}");
        assert!(!Path::new("/etc/absolute").exists());
    }
}

#[test]
fn a_file_through_a_symlink_stays_in_the_image() {
    for who in Who::all() {
        let s = TestStore::new(who);
        let outside = s.directory("outside");
        let bytes = Archive::new()
            .link(kind::SYMLINK, "way", outside.to_str().expect("plain"))
            .file("way/file", "through")
            .end();
        let file = s.file("odd.tar", bytes);
        let out = s.cmd(["import"]).arg(file).arg("odd").run();
        assert_eq!(
            fs::read_dir(&outside).expect("list").count(),
            0,
            "written outside"
        );
        if out.code() != 0 {
            out.failed_clearly(1, &["way/file"]);
        }
    }
}

#[test]
fn hard_links_to_nothing_and_to_outside_are_refused() {
    import_fails(
        "a link to nothing",
        &Archive::new().link(kind::LINK, "l", "not-there").end(),
        &["not-there"],
    );
    import_fails(
        "a link to outside",
        &Archive::new()
            .link(kind::LINK, "l", "../../../../etc/passwd")
            .end(),
        &["\"l\""],
    );
}

#[test]
fn archives_that_end_early_are_refused() {
    let whole = Archive::new()
        .file("first", vec![1; 2000])
        .file("second", vec![2; 20_000])
        .end();
    import_fails("half an entry", &whole[..5000], &["second"]);
    import_fails("half a header", &whole[..512 + 2048 + 100], &[]);
    let gz = gzip(&whole);
    import_fails("half a gzip", &gz[..gz.len() / 2], &[]);
    let zst = zstd(&whole);
    import_fails("half a zstd", &zst[..zst.len() / 2], &[]);
}

#[test]
fn damaged_archives_are_refused() {
    let whole = Archive::new()
        .file("first", vec![1; 2000])
        .file("second", vec![2; 20_000])
        .end();
    let mut bad = whole.clone();
    bad[512 + 2048 + 20] ^= 0x40;
    import_fails("a header with a wrong checksum", &bad, &["checksum"]);
    let mut gz = gzip(&whole);
    let at = gz.len() - 6;
    gz[at] ^= 1;
    import_fails("a gzip with a wrong checksum", &gz, &[]);
    import_fails(
        "no archive at all",
        &b"This is a text and no archive. ".repeat(100),
        &[],
    );
}

#[test]
fn a_claimed_length_is_not_believed() {
    let claims = Archive::new()
        .entry(kind::FILE, "huge", "", 8_000_000_000, b"short")
        .unfinished();
    import_fails("8 GB claimed", &claims, &["huge"]);
    let pax = Archive::new()
        .entry(b'x', "pax", "", 8_000_000_000, b"30 path=x")
        .unfinished();
    import_fails("8 GB of extended header claimed", &pax, &[]);
    let long = Archive::new()
        .entry(b'L', "././@LongLink", "", 8_000_000_000, b"x")
        .unfinished();
    import_fails("8 GB of name claimed", &long, &[]);
}

#[test]
fn the_later_of_two_entries_counts_and_a_file_replaces_a_directory() {
    for who in Who::all() {
        let bytes = Archive::new()
            .file("etc/twice", "first")
            .file("etc/twice", "second")
            .dir("was/")
            .file("was/inside", "x")
            .file("was", "now a file")
            .end();
        let out = over_tools(who, &bytes, "cat /etc/twice /was");
        assert_eq!(out.out(), "secondnow a file", "{out}");
    }
}

#[test]
fn a_whiteout_without_anything_below_means_nothing() {
    for who in Who::all() {
        let out = over_tools(
            who,
            &Archive::new().file("etc/.wh.never-there", "").end(),
            "ls -a / /etc | grep -c wh; cat /etc/base",
        );
        assert_eq!(out.out(), "0\nfrom the image", "{out}");
    }
}

#[test]
fn a_whiteout_of_nothing_is_refused() {
    import_fails(
        "`.wh.` alone",
        &Archive::new().file(".wh.", "").end(),
        &[".wh."],
    );
}

#[test]
fn layouts_and_archives_that_are_none_are_refused() {
    for who in Who::all() {
        let s = TestStore::new(who);
        let empty = s.directory("empty");
        s.cmd(["load", "-i"])
            .arg(&empty)
            .run()
            .failed_clearly(1, &["empty"]);
        let text = s.file("text", "no archive");
        s.cmd(["load", "-i"])
            .arg(&text)
            .run()
            .failed_clearly(1, &["text"]);
        s.cmd(["load", "-i", "/no/such/file"])
            .run()
            .failed_clearly(1, &["/no/such/file"]);
        let layout = s.directory("layout");
        s.directory("layout/blobs/sha256");
        s.file("layout/oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
        let digest = format!("sha256:{}", "0".repeat(64));
        s.file("layout/index.json", format!(r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":10}}]}}"#));
        s.cmd(["load", "-i"])
            .arg(&layout)
            .run()
            .failed_clearly(1, &["sha256:000"]);
        s.file("layout/index.json", r#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:../../../../etc/passwd","size":10}]}"#);
        s.cmd(["load", "-i"])
            .arg(&layout)
            .run()
            .failed_clearly(1, &[]);
        s.file("layout/index.json", "[".repeat(100_000));
        s.cmd(["load", "-i"])
            .arg(&layout)
            .run()
            .failed_clearly(1, &["index.json"]);
        assert_eq!(s.cmd(["images", "-q"]).ok(), "");
    }
}

#[test]
fn a_blob_that_is_not_what_its_digest_says_is_refused() {
    for who in Who::all() {
        let s = TestStore::new(who);
        let layout = s.directory("layout");
        s.directory("layout/blobs");
        s.directory("layout/blobs/sha256");
        s.file("layout/oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
        let hex = "1".repeat(64);
        s.file(&format!("layout/blobs/sha256/{hex}"), "{}");
        s.file("layout/index.json", format!(r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:{hex}","size":2}}]}}"#));
        s.cmd(["load", "-i"])
            .arg(&layout)
            .run()
            .failed_clearly(1, &["sha256:1111"]);
        assert_eq!(s.cmd(["images", "-q"]).ok(), "");
    }
}

#[test]
fn unknown_commands_and_options_are_usage_errors() {
    for who in Who::all() {
        let s = TestStore::new(who);
        s.cmd(["no-such-command"])
            .run()
            .failed_clearly(2, &["no-such-command"]);
        s.cmd(["images", "--no-such-option"])
            .run()
            .failed_clearly(2, &["--no-such-option"]);
        s.cmd(["import"]).run().failed_clearly(2, &[]);
        s.cmd(["import", "/no/such/file", "x"])
            .run()
            .failed_clearly(1, &["/no/such/file"]);
        let file = s.file("a.tar", Archive::new().file("x", "y").end());
        s.cmd(["import"])
            .arg(&file)
            .arg("Bad Name!")
            .run()
            .failed_clearly(1, &["Bad Name!"]);
    }
}

#[test]
fn a_store_that_cannot_be_written_is_named() {
    if let Some(why) = Who::User.missing() {
        return skip("a_store_that_cannot_be_written_is_named", &why);
    }
    let s = TestStore::new(Who::User);
    let file = s.file("a.tar", Archive::new().file("x", "y").end());
    s.cmd(["--root", "/proc/pellicle", "import"])
        .arg(&file)
        .arg("x")
        .run()
        .failed_clearly(1, &["/proc/pellicle"]);
    let closed = s.directory("closed");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).expect("chmod");
    s.cmd(["--root"])
        .arg(closed.join("store"))
        .arg("import")
        .arg(&file)
        .arg("x")
        .run()
        .failed_clearly(1, &["closed"]);
    s.cmd(["--root"])
        .arg(&file)
        .arg("images")
        .run()
        .failed_clearly(1, &["a.tar"]);
}

/// A shell command line that runs `script` as root in a mount namespace of its own, then becomes
/// the test's user for `pellicle ARGS`.
fn in_own_mounts(s: &TestStore, prepare: &str, args: &str) -> Cmd {
    let inner = s.cmd(args.split_whitespace()).into_command();
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        &format!("{LET_GO}; {prepare}; exec \"$@\""),
        "sh",
    ]);
    command.arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    Cmd::new(command)
}

#[test]
fn a_missing_fuse_device_is_said_with_the_next_step() {
    let test = "a_missing_fuse_device_is_said_with_the_next_step";
    if let Some(why) = Who::Root.missing() {
        return skip(test, &why);
    }
    for who in Who::all() {
        let s = TestStore::with_tools(who);
        // Everything else that programs take for granted in /dev stays.
        in_own_mounts(&s, "mount -t tmpfs none /dev && for d in 'null 1 3' 'zero 1 5' 'full 1 7' 'random 1 8' 'urandom 1 9' 'tty 5 0'; do set -- \"$@\"; mknod -m 666 /dev/${d%% *} c ${d#* }; done", "run --rm tools true")
            .run()
            .failed_clearly(125, &["/dev/fuse"]);
    }
}

#[test]
fn user_namespaces_that_are_switched_off_are_said_with_the_next_step() {
    let test = "user_namespaces_that_are_switched_off_are_said_with_the_next_step";
    for who in [Who::Root, Who::User] {
        if let Some(why) = who.missing() {
            return skip(test, &why);
        }
    }
    let s = TestStore::with_tools(Who::User);
    // The limit of a user namespace holds for those made inside it, so the user gets one of its own.
    let inner = s.run("tools true").into_command();
    let binary = inner
        .get_args()
        .position(|a| a.to_string_lossy().starts_with("/"))
        .expect("setpriv's arguments end with the program");
    let mut command = Command::new(inner.get_program());
    command.args(inner.get_args().take(binary));
    command.args(["unshare", "--user", "--map-root-user", "--mount", "--pid"]);
    command.args(["--fork", "--mount-proc", "sh", "-c"]);
    command.args([
        "echo 0 > /proc/sys/user/max_user_namespaces || exit 77; exec \"$@\"",
        "sh",
    ]);
    command.args(inner.get_args().skip(binary));
    for (name, value) in inner.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    let out = Cmd::new(command).run();
    if out.code() == 77 || out.err().contains("unshare:") {
        return skip(
            test,
            &format!("the limit cannot be set here ({})", out.err().trim()),
        );
    }
    out.failed_clearly(125, &["user namespace"]);
}

#[test]
fn without_subordinate_ids_a_container_has_a_single_id_and_says_so() {
    let test = "without_subordinate_ids_a_container_has_a_single_id_and_says_so";
    for who in [Who::Root, Who::User] {
        if let Some(why) = who.missing() {
            return skip(test, &why);
        }
    }
    let s = TestStore::with_tools(Who::User);
    let hide = "mount --bind /dev/null /etc/subuid && mount --bind /dev/null /etc/subgid";
    let out = in_own_mounts(&s, hide, "run --rm tools stat -c %u:%g /etc/base")
        .run()
        .succeeded();
    assert_eq!(out.out(), "0:0");
    in_own_mounts(&s, hide, "run --rm -u 1000 tools true")
        .run()
        .failed_clearly(125, &["subordinate"]);
}

#[test]
fn a_full_disk_is_said_and_leaves_no_half_image() {
    let test = "a_full_disk_is_said_and_leaves_no_half_image";
    if let Some(why) = Who::Root.missing() {
        return skip(test, &why);
    }
    let s = TestStore::new(Who::Root);
    let (small, tools) = (s.directory("small"), tools_image());
    let mount = format!("mount -t tmpfs -o size=1m none {}", small.display());
    let line = format!(
        "--root {}/store import {} big",
        small.display(),
        tools.display()
    );
    in_own_mounts(&s, &mount, &line)
        .run()
        .failed_clearly(1, &["space"]);
    // In one namespace: after the failure the images are listed, and none is there.
    let after = format!(
        "{mount}; {} {line} >/dev/null 2>&1; find {}/store -name '*.tmp*' -o -name '*partial*' | head",
        pellicle().display(),
        small.display()
    );
    let out = in_own_mounts(
        &s,
        &after,
        &format!("--root {}/store images -q", small.display()),
    )
    .run()
    .succeeded();
    assert_eq!(out.out(), "");
}

#[test]
fn a_container_that_fills_the_disk_gets_enospc_and_goes_on() {
    let test = "a_container_that_fills_the_disk_gets_enospc_and_goes_on";
    if let Some(why) = Who::Root.missing() {
        return skip(test, &why);
    }
    let s = TestStore::new(Who::Root);
    let small = s.directory("small");
    let root = format!("{}/store", small.display());
    let prepare = format!(
        "mount -t tmpfs -o size=80m none {} && {} --root {root} import {} tools >/dev/null",
        small.display(),
        pellicle().display(),
        tools_image().display()
    );
    // The kernel tells that it has forgotten a removed file, whose room is free then, a moment after `rm`.
    let script = s.file(
        "fill",
        "for n in 1 2 3 4 5 6 7 8 9 10 11 12; do\n\
         if err=$(dd if=/dev/zero of=/big bs=1M count=200 2>&1); then echo no error; fi\n\
         case $err in *'No space left on device'*) ;; *) echo $err;; esac\n\
         rm /big\n\
         dd if=/dev/zero of=/after bs=1M count=8 2>/dev/null && rm /after || echo failed the $n. time\n\
         done\n\
         echo fine >/after && cat /after\n",
    );
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("chmod");
    let out = in_own_mounts(
        &s,
        &prepare,
        &format!(
            "--root {root} run --rm -v {}:/fill:ro tools sh /fill",
            script.display()
        ),
    )
    .limit(Duration::from_secs(300))
    .run();
    assert_eq!(out.out(), "fine", "{out}");
}

#[test]
fn help_and_version_are_there_without_a_store() {
    for who in Who::all() {
        let s = TestStore::new(who);
        let help = s.cmd(["--help"]).ok();
        for command in ["run", "import", "images", "mount", "diff"] {
            assert!(help.contains(command), "{command} is not in the help");
            let own = s.cmd([command, "--help"]).ok();
            assert!(
                own.contains("Usage:") && own.contains("xample"),
                "{command} --help has no example: {own}"
            );
        }
        assert!(s.cmd(["--version"]).ok().starts_with("pellicle "));
        assert!(!s.root().exists(), "asking for help made a store");
    }
}
