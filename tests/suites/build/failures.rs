//! Builds that fail: file, line, what to do; nothing tagged, nothing left.

use std::{fs, process::Command, time::Duration};

use nix::sys::signal::Signal;
use pellicle_tests::{Cmd, Ending, TestStore, Who, pellicle, skip, tools_image, wait_for};

use crate::support::Site;

#[test]
fn what_is_wrong_with_the_file_is_told_before_anything_is_done() {
    for who in Who::all().into_iter().take(1) {
        let b = Site::new(who);
        b.file("f", "");
        let before = b.images();
        for (text, code, words) in [
            (
                "FROM tools\nRUM ls\n",
                1,
                &["Containerfile:2", "unknown instruction RUM"][..],
            ),
            ("RUN ls\n", 1, &["Containerfile:1", "before the first FROM"]),
            ("", 1, &["no FROM"]),
            (
                "FROM nothere\n",
                1,
                &["Containerfile:1", "nothere", "not in the store"],
            ),
            (
                "FROM tools AS a\nRUN true\nFROM tools\nCOPY --from=5 /f /\n",
                1,
                &["Containerfile:4", "no stage 5"],
            ),
            (
                "FROM tools\nCOPY --from=nothere f /\n",
                1,
                &["Containerfile:2", "nothere", "not in the store"],
            ),
            (
                "FROM tools AS a\nCOPY --from=b /f /\nFROM a AS b\n",
                1,
                &["Containerfile:2", "needs"],
            ),
            (
                "FROM tools\nCOPY missing /\n",
                1,
                &["Containerfile:2", "missing", "not in the context"],
            ),
            (
                "FROM tools\nRUN <<EOF\nls\n",
                1,
                &["Containerfile:2", "EOF", "never ends"],
            ),
            ("FROM tools\nENV A=${B\n", 1, &["Containerfile:2", "brace"]),
            (
                "FROM tools\nSTOPSIGNAL SIGNOT\n",
                1,
                &["Containerfile:2", "SIGNOT"],
            ),
            ("FROM tools\nEXPOSE many\n", 1, &["Containerfile:2", "many"]),
            (
                "FROM tools\nRUN --network=some ls\n",
                1,
                &["Containerfile:2", "some"],
            ),
            (
                "FROM tools\nRUN --mount=type=smb,target=/x ls\n",
                1,
                &["Containerfile:2", "type=smb"],
            ),
            (
                "FROM tools\nCOPY --chmod=abc f /\n",
                1,
                &["Containerfile:2", "abc"],
            ),
            (
                "FROM --platform=linux/s390x tools\n",
                1,
                &["Containerfile:1", "s390x"],
            ),
        ] {
            b.build(text, &["-t", "bad"])
                .run()
                .failed_clearly(code, words);
        }
        b.build("FROM tools\n", &["--target", "y"])
            .run()
            .failed_clearly(1, &["no stage", "y"]);
        b.build("FROM tools\n", &["-t", "Not A Name"])
            .run()
            .failed_clearly(1, &["no image name"]);
        b.s.cmd(["build", "/no/such/context"])
            .run()
            .failed_clearly(1, &["/no/such/context"]);
        b.s.cmd(["build"]).run().failed_clearly(2, &["context"]);
        assert_eq!(b.images(), before);
    }
}

#[test]
fn a_failing_run_names_its_line_and_leaves_nothing() {
    for who in Who::all() {
        let b = Site::new(who);
        b.built("FROM tools\n", &[]);
        let before = b.images();
        let text =
            "FROM tools\n# a comment\nRUN true && \\\n    echo said; exit 7\nRUN echo never\n";
        for quiet in [&["-t", "x"][..], &["-t", "x", "-q"]] {
            let out = b.build(text, quiet).run();
            assert!(out.err().contains("said\n"), "{out}");
            assert!(!out.err().contains("RUN echo never"));
            out.failed_clearly(1, &["Containerfile:3", "exit code 7", "hint:"]);
        }
        b.build("FROM tools\nRUN [\"/no/such\"]\n", &["-t", "x"])
            .run()
            .failed_clearly(1, &["Containerfile:2", "/no/such"]);
        b.build("FROM tools\nUSER nobody-here\nRUN ls\n", &["-t", "x"])
            .run()
            .failed_clearly(1, &["Containerfile:3", "nobody-here"]);
        b.build("FROM scratch\nRUN ls\n", &["-t", "x"])
            .run()
            .failed_clearly(1, &["Containerfile:2"]);
        assert_eq!(b.images(), before);
        assert_eq!(b.s.cmd(["ps", "-a", "-q"]).ok(), "");
        let work = b.s.root().join("builds/work");
        assert_eq!(fs::read_dir(work).unwrap().count(), 0);
    }
}

#[test]
fn a_build_that_is_interrupted_or_killed_leaves_no_container() {
    for who in Who::all() {
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
            let b = Site::new(who);
            let text = format!("FROM tools\nRUN sleep {}\n", b.s.seconds());
            let build = b.build(&text, &["-t", "x"]).spawn();
            wait_for("the command of RUN", Duration::from_secs(60), || {
                (!b.s.sleepers().is_empty()).then_some(())
            });
            let supervisors = Ending::of(&b.s.servers());
            build.signal(signal);
            let out = build.wait();
            match signal {
                Signal::SIGKILL => assert_eq!(out.code(), 137),
                _ => {
                    let _ = out.exited(130);
                }
            }
            wait_for("the command's end", Duration::from_secs(60), || {
                b.s.sleepers().is_empty().then_some(())
            });
            supervisors.wait();
            // The next command clears up behind one that was killed.
            b.s.cmd(["ps", "-a"]).ok();
            assert_eq!(b.s.cmd(["ps", "-a", "-q"]).ok(), "", "{signal}");
            assert!(!b.images().contains("<none>"), "{signal}");
            b.built("FROM tools\nRUN true\n", &[]);
            let work = b.s.root().join("builds/work");
            assert_eq!(fs::read_dir(work).unwrap().count(), 0, "{signal}");
        }
    }
}

#[test]
fn a_build_that_finds_the_disk_full_leaves_the_store_usable() {
    let test = "a_build_that_finds_the_disk_full_leaves_the_store_usable";
    if let Some(why) = Who::Root.missing() {
        return skip(test, &why);
    }
    let s = TestStore::new(Who::Root);
    let small = s.directory("small");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=160m", "tmpfs"])
        .arg(&small)
        .status();
    assert!(mounted.expect("mount").success());
    let cmd = |args: &[&str]| -> Cmd {
        let mut command = Command::new(pellicle());
        command.env("PELLICLE_ROOT", small.join("store"));
        Cmd::new(command).args(args)
    };
    let context = s.directory("ctx");
    let build = |text: &str| {
        s.file("ctx/Containerfile", text);
        cmd(&["build", "-t", "x", context.to_str().expect("plain")]).run()
    };
    let image = tools_image();
    let imported = cmd(&["import", image.to_str().expect("plain"), "tools"]).run();
    let first = "FROM tools\nRUN echo first >/first\n";
    s.file("ctx/large", vec![7; 1 << 20]);
    let filled = build(&format!(
        "{first}RUN head -c 300000000 /dev/urandom >/large\nRUN echo never\n"
    ));
    let copied = {
        let noise = Command::new("sh")
            .args(["-c", "head -c 300000000 /dev/urandom >\"$1\"", "sh"])
            .arg(s.path("ctx/large"))
            .status();
        assert!(noise.expect("sh").success());
        build(&format!("{first}COPY large /large\n"))
    };
    let images = cmd(&["images", "-aq"]).run().out().lines().count();
    let containers = cmd(&["ps", "-aq"]).run().out();
    let work = fs::read_dir(small.join("store/builds/work")).map(Iterator::count);
    let next = build(&format!("{first}RUN echo second >>/first\n"));
    let says = cmd(&["run", "--rm", "x", "cat", "/first"]).run().out();
    let verified = cmd(&["store", "verify"]).run();
    let _ = Command::new("umount").arg("-l").arg(&small).status();

    let _ = imported.succeeded();
    for (failed, line) in [(&filled, "Containerfile:3"), (&copied, "Containerfile:3")] {
        assert_eq!(failed.code(), 1, "{failed}");
        assert!(failed.err().contains(line), "{failed}");
    }
    assert!(filled.err().contains("No space left"), "{filled}");
    copied.failed_clearly(1, &["no space left"]);
    assert_eq!((images, containers.as_str()), (1, ""));
    assert_eq!(work.expect("list"), 0);
    let next = next.succeeded();
    assert!(next.err().contains("Using cache"), "{next}");
    assert_eq!(says, "first\nsecond");
    let _ = verified.succeeded();
}

#[test]
fn two_builds_at_once_do_not_disturb_each_other() {
    for who in Who::all() {
        let b = Site::new(who);
        b.file(
            "Containerfile",
            "FROM tools\nRUN sleep 0.3; head -c 8 /dev/urandom >/r\nCOPY Containerfile /\n",
        );
        let start = |name: &str| b.s.cmd(["build", "-t", name]).arg(b.s.path("ctx")).spawn();
        let all = [start("a"), start("b"), start("c")];
        for build in all {
            let _ = build.wait().succeeded();
        }
        for name in ["a", "b", "c"] {
            assert_eq!(b.s.sh(name, "wc -c </r").ok(), "8");
        }
        b.s.cmd(["store", "verify"]).ok();
    }
}
