//! `pellicle run` and its companions, as docker has them: exit codes, options, signals, limits,
//! isolation.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::signal::Signal;
use pellicle_tests::{Terminal, TestStore, Who, skip, wait_for};

/// Runs `test` in a store with the tools image, once for each identity.
fn each(test: impl Fn(&TestStore)) {
    for who in Who::all() {
        test(&TestStore::with_tools(who));
    }
}

#[test]
fn the_exit_code_is_the_commands_own() {
    each(|s| {
        for code in [0, 1, 42, 125, 255] {
            let _ = s.sh("tools", &format!("exit {code}")).run().exited(code);
        }
    });
}

#[test]
fn a_command_killed_by_a_signal_exits_128_and_the_signal() {
    each(|s| {
        // As process 1 it would be deaf to its own signals; the shell's child is not.
        let _ = s.sh("tools", "sh -c 'kill -9 $$'").run().exited(137);
        let _ = s
            .sh("tools", "sh -c 'kill -TERM $$'; exit $?")
            .run()
            .exited(143);
    });
}

#[test]
fn a_missing_command_is_127_and_one_that_cannot_run_126() {
    each(|s| {
        s.run("tools no-such-program")
            .run()
            .failed_clearly(127, &["no-such-program"]);
        s.run("tools /no/such/program")
            .run()
            .failed_clearly(127, &["/no/such/program"]);
        s.run("tools /etc/passwd")
            .run()
            .failed_clearly(126, &["/etc/passwd"]);
        s.run("tools /etc").run().failed_clearly(126, &["/etc"]);
        let odd = s.program("odd", "#!/no/such/interpreter\n");
        let bind = format!("{}:/bin/odd", odd.display());
        for command in ["odd", "/bin/odd"] {
            s.cmd(["run", "--rm", "-v", &bind, "tools", command])
                .run()
                .failed_clearly(127, &["/bin/odd", "interpreter"]);
        }
    });
}

#[test]
fn the_engines_own_errors_are_125() {
    each(|s| {
        s.run("no-such-image true")
            .run()
            .failed_clearly(125, &["no-such-image"]);
        s.run("--no-such-flag tools true")
            .run()
            .failed_clearly(125, &["--no-such-flag"]);
        s.run("--memory lots tools true")
            .run()
            .failed_clearly(125, &["memory"]);
    });
}

#[test]
fn environment_directory_user_and_host_name_are_as_asked() {
    each(|s| {
        let out = s
            .run("-e A=1 -e B=two=2 -w /var --hostname box tools sh -c")
            .arg("echo $A $B; pwd; hostname; id -u; id -g")
            .ok();
        assert_eq!(out, "1 two=2\n/var\nbox\n0\n0");
        let home = s.sh("tools", "echo $HOME $PATH").ok();
        assert!(home.starts_with("/root /"), "{home}");
    });
}

#[test]
fn an_environment_variable_without_a_value_is_taken_from_ours() {
    each(|s| {
        let out = s
            .run("-e GIVEN -e NOT_GIVEN tools sh -c")
            .arg("echo $GIVEN; env | grep -c NOT_GIVEN")
            .env("GIVEN", "from outside")
            .run();
        assert_eq!(out.out(), "from outside\n0", "{out}");
    });
}

#[test]
fn a_working_directory_that_is_not_there_is_made() {
    each(|s| assert_eq!(s.run("-w /made/for/it tools pwd").ok(), "/made/for/it"));
}

#[test]
fn users_are_found_by_name_and_by_number() {
    for who in Who::all() {
        let s = TestStore::with_tools(who);
        if who == Who::User && !has_subordinate_ids(who) {
            skip(
                "users_are_found_by_name_and_by_number",
                "no subordinate ids",
            );
            continue;
        }
        let ids = |user: &str| {
            s.cmd([
                "run",
                "--rm",
                "-u",
                user,
                "tools",
                "sh",
                "-c",
                "id -u; id -g; id -G",
            ])
            .ok()
        };
        assert_eq!(ids("app"), "1000\n1000\n1000 2000");
        assert_eq!(ids("1000"), "1000\n1000\n1000 2000");
        assert_eq!(ids("77:88"), "77\n88\n88");
        assert_eq!(ids("app:extra"), "1000\n2000\n2000");
        s.run("-u nobody-here tools true")
            .run()
            .failed_clearly(125, &["nobody-here"]);
    }
}

fn has_subordinate_ids(who: Who) -> bool {
    let (uid, _) = who.ids();
    let name = nix::unistd::User::from_uid(uid.into())
        .ok()
        .flatten()
        .map(|u| u.name)
        .unwrap_or_default();
    fs::read_to_string("/etc/subuid")
        .unwrap_or_default()
        .lines()
        .any(|line| line.starts_with(&format!("{name}:")) || line.starts_with(&format!("{uid}:")))
}

#[test]
fn bind_mounts_carry_both_ways_and_ro_refuses() {
    each(|s| {
        let dir = s.directory("shared");
        s.file("shared/in", "from the host\n");
        let bind = |options: &str| format!("{}:/data{options}", dir.display());
        let out = s
            .cmd([
                "run",
                "--rm",
                "-v",
                &bind(""),
                "tools",
                "sh",
                "-c",
                "cat /data/in; echo out > /data/out",
            ])
            .ok();
        assert_eq!(out, "from the host");
        assert_eq!(
            fs::read_to_string(dir.join("out")).expect("written through"),
            "out\n"
        );
        let refused = s
            .cmd([
                "run",
                "--rm",
                "-v",
                &bind(":ro"),
                "tools",
                "sh",
                "-c",
                "echo x > /data/refused",
            ])
            .run();
        assert_ne!(refused.code(), 0);
        assert!(refused.err().contains("Read-only file system"), "{refused}");
        assert!(!dir.join("refused").exists());
    });
}

#[test]
fn a_read_only_container_refuses_every_change_but_in_dev_and_proc() {
    each(|s| {
        let out = s
            .run("--read-only tools sh -c")
            .arg("echo x > /new || echo x > /etc/base || rm /etc/base || echo refused")
            .run();
        assert_eq!(out.out(), "refused", "{out}");
        let _ = s
            .run("--read-only tools sh -c")
            .arg("echo x > /dev/null && test -w /dev/shm")
            .run()
            .succeeded();
    });
}

#[test]
fn standard_input_reaches_the_command_whole() {
    each(|s| {
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let out = s.run("-i tools cat").stdin(bytes.clone()).run().succeeded();
        assert!(
            out.stdout == bytes,
            "{} bytes of {}",
            out.stdout.len(),
            bytes.len()
        );
        // Without -i it is empty, as docker has it.
        assert_eq!(s.run("tools cat").stdin("not seen").ok(), "");
    });
}

#[test]
fn output_and_errors_stay_apart() {
    each(|s| {
        let out = s.sh("tools", "echo out; echo err >&2").run().succeeded();
        assert_eq!((out.out().as_str(), out.err().as_str()), ("out", "err\n"));
    });
}

#[test]
fn a_terminal_is_passed_on_with_its_size_and_keys() {
    each(|s| {
        let mut terminal = Terminal::start(s.run("-it tools sh"));
        terminal.send("tty; stty size\n");
        terminal.expect("/dev/pts/0");
        terminal.expect("24 80");
        terminal.resize(50, 132);
        terminal.send("until stty size | grep -q '50 13[2]'; do sleep 0.1; done; stty size\n");
        terminal.expect("50 132");
        // Ctrl-C ends what runs in the foreground and not the shell, nor pellicle.
        terminal.send("sh -c 'echo begun-$((40+3)); sleep 1000'\n");
        terminal.expect("begun-43");
        terminal.send("\x03");
        terminal.send("echo still-$((40+2))\n");
        terminal.expect("still-42");
        terminal.send("exit 7\n");
        assert_eq!(terminal.exit_code(), 7);
    });
}

#[test]
fn signals_are_forwarded() {
    each(|s| {
        let running = s
            .sh("tools", "trap 'echo got it; exit 9' TERM; echo ready > /dev/stderr; while :; do sleep 0.1; done")
            .spawn();
        wait_for("the trap", Duration::from_secs(60), || {
            let id = s.cmd(["ps", "-q"]).ok();
            (!id.is_empty() && s.cmd(["logs", &id]).run().err().contains("ready")).then_some(())
        });
        running.signal(Signal::SIGTERM);
        let out = running.wait().exited(9);
        assert_eq!(out.out(), "got it");
    });
}

#[test]
fn a_detached_container_has_logs_exec_and_stop() {
    each(|s| {
        let seconds = s.seconds();
        let id = s
            .cmd(["run", "-d", "--name", "detached", "tools", "sh", "-c"])
            .arg(format!("echo started; exec sleep {seconds}"))
            .ok();
        assert!(
            id.len() >= 12 && id.bytes().all(|b| b.is_ascii_hexdigit()),
            "{id:?}"
        );
        wait_for("the log", Duration::from_secs(60), || {
            (s.cmd(["logs", "detached"]).ok() == "started").then_some(())
        });
        assert_eq!(
            s.cmd(["exec", "detached", "cat", "/etc/base"]).ok(),
            "from the image"
        );
        let _ = s
            .cmd(["exec", "detached", "sh", "-c", "exit 5"])
            .run()
            .exited(5);
        s.cmd(["exec", "detached", "no-such-program"])
            .run()
            .failed_clearly(127, &["no-such-program"]);
        assert_eq!(
            s.cmd(["exec", "-i", "detached", "cat"])
                .stdin("through")
                .ok(),
            "through"
        );
        assert_eq!(
            s.cmd([
                "exec",
                "-e",
                "X=1",
                "-w",
                "/var",
                "detached",
                "sh",
                "-c",
                "echo $X; pwd"
            ])
            .ok(),
            "1\n/var"
        );
        assert!(
            s.cmd(["ps"]).ok().contains("detached"),
            "ps does not list it"
        );
        s.cmd(["stop", "-t", "1", "detached"]).ok();
        assert!(
            !s.cmd(["ps"]).ok().contains("detached"),
            "ps still lists it"
        );
        assert!(
            s.cmd(["ps", "-a"]).ok().contains("detached"),
            "ps -a does not list it"
        );
        // Its supervisor, which has the command's words in its own, has recorded the end and ends.
        wait_for("the end of it all", Duration::from_secs(60), || {
            s.sleepers().is_empty().then_some(())
        });
        s.cmd(["exec", "detached", "true"])
            .run()
            .failed_clearly(125, &["not running"]);
        s.cmd(["rm", "detached"]).ok();
        assert_eq!(s.cmd(["ps", "-aq"]).ok(), "");
    });
}

#[test]
fn a_stopped_container_starts_again_with_its_files() {
    each(|s| {
        s.cmd([
            "run",
            "--name",
            "again",
            "tools",
            "sh",
            "-c",
            "echo run >> /log; cat /log",
        ])
        .ok();
        s.cmd(["start", "again"]).ok();
        wait_for("the second run", Duration::from_secs(60), || {
            s.cmd(["logs", "again"])
                .ok()
                .ends_with("run\nrun\nrun")
                .then_some(())
        });
        assert_eq!(s.cmd(["wait", "again"]).ok(), "0");
        s.cmd(["rm", "again"]).ok();
    });
}

#[test]
fn rm_removes_at_exit_and_names_are_free_again() {
    each(|s| {
        s.cmd(["run", "--rm", "--name", "again-x", "tools", "true"])
            .ok();
        s.cmd(["run", "--name", "again-x", "tools", "true"]).ok();
        s.cmd(["run", "--name", "again-x", "tools", "true"])
            .run()
            .failed_clearly(125, &["again-x"]);
        s.cmd(["rm", "again-x"]).ok();
        assert_eq!(s.cmd(["ps", "-aq"]).ok(), "");
        s.cmd(["rm", "again-x"])
            .run()
            .failed_clearly(1, &["again-x"]);
    });
}

#[test]
fn init_reaps_what_the_command_leaves() {
    each(|s| {
        // Nobody but process 1 can take what is left of the orphan.
        let script = "sh -c 'sleep 0.2 & echo $! >/orphan'; read p </orphan; n=0; \
            while [ -e /proc/$p ] && [ $n -lt 600 ]; do sleep 0.1; n=$((n+1)); done; \
            grep -s '^State:' /proc/$p/status; exit 3";
        let out = s.run("--init tools sh -c").arg(script).run().exited(3);
        assert_eq!(out.out(), "");
        assert_ne!(s.run("--init tools sh -c").arg("echo $$").ok(), "1");
        assert_eq!(s.sh("tools", "echo $$").ok(), "1");
    });
}

#[test]
fn privileges_are_as_docker_leaves_them() {
    each(|s| {
        let status = s.run("tools cat /proc/self/status").ok();
        let field = |name: &str| {
            let line = status
                .lines()
                .find(|l| l.starts_with(name))
                .unwrap_or_else(|| panic!("{name} in {status}"));
            line.split_whitespace().nth(1).expect("a value").to_owned()
        };
        // chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw
        // sys_chroot mknod audit_write setfcap
        for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
            assert_eq!(field(set), "00000000a80425fb", "{set}");
        }
        assert_eq!(field("CapAmb:"), "0000000000000000");
        assert_eq!(field("NoNewPrivs:"), "1");
        assert_eq!(field("Seccomp:"), "2");
    });
}

#[test]
fn an_ordinary_user_in_the_container_has_no_capabilities() {
    for who in Who::all() {
        if !has_subordinate_ids(who) && who == Who::User {
            continue;
        }
        let s = TestStore::with_tools(who);
        let out = s.run("-u 1000 tools grep CapEff /proc/self/status").ok();
        assert!(out.ends_with("0000000000000000"), "{out}");
    }
}

#[test]
fn what_docker_refuses_is_refused() {
    each(|s| {
        let fails = |script: &str| {
            let out = s.sh("tools", script).run();
            assert_ne!(out.code(), 0, "{out}");
        };
        fails("mount -t tmpfs none /tmp");
        fails("umount /proc");
        fails("hostname other");
        fails("mknod /disk b 8 0 && cat /disk");
        fails("echo 1 > /proc/sys/kernel/panic");
        fails("echo b > /proc/sysrq-trigger");
        for masked in ["/proc/kcore", "/proc/keys", "/proc/timer_list"] {
            if Path::new(masked).exists() {
                let out = s.sh("tools", &format!("head -c 10 {masked} | wc -c")).run();
                assert!(
                    out.out() == "0" || out.code() != 0,
                    "{masked} can be read: {out}"
                );
            }
        }
        assert_eq!(
            s.sh(
                "tools",
                "ls -A /sys/firmware /proc/acpi 2>/dev/null | grep -v ':$' | grep -v '^$' | wc -l"
            )
            .ok(),
            "0"
        );
    });
}

#[test]
fn a_container_sees_only_its_own_processes_and_devices() {
    each(|s| {
        let out = s
            .sh(
                "tools",
                "ls -d /proc/[0-9]* | wc -l; ls /sys/class/net; ls /dev",
            )
            .ok();
        let lines: Vec<&str> = out.lines().collect();
        let processes: u32 = lines[0].parse().expect("a number");
        assert!(processes <= 4, "{out}");
        assert_eq!(lines[1], "lo", "{out}");
        for device in [
            "null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "fd", "stdin",
        ] {
            assert!(lines.contains(&device), "/dev/{device} is missing: {out}");
        }
        for device in ["sda", "vda", "mem", "kmsg", "fuse"] {
            assert!(!lines.contains(&device), "/dev/{device} is there: {out}");
        }
        let _ = s
            .sh(
                "tools",
                "echo x > /dev/null && head -c 4 /dev/urandom > /dev/shm/x",
            )
            .run()
            .succeeded();
    });
}

#[test]
fn network_none_has_loopback_only_and_host_has_the_hosts() {
    each(|s| {
        assert_eq!(s.run("--network none tools ls /sys/class/net").ok(), "lo");
        let mut ours: Vec<String> = fs::read_dir("/sys/class/net")
            .expect("/sys")
            .map(|e| e.expect("entry").file_name().to_string_lossy().into_owned())
            .collect();
        ours.sort();
        let theirs = s
            .run("--network host tools sh -c")
            .arg("cat /proc/net/dev | tail -n +3 | sed 's/:.*//; s/ //g' | sort")
            .ok();
        assert_eq!(theirs.lines().collect::<Vec<_>>(), ours);
    });
}

#[test]
fn rootless_maps_its_user_to_root_and_subordinate_ids_after_it() {
    let test = "rootless_maps_its_user_to_root_and_subordinate_ids_after_it";
    if let Some(why) = Who::User.missing() {
        return skip(test, &why);
    }
    let s = TestStore::with_tools(Who::User);
    let (uid, _) = Who::User.ids();
    let map = s.run("tools cat /proc/self/uid_map").ok();
    let rows: Vec<Vec<u32>> = map
        .lines()
        .map(|l| {
            l.split_whitespace()
                .map(|n| n.parse().expect("number"))
                .collect()
        })
        .collect();
    assert_eq!(rows[0], [0, uid, 1], "{map}");
    if has_subordinate_ids(Who::User) {
        assert_eq!(rows[1][0], 1, "{map}");
        assert!(rows[1][2] >= 65_535, "{map}");
    } else {
        skip(test, "no subordinate ids");
    }
}

#[test]
fn a_single_id_shows_every_owner_as_root() {
    for who in Who::all().into_iter().filter(|w| *w == Who::User) {
        let s = TestStore::with_tools(who);
        let out = s.run("--single-id tools sh -c").arg("wc -l < /proc/self/uid_map; stat -c %u:%g /etc/base /bin/sh; touch /x && stat -c %u /x").ok();
        assert_eq!(out, "1\n0:0\n0:0\n0");
    }
}

#[test]
fn memory_cpus_and_pids_limits_hold() {
    let test = "memory_cpus_and_pids_limits_hold";
    if let Some(why) = Who::Root.missing() {
        return skip(test, &why);
    }
    let group = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"]
        .iter()
        .map(Path::new)
        .find(|p| p.join("cgroup.procs").exists());
    if group.is_none_or(|dir| nix::unistd::access(dir, nix::unistd::AccessFlags::W_OK).is_err()) {
        return skip(test, "no cgroup hierarchy can be written here");
    }
    let s = TestStore::with_tools(Who::Root);
    // 64 MiB into a shared memory file is charged to the container, which is then killed.
    let out = s
        .run("--memory 32m tools sh -c")
        .arg("head -c 67108864 /dev/zero > /dev/shm/x")
        .run();
    assert_ne!(out.code(), 0, "the memory limit did not hold: {out}");
    let out = s
        .run("--pids-limit 8 tools sh -c")
        .arg("for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1 & done; wait")
        .run();
    assert!(
        out.err().to_lowercase().contains("fork"),
        "the process limit did not hold: {out}"
    );
    // Of a quarter of a CPU the kernel makes a busy loop wait, and counts how often.
    let id = s
        .run("-d --cpus 0.25 tools sh -c")
        .arg("while :; do :; done")
        .ok();
    wait_for("the CPU limit to hold", Duration::from_secs(60), || {
        (throttled(&id) > 0).then_some(())
    });
    s.cmd(["rm", "-f", &id]).ok();
}

/// How often the kernel held back container `id` for its CPU limit.
fn throttled(id: &str) -> u64 {
    let mut dirs = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = dirs.pop() {
        let is_its = dir.to_string_lossy().contains(id);
        if let Ok(stat) = fs::read_to_string(dir.join("cpu.stat"))
            && is_its
            && let Some(n) = stat.lines().find_map(|l| l.strip_prefix("nr_throttled "))
        {
            return n.parse().expect("a number");
        }
        let inside = fs::read_dir(&dir).into_iter().flatten().flatten();
        dirs.extend(
            inside
                .map(|e| e.path())
                .filter(|p| p.is_dir() && !p.is_symlink()),
        );
    }
    0
}

#[test]
fn containers_share_layers_and_not_writes() {
    each(|s| {
        s.cmd([
            "run",
            "--name",
            "first",
            "tools",
            "sh",
            "-c",
            "echo mine > /etc/base; echo new > /new; rm /etc/group; mkdir /d; mv /home/app /d/",
        ])
        .ok();
        assert_eq!(
            s.sh(
                "tools",
                "cat /etc/base; test -e /new || test -e /d || test -e /etc/group && echo there"
            )
            .ok(),
            "from the image\nthere"
        );
        let diff = s.cmd(["diff", "first"]).ok();
        let mut lines: Vec<&str> = diff.lines().collect();
        lines.sort_unstable();
        assert_eq!(
            lines,
            [
                "A /d",
                "A /d/app",
                "A /new",
                "C /etc",
                "C /etc/base",
                "C /home",
                "D /etc/group",
                "D /home/app"
            ]
        );
        s.cmd(["rm", "first"]).ok();
    });
}

#[test]
fn an_untouched_container_has_an_empty_diff() {
    each(|s| {
        s.cmd([
            "run",
            "--name",
            "first",
            "tools",
            "sh",
            "-c",
            "cat /etc/base /bin/* > /dev/null; ls -R / > /dev/null 2>&1; true",
        ])
        .ok();
        assert_eq!(s.cmd(["diff", "first"]).ok(), "");
        s.cmd(["rm", "first"]).ok();
    });
}

#[test]
fn many_containers_at_once_do_not_meet() {
    each(|s| {
        let all: Vec<_> = (0..8)
            .map(|n| {
                s.sh("tools", &format!("echo {n} > /mine; sleep 0.3; cat /mine"))
                    .spawn()
            })
            .collect();
        for (n, running) in all.into_iter().enumerate() {
            assert_eq!(running.wait().succeeded().out(), n.to_string());
        }
    });
}
