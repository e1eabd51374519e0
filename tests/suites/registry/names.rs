//! Names: by digest, short ones, all tags of one, and looking for them.

use pellicle_tests::{Terminal, TestStore, Who, skip};
use serde_json::json;

use crate::{
    listed,
    script::{Script, ok, status},
    server::Registry,
};

#[test]
fn a_name_by_digest_is_known_to_every_command() {
    let Some(r) = Registry::plain("a_name_by_digest_is_known") else {
        return;
    };
    for who in Who::all() {
        let s = TestStore::with_tools(who);
        let name = r.name(&format!("pinned/{who:?}").to_lowercase());
        let digest = s.cmd(["push", "-q", "tools", &name]).ok();
        let pinned = format!("{name}@{digest}");
        let t = TestStore::new(who);
        t.cmd(["pull", "-q", &pinned]).ok();
        let told = |s: &TestStore, action: &str| {
            s.cmd(["events", "--stream=false", "--format", "{{.Name}}"])
                .args(["--filter", &format!("event={action}")])
                .ok()
        };
        assert_eq!(told(&t, "pull"), pinned);
        assert_eq!(told(&s, "push"), format!("{name}:latest"));
        let inspect = |format: &str| t.cmd(["inspect", "-f", format, &pinned]).ok();
        assert_eq!(
            inspect("{{index .RepoDigests 0}} {{len .RepoTags}}"),
            format!("{pinned} 0")
        );
        let id = inspect("{{.Id}}");
        assert!(!t.cmd(["history", "-q", &pinned]).ok().is_empty());
        assert_eq!(
            t.run(&format!("{pinned} cat /etc/base")).ok(),
            "from the image"
        );
        let file = t.path("saved.tar");
        t.cmd(["save", "-q", "-o"]).arg(&file).arg(&pinned).ok();
        t.cmd(["export", "-q", "-o"])
            .arg(t.path("all.tar"))
            .arg(&pinned)
            .ok();
        assert_eq!(
            t.cmd(["image", "prune", "-f"]).ok(),
            "Total reclaimed space: 0B"
        );
        t.cmd(["tag", &pinned, "here"]).ok();
        assert_eq!(t.cmd(["inspect", "-f", "{{.Id}}", "here"]).ok(), id);
        // One of two names now; then the last.
        let said = t.cmd(["rmi", &pinned]).ok();
        assert_eq!(said, format!("Untagged: {pinned}"));
        t.cmd(["inspect", &pinned])
            .run()
            .failed_clearly(1, &["no image"]);
        t.cmd(["pull", "-q", &pinned]).ok();
        t.cmd(["rmi", "here"]).ok();
        assert_eq!(listed(&t), 0);
    }
}

#[test]
fn all_tags_of_a_repository_are_pulled() {
    let Some(r) = Registry::plain("all_tags_of_a_repository") else {
        return;
    };
    let s = TestStore::with_tools(Who::Root);
    for tag in ["one", "two", "three"] {
        s.cmd(["push", "-q", "tools", &r.name(&format!("many:{tag}"))])
            .ok();
    }
    s.cmd(["push", "-q", "tools", &r.name("other:four")]).ok();
    let t = TestStore::new(Who::Root);
    t.cmd(["pull", "-q", "-a", &r.name("many")]).ok();
    let tags = t.cmd(["images", "--format", "{{.Tag}}"]).ok();
    let mut tags: Vec<&str> = tags.lines().collect();
    tags.sort_unstable();
    assert_eq!(tags, ["one", "three", "two"]);
    t.cmd(["pull", "-a", &r.name("many:one")])
        .run()
        .failed_clearly(2, &["one tag"]);
    t.cmd(["pull", "-a", &r.name("none")])
        .run()
        .failed_clearly(1, &["none"]);
}

#[test]
fn a_registry_is_searched_by_its_catalog_and_its_tags_are_listed() {
    let Some(r) = Registry::plain("a_registry_is_searched") else {
        return;
    };
    let s = TestStore::with_tools(Who::Root);
    for name in ["app/web:1", "app/web:2", "app/worker:1", "base:1"] {
        s.cmd(["push", "-q", "tools", &r.name(name)]).ok();
    }
    let search = |args: &[&str]| {
        let mut lines: Vec<String> = s
            .cmd(["search"])
            .args(args)
            .ok()
            .lines()
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    };
    let (app, all) = (r.name("app"), r.name(""));
    assert_eq!(
        search(&["--format", "{{.Name}}", &app]),
        [r.name("app/web"), r.name("app/worker")]
    );
    assert_eq!(search(&["--format", "{{.Index}}", &all]).len(), 3);
    assert_eq!(
        search(&["--limit", "1", "--format", "{{.Name}}", &app]).len(),
        1
    );
    let tags = ["--list-tags", "--format", "{{.Tag}}", &r.name("app/web")];
    assert_eq!(search(&tags), ["1", "2"]);
    let table = s.cmd(["search", &app]).ok();
    assert!(table.starts_with("NAME"), "{table}");
    s.cmd(["search", "--list-tags", &r.name("none")])
        .run()
        .failed_clearly(1, &["none"]);
}

#[test]
fn an_index_is_asked_first_and_pages_are_followed() {
    let index = Script::start(|asked| {
        Some(match asked.path.as_str() {
            "/v1/search?q=web&n=25" => ok(json!({"results": [
                {"name": "library/web", "description": "a\u{1b}[31m server", "star_count": 9, "is_official": true},
                {"name": "me/web", "description": "mine", "star_count": 1}
            ]})
            .to_string()),
            "/v2/_catalog?n=1000" => crate::script::Answer::Whole(
                200,
                vec![("Link".to_owned(), "</v2/_catalog?n=1000&last=b>; rel=\"next\"".to_owned())],
                br#"{"repositories":["a","b"]}"#.to_vec(),
            ),
            "/v2/_catalog?n=1000&last=b" => ok(r#"{"repositories":["c"]}"#),
            "/v2/loop/tags/list?n=1000" => crate::script::Answer::Whole(
                200,
                vec![("Link".to_owned(), "<http://127.0.0.2:1/x>; rel=\"next\"".to_owned())],
                br#"{"name":"loop","tags":["t"]}"#.to_vec(),
            ),
            "/v2/" => status(200),
            _ => status(404),
        })
    });
    let s = TestStore::new(Who::Root);
    let search = |args: &[&str]| s.cmd(["search"]).args(args).ok();
    let web = index.name("web");
    let found = search(&["--format", "{{.Name}} {{.Stars}} {{.Official}}", &web]);
    assert_eq!(
        found.lines().collect::<Vec<_>>(),
        [
            format!("{} 9 [OK]", index.name("library/web")),
            format!("{} 1 ", index.name("me/web"))
        ]
    );
    assert!(!search(&[&web]).contains('\u{1b}'), "no control characters");
    let liked = search(&["--filter", "stars=5", "--format", "{{.Stars}}", &web]);
    assert_eq!(liked, "9");
    let official = search(&[
        "--filter",
        "is-official=false",
        "--format",
        "{{.Stars}}",
        &web,
    ]);
    assert_eq!(official, "1");
    let all = search(&["--format", "{{.Name}}", &index.name("")]);
    assert_eq!(all.lines().count(), 3, "{all}");
    s.cmd(["search", "--list-tags", &index.name("loop")])
        .run()
        .failed_clearly(1, &["another server"]);
    s.cmd(["search", "--filter", "nope=1", &web])
        .run()
        .failed_clearly(2, &["nope"]);
}

#[test]
fn short_names_follow_aliases_and_the_registries_that_are_searched() {
    let Some(r) = Registry::plain("short_names_follow_aliases") else {
        return;
    };
    let s = TestStore::with_tools(Who::Root);
    s.cmd(["push", "-q", "tools", &r.name("real/thing:2")]).ok();
    s.cmd(["push", "-q", "tools", &r.name("plain")]).ok();
    let t = TestStore::new(Who::Root);
    // The user's own file and the files beside it.
    let conf = t.directory("config/containers/registries.conf.d");
    let main = conf.parent().expect("a parent").join("registries.conf");
    std::fs::write(&main, "unqualified-search-registries = [\"localhost:1\"]\n").expect("write");
    std::fs::write(
        conf.join("10-search.conf"),
        format!(
            "unqualified-search-registries = [\"localhost:1\", \"{}\"]\n",
            r.host()
        ),
    )
    .expect("write");
    std::fs::write(
        conf.join("20-names.conf"),
        format!("[aliases]\n\"thing\" = \"{}\"\n", r.name("real/thing")),
    )
    .expect("write");
    let cmd = |args: &[&str]| {
        t.cmd(args)
            .env("XDG_CONFIG_HOME", t.path("config"))
            .env("XDG_CACHE_HOME", t.path("cache"))
    };
    cmd(&["pull", "-q", "thing:2"]).ok();
    let names = t
        .cmd(["images", "--format", "{{.Repository}}:{{.Tag}}"])
        .ok();
    assert_eq!(names, r.name("real/thing:2"), "under its full name");
    let cat = [
        "run",
        "--rm",
        "--pull",
        "never",
        "thing:2",
        "cat",
        "/etc/base",
    ];
    assert_eq!(
        cmd(&cat).ok(),
        "from the image",
        "and known by the short one"
    );
    assert_eq!(
        cmd(&["rmi", "thing:2"]).ok().lines().next(),
        Some(&*format!("Untagged: {}", r.name("real/thing:2")))
    );
    let out = cmd(&["run", "--rm", "plain", "cat", "/etc/base"])
        .run()
        .succeeded();
    assert_eq!(out.out(), "from the image");
    assert!(
        out.err()
            .contains("localhost:1/plain:latest is passed over"),
        "{out}"
    );
    std::fs::write(
        conf.join("30-mode.conf"),
        "short-name-mode = \"enforcing\"\n",
    )
    .expect("write");
    cmd(&["pull", "some"])
        .run()
        .failed_clearly(1, &["short-name-mode", "localhost:1/some"]);
    let here = [
        "run",
        "--rm",
        "--pull",
        "never",
        "plain",
        "cat",
        "/etc/base",
    ];
    assert_eq!(
        cmd(&here).ok(),
        "from the image",
        "one that is here is found"
    );
    std::fs::write(conf.join("40-bad.conf"), "nonsense").expect("write");
    cmd(&["pull", "some"])
        .run()
        .failed_clearly(1, &["40-bad.conf"]);
}

#[test]
fn a_person_at_a_terminal_chooses_what_a_short_name_means_and_is_not_asked_again() {
    const TEST: &str = "a_person_at_a_terminal_chooses_what_a_short_name_means";
    let Some(r) = Registry::plain(TEST) else {
        return;
    };
    // Not as root, whose choices are the whole machine's.
    if let Some(why) = Who::User.missing() {
        return skip(TEST, &why);
    }
    let s = TestStore::with_tools(Who::User);
    s.cmd(["push", "-q", "tools", &r.name("team/tool:1")]).ok();
    let conf = s.directory("config/containers").join("registries.conf");
    let searched = format!(
        "unqualified-search-registries = [\"localhost:1\", \"{}\"]\n",
        r.host()
    );
    let cmd = |mode: &str| {
        std::fs::write(&conf, format!("short-name-mode = \"{mode}\"\n{searched}")).expect("write");
        s.cmd(["pull", "team/tool:1"])
            .env("CONTAINERS_REGISTRIES_CONF", &conf)
            .env("XDG_CACHE_HOME", s.path("cache"))
    };
    // Nobody chooses.
    cmd("enforcing")
        .run()
        .failed_clearly(1, &["short-name-mode", "localhost:1/team/tool:1"]);
    let mut t = Terminal::start(cmd("enforcing"));
    t.expect("Number (1-2): ");
    t.send("\x03");
    assert_eq!(t.exit_code(), 130, "Ctrl-C is heard");
    let mut t = Terminal::start(cmd("permissive"));
    t.expect("Number (1-2): ");
    t.send("3\nno\n\n");
    t.expect("none of the images was chosen");
    assert_eq!(t.exit_code(), 1);
    let noted = s.path("cache/containers/short-name-aliases.conf");
    assert!(!noted.exists(), "nothing was chosen");
    // One that is not there is not noted.
    let mut t = Terminal::start(cmd("enforcing"));
    t.expect("1) localhost:1/team/tool:1");
    t.expect(&format!("2) {}", r.name("team/tool:1")));
    t.send("1\n");
    t.expect("cannot pull");
    assert_eq!(t.exit_code(), 1);
    assert!(!noted.exists(), "it could not be pulled");
    let mut t = Terminal::start(cmd("enforcing"));
    t.expect("Number (1-2): ");
    t.send("2\n");
    assert_eq!(t.exit_code(), 0);
    let text = std::fs::read_to_string(&noted).expect("the choice is noted");
    let alias = format!("\"team/tool\" = \"{}\"", r.name("team/tool"));
    assert!(
        text.starts_with("[aliases]\n") && text.contains(&alias),
        "{text}"
    );
    cmd("enforcing").ok();
    let t = Terminal::start(cmd("enforcing"));
    t.expect("already");
    assert!(!t.screen().contains("Number"), "{}", t.screen());
    assert_eq!(t.exit_code(), 0);
}
