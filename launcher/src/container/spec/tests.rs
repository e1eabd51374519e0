//! From configurations and requests to specifications, tried.

use super::*;

fn image(json: &str) -> ImageConfiguration {
    let text = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[]}},"config":{json}}}"#
    );
    serde_json::from_str(&text).unwrap()
}

fn built(
    json: &str,
    request: &Request,
    command: &[&str],
) -> Result<(Spec, Settings), ContainerError> {
    let command: Vec<String> = command.iter().map(|s| (*s).to_owned()).collect();
    build(
        &"a".repeat(64),
        Path::new("/c"),
        &image(json),
        request,
        &command,
    )
}

fn args(json: &str, request: &Request, command: &[&str]) -> Option<Vec<String>> {
    let (spec, _) = built(json, request, command).ok()?;
    spec.process().as_ref()?.args().clone()
}

#[test]
fn entrypoint_and_command_merge_as_docker_merges_them() {
    let both = r#"{"Entrypoint":["e","1"],"Cmd":["c"]}"#;
    let with = |program: &str| Request {
        entrypoint: Some(program.to_owned()),
        ..Request::default()
    };
    let plain = Request::default();
    let is = |got: Option<Vec<String>>, want: &[&str]| assert_eq!(got.unwrap(), want);
    is(args(both, &plain, &[]), &["e", "1", "c"]);
    is(args(both, &plain, &["x", "y"]), &["e", "1", "x", "y"]);
    is(args(both, &with("p"), &[]), &["p"]);
    is(args(both, &with("p"), &["x"]), &["p", "x"]);
    is(args(both, &with(""), &["x"]), &["x"]);
    is(args(r#"{"Cmd":["c","d"]}"#, &plain, &[]), &["c", "d"]);
    assert!(matches!(
        built("{}", &plain, &[]),
        Err(ContainerError::NoCommand)
    ));
}

#[test]
fn environment_comes_from_image_then_request_and_has_a_path() {
    let request = Request {
        env: vec![
            "A=2".into(),
            "PATH".into(),
            "PELLICLE_NOT_SET_HERE".into(),
            "E=".into(),
        ],
        ..Request::default()
    };
    let (spec, settings) = built(
        r#"{"Env":["A=1","B=1","PATH=/img","PELLICLE_NOT_SET_HERE=1","broken"],"Cmd":["x"]}"#,
        &request,
        &[],
    )
    .unwrap();
    let env = spec.process().as_ref().unwrap().env().clone().unwrap();
    let path = format!("PATH={}", std::env::var("PATH").unwrap());
    assert_eq!(
        env,
        [path.as_str(), "HOSTNAME=aaaaaaaaaaaa", "A=2", "B=1", "E="]
    );
    assert!(!settings.home_given);
}

#[test]
fn nonsense_is_refused_by_name() {
    let cases: Vec<(Request, &str)> = vec![
        (
            Request {
                workdir: Some("rel".into()),
                ..Request::default()
            },
            "rel",
        ),
        (
            Request {
                volume: vec!["/".into()],
                ..Request::default()
            },
            "--volume",
        ),
        (
            Request {
                volume: vec!["/:rel".into()],
                ..Request::default()
            },
            "--volume",
        ),
        (
            Request {
                volume: vec!["/:/a/..".into()],
                ..Request::default()
            },
            "root itself",
        ),
        (
            Request {
                volume: vec!["name:/x".into()],
                ..Request::default()
            },
            "named",
        ),
        (
            Request {
                volume: vec!["/no/such/dir/:/x".into()],
                ..Request::default()
            },
            "make it",
        ),
        (
            Request {
                volume: vec!["/:/x:rwx".into()],
                ..Request::default()
            },
            "options",
        ),
        (
            Request {
                hostname: Some("a b".into()),
                ..Request::default()
            },
            "--hostname",
        ),
        (
            Request {
                memory: Some("lots".into()),
                ..Request::default()
            },
            "--memory",
        ),
        (
            Request {
                cap_add: vec!["FLY".into()],
                ..Request::default()
            },
            "capability",
        ),
        (
            Request {
                ulimit: vec!["nofile=5:1".into()],
                ..Request::default()
            },
            "--ulimit",
        ),
        (
            Request {
                stop_signal: Some("NOPE".into()),
                ..Request::default()
            },
            "signal",
        ),
        (
            Request {
                env: vec!["=x".into()],
                ..Request::default()
            },
            "environment",
        ),
    ];
    for (request, want) in cases {
        let e = built(r#"{"Cmd":["x"]}"#, &request, &[])
            .unwrap_err()
            .to_string();
        assert!(e.contains(want), "{e}");
    }
}

#[test]
fn volumes_nest_and_replace_what_is_ours() {
    let request = Request {
        volume: vec!["/:/a/b".into(), "/:/a:ro".into(), "/:/dev/shm".into()],
        ..Request::default()
    };
    let (spec, _) = built(r#"{"Cmd":["x"]}"#, &request, &[]).unwrap();
    let mounts = spec.mounts().clone().unwrap();
    let at = |p: &str| {
        mounts
            .iter()
            .position(|m| m.destination() == Path::new(p))
            .unwrap()
    };
    assert!(at("/a") < at("/a/b"));
    assert_eq!(mounts[at("/dev/shm")].typ().as_deref(), Some("bind"));
    assert!(
        mounts[at("/a")]
            .options()
            .as_ref()
            .unwrap()
            .contains(&"ro".to_owned())
    );
}

#[test]
fn what_no_environment_can_hold_is_refused_by_name() {
    let image = r#"{"Env":["A=x\u0000y"],"Cmd":["x"]}"#;
    let said = built(image, &Request::default(), &[])
        .unwrap_err()
        .to_string();
    assert!(
        said.contains(r#""A=x\0y""#) && said.contains("NUL"),
        "{said}"
    );
    let image = r#"{"Env":["A=x\ny","=v"],"Cmd":["x"]}"#;
    assert!(built(image, &Request::default(), &[]).is_ok());
}
