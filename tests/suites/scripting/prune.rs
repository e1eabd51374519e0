//! Tidying up.

use pellicle_tests::{TestStore, Who, archive::Archive};

/// An image of one file of `size` bytes, which no other image has.
fn import(s: &TestStore, name: &str, fill: u8, size: usize) {
    let file = s.file(
        "layer.tar",
        Archive::new().file("f", vec![fill; size]).end(),
    );
    s.cmd(["import", "-q"]).arg(file).arg(name).ok();
}

fn ids(s: &TestStore) -> Vec<String> {
    let list = s.cmd(["images", "-q", "--no-trunc"]).ok();
    list.lines().map(str::to_owned).collect()
}

#[test]
fn images_without_a_name_go_and_a_dry_run_only_tells() {
    for who in Who::all() {
        let s = TestStore::new(who);
        import(&s, "x", 1, 400_000);
        let old = ids(&s);
        import(&s, "x", 2, 400_000);
        import(&s, "kept", 3, 1000);
        s.cmd(["image", "prune"])
            .run()
            .failed_clearly(2, &["nobody to ask", "-f"]);
        let told = s.cmd(["image", "prune", "--dry-run"]).ok();
        assert!(told.contains(&format!("deleted: {}", old[0])), "{told}");
        assert!(
            told.contains("would be reclaimed: ") && !told.contains(": 0B"),
            "{told}"
        );
        assert_eq!(ids(&s).len(), 3, "nothing went");
        let said = s.cmd(["image", "prune", "-f"]).ok();
        assert!(said.contains(&old[0]) && !said.contains(": 0B"), "{said}");
        assert_eq!(ids(&s).len(), 2);
        assert_eq!(
            s.cmd(["image", "prune", "-f"]).ok(),
            "Total reclaimed space: 0B"
        );
        // With -a what no container stands on, by age and label.
        assert!(
            !s.cmd(["image", "prune", "-af", "--filter", "until=1h"])
                .ok()
                .contains("deleted")
        );
        assert!(
            !s.cmd(["image", "prune", "-af", "--filter", "label=x"])
                .ok()
                .contains("deleted")
        );
        s.cmd(["image", "prune", "-af", "--filter", "nope=x"])
            .run()
            .failed_clearly(2, &["nope"]);
        let said = s.cmd(["image", "prune", "-af"]).ok();
        assert!(said.contains("untagged: kept:latest"), "{said}");
        assert_eq!(ids(&s), Vec::<String>::new());
        s.cmd(["store", "verify"]).ok();
    }
}

#[test]
fn what_runs_is_left_alone_and_what_stopped_goes() {
    for who in Who::all() {
        let s = TestStore::with_tools(who);
        import(&s, "unused", 5, 100_000);
        s.cmd(["run", "-d", "--name", "runs", "tools", "sleep"])
            .arg(s.seconds())
            .ok();
        s.cmd(["run", "--name", "stopped", "tools", "true"]).ok();
        let told = s.cmd(["system", "prune", "-an"]).ok();
        assert!(
            told.contains("unused") && told.contains("containers:"),
            "{told}"
        );
        assert_eq!(s.cmd(["ps", "-aq"]).ok().lines().count(), 2, "nothing went");
        let out = s.cmd(["system", "prune", "-af"]).run().succeeded();
        assert!(out.out().contains("untagged: unused:latest"), "{out}");
        assert!(
            out.err().contains("in use"),
            "the space is for later: {out}"
        );
        assert_eq!(s.cmd(["ps", "-a", "--format", "{{.Names}}"]).ok(), "runs");
        assert_eq!(
            s.cmd(["exec", "runs", "cat", "/etc/base"]).ok(),
            "from the image"
        );
        assert_eq!(s.run("tools cat /etc/base").ok(), "from the image");
        assert_eq!(
            s.cmd(["container", "prune", "-f"]).ok(),
            "Total reclaimed space: 0B"
        );
        s.cmd(["rm", "-f", "runs"]).ok();
        let said = s.cmd(["system", "prune", "-f"]).ok();
        assert!(
            !said.contains("space: 0B"),
            "what was left is freed now: {said}"
        );
        s.cmd(["store", "verify"]).ok();
    }
}

#[test]
fn df_tells_what_is_shared_and_what_could_go() {
    let s = TestStore::with_tools(Who::Root);
    let more = s.file("more.tar", Archive::new().file("m", vec![9; 300_000]).end());
    s.cmd(["import"])
        .arg(pellicle_tests::tools_image())
        .arg("two")
        .arg("--layer")
        .arg(more)
        .ok();
    let df = |format: &str| s.cmd(["system", "df", "--format", format]).ok();
    assert_eq!(
        df("{{.Type}}/{{.TotalCount}}/{{.Active}}")
            .lines()
            .collect::<Vec<_>>(),
        ["Images/2/0", "Containers/0/0", "Build Cache/0/0"]
    );
    let text = s.cmd(["system", "df", "-v"]).ok();
    let row = |name: &str| -> Vec<String> {
        let line = text.lines().find(|l| l.starts_with(name)).expect(name);
        line.split("   ")
            .map(|c| c.trim().to_owned())
            .filter(|c| !c.is_empty())
            .collect()
    };
    let (tools, two) = (row("tools"), row("two"));
    assert_eq!(tools[5], two[5], "both share the same bytes: {text}");
    assert_ne!(tools[5], "0B");
    assert_ne!(two[6], "0B", "its own file: {text}");
    assert!(
        text.contains("saved: ") && !text.contains("saved: 0B"),
        "{text}"
    );
    s.cmd(["run", "--name", "c", "two", "sh", "-c", "echo x >/x"])
        .ok();
    assert_eq!(df("{{.Active}}").lines().next(), Some("1"));
    s.cmd(["rm", "c"]).ok();
}

#[test]
fn what_builds_left_goes_when_it_is_told_to() {
    let s = TestStore::with_tools(Who::Root);
    let context = s.directory("context");
    std::fs::write(
        context.join("Containerfile"),
        "FROM tools\nRUN echo one >/one\nRUN echo two >/two\n",
    )
    .expect("write");
    let build = || {
        s.cmd(["build", "-q", "-t", "app"])
            .arg(&context)
            .run()
            .succeeded()
    };
    let _ = build();
    let count = || {
        let df = s
            .cmd(["system", "df", "--format", "{{.Type}} {{.TotalCount}}"])
            .ok();
        df.lines().last().expect("a line").to_owned()
    };
    let built = count();
    assert_ne!(built, "Build Cache 0");
    let told = s.cmd(["builder", "prune", "-a", "--dry-run"]).ok();
    assert!(told.contains("would be reclaimed"), "{told}");
    s.cmd(["builder", "prune", "-f"]).ok();
    assert_eq!(count(), built, "an image was built with it");
    s.cmd(["builder", "prune", "-af"]).ok();
    assert_eq!(count(), "Build Cache 0");
    assert_eq!(s.run("app cat /one /two").ok(), "one\ntwo");
    s.cmd(["store", "verify"]).ok();
    let _ = build();
    assert_eq!(count(), built, "made again");
}

#[test]
fn builder_prune_tells_and_removes_steps_and_cache_mounts() {
    for who in Who::all() {
        let s = TestStore::with_tools(who);
        let context = s.directory("context");
        let write =
            |file: &str, text: &str| std::fs::write(context.join(file), text).expect("write");
        write(
            "Containerfile",
            "FROM tools\nRUN --mount=type=cache,target=/cache echo x >>/cache/log; cat /cache/log >/seen\n",
        );
        write(
            "other",
            "FROM tools\nRUN head -c 300000 /dev/zero >/zeros\n",
        );
        let build = |name: &str, file: &str| {
            s.cmd(["build", "-q", "-t", name, "-f"])
                .arg(context.join(file))
                .arg(&context)
                .ok();
        };
        let prune = |args: &[&str]| s.cmd(["builder", "prune"]).args(args).ok();
        // An hour old is nothing yet, and by labels nothing can be chosen.
        build("app", "Containerfile");
        build("other", "other");
        let aged = prune(&["-af", "--filter", "until=1h"]);
        assert_eq!(aged, "Total reclaimed space: 0B");
        s.cmd(["builder", "prune", "-f", "--filter", "label=x"])
            .run()
            .failed_clearly(2, &["labels", "until"]);
        s.cmd(["rmi", "--no-prune", "other"]).ok();

        let steps = |said: &str| said.matches("\nstep ").count();
        let told = prune(&["--dry-run"]);
        assert!(told.starts_with("Would delete build cache:"), "{told}");
        assert!(told.contains("\ncache mount /cache: "), "{told}");
        assert_eq!(steps(&told), 1, "of the image that is gone: {told}");
        let all = prune(&["-a", "--dry-run"]);
        assert!(
            steps(&all) > 1 && all.contains("\ncache mount /cache: "),
            "{all}"
        );
        // Nothing changed: the step is not done again.
        build("app", "Containerfile");
        assert_eq!(s.run("app cat /seen").ok(), "x");

        let done = prune(&["-f"]);
        let same = told
            .replace("Would delete", "Deleted")
            .replace("Space that would be reclaimed", "Total reclaimed space");
        assert_eq!(done, same);
        assert!(!done.ends_with(": 0B"), "{done}");
        // The image's own steps are there still, so its cache mount is not asked.
        build("app", "Containerfile");
        assert_eq!(prune(&["-f"]), "Total reclaimed space: 0B");

        let done = prune(&["-af"]);
        assert!(steps(&done) > 0, "{done}");
        assert_eq!(prune(&["-af"]), "Total reclaimed space: 0B");
        assert_eq!(s.run("app cat /seen").ok(), "x");
        // Done anew, with a cache mount that is empty; the one it leaves is told of.
        build("app", "Containerfile");
        let all = prune(&["-a", "--dry-run"]);
        assert!(
            steps(&all) > 0 && all.contains("\ncache mount /cache: "),
            "{all}"
        );
        assert_eq!(s.run("app cat /seen").ok(), "x");
        let system = s.cmd(["system", "prune", "-af"]).ok();
        assert!(
            system.contains("untagged: app:latest") && system.contains("\ncache mount /cache: "),
            "{system}"
        );
        s.cmd(["store", "verify"]).ok();
    }
}
