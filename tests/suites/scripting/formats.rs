//! `--format`, and docker's longer names of commands.

use pellicle_tests::{TestStore, Who};

use crate::json;

#[test]
fn lists_print_what_a_template_says() {
    for who in Who::all() {
        let s = TestStore::with_tools(who);
        let format = |args: &[&str], format: &str| s.cmd(args).arg("--format").arg(format).ok();
        assert_eq!(
            format(&["images"], "{{.Repository}}:{{.Tag}}"),
            "tools:latest"
        );
        assert_eq!(
            format(
                &["images"],
                r#"{{if eq .Tag "latest"}}{{upper .Repository}}{{end}}"#
            ),
            "TOOLS"
        );
        let id = format(&["images", "--no-trunc"], "{{.ID}}");
        assert_eq!(json(&format(&["images"], "{{json .}}"))["Id"], id.as_str());
        let table = format(&["image", "ls"], r"table {{.Repository}}\t{{.ID}}");
        let lines: Vec<Vec<&str>> = table
            .lines()
            .map(|l| l.split_whitespace().collect())
            .collect();
        assert_eq!(lines[0], ["REPOSITORY", "IMAGE", "ID"]);
        assert_eq!(lines[1][0], "tools");
        assert_eq!(
            format(&["history", "tools"], "{{.ID}} {{len .CreatedBy}}")
                .split(' ')
                .next(),
            Some(&id[7..19])
        );
        assert_eq!(format(&["version"], "{{.Client.Os}}"), "linux");
        assert!(!format(&["info"], "{{.Host.Kernel}}").is_empty());
        assert!(format(&["store", "df"], "{{.Type}}").contains("blobs"));

        let _ = s
            .cmd([
                "run", "--name", "web", "-l", "app=x", "tools", "sh", "-c", "exit 3",
            ])
            .run()
            .exited(3);
        assert_eq!(
            format(
                &["ps", "-a"],
                r#"{{.Names}} {{.State}} {{.ExitCode}} {{.Label "app"}} {{.Labels}}"#
            ),
            "web exited 3 x app=x"
        );
        assert_eq!(
            format(&["ps", "-a"], "table {{.Names}}\t{{.Image}}"),
            "NAMES   IMAGE\nweb     tools"
        );
        assert_eq!(json(&format(&["ps", "-a"], "json"))[0]["name"], "web");
        s.cmd(["rm", "web"]).ok();
    }
}

#[test]
fn inspect_tells_of_images_and_containers_and_of_parts_of_them() {
    let s = TestStore::with_tools(Who::Root);
    let inspect = |name: &str, format: &str| s.cmd(["inspect", "-f", format, name]).ok();
    let _ = s
        .cmd([
            "run",
            "--name",
            "web",
            "-e",
            "A=1",
            "-m",
            "64m",
            "-v",
            "/tmp:/host:ro",
            "tools",
            "sh",
            "-c",
            "exit 4",
        ])
        .run()
        .exited(4);
    assert_eq!(
        inspect(
            "web",
            "{{.Name}} {{.State.Status}} {{.State.ExitCode}} {{.Path}} {{join .Args \" \"}}"
        ),
        "web exited 4 sh -c exit 4"
    );
    assert_eq!(
        inspect("web", "{{.HostConfig.Memory}}"),
        (64 << 20).to_string()
    );
    let mounts = "{{range .Mounts}}{{.Source}}:{{.Destination}}:{{.RW}}{{end}}";
    assert_eq!(inspect("web", mounts), "/tmp:/host:false");
    assert_eq!(
        inspect(
            "web",
            r#"{{range .Config.Env}}{{if eq . "A=1"}}found{{end}}{{end}}"#
        ),
        "found"
    );
    assert_eq!(inspect("web", "{{.Image}}"), inspect("tools", "{{.Id}}"));
    assert_eq!(inspect("tools", "{{index .RepoTags 0}}"), "tools:latest");
    assert_eq!(
        inspect(
            "tools",
            "{{len .RootFS.Layers}} {{.RootFS.Type}} {{.Config.Nothing}}"
        ),
        "1 layers <no value>"
    );
    // A container of the image's name comes first, unless the kind is said.
    s.cmd(["run", "--name", "tools", "tools", "true"]).ok();
    assert_eq!(inspect("tools", "{{.Name}}"), "tools");
    let by_kind = s.cmd(["image", "inspect", "-f", "{{.Architecture}}", "tools"]);
    assert!(!by_kind.ok().is_empty());
    s.cmd(["container", "inspect", "nobody"])
        .run()
        .failed_clearly(1, &["nobody"]);
    s.cmd(["inspect", "nobody"])
        .run()
        .failed_clearly(1, &["nobody", "container"]);
    let both = json(&s.cmd(["inspect", "web", "tools"]).ok());
    assert_eq!(both.as_array().map(Vec::len), Some(2));
    s.cmd(["container", "rm", "web", "tools"]).ok();
}

#[test]
fn a_template_that_makes_no_sense_prints_nothing_else() {
    let s = TestStore::with_tools(Who::Root);
    for bad in [
        "{{",
        "{{.ID",
        "{{nope .ID}}",
        "{{if .ID}}",
        "{{.Nope}}",
        "{{.ID}}{{.Nope}}",
        "{{index .ID 9}}",
        "table {{",
        "jason",
    ] {
        let out = s.cmd(["images", "--format", bad]).run();
        assert_eq!(out.out(), "", "{bad}");
        out.failed_clearly(125, &["format"]);
    }
    s.cmd(["images", "--format", "{{.Nope}}"])
        .run()
        .failed_clearly(125, &["Nope", "the fields are", "Repository"]);
    s.cmd(["inspect", "-f", "{{.Nope}}", "tools"])
        .run()
        .failed_clearly(125, &["Nope"]);
}

#[test]
fn the_longer_names_are_the_same_commands() {
    for who in Who::all() {
        let s = TestStore::with_tools(who);
        let run = s.cmd(["container", "run", "--rm", "tools", "sh", "-c", "exit 7"]);
        let _ = run.run().exited(7);
        s.cmd(["container", "run", "--rm", "--memory", "nonsense", "tools"])
            .run()
            .failed_clearly(125, &["nonsense"]);
        s.cmd(["image", "tag", "tools", "again"]).ok();
        assert_eq!(
            s.cmd(["image", "ls", "-q"]).ok(),
            s.cmd(["images", "-q"]).ok()
        );
        assert_eq!(
            s.cmd(["image", "rm", "again"]).ok(),
            "Untagged: again:latest"
        );
        s.cmd(["container", "run", "-d", "--name", "c", "tools", "sleep"])
            .arg(s.seconds())
            .ok();
        assert_eq!(
            s.cmd(["container", "exec", "c", "cat", "/etc/base"]).ok(),
            "from the image"
        );
        assert_eq!(
            s.cmd(["container", "ls", "--format", "{{.Names}}"]).ok(),
            "c"
        );
        s.cmd(["container", "stop", "-t", "0", "c"]).ok();
        s.cmd(["container", "rm", "c"]).ok();
        let help = s.cmd(["image", "pull", "--help"]).ok();
        assert!(
            help.contains("Examples") && help.contains("--platform"),
            "{help}"
        );
    }
}
