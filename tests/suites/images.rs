//! Images: import, load, mount, remove; archives made by other programs.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::Command,
};

use pellicle_tests::{
    Cmd, Outcome, TestStore, Who,
    archive::{Archive, gzip, kind, zstd},
    skip, tools_image,
};

/// A layer with one of everything that a plain header can say.
fn plain_layer() -> Vec<u8> {
    Archive::new()
        .dir("d/")
        .file("d/file", "content\n")
        .link(kind::LINK, "d/linked", "d/file")
        .link(kind::SYMLINK, "d/symlink", "file")
        .file("big", vec![7; 300_000])
        .end()
}

fn program(name: &str, args: &[&str]) -> Outcome {
    let mut command = Command::new(name);
    command.args(args);
    Cmd::new(command).run()
}

fn installed(name: &str) -> bool {
    Command::new("sh")
        .args(["-c", &format!("command -v {name}")])
        .output()
        .is_ok_and(|o| o.status.success())
}

/// Makes `dir` and everything in it readable by everyone.
fn open_to_all(dir: &Path) {
    let _ = program("chmod", &["-R", "a+rX", dir.to_str().expect("plain")]).succeeded();
}

#[test]
fn plain_gzip_and_zstd_archives_give_the_same_layer() {
    for who in Who::all() {
        let s = TestStore::new(who);
        let tar = plain_layer();
        let mut layers = Vec::new();
        for (name, bytes) in [
            ("a.tar", tar.clone()),
            ("a.tar.gz", gzip(&tar)),
            ("a.tar.zst", zstd(&tar)),
        ] {
            let file = s.file(name, bytes);
            s.cmd(["import"]).arg(file).arg(name.replace('.', "-")).ok();
            let told: serde_json::Value =
                serde_json::from_str(&s.cmd(["inspect", &name.replace('.', "-")]).ok())
                    .expect("JSON");
            layers.push(
                told.pointer("/0/RootFS/Layers")
                    .expect("RootFS.Layers")
                    .clone(),
            );
        }
        assert_eq!(layers[0], layers[1]);
        assert_eq!(layers[0], layers[2]);
        assert_eq!(layers[0].as_array().map(Vec::len), Some(1));
    }
}

#[test]
fn images_are_listed_until_they_are_removed() {
    for who in Who::all() {
        let s = TestStore::new(who);
        let file = s.file("a.tar", plain_layer());
        s.cmd(["import"]).arg(&file).arg("here:v1").ok();
        s.cmd(["import"]).arg(&file).arg("here:v2").ok();
        let list = s.cmd(["images"]).ok();
        assert!(
            list.lines()
                .any(|l| l.starts_with("here") && l.contains("v1")),
            "{list}"
        );
        s.cmd(["rmi", "here:v1"]).ok();
        let list = s.cmd(["images"]).ok();
        assert!(!list.contains("v1") && list.contains("v2"), "{list}");
        s.cmd(["rmi", "here:v2"]).ok();
        assert_eq!(s.cmd(["images", "-q"]).ok(), "");
        s.cmd(["rmi", "here:v2"])
            .run()
            .failed_clearly(1, &["here:v2"]);
    }
}

#[test]
fn an_image_in_use_is_not_removed() {
    for who in Who::all() {
        let s = TestStore::with_tools(who);
        s.cmd(["run", "-d", "--name", "user-of-it", "tools", "sleep"])
            .arg(s.seconds())
            .ok();
        s.cmd(["rmi", "tools"])
            .run()
            .failed_clearly(1, &["container"]);
        s.cmd(["rm", "-f", "user-of-it"]).ok();
        s.cmd(["rmi", "tools"]).ok();
    }
}

/// Checks the tree of [`plain_layer`] mounted at `at`.
fn check_plain(at: &Path) {
    assert_eq!(fs::read(at.join("d/symlink")).expect("read"), b"content\n");
    assert_eq!(fs::read(at.join("big")).expect("read"), vec![7; 300_000]);
    let (a, b) = (
        fs::metadata(at.join("d/file")).expect("stat"),
        fs::metadata(at.join("d/linked")).expect("stat"),
    );
    assert_eq!((a.ino(), a.nlink()), (b.ino(), 2));
    assert_eq!(a.permissions().mode() & 0o7777, 0o755);
    assert_eq!(a.mtime(), 0o14000000000);
    let names: Vec<_> = {
        let mut names: Vec<_> = fs::read_dir(at.join("d"))
            .expect("list")
            .map(|e| e.expect("entry").file_name())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names, ["file", "linked", "symlink"]);
    let refused = fs::write(at.join("new"), "x").expect_err("a read-only mount");
    assert_eq!(refused.raw_os_error(), Some(nix::libc::EROFS));
}

#[test]
fn an_image_is_mounted_and_unmounted() {
    // Only root of the mount's own user sees into it: the test has to be whom it is for.
    for who in Who::all()
        .into_iter()
        .filter(|who| who.ids().0 == nix::unistd::geteuid().as_raw())
    {
        let s = TestStore::new(who);
        let file = s.file("a.tar", plain_layer());
        s.cmd(["import"]).arg(&file).arg("a").ok();
        let at = s.directory("at");
        s.cmd(["mount", "a"]).arg(&at).ok();
        check_plain(&at);
        s.unmount(&at);
        assert_eq!(fs::read_dir(&at).expect("list").count(), 0);
        s.cmd(["umount"]).arg(&at).run().failed_clearly(1, &["at"]);
    }
}

#[test]
fn a_bare_archive_is_mounted_in_place_whatever_its_compression() {
    for who in Who::all()
        .into_iter()
        .filter(|who| who.ids().0 == nix::unistd::geteuid().as_raw())
    {
        let s = TestStore::new(who);
        let tar = plain_layer();
        for (name, bytes) in [
            ("a.tar", tar.clone()),
            ("a.tar.gz", gzip(&tar)),
            ("a.tar.zst", zstd(&tar)),
        ] {
            let (file, at) = (s.file(name, bytes), s.directory("at"));
            s.cmd(["mount"]).arg(&file).arg(&at).ok();
            check_plain(&at);
            s.unmount(&at);
        }
        assert_eq!(
            s.cmd(["images", "-q"]).ok(),
            "",
            "mounting imported something"
        );
    }
}

#[test]
fn an_ordinary_user_mounts_and_reads_too() {
    if let Some(why) = Who::User.missing() {
        return skip("an_ordinary_user_mounts_and_reads_too", &why);
    }
    let s = TestStore::new(Who::User);
    let (file, at) = (s.file("a.tar", plain_layer()), s.directory("at"));
    s.cmd(["mount"]).arg(&file).arg(&at).ok();
    let cat = Cmd::new(Who::User.command(Path::new("cat")))
        .arg(at.join("d/symlink"))
        .ok();
    assert_eq!(cat, "content");
    s.unmount(&at);
}

#[test]
fn an_upper_layer_hides_removes_and_replaces() {
    for who in Who::all() {
        let s = TestStore::new(who);
        let more = s.file(
            "more.tar",
            Archive::new()
                .file("etc/.wh.group", "")
                .dir("home/")
                .file("home/.wh..wh..opq", "")
                .file("home/only", "x")
                .file("etc/base", "from above\n")
                .end(),
        );
        s.cmd(["import"])
            .arg(tools_image())
            .arg("two")
            .arg("--layer")
            .arg(more)
            .ok();
        let out = s
            .sh(
                "two",
                "cat /etc/base; ls /home; test -e /etc/group || echo gone; ls -a /etc | grep -c wh",
            )
            .run();
        assert_eq!(out.out(), "from above\nonly\ngone\n0", "{out}");
    }
}

#[test]
fn a_directory_is_imported_with_its_modes_and_links() {
    for who in Who::all() {
        let s = TestStore::new(who);
        let dir = s.directory("tree");
        let tar = tools_image();
        let mut unpack = who.command(Path::new("tar"));
        unpack
            .arg("-xzf")
            .arg(&tar)
            .arg("-C")
            .arg(&dir)
            .arg("--no-same-owner")
            .arg("--preserve-permissions");
        let _ = Cmd::new(unpack).run().succeeded();
        s.cmd(["import"]).arg(&dir).arg("dir").ok();
        assert_eq!(s.run("dir cat /etc/base").ok(), "from the image");
        assert_eq!(s.run("dir stat -c %a /tmp").ok(), "1777");
    }
}

#[test]
fn archives_of_skopeo_and_umoci_are_loaded_and_run() {
    let test = "archives_of_skopeo_and_umoci_are_loaded_and_run";
    for name in ["skopeo", "umoci"] {
        if !installed(name) {
            return skip(test, &format!("{name} is not installed"));
        }
    }
    // umoci makes an OCI layout with a configuration; skopeo turns it into the other forms.
    let made = tempfile::Builder::new()
        .prefix("pellicle-oci-")
        .tempdir()
        .expect("temporary directory");
    let at = |name: &str| made.path().join(name).to_str().expect("plain").to_owned();
    let _ = program("umoci", &["init", "--layout", &at("layout")]).succeeded();
    let image = format!("{}:v1", at("layout"));
    let _ = program("umoci", &["new", "--image", &image]).succeeded();
    let tar = at("tools.tar");
    fs::write(&tar, {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(
            &mut flate2::read::MultiGzDecoder::new(fs::File::open(tools_image()).expect("image")),
            &mut bytes,
        )
        .expect("gzip");
        bytes
    })
    .expect("write");
    let _ = program("umoci", &["raw", "add-layer", "--image", &image, &tar]).succeeded();
    let config = [
        "config",
        "--image",
        &image,
        "--config.env",
        "COLOUR=blue",
        "--config.workingdir",
        "/var",
    ];
    let _ = program("umoci", &config).succeeded();
    let entry = [
        "config",
        "--image",
        &image,
        "--config.entrypoint",
        "sh",
        "--config.entrypoint",
        "-c",
    ];
    let _ = program("umoci", &entry).succeeded();
    let _ = program(
        "umoci",
        &[
            "config",
            "--image",
            &image,
            "--config.cmd",
            "echo $COLOUR; pwd",
        ],
    )
    .succeeded();
    let from = format!("oci:{image}");
    let _ = program(
        "skopeo",
        &[
            "copy",
            "--quiet",
            &from,
            &format!("oci-archive:{}:name/oci:v1", at("oci.tar")),
        ],
    )
    .succeeded();
    let _ = program(
        "skopeo",
        &[
            "copy",
            "--quiet",
            &from,
            &format!("docker-archive:{}:docker/name:v1", at("docker.tar")),
        ],
    )
    .succeeded();
    open_to_all(made.path());
    fs::set_permissions(made.path(), fs::Permissions::from_mode(0o755)).expect("chmod");

    for who in Who::all() {
        for (source, name) in [
            ("docker.tar", Some("docker/name:v1")),
            ("oci.tar", None),
            ("layout", None),
        ] {
            let s = TestStore::new(who);
            let said = s.cmd(["load", "-i", &at(source)]).ok();
            let name = name.map_or_else(|| s.cmd(["images", "-q"]).ok(), str::to_owned);
            assert!(
                !name.is_empty() && !name.contains('\n'),
                "one image from {source}: {name:?}; load said {said}"
            );
            assert_eq!(s.cmd(["run", "--rm", &name]).ok(), "blue\n/var", "{source}");
            assert_eq!(
                s.cmd(["run", "--rm", &name, "echo $COLOUR again"]).ok(),
                "blue again",
                "{source}"
            );
            assert_eq!(
                s.cmd(["run", "--rm", "--entrypoint", "cat", &name, "/etc/base"])
                    .ok(),
                "from the image"
            );
        }
    }
}

#[test]
fn a_layer_that_two_images_share_is_stored_once() {
    for who in Who::all() {
        let s = TestStore::new(who);
        let size = |s: &TestStore| {
            let mut command = Command::new("du");
            command.arg("-sk").arg(s.root());
            Cmd::new(command)
                .ok()
                .split_whitespace()
                .next()
                .and_then(|n| n.parse::<u64>().ok())
                .expect("du")
        };
        s.cmd(["import"]).arg(tools_image()).arg("one").ok();
        let once = size(&s);
        let more = s.file("more.tar", Archive::new().file("x", "y").end());
        s.cmd(["import"])
            .arg(tools_image())
            .arg("two")
            .arg("--layer")
            .arg(more)
            .ok();
        assert!(size(&s) < once + once / 4, "{once} KiB became {}", size(&s));
    }
}

#[test]
fn a_verified_store_is_clean_and_damage_is_named() {
    for who in Who::all() {
        let s = TestStore::new(who);
        let file = s.file("a.tar", plain_layer());
        s.cmd(["import"]).arg(&file).arg("hurt").ok();
        s.cmd(["store", "verify"]).ok();
        let mut find = Command::new("find");
        find.arg(s.root().join("objects"))
            .args(["-type", "f", "-size", "+100k"]);
        let object = Cmd::new(find).ok();
        let object = Path::new(object.lines().next().expect("an object of 300,000 bytes"));
        let mut bytes = fs::read(object).expect("read");
        bytes[1000] ^= 1;
        fs::set_permissions(object, fs::Permissions::from_mode(0o644)).expect("chmod");
        fs::write(object, bytes).expect("write");
        let out = s.cmd(["store", "verify"]).run();
        assert_ne!(out.code(), 0, "{out}");
        assert!(
            (out.out() + &out.err()).contains("hurt"),
            "the image is not named: {out}"
        );
    }
}
