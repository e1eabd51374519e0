//! Whatever dies first: written files stay, and nothing else does.

use std::{fs, time::Duration};

use nix::sys::signal::Signal;
use pellicle_tests::{Ending, TestStore, Who, kill_9, wait_for};

/// Numbers and a line of text into files of a directory, each number told on standard output once
/// its file is written and closed. Started again it goes on behind what is there: a check beside it
/// must not find a file that is being written anew. It pauses while there is a file `pause`, so that a
/// slow check does not have it fill the disk meanwhile.
const WRITER: &str = "mkdir -p /w; n=$(ls /w | wc -l); while :; do test -e /acks/pause && sleep 0.1 && continue; n=$((n+1)); echo $n content of $n > /w/$n && echo $n >> /acks/acked || exit; done";

#[test]
fn what_was_written_before_the_supervisor_was_killed_is_there_on_the_next_start() {
    for who in Who::all() {
        let s = TestStore::with_tools(who);
        let bind = s.directory("acks");
        let mount = format!("{}:/acks", bind.display());
        s.cmd([
            "run", "-d", "--name", "writer", "-v", &mount, "tools", "sh", "-c",
        ])
        .arg(WRITER)
        .ok();
        let acked = || {
            fs::read_to_string(bind.join("acked"))
                .unwrap_or_default()
                .lines()
                .count()
        };
        for round in 0..3 {
            let goal = acked() + 300;
            wait_for("300 files", Duration::from_secs(60), || {
                (acked() > goal).then_some(())
            });
            let servers = s.servers();
            assert!(!servers.is_empty(), "no supervisor in round {round}");
            kill_9(&servers);
            wait_for(
                "the container to end with its supervisor",
                Duration::from_secs(60),
                || {
                    s.leftovers()
                        .iter()
                        .all(|l| !l.starts_with("process"))
                        .then_some(())
                },
            );
            // Only whole lines count: the last may be torn by the kill of the shell.
            let last = fs::read_to_string(bind.join("acked")).expect("acks");
            let numbers: Vec<&str> = last.lines().collect();
            let (numbers, _) = numbers.split_at(numbers.len() - 1);
            fs::write(bind.join("check"), numbers.join("\n") + "\n").expect("write");
            let pause = bind.join("pause");
            fs::write(&pause, "").expect("write");
            s.cmd(["start", "writer"]).ok();
            let missing = s
                .cmd(["exec", "writer", "sh", "-c", "while read n; do test \"$(cat /w/$n)\" = \"$n content of $n\" || echo $n; done < /acks/check | head -5"])
                .limit(Duration::from_secs(120))
                .ok();
            assert_eq!(
                missing, "",
                "round {round}: files that had been written are gone or wrong"
            );
            fs::remove_file(&pause).expect("remove");
        }
        s.cmd(["rm", "-f", "writer"]).ok();
    }
}

#[test]
fn a_killed_supervisor_takes_its_container_with_it_and_ps_tells() {
    for who in Who::all() {
        let s = TestStore::with_tools(who);
        s.cmd(["run", "-d", "--name", "killed", "tools", "sleep"])
            .arg(s.seconds())
            .ok();
        wait_for("the command", Duration::from_secs(60), || {
            (!s.sleepers().is_empty()).then_some(())
        });
        kill_9(&s.servers());
        wait_for("the container to go", Duration::from_secs(60), || {
            s.sleepers().is_empty().then_some(())
        });
        assert!(
            !s.cmd(["ps"]).ok().contains("killed"),
            "ps lists it as running"
        );
        assert!(
            s.cmd(["ps", "-a"]).ok().contains("killed"),
            "ps -a has lost it"
        );
        s.cmd(["rm", "killed"]).ok();
    }
}

#[test]
fn a_foreground_run_that_is_killed_leaves_nothing() {
    for who in Who::all() {
        let s = TestStore::with_tools(who);
        let running = s.run("tools sleep").arg(s.seconds()).spawn();
        wait_for("the command", Duration::from_secs(60), || {
            (!s.sleepers().is_empty()).then_some(())
        });
        let all = Ending::of(&s.servers());
        running.signal(Signal::SIGKILL);
        let _ = running.wait();
        all.wait();
        wait_for("the container to go", Duration::from_secs(60), || {
            s.sleepers().is_empty().then_some(())
        });
        // The next command clears what is left of a --rm container.
        let _ = s.cmd(["ps"]).ok();
        assert_eq!(s.cmd(["ps", "-aq"]).ok(), "");
    }
}

#[test]
fn a_run_that_is_killed_while_it_starts_leaves_nothing() {
    for who in Who::all() {
        let s = TestStore::with_tools(who);
        for after in (0..60).map(|half| Duration::from_micros(half * 500)) {
            let running = s.run("tools sleep").arg(s.seconds()).spawn();
            std::thread::sleep(after);
            running.signal(Signal::SIGKILL);
            // Ends only when nothing holds its output any more.
            let _ = running.wait();
            wait_for("everything to go", Duration::from_secs(60), || {
                let all = s.sleepers().into_iter().chain(s.servers());
                (all.count() == 0).then_some(())
            });
        }
        // What it had forked may hold a lock for the moment between its memory's end and its files'.
        wait_for(
            "the next command to clear up",
            Duration::from_secs(60),
            || {
                let _ = s.cmd(["ps"]).ok();
                s.cmd(["ps", "-aq"]).ok().is_empty().then_some(())
            },
        );
    }
}

#[test]
fn a_command_that_is_killed_from_outside_ends_its_container() {
    for who in Who::all() {
        let s = TestStore::with_tools(who);
        let running = s
            .run("tools sh -c")
            .arg(format!("sleep {}", s.seconds()))
            .spawn();
        wait_for("the command", Duration::from_secs(60), || {
            (!s.sleepers().is_empty()).then_some(())
        });
        kill_9(&s.sleepers());
        assert_ne!(running.wait().code(), 0);
        assert_eq!(s.cmd(["ps", "-aq"]).ok(), "");
    }
}

#[test]
fn an_import_that_is_killed_leaves_no_image_and_the_next_one_works() {
    for who in Who::all() {
        let s = TestStore::new(who);
        // Fed slowly, so that the kill always comes in the middle.
        let tools = fs::read(pellicle_tests::tools_image()).expect("image");
        let (reader, writer) = std::io::pipe().expect("pipe");
        let mut feed = writer;
        let mut command = s.cmd(["import", "-", "half"]).into_command();
        let mut child = command.stdin(reader).spawn().expect("start");
        std::io::Write::write_all(&mut feed, &tools[..tools.len() / 2]).expect("pipe");
        std::thread::sleep(Duration::from_millis(300));
        child.kill().expect("kill");
        child.wait().expect("wait");
        drop(feed);
        assert!(!s.cmd(["images"]).ok().contains("half"));
        s.cmd(["import"])
            .arg(pellicle_tests::tools_image())
            .arg("whole")
            .ok();
        assert_eq!(s.run("whole echo fine").ok(), "fine");
    }
}
