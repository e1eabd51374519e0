//! Where the host has too little of something (namespaces, processes, files, memory), or the store is not
//! as it was left: said once, with exit code 125, nothing hangs and nothing is left behind.

use std::{ffi::OsString, fs, path::Path, process::Command, time::Duration};

use pellicle_tests::{Cmd, Outcome, TestStore, Who, skip};

/// `inner`, its program started by `prefix`.
fn under(inner: Cmd, prefix: &[&str]) -> Cmd {
    let inner = inner.into_command();
    let words: Vec<OsString> = std::iter::once(inner.get_program())
        .chain(inner.get_args())
        .map(OsString::from)
        .collect();
    // As the user, setpriv's arguments end with the program.
    let at = words
        .iter()
        .position(|word| word.to_string_lossy().starts_with('/'))
        .expect("a program by its path");
    let mut all: Vec<OsString> = words[..at].to_vec();
    all.extend(prefix.iter().map(OsString::from));
    all.extend_from_slice(&words[at..]);
    let mut command = Command::new(&all[0]);
    command.args(&all[1..]);
    for (name, value) in inner.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    Cmd::new(command)
}

/// In a user namespace of its own, whose maker is root in it, after `first`.
fn nested(inner: Cmd, first: &str) -> Cmd {
    let script = format!("{first} || exit 77; exec \"$@\"");
    let prefix = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "--pid",
        "--fork",
        "--mount-proc",
        "sh",
        "-c",
        &script,
        "sh",
    ];
    under(inner, &prefix)
}

/// Why not, if user namespaces cannot be nested here.
fn cannot_nest(s: &TestStore) -> Option<String> {
    if let Some(why) = Who::Root.missing() {
        return Some(why);
    }
    let out = nested(
        s.cmd(["--version"]),
        "echo 100 > /proc/sys/user/max_net_namespaces",
    )
    .run();
    (out.code() != 0).then(|| format!("no user namespace to set limits in: {}", out.err().trim()))
}

/// It printed what it was to, or said once why not.
#[track_caller]
fn works_or_says_why(out: Outcome, expected: &str) -> bool {
    if out.code() == 0 {
        assert_eq!(out.out(), expected, "{out}");
        return true;
    }
    out.failed_clearly(125, &[]);
    false
}

#[test]
fn a_limit_on_namespaces_is_said_whatever_comes_first() {
    let test = "a_limit_on_namespaces_is_said_whatever_comes_first";
    if let Some(why) = Who::User.missing() {
        return skip(test, &why);
    }
    let s = TestStore::with_tools(Who::User);
    if let Some(why) = cannot_nest(&s) {
        return skip(test, &why);
    }
    for (kind, words) in [
        ("mnt", &["a mnt namespace", "limit is 0"][..]),
        ("pid", &["a pid namespace", "limit is 0"]),
        ("net", &["namespaces", "/proc/sys/user"]),
        ("ipc", &["namespaces", "/proc/sys/user"]),
        ("uts", &["namespaces", "/proc/sys/user"]),
        ("cgroup", &["namespaces", "/proc/sys/user"]),
    ] {
        let limit = format!("echo 0 > /proc/sys/user/max_{kind}_namespaces");
        // The process and its supervisor race: either may be the first to notice.
        for _ in 0..10 {
            nested(s.run("tools true"), &limit)
                .run()
                .failed_clearly(125, words);
        }
    }
    assert_eq!(s.cmd(["ps", "-aq"]).ok(), "");
}

#[test]
fn a_nested_root_without_the_right_to_set_groups_can_run_containers() {
    let test = "a_nested_root_without_the_right_to_set_groups_can_run_containers";
    if let Some(why) = Who::User.missing() {
        return skip(test, &why);
    }
    let s = TestStore::with_tools(Who::User);
    if let Some(why) = cannot_nest(&s) {
        return skip(test, &why);
    }
    let out = nested(s.run("tools id -u"), "true").run().succeeded();
    assert_eq!(out.out(), "0");
}

#[test]
fn with_few_processes_or_files_it_runs_or_says_why() {
    let test = "with_few_processes_or_files_it_runs_or_says_why";
    if let Some(why) = Who::User.missing() {
        return skip(test, &why);
    }
    let s = TestStore::with_tools(Who::User);
    for limit in ["nproc", "nofile"] {
        let mut worked = 0;
        for n in (1..=16).chain([20, 24, 28, 32, 48, 64]) {
            if limit == "nofile" && n < 4 {
                // Not even the program's libraries can be opened.
                continue;
            }
            let option = format!("--{limit}={n}");
            for flags in ["", "--init"] {
                let run = s.run(&format!("{flags} tools echo fine"));
                let out = under(run, &["prlimit", &option]).run();
                worked += usize::from(works_or_says_why(out, "fine"));
            }
        }
        assert!(worked > 0 || limit == "nproc", "48 files are enough");
    }
    assert_eq!(s.cmd(["ps", "-aq"]).ok(), "");
}

#[test]
fn with_a_limit_of_one_process_init_says_why() {
    let test = "with_a_limit_of_one_process_init_says_why";
    if let Some(why) = Who::Root.missing() {
        return skip(test, &why);
    }
    let s = TestStore::with_tools(Who::Root);
    let out = s.run("--pids-limit 1 tools echo fine").run();
    if out.err().contains("cgroup") {
        return skip(test, out.err().trim());
    }
    assert_eq!(out.succeeded().out(), "fine");
    s.run("--pids-limit 1 --init tools echo fine")
        .run()
        .failed_clearly(125, &["--pids-limit"]);
}

#[test]
fn an_exec_that_memory_does_not_suffice_for_is_said() {
    let test = "an_exec_that_memory_does_not_suffice_for_is_said";
    if let Some(why) = Who::Root.missing() {
        return skip(test, &why);
    }
    let s = TestStore::with_tools(Who::Root);
    // What /dev/shm holds counts, and nobody can be killed for it.
    let script = format!(
        "dd if=/dev/zero of=/dev/shm/f bs=64k count=200 2>/dev/null; exec sleep {}",
        s.seconds()
    );
    let out = s
        .cmd(["run", "-d", "--name", "full", "--memory", "16m", "tools"])
        .args(["sh", "-c", &script])
        .run();
    if out.err().contains("cgroup") {
        return skip(test, out.err().trim());
    }
    let _ = out.succeeded();
    pellicle_tests::wait_for("the command", Duration::from_secs(60), || {
        (!s.sleepers().is_empty()).then_some(())
    });
    for _ in 0..5 {
        let out = s.cmd(["exec", "full", "sh", "-c", "echo fine"]).run();
        if out.code() == 0 {
            continue;
        }
        // Killed before or after it was executed, or the container was; each is told.
        assert!(
            out.code() == 137 || !out.err().is_empty(),
            "ended without a word: {out}"
        );
    }
    s.cmd(["rm", "-f", "full"]).ok();
}

/// `outside` with a file at each place where a container's directory has one.
fn outside(s: &TestStore) -> std::path::PathBuf {
    let outside = s.directory("outside");
    for part in ["upper", "upper/data"] {
        s.directory(&format!("outside/{part}"));
    }
    for file in ["lock", "keep", "upper/keep", "upper/journal"] {
        s.file(&format!("outside/{file}"), "precious");
    }
    outside
}

#[track_caller]
fn is_untouched(outside: &Path) {
    for file in ["lock", "keep", "upper/keep", "upper/journal"] {
        let text = fs::read_to_string(outside.join(file));
        assert_eq!(text.expect("it is there"), "precious", "{file}");
    }
}

#[test]
fn links_in_the_place_of_containers_are_not_followed() {
    use std::os::unix::fs::symlink;

    for who in Who::all() {
        let s = TestStore::with_tools(who);
        s.run("tools true").ok();
        let outside = outside(&s);
        let containers = s.root().join("containers");
        let id = "a".repeat(64);
        for name in [
            ".spare-0",
            &format!(".gone-{id}"),
            &format!(".new-{id}"),
            &id,
        ] {
            let place = containers.join(name);
            let _ = fs::remove_dir_all(&place);
            symlink(&outside, &place).expect("link");
            for _ in 0..2 {
                assert_eq!(s.run("tools echo fine").ok(), "fine", "{name}");
            }
            s.cmd(["container", "prune", "-f"]).ok();
            s.cmd(["rm", "-f", &id]).ok();
            s.cmd(["store", "gc"]).ok();
            is_untouched(&outside);
            let left = fs::symlink_metadata(&place);
            assert!(!left.is_ok_and(|m| m.is_symlink()), "{name} is left");
        }
        for file in [".spare-0", &id] {
            let place = containers.join(file);
            let _ = fs::remove_dir_all(&place);
            fs::write(&place, "no container").expect("write");
            assert_eq!(s.run("tools echo fine").ok(), "fine", "{file}");
            s.cmd(["rm", "-f", &id]).ok();
            assert!(!place.is_file(), "{file} is left");
        }
    }
}

#[test]
fn a_state_that_cannot_be_read_is_said_and_forced_away() {
    use nix::{sys::stat::Mode, unistd::mkfifo};

    let s = TestStore::with_tools(Who::Root);
    type Damage<'a> = &'a dyn Fn(&Path);
    let damages: [(&str, Damage<'_>); 6] = [
        ("empty", &|path| fs::write(path, "").expect("write")),
        ("torn", &|path| {
            let text = fs::read(path).expect("read");
            fs::write(path, &text[..100]).expect("write");
        }),
        ("huge", &|path| {
            let file = fs::File::options().write(true).open(path).expect("open");
            file.set_len(6 << 30).expect("length");
        }),
        ("newer", &|path| {
            let text = fs::read_to_string(path).expect("read");
            fs::write(path, text.replace("\"version\":1", "\"version\":2")).expect("write");
        }),
        ("a directory", &|path| {
            fs::remove_file(path).expect("remove");
            fs::create_dir(path).expect("mkdir");
        }),
        ("a FIFO", &|path| {
            fs::remove_file(path).expect("remove");
            mkfifo(path, Mode::S_IRWXU).expect("mkfifo");
        }),
    ];
    for (what, damage) in damages {
        eprintln!("{what}");
        s.cmd(["run", "--name", "c", "tools", "true"]).ok();
        let id = s.cmd(["ps", "-aq", "--no-trunc"]).ok();
        damage(&s.root().join("containers").join(&id).join("state.json"));
        assert!(s.cmd(["ps", "-a"]).ok().contains("Damaged"), "{what}");
        assert_eq!(s.run("tools echo fine").ok(), "fine", "{what}");
        s.cmd(["start", "c"])
            .run()
            .failed_clearly(1, &["state.json"]);
        s.cmd(["rm", "c"]).run().failed_clearly(1, &["--force"]);
        let _ = s.cmd(["store", "gc"]).run();
        s.cmd(["rm", "-f", "c"]).ok();
        assert_eq!(s.cmd(["ps", "-aq"]).ok(), "", "{what}");
        assert_eq!(
            fs::read_dir(s.root().join("names")).expect("names").count(),
            0
        );
    }
}

#[test]
fn events_that_cannot_be_written_fail_nothing_and_are_told_of() {
    for who in Who::all() {
        let s = TestStore::with_tools(who);
        s.run("tools true").ok();
        let journal = s.root().join("events/journal");
        for target in ["/dev/full", "../../outside"] {
            fs::remove_file(&journal).expect("remove");
            s.file("outside", "precious");
            std::os::unix::fs::symlink(target, &journal).expect("link");
            let out = s.run("tools echo fine").run().succeeded();
            assert_eq!(out.out(), "fine");
            assert!(out.err().contains("events/journal"), "{out}");
            assert_eq!(out.err().matches("warning").count(), 1, "{out}");
            s.cmd(["tag", "tools", "other"]).ok();
            s.cmd(["rmi", "other"]).ok();
            s.cmd(["events", "--since", "1h", "--until", "0s"])
                .run()
                .failed_clearly(1, &[]);
            assert_eq!(
                fs::read_to_string(s.path("outside")).expect("read"),
                "precious"
            );
        }
    }
}

#[test]
fn many_variables_are_no_trouble() {
    let s = TestStore::with_tools(Who::Root);
    let lines: String = (0..20_000).map(|n| format!("V{n}={n}\n")).collect();
    let file = s.file("env", lines);
    let out = s
        .cmd(["run", "--rm", "--env-file"])
        .arg(file)
        .args(["tools", "sh", "-c", "echo $V0 $V19999"])
        .ok();
    assert_eq!(out, "0 19999");
}
