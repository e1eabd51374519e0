//! What lists show of what there is: filters, and how much of it.

use pellicle_tests::{TestStore, Who};

/// Builds `name` with a file that no other image has, a label and a time of making.
fn build(s: &TestStore, name: &str, label: &str, made: &str) {
    s.directory("ctx");
    s.file("ctx/f", format!("{name} {label} {made}"));
    s.file(
        "ctx/Containerfile",
        format!("FROM scratch\nCOPY f /f\nLABEL {label}\n"),
    );
    s.cmd(["build", "-q", "--timestamp", made, "-t", name])
        .arg(s.path("ctx"))
        .ok();
}

/// The names that `pellicle images` lists with these filters.
fn listed(s: &TestStore, filters: &[&str]) -> Vec<String> {
    let args = filters.iter().flat_map(|f| ["--filter", f]);
    let list = s
        .cmd(["images", "--format", "{{.Repository}}:{{.Tag}}"])
        .args(args)
        .ok();
    let mut names: Vec<String> = list.lines().map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn images_are_listed_by_name_label_age_and_whether_they_have_a_name() {
    for who in Who::all() {
        let s = TestStore::new(who);
        build(&s, "web:1", "stage=test", "1000");
        build(&s, "web:2", "stage=live", "2000");
        build(&s, "localhost/team/web:3", "owner=me", "3000");
        build(&s, "moved", "stage=old", "500");
        build(&s, "moved", "stage=new", "4000");
        let all = [
            "<none>:<none>",
            "localhost/team/web:3",
            "moved:latest",
            "web:1",
            "web:2",
        ];
        assert_eq!(listed(&s, &[]), all);
        assert_eq!(listed(&s, &["dangling=true"]), ["<none>:<none>"]);
        assert_eq!(listed(&s, &["dangling=0"]), all[1..]);
        assert_eq!(listed(&s, &["reference=web"]), ["web:1", "web:2"]);
        assert_eq!(listed(&s, &["reference=*:[13]"]), ["web:1"]);
        assert_eq!(
            listed(
                &s,
                &["reference=*/web", "reference=docker.io/library/web:2"]
            ),
            ["localhost/team/web:3", "web:2"]
        );
        assert_eq!(listed(&s, &["label=stage=live"]), ["web:2"]);
        assert_eq!(
            listed(&s, &["label=stage", "label!=stage=live"]),
            ["<none>:<none>", "moved:latest", "web:1"]
        );
        assert_eq!(listed(&s, &["before=web:2"]), ["<none>:<none>", "web:1"]);
        assert_eq!(
            listed(&s, &["since=web:1", "before=moved"]),
            ["localhost/team/web:3", "web:2"]
        );
        assert_eq!(
            listed(&s, &["until=1000", "dangling=false"]),
            ["web:1"],
            "several filters narrow"
        );
        let id = s.cmd(["images", "-q", "web:1"]).ok();
        assert_eq!(
            s.cmd(["image", "ls", "-q", "-f", "label=stage=test"]).ok(),
            id
        );
        for (filter, said) in [
            ("nope=x", "dangling"),
            ("dangling=maybe", "true or false"),
            ("reference=[", "pattern"),
            ("until=soon", "soon"),
            ("dangling", "KEY=VALUE"),
        ] {
            s.cmd(["images", "--filter", filter])
                .run()
                .failed_clearly(2, &[said]);
        }
        s.cmd(["images", "--filter", "before=web:9"])
            .run()
            .failed_clearly(1, &["web:9"]);
    }
}

#[test]
fn what_is_pruned_may_be_chosen_by_whether_it_has_a_name() {
    let s = TestStore::new(Who::Root);
    build(&s, "kept", "keep=yes", "1000");
    build(&s, "moved", "x=1", "2000");
    build(&s, "moved", "x=2", "3000");
    let prune = |args: &[&str]| s.cmd(["image", "prune", "-f"]).args(args);
    prune(&["-a", "--filter", "dangling=true"])
        .run()
        .failed_clearly(2, &["dangling=true", "-a"]);
    prune(&["--filter", "dangling=x"])
        .run()
        .failed_clearly(2, &["true or false"]);
    s.cmd(["container", "prune", "-f", "--filter", "dangling=true"])
        .run()
        .failed_clearly(2, &["until"]);
    prune(&["--filter", "dangling=true"]).ok();
    assert_eq!(listed(&s, &[]), ["kept:latest", "moved:latest"]);
    prune(&["--filter", "dangling=false", "--filter", "label!=keep"]).ok();
    assert_eq!(listed(&s, &[]), ["kept:latest"]);
}

#[test]
fn the_last_containers_are_listed_with_what_they_take_up() {
    for who in Who::all() {
        let s = TestStore::with_tools(who);
        for (name, script) in [
            ("small", "true"),
            ("large", "head -c 3000000 /dev/urandom >/f"),
        ] {
            s.cmd(["run", "--name", name, "tools", "sh", "-c", script])
                .ok();
        }
        let ps = |args: &[&str]| {
            let list = s.cmd(["ps", "--format", "{{.Names}}"]).args(args).ok();
            list.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        assert!(ps(&[]).is_empty());
        assert_eq!(ps(&["-l"]), ["large"]);
        assert_eq!(ps(&["-n", "2"]), ["large", "small"]);
        assert_eq!(ps(&["--last", "1", "--filter", "name=small"]), ["small"]);
        s.cmd(["ps", "-l", "-n", "2"])
            .run()
            .failed_clearly(2, &["--last"]);
        let id = s.cmd(["ps", "-lq"]).ok();
        let whole = s.cmd(["ps", "-lq", "--no-trunc"]).ok();
        assert!(id.len() == 12 && whole.len() == 64 && whole.starts_with(&id));
        // As JSON numbers, as docker's text, and as a column.
        let told = crate::json(&s.cmd(["ps", "-as", "--format", "json"]).ok());
        let number = |at: usize, name: &str| told[at][name].as_u64().expect(name);
        let (large, small) = (number(0, "size_rw"), number(1, "size_rw"));
        assert!((3_000_000..4_000_000).contains(&large), "{large}");
        assert!(small < 1_000_000, "{small}");
        let image = s.cmd(["images", "--format", "{{.SizeBytes}}"]).ok();
        let image: u64 = image.parse().expect("a number");
        assert_eq!(number(0, "size_root_fs"), image + large);
        let without = crate::json(&s.cmd(["ps", "-a", "--format", "json"]).ok());
        assert!(
            without[0].get("size_rw").is_none(),
            "only if it is asked for"
        );
        let size = s.cmd(["ps", "-l", "--format", "{{.Size}}"]).ok();
        assert!(
            size.starts_with("3.") && size.contains("MB (virtual "),
            "{size}"
        );
        let table = s.cmd(["ps", "-ls"]).ok();
        let head = table.lines().next().unwrap_or_default();
        assert!(head.ends_with("SIZE") && table.contains(&size), "{table}");
        assert!(!s.cmd(["ps", "-l"]).ok().contains("SIZE"));
        let events = |args: &[&str]| {
            s.cmd(["events", "--stream=false", "--filter", "event=create"])
                .args(["--filter", "container=large", "--format", "{{.ID}}"])
                .args(args)
                .ok()
        };
        assert_eq!(events(&[]), whole);
        assert_eq!(events(&["--no-trunc"]), whole);
        assert_eq!(events(&["--no-trunc=false"]), id);
        s.cmd(["rm", "small", "large"]).ok();
    }
}
