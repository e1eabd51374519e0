//! ADD of addresses and archives, symbolic --chmod, ssh agents, caches that begin with files.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    process::{Command, Stdio},
    thread,
};

use pellicle_tests::{TestStore, Who, archive::Archive, skip};

use crate::{
    support::{Site, installed},
    web::{Page, Web},
};

fn site() -> Site {
    Site::new(Who::User.missing().map_or(Who::User, |_| Who::Root))
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", piped("sha256sum", &[], bytes).split_at(64).0)
}

/// What `program` makes of `input`, as text where it is some.
fn piped(program: &str, args: &[&str], input: &[u8]) -> String {
    String::from_utf8_lossy(&filtered(program, args, input)).into_owned()
}

fn filtered(program: &str, args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect(program);
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    thread::spawn(move || stdin.write_all(&input));
    let mut out = Vec::new();
    let mut stdout = child.stdout.take().expect("piped");
    stdout.read_to_end(&mut out).expect("read");
    assert!(child.wait().expect("wait").success(), "{program}");
    out
}

#[test]
fn add_fetches_what_is_at_an_address_as_docker_does() {
    let b = site();
    let archive = Archive::new().file("inner", "x").end();
    let web = Web::start(vec![
        (
            "/d/one.txt",
            Page::new("one\n").dated("Wed, 21 Oct 2015 07:28:00 GMT"),
        ),
        ("/two?key=1", Page::new("two\n")),
        ("/a.tar", Page::new(archive)),
    ]);
    let text = format!(
        "FROM tools\nADD {0}/d/one.txt /got/\nADD {0}/two?key=1 /got/named\n\
         ADD --chown=5:6 --chmod=755 {0}/a.tar {0}/d/one.txt /both/\n",
        web.address()
    );
    b.built(&text, &[]);
    assert_eq!(
        b.says("cd /; stat -c '%n %a %u:%g %Y %s' got/* both/*; cat got/*"),
        "got/named 600 0:0 0 4\ngot/one.txt 600 0:0 1445412480 4\n\
         both/a.tar 755 5:6 0 2048\nboth/one.txt 755 5:6 1445412480 4\none\ntwo"
            .replace("one\ntwo", "two\none")
    );
    assert!(b.says("ls /both").lines().all(|name| name != "inner"));
}

#[test]
fn what_is_at_an_address_is_asked_for_each_time_and_fetched_when_it_changed() {
    let b = site();
    let web = Web::start(vec![("/f", Page::new("first\n").marked("\"v1\""))]);
    let text = format!(
        "FROM tools\nADD {}/f /f\nRUN cat /f >/seen\n",
        web.address()
    );
    b.built(&text, &[]);
    web.asked();
    let again = b.built(&text, &[]);
    assert_eq!(again.err().matches("Using cache").count(), 2, "{again}");
    assert_eq!(web.asked(), ["GET /f \"v1\" 304"]);
    // A step before it changed, so that what did not change is needed once more.
    let other = text.replace("ADD", "ENV A=1\nADD");
    b.built(&other, &[]);
    assert_eq!(web.asked(), ["GET /f \"v1\" 304", "GET /f  200"]);
    web.set("/f", Page::new("second\n").marked("\"v2\""));
    let changed = b.built(&text, &[]);
    assert_eq!(changed.err().matches("Using cache").count(), 0, "{changed}");
    assert_eq!(b.says("cat /seen"), "second");
    // The same content under another mark is the same step.
    web.set("/f", Page::new("second\n").marked("\"v3\""));
    let same = b.built(&text, &[]);
    assert_eq!(same.err().matches("Using cache").count(), 2, "{same}");
}

#[test]
fn a_checksum_is_checked_and_saves_asking() {
    let b = site();
    let web = Web::start(vec![("/f", Page::new("content\n"))]);
    let add = |sum: &str| format!("FROM tools\nADD --checksum={sum} {}/f /f\n", web.address());
    let right = sha256(b"content\n");
    b.built(&add(&right), &[]);
    assert_eq!(web.asked(), ["GET /f  200"]);
    let again = b.built(&add(&right), &[]);
    assert!(again.err().contains("Using cache"), "{again}");
    assert_eq!(web.asked(), Vec::<String>::new());
    let before = b.images();
    let wrong = sha256(b"other");
    for (text, words) in [
        (add(&wrong), [right.as_str(), wrong.as_str()]),
        (add("md5:1"), ["Containerfile:2", "sha256:"]),
        (
            format!("FROM tools\nADD --checksum={right} Containerfile /f\n"),
            ["Containerfile:2", "one address"],
        ),
        (
            format!("FROM tools\nCOPY --checksum={right} Containerfile /f\n"),
            ["Containerfile:2", "no flag --checksum"],
        ),
    ] {
        b.build(&text, &["-t", "y"]).run().failed_clearly(1, &words);
    }
    assert_eq!(b.images(), before);
}

#[test]
fn an_address_that_gives_nothing_fails_the_build_at_its_line() {
    let b = site();
    let web = Web::start(vec![
        ("/dir/", Page::new("x")),
        ("/moved", Page::moved("/dir/")),
        ("/circle", Page::moved("/circle")),
    ]);
    let address = web.address();
    for (line, words) in [
        (format!("ADD {address}/none /f"), ["Containerfile:2", "404"]),
        (
            format!("ADD {address}/circle /f"),
            ["Containerfile:2", "redirect"],
        ),
        (
            format!("ADD {address}/dir/ /f/"),
            ["Containerfile:2", "names no file"],
        ),
        (
            "ADD http:///x /f".to_owned(),
            ["Containerfile:2", "no address"],
        ),
        (
            "ADD http://127.0.0.1:1/x /f".to_owned(),
            ["Containerfile:2", "127.0.0.1:1"],
        ),
        (
            "ADD https://a.test/b.git#v1 /f".to_owned(),
            ["Containerfile:2", "clone"],
        ),
        (
            "ADD git@a.test:b /f".to_owned(),
            ["Containerfile:2", "clone"],
        ),
    ] {
        b.build(&format!("FROM tools\n{line}\n"), &["-t", "y"])
            .env("PELLICLE_REGISTRY_TIMEOUT", "5")
            .limit(std::time::Duration::from_secs(120))
            .run()
            .failed_clearly(1, &words);
    }
    b.built(&format!("FROM tools\nADD {address}/moved /f\n"), &[]);
    assert_eq!(b.says("cat /f"), "x");
}

#[test]
fn archives_of_every_compression_are_unpacked() {
    let b = site();
    let archive = Archive::new().dir("d").file("d/f", "inside").end();
    for (program, name) in [
        ("gzip", "a.gz"),
        ("xz", "a.xz"),
        ("bzip2", "a.bz2"),
        ("zstd", "a.zst"),
    ] {
        if !installed(program) {
            skip(
                "archives_of_every_compression_are_unpacked",
                &format!("{program} is not installed"),
            );
            continue;
        }
        b.s.file(&format!("ctx/{name}"), filtered(program, &["-c"], &archive));
        // What is compressed and no archive stays as it is; two streams are one, as the programs have it.
        b.s.file(
            &format!("ctx/plain-{name}"),
            filtered(program, &["-c"], b"text"),
        );
        let (head, tail) = archive.split_at(700);
        let two = [
            filtered(program, &["-c"], head),
            filtered(program, &["-c"], tail),
        ];
        b.s.file(&format!("ctx/two-{name}"), two.concat());
        b.built(
            &format!(
                "FROM tools\nADD {name} /one/\nADD two-{name} /two/\nADD plain-{name} /plain/\n"
            ),
            &[],
        );
        assert_eq!(
            b.says("cat /one/d/f /two/d/f; ls /plain"),
            format!("insideinsideplain-{name}")
        );
        let mut broken = filtered(
            program,
            &["-c"],
            &Archive::new().file("f", vec![7; 200_000]).end(),
        );
        broken.truncate(broken.len() / 2);
        b.s.file("ctx/broken", broken);
        let out = b.build("FROM tools\nADD broken /x/\n", &["-t", "y"]).run();
        // Where not even a first header can be read it is a file like any other.
        assert!(!out.err().contains("panicked"), "{out}");
        if out.code() == 0 {
            assert_eq!(b.s.sh("y", "ls /x").ok(), "broken");
        } else {
            out.failed_clearly(1, &["Containerfile:2", "broken"]);
        }
    }
}

#[test]
fn chmod_takes_changes_of_modes() {
    let b = site();
    b.file("d/script", "").file("d/sub/data", "");
    for (name, mode) in [
        ("d/script", 0o744),
        ("d/sub/data", 0o640),
        ("d/sub", 0o700),
        ("d", 0o700),
    ] {
        let path = b.s.path(&format!("ctx/{name}"));
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    }
    b.built(
        "FROM tools\nCOPY --chmod=u=rwX,go=rX d /x\nCOPY --chmod=go-rwx,u+s d /y\n",
        &[],
    );
    assert_eq!(
        b.says("cd /; stat -c '%n %a' x x/script x/sub x/sub/data y/script y/sub/data"),
        "x 755\nx/script 755\nx/sub 755\nx/sub/data 644\ny/script 4700\ny/sub/data 4600"
    );
    b.build("FROM tools\nCOPY --chmod=u=q d /x\n", &["-t", "y"])
        .run()
        .failed_clearly(1, &["Containerfile:2", "u=q is no mode"]);
}

/// An agent that answers what it is asked, turned round.
fn agent(s: &TestStore) -> std::path::PathBuf {
    let path = s.path("agent");
    let listener = UnixListener::bind(&path).expect("bind");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("chmod");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut asked = [0; 4];
            if stream.read_exact(&mut asked).is_ok() {
                asked.reverse();
                let _ = stream.write_all(&asked);
            }
        }
    });
    path
}

#[test]
fn an_ssh_agent_is_reached_by_the_run_that_asks_for_it() {
    let test = "an_ssh_agent_is_reached_by_the_run_that_asks_for_it";
    for who in Who::all() {
        let Some(s) = TestStore::with_debian(who) else {
            return skip(test, "there is no Debian image");
        };
        s.directory("ctx");
        let agent = agent(&s);
        let ask = "python3 -c 'import os, socket; s = socket.socket(socket.AF_UNIX); \
                   s.connect(os.environ[\"SSH_AUTH_SOCK\"]); s.sendall(b\"gnal\"); print(s.recv(4).decode())'";
        let build = |text: &str, args: &[&str]| {
            s.file("ctx/Containerfile", text);
            s.cmd(["build", "-t", "x"]).args(args).arg(s.path("ctx"))
        };
        let text = format!(
            "FROM debian\nRUN --mount=type=ssh {ask} >/said; echo $SSH_AUTH_SOCK >>/said\n\
             RUN --mount=type=ssh,id=other ls /run/buildkit 2>/dev/null | wc -l >>/said; echo [$SSH_AUTH_SOCK] >>/said\n"
        );
        build(&text, &["--ssh", "default"])
            .env("SSH_AUTH_SOCK", &agent)
            .ok();
        let said = "lang\n/run/buildkit/ssh_agent.0\n0\n[]";
        assert_eq!(s.sh("x", "cat /said").ok(), said, "{who:?}");
        let given = format!("other={}", agent.display());
        let text = format!(
            "FROM debian\nRUN --mount=type=ssh,id=other,target=/a,required {ask} >/said; echo $SSH_AUTH_SOCK >>/said\n"
        );
        build(&text, &["--ssh", &given]).ok();
        assert_eq!(s.sh("x", "cat /said").ok(), "lang\n/a");
        build(&text, &["--no-cache"])
            .run()
            .failed_clearly(1, &["Containerfile:2", "--ssh other"]);
        for (arg, words) in [
            ("default=/no/such", ["/no/such", "ssh agent"]),
            ("=x", ["has no id", "--ssh"]),
        ] {
            let out = build(&text, &["--ssh", arg]).run();
            assert_ne!(out.code(), 0, "{arg}");
            for word in words {
                assert!(out.err().contains(word), "{word}: {out}");
            }
        }
        let out = build(&text, &["--ssh", "default"])
            .env("SSH_AUTH_SOCK", "")
            .run();
        out.failed_clearly(1, &["SSH_AUTH_SOCK", "ssh-agent"]);
    }
}

#[test]
fn keys_in_files_are_shown_by_an_agent_of_the_build_s_own() {
    let test = "keys_in_files_are_shown_by_an_agent_of_the_build_s_own";
    if !(installed("ssh-keygen") && installed("ssh-agent") && installed("ssh-add")) {
        return skip(test, "OpenSSH's client is not installed");
    }
    for who in Who::all() {
        let Some(s) = TestStore::with_debian(who) else {
            return skip(test, "there is no Debian image");
        };
        s.directory("ctx");
        let key = |name: &str, passphrase: &str| {
            let made = s.path(&format!("{name}.made"));
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-C", name, "-N", passphrase, "-f"]);
            assert!(keygen.arg(&made).status().expect("ssh-keygen").success());
            let file = s.file(name, fs::read(made).expect("read"));
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("chmod");
            file.display().to_string()
        };
        // Asks for the keys that the agent has: their comments are in the answer.
        let ask = "python3 -c 'import os, socket; s = socket.socket(socket.AF_UNIX); \
                   s.connect(os.environ[\"SSH_AUTH_SOCK\"]); s.sendall(b\"\\0\\0\\0\\1\\x0b\"); \
                   r = s.recv(4096); print(r[4], r[8], [k for k in (b\"one\", b\"two\") if k in r])'";
        s.file(
            "ctx/Containerfile",
            format!("FROM debian\nRUN --mount=type=ssh,required {ask} >/said\n"),
        );
        let build = |ssh: &str| {
            s.cmd(["build", "-q", "--no-cache", "-t", "x", "--ssh", ssh])
                .arg(s.path("ctx"))
        };
        let (one, two) = (key("one", ""), key("two", ""));
        build(&format!("default={one}")).ok();
        assert_eq!(s.sh("x", "cat /said").ok(), "12 1 [b'one']", "{who:?}");
        build(&format!("default={one},{two}")).ok();
        assert_eq!(s.sh("x", "cat /said").ok(), "12 2 [b'one', b'two']");
        s.file("none", "no key");
        fs::set_permissions(s.path("none"), fs::Permissions::from_mode(0o600)).expect("chmod");
        let none = s.path("none").display().to_string();
        for bad in [&none, &key("locked", "secret")] {
            build(&format!("default={bad}"))
                .run()
                .failed_clearly(1, &[bad, "ssh-add", "--ssh default"]);
        }
        let agent = agent(&s).display().to_string();
        build(&format!("default={agent},{one}"))
            .run()
            .failed_clearly(2, &["one agent"]);
    }
}

#[test]
fn a_cache_can_begin_with_files_of_a_stage_or_the_context() {
    for who in Who::all() {
        let b = Site::new(who);
        b.file("seed/one", "from-context\n");
        let text = |extra: &str| {
            format!(
                "FROM tools AS seed\nRUN mkdir /s && echo {extra}from-stage >/s/two\nFROM tools\n\
                 RUN --mount=type=cache,target=/c,from=seed,source=/s cat /c/* >/seen; echo more >>/c/log\n\
                 RUN --mount=type=cache,target=/d,source=seed cat /d/* >>/seen\n"
            )
        };
        b.built(&text(""), &[]);
        assert_eq!(b.says("cat /seen"), "from-stage\nfrom-context");
        b.built(&text(""), &["--no-cache"]);
        // What was written stays, and the files are not put there again.
        assert_eq!(b.says("cat /seen"), "more\nfrom-stage\nfrom-context");
        b.built(&text("an"), &[]);
        assert_eq!(
            b.says("cat /seen"),
            "anfrom-stage\nfrom-context",
            "another beginning"
        );
        b.build(
            "FROM tools\nRUN --mount=type=cache,target=/c,source=none ls /c\n",
            &["-t", "y"],
        )
        .run()
        .failed_clearly(1, &["Containerfile:2", "source=none"]);
    }
}
