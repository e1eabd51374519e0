//! COPY, ADD and ignore files.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use pellicle_tests::{Cmd, Who};

use crate::support::Site;

/// Sets mode and time of a file of the context.
fn dress(b: &Site, name: &str, mode: u32, date: &str) {
    let path = b.s.path(&format!("ctx/{name}"));
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    let mut touch = Command::new("touch");
    touch.args(["-h", "-d", date]).arg(path);
    Cmd::new(touch).ok();
}

#[test]
fn copies_have_owner_mode_and_time_as_docker_has_them() {
    for who in Who::all() {
        let b = Site::new(who);
        b.file("dir/sub/f", "f\n")
            .file("dir/g", "g\n")
            .file("run.sh", "#!/bin/sh\n");
        std::os::unix::fs::symlink("sub/f", b.s.path("ctx/dir/link")).unwrap();
        dress(&b, "dir/g", 0o640, "2001-02-03 04:05:06Z");
        dress(&b, "run.sh", 0o755, "2002-02-03 04:05:06Z");
        dress(&b, "dir/sub", 0o711, "2003-02-03 04:05:06Z");
        b.built(
            "FROM tools\n\
             COPY dir /new\n\
             COPY run.sh dir/g /in/\n\
             COPY --chown=app --chmod=0600 dir /owned\n\
             COPY --chown=app:extra run.sh /one\n\
             COPY --chown=5 run.sh /five\n\
             WORKDIR /w\nCOPY run.sh .\nCOPY run.sh renamed\n\
             COPY dir/l* /linked/\n\
             RUN mkdir -m 700 /there\nCOPY dir /there\nCOPY dir/sub /there/sub\n",
            &[],
        );
        let told = b.says(
            "stat -c '%n %a %u:%g %F' /new /new/g /new/sub /new/sub/f /new/link /in /in/run.sh \
             /owned /owned/g /one /five /w/run.sh /w/renamed /linked/link /there /there/sub/f",
        );
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines[1], "/new/g 640 0:0 regular file");
        assert_eq!(lines[2], "/new/sub 711 0:0 directory");
        assert_eq!(lines[4], "/new/link 777 0:0 symbolic link");
        assert_eq!(lines[5], "/in 755 0:0 directory");
        assert_eq!(lines[6], "/in/run.sh 755 0:0 regular file");
        assert_eq!(lines[8], "/owned/g 600 1000:1000 regular file");
        assert_eq!(lines[9], "/one 755 1000:2000 regular file");
        assert_eq!(lines[10], "/five 755 5:5 regular file");
        assert_eq!(
            lines[13], "/linked/link 644 0:0 regular file",
            "named, it is followed"
        );
        assert_eq!(
            lines[14], "/there 700 0:0 directory",
            "what is there keeps its mode"
        );
        assert_eq!(
            b.says("stat -c %Y /new/g /in/run.sh /new/sub; readlink /new/link; cat /there/link"),
            "981173106\n1012709106\n1044245106\nsub/f\nf"
        );
    }
}

#[test]
fn patterns_take_what_fits() {
    for who in Who::all() {
        let b = Site::new(who);
        for name in [
            "a1.txt",
            "a2.txt",
            "b.txt",
            "d1/x.c",
            "d2/x.c",
            "d2/y.h",
            "odd[1].txt",
        ] {
            b.file(name, name);
        }
        b.built(
            "FROM tools\nCOPY a?.txt /q/\nCOPY d*/*.c /c/\nCOPY [\"odd[[]1].txt\", \"/o/\"]\nCOPY b.t[x-z]t /one\n",
            &[],
        );
        assert_eq!(
            b.says("ls /q /c /o; cat /c/x.c /one"),
            "/c:\nx.c\n\n/o:\nodd[1].txt\n\n/q:\na1.txt\na2.txt\nd2/x.cb.txt"
        );
        b.build("FROM tools\nCOPY z* /q/\n", &[])
            .run()
            .failed_clearly(1, &["Containerfile:2", "z*", "not in"]);
    }
}

#[test]
fn ignored_files_are_not_seen() {
    for who in Who::all() {
        let b = Site::new(who);
        for name in [
            "keep",
            "drop.log",
            "deep/drop.log",
            "deep/keep",
            "out/a",
            "out/b",
            "out/in/c",
            "secret",
        ] {
            b.file(name, name);
        }
        b.file(
            ".dockerignore",
            "# comment\n**/*.log\nout\n!out/in\nsecret\n",
        );
        let text = "FROM tools\nCOPY . /c\n";
        b.built(text, &[]);
        assert_eq!(
            b.says("cd /c; find . -type f | sort"),
            "./.dockerignore\n./Containerfile\n./deep/keep\n./keep\n./out/in/c"
        );
        // A change of what is left out changes nothing.
        b.file("secret", "other");
        assert!(b.built(text, &[]).err().contains("Using cache"));
        b.build("FROM tools\nCOPY secret /\n", &[])
            .run()
            .failed_clearly(1, &["Containerfile:2", "secret", "ignore"]);
        // The first of its name counts, and one beside the file before that.
        b.file(".containerignore", "keep\n");
        b.built(text, &[]);
        assert_eq!(b.says("ls /c/keep /c/secret 2>&1 | tail -1"), "/c/secret");
        b.file("Containerfile.dockerignore", "*\n!deep\n");
        b.built(text, &[]);
        assert_eq!(
            b.says("find /c -type f | sort"),
            "/c/deep/drop.log\n/c/deep/keep"
        );
    }
}

#[test]
fn nothing_outside_the_context_is_copied() {
    for who in Who::all() {
        let b = Site::new(who);
        b.s.file("outside", "outside");
        let outside = b.s.path("outside");
        std::os::unix::fs::symlink(&outside, b.s.path("ctx/abs")).unwrap();
        std::os::unix::fs::symlink("../outside", b.s.path("ctx/rel")).unwrap();
        std::os::unix::fs::symlink("..", b.s.path("ctx/up")).unwrap();
        for name in [
            "../outside",
            "/../outside",
            "abs",
            "rel",
            "up/outside",
            "none",
        ] {
            b.build(&format!("FROM tools\nCOPY {name} /x\n"), &[])
                .run()
                .failed_clearly(1, &["Containerfile:2", name.trim_start_matches('/')]);
        }
        // As links they are copied.
        b.built("FROM tools\nCOPY . /c/\n", &[]);
        assert_eq!(b.says("readlink /c/rel"), "../outside");
        assert!(b.store_has("outside\n").is_empty());
    }
}

#[test]
fn add_unpacks_archives_and_copies_what_is_none() {
    for who in Who::all() {
        let b = Site::new(who);
        let make = "mkdir t t/d && echo f >t/d/f && ln t/d/f t/hard && ln -s d/f t/soft && chmod 4755 t/hard && \
                    tar -C t --owner=7 --group=8 -cf a.tar . && gzip -k a.tar && zstd -q a.tar && echo text >n.tar && rm -r t";
        let mut sh = Command::new("sh");
        sh.args(["-c", make]).current_dir(b.s.path("ctx"));
        Cmd::new(sh).ok();
        b.built(
            "FROM tools\nADD a.tar /plain\nADD a.tar.gz a.tar.zst /both/\nADD n.tar /not/\nCOPY a.tar /copied/\n\
             ADD --chown=1:2 a.tar /owned/\n",
            &[],
        );
        assert_eq!(
            b.says("cat /plain/soft /both/d/f /not/n.tar; ls /copied; stat -c '%a %u:%g %h' /plain/hard /owned/hard"),
            "f\nf\ntext\na.tar\n4755 7:8 2\n4755 1:2 2"
        );
        b.build("FROM tools\nADD https://localhost/x /x\n", &[])
            .run()
            .failed_clearly(1, &["Containerfile:2", "fetch"]);
    }
}

#[test]
fn copying_replaces_files_follows_linked_directories_and_refuses_the_rest() {
    for who in Who::all() {
        let b = Site::new(who);
        b.file("f", "new\n")
            .file("d/usr", "file\n")
            .file("e/lib/x", "x\n");
        b.built(
            "FROM tools\nRUN mkdir -p /real/lib && ln -s real/lib /lib3 && ln -s /real /r && echo old >/f && ln /f /g\n\
             COPY f /f\nCOPY f /r/\nCOPY e/lib /lib3\n",
            &[],
        );
        assert_eq!(
            b.says("cat /f /g /real/f /real/lib/x; readlink /lib3"),
            "new\nold\nnew\nx\nreal/lib"
        );
        b.build("FROM tools\nCOPY d /\n", &[])
            .run()
            .failed_clearly(1, &["Containerfile:2", "/usr"]);
        b.build("FROM tools\nCOPY f /etc/base/\n", &[])
            .run()
            .failed_clearly(1, &["Containerfile:2", "/etc/base"]);
        b.build("FROM tools\nCOPY --chown=nobody-here f /x\n", &[])
            .run()
            .failed_clearly(1, &["Containerfile:2", "nobody-here"]);
    }
}
