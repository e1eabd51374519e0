//! `pellicle events`.

use std::{fs::OpenOptions, io::Write as _, time::Duration};

use nix::sys::signal::Signal;
use pellicle_tests::{TestStore, Who, archive::Archive, kill_9, wait_for};

use crate::json;

fn all(s: &TestStore, more: &[&str]) -> Vec<String> {
    let format = "{{.Type}} {{.Action}} {{.Name}}";
    let out = s
        .cmd(["events", "--stream=false", "--format", format])
        .args(more)
        .ok();
    out.lines().map(str::to_owned).collect()
}

#[test]
fn a_life_is_told_in_order_with_its_exit_code() {
    for who in Who::all() {
        let s = TestStore::with_tools(who);
        assert_eq!(all(&s, &[]), ["image import tools:latest"]);
        let _ = s
            .cmd([
                "run", "--name", "web", "-l", "app=x", "tools", "sh", "-c", "exit 3",
            ])
            .run()
            .exited(3);
        let _ = s.cmd(["start", "-a", "web"]).run().exited(3);
        s.cmd(["rm", "web"]).ok();
        assert_eq!(
            all(&s, &["--filter", "container=web"]),
            [
                "container create web",
                "container start web",
                "container die web",
                "container start web",
                "container die web",
                "container destroy web"
            ]
        );
        let codes = ["events", "--stream=false", "--filter", "event=die"];
        let codes = s.cmd(codes).args([
            "--format",
            "{{.ContainerExitCode}}{{.Actor.Attributes.app}}",
        ]);
        assert_eq!(codes.ok(), "3x\n3x");
        // With --rm; one that cannot begin leaves no trace.
        s.run("--name gone tools true").ok();
        s.run("--name never tools /no/such")
            .run()
            .failed_clearly(127, &["/no/such"]);
        assert_eq!(
            all(&s, &["--filter", "container=gone"]),
            [
                "container create gone",
                "container start gone",
                "container die gone",
                "container destroy gone"
            ]
        );
        assert!(all(&s, &["--filter", "container=never"]).is_empty());
    }
}

#[test]
fn what_is_done_to_running_containers_and_to_images_is_told() {
    let s = TestStore::with_tools(Who::Root);
    s.cmd(["run", "-d", "--name", "c", "tools", "sleep"])
        .arg(s.seconds())
        .ok();
    let _ = s.cmd(["exec", "c", "sh", "-c", "exit 5"]).run().exited(5);
    let _ = s.cmd(["commit", "-q", "c", "made"]).run().succeeded();
    s.cmd(["stop", "-t", "0", "c"]).ok();
    s.cmd(["rm", "c"]).ok();
    let told = all(&s, &["--filter", "type=container"]);
    let actions: Vec<&str> = told.iter().filter_map(|l| l.split(' ').nth(1)).collect();
    assert_eq!(
        actions,
        [
            "create",
            "start",
            "exec_start",
            "exec_die",
            "commit",
            "kill",
            "die",
            "stop",
            "destroy"
        ]
    );
    s.cmd(["tag", "made", "again"]).ok();
    s.cmd(["rmi", "again"]).ok();
    s.cmd(["rmi", "made"]).ok();
    let file = s.path("saved.tar");
    s.cmd(["save", "-q", "-o"]).arg(&file).arg("tools").ok();
    s.cmd(["load", "-q", "-i"]).arg(&file).ok();
    assert_eq!(
        all(
            &s,
            &[
                "--filter",
                "type=image",
                "--filter",
                "event=tag",
                "--filter",
                "event=untag",
                "--filter",
                "event=save",
                "--filter",
                "event=load"
            ]
        ),
        [
            "image tag again:latest",
            "image untag again:latest",
            "image untag made:latest",
            "image save tools:latest",
            "image load tools:latest"
        ]
    );
    let one = s
        .cmd([
            "events",
            "--stream=false",
            "--filter",
            "event=die",
            "--format",
            "json",
        ])
        .ok();
    let one = json(&one);
    assert_eq!(
        (&one["Type"], &one["Action"], &one["scope"]),
        (&"container".into(), &"die".into(), &"local".into())
    );
    assert_eq!(one["Actor"]["Attributes"]["name"], "c");
    let seconds = one["time"].as_i64().expect("seconds");
    assert_eq!(
        one["timeNano"].as_i64().expect("nanoseconds") / 1_000_000_000,
        seconds
    );
}

#[test]
fn events_are_followed_as_they_come_and_chosen_by_time() {
    for who in Who::all() {
        let s = TestStore::with_tools(who);
        let follow = s
            .cmd([
                "events",
                "--format",
                "{{.Action}} {{.Name}}",
                "--filter",
                "type=container",
            ])
            .spawn();
        // It has to have begun before what it is to tell of.
        wait_for("it to look", Duration::from_secs(60), || {
            follow.has_open("inotify").then_some(())
        });
        s.run("--name seen tools true").ok();
        wait_for("the last of it", Duration::from_secs(60), || {
            follow.said().contains("destroy seen").then_some(())
        });
        follow.signal(Signal::SIGINT);
        let told = follow.wait().succeeded().out();
        assert_eq!(told, "create seen\nstart seen\ndie seen\ndestroy seen");
        // What was before it, with --since; --until ends it by itself.
        let past = s
            .cmd([
                "events",
                "--since",
                "1h",
                "--until",
                "0s",
                "--filter",
                "type=container",
            ])
            .ok();
        assert_eq!(past.lines().count(), 4, "{past}");
        assert!(
            past.contains(" container die ") && past.contains("name=seen"),
            "{past}"
        );
        assert_eq!(
            s.cmd(["events", "--since", "1h", "--until", "30m"]).ok(),
            ""
        );
        s.cmd(["events", "--since", "yesterday"])
            .run()
            .failed_clearly(2, &["yesterday"]);
        s.cmd(["events", "--filter", "nope=1"])
            .run()
            .failed_clearly(2, &["nope"]);
    }
}

#[test]
fn a_torn_journal_and_a_dead_supervisor_are_told_of() {
    let s = TestStore::with_tools(Who::Root);
    let journal = s.root().join("events/journal");
    let mut file = OpenOptions::new()
        .append(true)
        .open(&journal)
        .expect("open");
    file.write_all(b"{\"time\":17,\"kind\":\"conta")
        .expect("write");
    s.cmd(["run", "-d", "--name", "c", "tools", "sleep"])
        .arg(s.seconds())
        .ok();
    assert_eq!(
        all(&s, &["--filter", "container=c"]),
        ["container create c", "container start c"]
    );
    kill_9(&s.servers());
    wait_for("the end", Duration::from_secs(60), || {
        let out = s.cmd(["ps", "-a", "--format", "{{.State}}"]).run();
        (out.out() == "exited").then_some(())
    });
    assert_eq!(all(&s, &["--filter", "event=die"]), ["container die c"]);
    s.cmd(["rm", "c"]).ok();
}

#[test]
fn many_at_once_lose_no_event() {
    let s = TestStore::new(Who::Root);
    let layer = s.file("l.tar", Archive::new().file("f", "x").end());
    s.cmd(["import", "-q"]).arg(layer).arg("x").ok();
    let all_at_once: Vec<_> = (0..8)
        .map(|n| s.cmd(["tag", "x", &format!("t{n}")]).spawn())
        .collect();
    for one in all_at_once {
        let _ = one.wait().succeeded();
    }
    assert_eq!(all(&s, &["--filter", "event=tag"]).len(), 8);
}
