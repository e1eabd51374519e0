//! podman and buildah build, run, commit, compare, mount and remove over `pellicle-overlay` exactly
//! as they do over fuse-overlayfs, and fuse-overlayfs reads afterwards what was written.

use std::process::Command;

use pellicle_tests::{Who, pellicle_overlay, skip, tools_image};

use crate::engine::{Engine, tree};

const FUSE_OVERLAYFS: &str = "fuse-overlayfs";

/// Two stages. Between them the layers have everything that an overlay must carry: whiteouts of
/// files and directories, a directory made anew where one was removed, renamed directories, links
/// of both kinds, set-id bits, other owners, attributes, a file replaced by a directory.
const CONTAINERFILE: &str = r"
FROM localhost/base:1 AS build
RUN mkdir -p /out/sub/deep /out/gone.d && echo built >/out/app && cp /out/app /out/set && chmod 4755 /out/set && \
    echo gone >/out/gone && echo gone >/out/gone.d/x && ln -s app /out/link && ln /out/app /out/hard && \
    echo one >/out/becomes && echo plain >/out/plain
RUN rm /out/gone && rm -r /out/gone.d && mv /out/sub /out/moved && chown 5:6 /out/moved && \
    rm /out/becomes && mkdir /out/becomes && echo two >/out/becomes/two && mkdir -m 2775 /out/sgid
FROM localhost/base:1
COPY --from=build /out /app
RUN rm -r /app/moved && mkdir /app/moved && echo new >/app/moved/new && mknod /app/fifo p && \
    echo line >>/app/hard && rm /etc/motd && touch -d '2001-02-03 04:05:06' /app/link
LABEL made=here
";

/// What a container does to its image, of what fuse-overlayfs 1.10 does right: after a change of a
/// lower file with two names it shows other content and links, and a commit by podman then misses
/// the change, as it misses what is gone from a directory that was removed and made anew; copied-up
/// directories lose their set-group-ID bit.
const CHANGES: &str = "\
echo more >>/app/plain; cat /app/plain
rm /app/becomes/two; echo z >/app/becomes/z
mv /app/moved /app/elsewhere; cat /app/elsewhere/new
chmod 600 /app/plain; ln -s /nowhere /app/dangling; mkdir -p /new/dir; chown 7:8 /new/dir
rm /bin/tty; echo x >/new/dir/x; ln /new/dir/x /new/dir/y
stat -c '%h %s' /new/dir/x
sort /proc/self/mounts | grep -c ' / fuse'";

/// Everything a flow showed, for comparison.
type Shown = Vec<(&'static str, String)>;

/// podman's flow. The last image is left for others to read.
fn podman(engine: &Engine) -> Shown {
    let mut shown = Shown::new();
    prepare(engine);
    let context = engine.store.path("context");
    let context = context.to_str().expect("a path of text");
    engine
        .podman(&["build", "-t", "localhost/app:1", context])
        .ok();
    shown.push(("built", engine.image_tree("localhost/app:1", false)));

    let said = engine
        .podman(&[
            "run",
            // No beginning of an image's id, which engines would take it for.
            "--name",
            "box",
            "localhost/app:1",
            "sh",
            "-euc",
            CHANGES,
        ])
        .ok();
    shown.push(("run", said));
    // podman unmounts in a process of its own after the end of a container.
    engine.podman(&["container", "cleanup", "box"]).ok();
    shown.push(("diff", sorted(&engine.podman(&["diff", "box"]).ok())));
    // Mounts the image's own layer, whose whiteouts podman wrote as `.wh.` files, as an upper directory.
    let said = engine.podman(&["diff", "localhost/app:1"]).ok();
    shown.push(("diff of an image", sorted(&said)));
    // Its changes are there: what it did once cannot be done again.
    let again = engine.podman(&["start", "-a", "box"]).run().exited(1);
    shown.push(("run again", again.out()));
    engine
        .podman(&["commit", "-q", "box", "localhost/app:2"])
        .ok();
    shown.push(("committed", engine.image_tree("localhost/app:2", false)));

    let look = "cat /app/plain /app/becomes/z /app/elsewhere/new; ls /app / | sort -u";
    let said = engine
        .podman(&[
            "run",
            "--rm",
            "--read-only",
            "localhost/app:2",
            "sh",
            "-euc",
            look,
        ])
        .ok();
    shown.push(("committed, run", said));
    shown.push(("volume", overlay_volume(engine)));
    // As root podman 4.3 maps the lower layers by the kernel and by us, so that nothing fits.
    if engine.store.who() == Who::User {
        let said = engine.podman(&[
            "run",
            "--rm",
            "--uidmap",
            "0:100:10000",
            "--gidmap",
            "0:100:10000",
            "localhost/app:2",
            "sh",
            "-euc",
            "stat -c '%n %u:%g %a' / /app /app/app /new/dir; id -u; echo new >/new/mine; \
             chown 9:9 /new/mine; stat -c '%u:%g' /new/mine /new; cat /proc/self/uid_map",
        ]);
        shown.push(("mapped", said.ok()));
    }
    engine.podman(&["rm", "box"]).ok();
    engine.podman(&["rmi", "localhost/app:1"]).ok();
    shown.push((
        "images",
        engine
            .podman(&["images", "--format", "{{.Repository}}:{{.Tag}}"])
            .ok(),
    ));
    shown
}

/// A host directory that the container sees, and changes for itself alone.
fn overlay_volume(engine: &Engine) -> String {
    let host = engine.store.directory("volume");
    engine.store.file("volume/kept", "host");
    let volume = format!("{}:/vol:O", host.display());
    let said = engine
        .podman(&[
            "run",
            "--rm",
            "-v",
            &volume,
            "localhost/app:2",
            "sh",
            "-euc",
            "cat /vol/kept; echo mine >/vol/kept; cat /vol/kept; echo new >/vol/new",
        ])
        .ok();
    let kept = std::fs::read_to_string(host.join("kept")).expect("the host's file");
    assert!(!host.join("new").exists());
    format!("{said}\n{kept}")
}

/// buildah's flow, step by step. The last image is left for others to read.
fn buildah(engine: &Engine) -> Shown {
    let mut shown = Shown::new();
    prepare(engine);
    let context = engine.store.path("context");
    let context = context.to_str().expect("a path of text");
    engine
        .buildah(&["bud", "--layers", "-t", "localhost/app:1", context])
        .ok();
    shown.push(("built", engine.image_tree("localhost/app:1", false)));

    engine
        .buildah(&["from", "--name", "work", "localhost/app:1"])
        .ok();
    let changes = CHANGES.rsplit_once('\n').expect("lines").0;
    let said = engine
        .buildah(&["run", "work", "--", "sh", "-euc", changes])
        .ok();
    shown.push(("run", said));
    engine.store.file("context/copied", "from outside");
    engine
        .buildah(&[
            "copy",
            "--chown=3:4",
            "work",
            &format!("{context}/copied"),
            "/new/copied",
        ])
        .ok();
    let walk = tree(false);
    let mounted = engine.sh(&format!(
        "d=$(buildah mount work)\ncd \"$d\"\n{walk}\necho outside >written\ncd /\n\
         buildah umount work >&2"
    ));
    shown.push(("mounted", mounted.ok()));
    engine
        .buildah(&["commit", "-q", "work", "localhost/app:2"])
        .ok();
    shown.push(("committed", engine.image_tree("localhost/app:2", false)));
    engine.buildah(&["rm", "work"]).ok();
    engine.buildah(&["rmi", "localhost/app:1"]).ok();
    shown.push((
        "images",
        engine
            .buildah(&["images", "--format", "{{.Name}}:{{.Tag}}"])
            .ok(),
    ));
    shown
}

fn prepare(engine: &Engine) {
    let tools = tools_image();
    engine
        .podman(&[
            "import",
            "-q",
            tools.to_str().expect("a path of text"),
            "localhost/base:0",
        ])
        .ok();
    engine.store.file("context/Containerfile", CONTAINERFILE);
    engine.store.directory("first");
    engine.store.file(
        "first/Containerfile",
        "FROM localhost/base:0\nRUN mkdir -p /etc && echo hello >/etc/motd\n",
    );
    let first = engine.store.path("first");
    engine
        .podman(&[
            "build",
            "-t",
            "localhost/base:1",
            first.to_str().expect("a path of text"),
        ])
        .ok();
}

fn sorted(lines: &str) -> String {
    let mut lines: Vec<_> = lines.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// Runs `flow` over both programs and compares what they showed; then reads the layers that ours
/// left by the other one.
fn cannot_be_told_apart(test: &str, who: Who, flow: fn(&Engine) -> Shown) {
    let missing = ["podman", "buildah", "crun", FUSE_OVERLAYFS, "getfattr"]
        .into_iter()
        .find(|program| Command::new(program).arg("--version").output().is_err());
    let why = who
        .missing()
        .or(missing.map(|p| format!("{p} is not installed")));
    if let Some(why) = why {
        skip(test, &why);
        return;
    }
    let theirs = flow(&Engine::new(who, &format!("/usr/bin/{FUSE_OVERLAYFS}")));
    let engine = Engine::new(who, pellicle_overlay().to_str().expect("a path of text"));
    let ours = flow(&engine);
    assert_eq!(ours.len(), theirs.len());
    for ((what, ours), (_, theirs)) in ours.iter().zip(&theirs) {
        assert!(!ours.is_empty(), "{what} showed nothing");
        similar(what, ours, theirs);
    }

    let ours = engine.image_tree("localhost/app:2", true);
    engine.mount_with(&format!("/usr/bin/{FUSE_OVERLAYFS}"));
    let read = engine.image_tree("localhost/app:2", true);
    similar("layers read by fuse-overlayfs", &ours, &read);
}

/// Compares line by line, so that a difference can be read.
#[track_caller]
fn similar(what: &str, ours: &str, theirs: &str) {
    let only = |a: &str, b: &str| -> Vec<String> {
        let b: std::collections::HashSet<_> = b.lines().collect();
        a.lines()
            .filter(|line| !b.contains(line))
            .map(str::to_owned)
            .collect()
    };
    assert!(
        ours == theirs,
        "{what}\n--- pellicle-overlay only\n{}\n--- fuse-overlayfs only\n{}",
        only(ours, theirs).join("\n"),
        only(theirs, ours).join("\n")
    );
}

#[test]
fn podman_as_root_cannot_tell_them_apart() {
    cannot_be_told_apart("podman_as_root_cannot_tell_them_apart", Who::Root, podman);
}

#[test]
fn podman_as_a_user_cannot_tell_them_apart() {
    cannot_be_told_apart("podman_as_a_user_cannot_tell_them_apart", Who::User, podman);
}

#[test]
fn buildah_as_root_cannot_tell_them_apart() {
    cannot_be_told_apart("buildah_as_root_cannot_tell_them_apart", Who::Root, buildah);
}

#[test]
fn buildah_as_a_user_cannot_tell_them_apart() {
    cannot_be_told_apart(
        "buildah_as_a_user_cannot_tell_them_apart",
        Who::User,
        buildah,
    );
}
