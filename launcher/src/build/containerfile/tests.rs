use super::*;

fn parsed(text: &str) -> Containerfile {
    parse("Containerfile", text.as_bytes()).unwrap()
}

fn one(line: &str) -> What {
    let all = parsed(&format!("FROM x\n{line}\n"));
    all.stages[0].instructions[0].what.clone()
}

fn refused(text: &str) -> (String, String) {
    let e = parse("Containerfile", text.as_bytes()).unwrap_err();
    (e.to_string(), e.next().unwrap_or_default())
}

#[test]
fn stages_have_names_platforms_and_arguments_before_them() {
    let all = parsed("ARG V=1 W\nFROM --platform=linux/arm64 a:$V AS Build\nRUN x\nFROM build\n");
    assert_eq!(all.args.len(), 2);
    assert_eq!(all.stages[0].name.as_deref(), Some("build"));
    assert_eq!(all.stages[0].platform.as_deref(), Some("linux/arm64"));
    assert_eq!(all.stages[0].base, "a:$V");
    assert_eq!(all.stages[1].base, "build");
}

#[test]
fn commands_have_two_forms() {
    let exec = |w: &[&str]| Command::Exec(w.iter().map(|s| (*s).to_owned()).collect());
    assert_eq!(one(r#"CMD ["a", "b c"]"#), What::Cmd(exec(&["a", "b c"])));
    assert_eq!(
        one("CMD [a, b]"),
        What::Cmd(Command::Shell("[a, b]".to_owned()))
    );
    assert_eq!(one("ENTRYPOINT []"), What::Entrypoint(exec(&[])));
    let What::Run(run) = one("RUN --mount=type=tmpfs,target=/x --network=none  echo --a") else {
        panic!()
    };
    assert_eq!(run.command, Command::Shell("echo --a".to_owned()));
    assert_eq!(run.mounts, ["type=tmpfs,target=/x"]);
    assert_eq!(run.network.as_deref(), Some("none"));
}

#[test]
fn copies_have_flags_sources_and_heredocs() {
    let What::Copy(copy) = one("COPY --from=a --chown=1:2 --chmod=755 --link b c /d/") else {
        panic!()
    };
    assert_eq!(copy.sources, ["b", "c"]);
    assert_eq!((copy.to.as_str(), copy.from.as_deref()), ("/d/", Some("a")));
    let What::Copy(copy) = one(r#"ADD ["with space", "/d/"]"#) else {
        panic!()
    };
    assert!(copy.add && copy.sources == ["with space"]);
    let What::Copy(copy) = one("COPY <<EOF /f\nhello\nEOF") else {
        panic!()
    };
    assert!(copy.sources.is_empty() && copy.heredocs[0].body == "hello\n");
}

#[test]
fn health_checks_and_pairs() {
    let What::Healthcheck(Some(check)) = one("HEALTHCHECK --interval=1m30s --retries=3 CMD x y")
    else {
        panic!()
    };
    assert_eq!(
        check.numbers,
        [("Interval", 90_000_000_000), ("Retries", 3)]
    );
    assert_eq!(one("HEALTHCHECK NONE"), What::Healthcheck(None));
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(
        one(r#"ENV A=1 B="2 3""#),
        What::Env(vec![pair("A", "1"), pair("B", "\"2 3\"")])
    );
    assert_eq!(one("ENV A b  c"), What::Env(vec![pair("A", "b  c")]));
}

#[test]
fn what_is_wrong_is_told_with_file_line_and_next_step() {
    for (text, line, what) in [
        ("FROM x\n\nRUM ls", 3, "unknown instruction RUM"),
        ("RUN ls", 1, "before the first FROM"),
        ("# nothing\n", 1, "no FROM"),
        ("FROM x y", 1, "makes no sense"),
        ("FROM --colour=x y", 1, "no flag --colour"),
        ("FROM x AS 1a", 1, "no name for a stage"),
        ("FROM x\nCOPY a", 2, "source and a destination"),
        ("FROM x\nCOPY a b c", 2, "several sources"),
        ("FROM x\nADD --from=a b c", 2, "no flag --from"),
        ("FROM x\nCOPY --chown b c", 2, "no value"),
        ("FROM x\nENV A", 2, "no value"),
        ("FROM x\nENV A=1 B", 2, "not NAME=VALUE"),
        ("FROM x\nSHELL sh", 2, "JSON list"),
        ("FROM x\nHEALTHCHECK ls", 2, "CMD"),
        (
            "FROM x\nHEALTHCHECK --interval=soon CMD x",
            2,
            "makes no sense",
        ),
        ("FROM x\nONBUILD FROM y", 2, "cannot have FROM"),
        ("FROM x\nONBUILD RUM y", 2, "unknown instruction RUM"),
        ("FROM x\nUSER a b", 2, "one argument"),
        ("FROM x\nWORKDIR", 2, "no arguments"),
        ("FROM x\nRUN --mount=a", 2, "no command"),
    ] {
        let (told, next) = refused(text);
        assert!(
            told.starts_with(&format!("Containerfile:{line}: ")) && told.contains(what),
            "{text:?}: {told}"
        );
        assert!(!next.is_empty(), "{text:?}");
    }
}

#[test]
fn triggers_are_one_instruction() {
    let place = Place {
        file: "F".into(),
        line: 7,
    };
    let run = parse_trigger(&place, "RUN echo").unwrap();
    assert_eq!(run.place.line, 7);
    assert!(parse_trigger(&place, "RUN a\nRUN b").is_err());
}
