//! Instructions, each by an effect that can be seen.

use pellicle_tests::Who;
use serde_json::json;

use crate::support::Site;

#[test]
fn run_has_both_forms_and_heredocs() {
    for who in Who::all() {
        let b = Site::new(who);
        b.built(
            "FROM tools\n\
             RUN echo one >/one && \\\n    # a comment\n    echo $HOME >>/one\n\
             RUN [\"sh\", \"-c\", \"echo $0 two >/two\", \"arg\"]\n\
             RUN <<EOF\nset -e\nx=three\necho $x >/three\nEOF\n\
             RUN cat <<A >/four && cat <<'B' >>/four\nfo$((1+1))r\nA\n$raw\nB\n\
             RUN <<EOF\n#!/bin/cat\nfrom a script\nEOF\n",
            &[],
        );
        assert_eq!(
            b.says("cat /one /two /three /four"),
            "one\n/root\narg two\nthree\nfo2r\n$raw"
        );
        assert_eq!(b.layers("x"), 5, "the last RUN changed nothing");
    }
}

#[test]
fn the_output_of_run_and_the_steps_are_shown_but_not_on_standard_output() {
    let Some(who) = Who::all().into_iter().next() else {
        return;
    };
    let b = Site::new(who);
    let text = "FROM tools\nRUN echo to-out; echo to-err >&2\nCMD [\"ls\"]\n";
    let out = b.built(text, &[]);
    for line in [
        "STEP 1/3: FROM tools",
        "STEP 2/3: RUN echo",
        "to-out\n",
        "to-err\n",
        "STEP 3/3: CMD",
    ] {
        assert!(out.err().contains(line), "{line}: {out}");
    }
    let out = b.built(text, &["--no-cache", "-q"]);
    assert_eq!(out.err(), "");
}

#[test]
fn settings_are_those_of_the_file() {
    for who in Who::all() {
        let b = Site::new(who);
        b.built(
            "FROM tools\n\
             ENV A=1 B=\"two words\" C='$A'\n\
             ENV D=$A-${B:-x}-${none:-none}\n\
             ENV SPACE of two\n\
             LABEL k=$A \"a b\"=\"c d\"\n\
             USER app:extra\n\
             WORKDIR /w\nWORKDIR deep/$A\n\
             EXPOSE 80 53/udp\n\
             VOLUME /data [\"/x\"]\nVOLUME [\"/y\"]\n\
             STOPSIGNAL SIGQUIT\n\
             SHELL [\"/bin/sh\", \"-e\", \"-c\"]\n\
             HEALTHCHECK --interval=5s --retries=2 CMD [\"true\"]\n\
             ENTRYPOINT [\"sh\", \"-c\"]\n\
             CMD echo $0\n\
             ONBUILD RUN echo triggered >/tmp/t\n",
            &["--label", "more=1"],
        );
        let env = b.config("Env");
        let env: Vec<&str> = env
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|e| e.as_str())
            .collect();
        for want in [
            "A=1",
            "B=two words",
            "C=$A",
            "D=1-two words-none",
            "SPACE=of two",
        ] {
            assert!(env.contains(&want), "{want}: {env:?}");
        }
        assert_eq!(
            b.config("Labels"),
            json!({"k": "1", "a b": "c d", "more": "1"})
        );
        assert_eq!(b.config("User"), "app:extra");
        assert_eq!(b.config("WorkingDir"), "/w/deep/1");
        assert_eq!(
            b.config("ExposedPorts"),
            json!({"80/tcp": {}, "53/udp": {}})
        );
        assert_eq!(b.config("StopSignal"), "SIGQUIT");
        assert_eq!(b.config("Shell"), json!(["/bin/sh", "-e", "-c"]));
        assert_eq!(b.config("Entrypoint"), json!(["sh", "-c"]));
        assert_eq!(b.config("Cmd"), json!(["/bin/sh", "-e", "-c", "echo $0"]));
        assert_eq!(b.config("OnBuild"), json!(["RUN echo triggered >/tmp/t"]));
        assert_eq!(
            b.config("Healthcheck"),
            json!({"Test": ["CMD", "true"], "Interval": 5_000_000_000u64, "Retries": 2})
        );
        let volumes = b.config("Volumes");
        assert!(
            volumes.get("/data").is_some() && volumes.get("/y").is_some(),
            "{volumes}"
        );
        let seen = b.s.run("x").arg("id -u; id -g; pwd; echo $D").ok();
        assert_eq!(seen, "1000\n2000\n/w/deep/1\n1-two words-none");
        // A build on top of it does what ONBUILD says, and the image made so says it no more.
        b.s.cmd(["tag", "x", "base"]).ok();
        b.built("FROM base\nUSER root\nRUN cat /tmp/t >/t\n", &[]);
        assert_eq!(b.s.run("x").arg("cat /t").ok(), "triggered");
        assert_eq!(b.config("OnBuild"), json!(null));
    }
}

#[test]
fn user_workdir_shell_and_env_hold_for_run() {
    for who in Who::all() {
        let b = Site::new(who);
        b.built(
            "FROM tools\nENV X=from-env\nWORKDIR /tmp/w\nRUN chown app /tmp/w\nUSER app\n\
             SHELL [\"/bin/sh\", \"-c\", \"eval \\\"$0\\\"\"]\nRUN id -u >u\n\
             SHELL [\"/bin/sh\", \"-c\"]\nRUN echo $X $(pwd) >v\n",
            &[],
        );
        assert_eq!(
            b.says("cat u v; stat -c %U u"),
            "1000\nfrom-env /tmp/w\napp"
        );
    }
}

#[test]
fn arguments_come_from_the_command_line_their_default_or_before_from() {
    for who in Who::all() {
        let b = Site::new(who);
        let text = "ARG BASE=none\nARG G=global\nFROM $BASE\nARG G\nARG D=default\nARG E=$D-2\nARG N\n\
                    RUN echo $G $D $E ${N:-unset} $http_proxy >/args\n\
                    ENV D=env\nRUN echo $D >>/args\nARG TARGETARCH\nRUN echo $TARGETARCH >>/args\n";
        b.built(
            text,
            &["--build-arg", "BASE=tools", "--build-arg", "http_proxy=p:1"],
        );
        let lines = b.says("cat /args");
        let lines: Vec<&str> = lines.lines().collect();
        assert_eq!(lines[..2], ["global default default-2 unset p:1", "env"]);
        assert!(!lines[2].is_empty());
        let out = b.built(
            text,
            &[
                "--build-arg",
                "BASE=tools",
                "--build-arg",
                "D=given",
                "--build-arg",
                "typo=1",
            ],
        );
        assert!(
            b.says("cat /args")
                .starts_with("global given given-2 unset")
        );
        assert!(out.err().contains("typo"), "{out}");
        // A stage on top of another has its arguments too.
        b.built("FROM tools AS a\nARG Z=z\nFROM a\nRUN echo $Z >/z\n", &[]);
        assert_eq!(b.says("cat /z"), "z");
        // They are not in the image.
        let env = b.config("Env").to_string();
        assert!(!env.contains("given") && !env.contains("p:1"), "{env}");
    }
}

#[test]
fn stages_hand_files_on_and_unused_ones_are_not_built() {
    for who in Who::all() {
        let b = Site::new(who);
        let text = "FROM tools AS build\nRUN mkdir -p /out/d && echo made >/out/d/f && ln -s d/f /out/l && echo big >/out/not\n\
                    FROM tools AS unused\nRUN false\n\
                    FROM tools AS middle\nCOPY --from=build /out/ /from/\n\
                    FROM scratch\nCOPY --from=middle /from/d /d/\nCOPY --from=0 /out/l /l\nCOPY --from=tools /etc/base /\n";
        let _ = b.build(text, &["-t", "x"]).run().succeeded();
        assert_eq!(b.layers("x"), 3);
        let list = b.s.cmd(["export", "x"]).run().succeeded();
        let mut archive = tar::Archive::new(list.stdout.as_slice());
        let mut names: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|e| e.unwrap().path().unwrap().display().to_string())
            .map(|name| name.trim_end_matches('/').to_owned())
            .filter(|name| name != ".")
            .collect();
        names.sort();
        assert_eq!(
            names,
            ["base", "d", "d/f", "l"].map(str::to_owned).to_vec(),
            "{names:?}"
        );
        b.built(text, &["--target", "middle"]);
        assert_eq!(b.says("cat /from/l /from/not"), "made\nbig");
        b.build(text, &["--target", "unused"])
            .run()
            .failed_clearly(1, &["Containerfile:4", "exit code 1"]);
    }
}

#[test]
fn a_squashed_build_adds_one_layer_that_shows_the_same() {
    for who in Who::all() {
        let b = Site::new(who);
        b.file("f", "copied\n").file("d/e/g", "deep\n");
        let text = "FROM tools\nRUN mkdir -p /a/b && echo 1 >/a/b/c && ln /a/b/c /a/hard && echo gone >/gone && rm /etc/base\n\
                    RUN echo 2 >>/a/b/c && chmod 4711 /a/b/c && rm /gone && mv /a /moved && dd if=/dev/zero of=/sparse bs=1 count=1 seek=3000000 2>/dev/null\n\
                    COPY d /d\nRUN rm -r /d/e && mkdir /d/e && touch -d 2001-01-01 /d/e /d && mkfifo /p 2>/dev/null || mknod /p p && ln -s x /l\n\
                    COPY --chown=3:4 f /d/\nENV A=1\n";
        let list = "find / -xdev ! -path '/proc*' ! -path '/sys*' ! -path '/dev*' ! -path '/etc/host*' ! -path '/etc/res*' \
                    -printf '%p %y %m %U:%G %n %l %s %t\n' | sed 's/^\\(.* d [0-7]* [0-9:]* [0-9]*\\)  [0-9]* /\\1 /' | grep -v '^/etc d\\|^/ d' | sort; cat /moved/hard";
        b.built(text, &[]);
        let layers = b.layers("x");
        let want = b.says(list);
        let id = b.built(text, &["--squash"]).out();
        assert_eq!(b.layers("x"), 2);
        assert!(layers > 4);
        assert_eq!(b.says(list), want);
        assert_eq!(b.built(text, &["--squash"]).out(), id);
        assert!(b.s.cmd(["history", "x"]).ok().contains("ENV A=1"));
    }
}

#[test]
fn stages_that_do_not_need_each_other_are_built_at_the_same_time() {
    for who in Who::all() {
        let b = Site::new(who);
        // Each waits for what the other puts into a cache that both have.
        let wait = |mine: &str, other: &str| {
            format!(
                "FROM tools AS {mine}\nRUN --mount=type=cache,target=/c touch /c/{mine} && n=0 && \
                 while ! test -e /c/{other}; do sleep 0.1; n=$((n+1)); test $n -lt 1200; done && echo {mine} >/{mine}\n"
            )
        };
        let text = format!(
            "{}{}FROM tools\nCOPY --from=one /one /\nCOPY --from=two /two /\n",
            wait("one", "two"),
            wait("two", "one")
        );
        b.built(&text, &[]);
        assert_eq!(b.says("cat /one /two"), "one\ntwo");
        let text = "FROM tools AS a\nRUN sleep 0.5; exit 3\nFROM tools AS b\nRUN sleep 300\nFROM tools\n\
                    COPY --from=a /x /\nCOPY --from=b /x /\n";
        let out = b.build(text, &["-t", "y"]).run();
        out.failed_clearly(1, &["Containerfile:2", "exit code 3"]);
        assert_eq!(b.s.cmd(["ps", "-a", "-q"]).ok(), "");
    }
}

#[test]
fn files_can_be_written_out_instead_of_an_image() {
    for who in Who::all() {
        let b = Site::new(who);
        let text = "FROM scratch\nCOPY a /d/a\nCOPY --chown=7:8 --chmod=751 a /b\n";
        b.file("a", "content\n");
        let before = b.images();
        let to = b.s.path("out");
        let spec = format!("type=local,dest={}", to.display());
        let _ = b.build(text, &["--output", &spec]).run().succeeded();
        assert_eq!(
            std::fs::read_to_string(to.join("d/a")).unwrap(),
            "content\n"
        );
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(to.join("b"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o751);
        let tar = b.build(text, &["--output", "-"]).run().succeeded();
        let mut archive = tar::Archive::new(tar.stdout.as_slice());
        let owners: Vec<(String, u64)> = archive
            .entries()
            .unwrap()
            .map(|e| {
                let e = e.unwrap();
                (
                    e.path().unwrap().display().to_string(),
                    e.header().uid().unwrap(),
                )
            })
            .collect();
        assert!(owners.contains(&("b".to_owned(), 7)), "{owners:?}");
        assert_eq!(b.images(), before, "no image is made");
        b.build(text, &["--output", &spec, "-t", "x"])
            .run()
            .failed_clearly(2, &["--output", "--tag"]);
    }
}

#[test]
fn the_file_may_come_from_elsewhere_and_the_id_goes_to_a_file() {
    for who in Who::all() {
        let b = Site::new(who);
        b.file("f", "in the context\n");
        let id = b.s.path("id");
        let cmd =
            b.s.cmd(["build", "-t", "x", "-t", "y:2", "-f", "-", "--iidfile"]);
        let out = cmd
            .arg(&id)
            .arg(b.s.path("ctx"))
            .stdin("FROM tools\nCOPY f /\n")
            .ok();
        assert_eq!(std::fs::read_to_string(&id).unwrap(), out);
        assert_eq!(b.s.sh("y:2", "cat /f").ok(), "in the context");
        assert_eq!(b.inspect("x"), b.inspect("y:2"));
        // Without a context nothing can be copied, but much can be done.
        let text = "FROM tools\nCOPY <<EOF /t\nfrom $X the file\nEOF\nENV X=1\n";
        b.s.cmd(["build", "-t", "x", "-"]).stdin(text).ok();
        assert_eq!(b.says("cat /t"), "from  the file");
        b.s.cmd(["build", "-"])
            .stdin("FROM tools\nCOPY f /\n")
            .run()
            .failed_clearly(1, &["standard input:2", "no context"]);
    }
}
