//! From an instruction's text to what it does.

use super::{
    Argument, Command, Copy, Healthcheck, Heredoc, Instruction, Run, Stage, What,
    lines::{self, Raw},
    words,
};
use crate::build::BuildError;

const KNOWN: &str = "ADD, ARG, CMD, COPY, ENTRYPOINT, ENV, EXPOSE, FROM, HEALTHCHECK, LABEL, ONBUILD, RUN, SHELL, STOPSIGNAL, USER, VOLUME and WORKDIR";

/// What is wrong, and what to do.
type Wrong = (String, String);

fn wrong<T>(what: impl Into<String>, next: impl Into<String>) -> Result<T, Wrong> {
    Err((what.into(), next.into()))
}

/// `FROM`.
pub(super) fn stage(raw: &Raw, escape: char) -> Result<Stage, BuildError> {
    stage_of(raw, escape).map_err(|(what, next)| BuildError::bad(&raw.place, what, next))
}

/// Any instruction but `FROM`.
pub(super) fn parse(raw: &Raw, escape: char) -> Result<Instruction, BuildError> {
    let what = what(raw, escape).map_err(|(what, next)| BuildError::bad(&raw.place, what, next))?;
    Ok(Instruction {
        place: raw.place.clone(),
        keyword: raw.keyword.clone(),
        rest: raw.rest.clone(),
        what,
    })
}

fn stage_of(raw: &Raw, escape: char) -> Result<Stage, Wrong> {
    let (flags, rest) = flags(&raw.rest, escape);
    let mut platform = None;
    for (name, value) in flags {
        match name.as_str() {
            "platform" => platform = Some(value),
            _ => return unknown_flag("FROM", &name, "--platform=OS/ARCH"),
        }
    }
    let words = words::split(rest, escape);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (base, name) = match words.as_slice() {
        [base] => (*base, None),
        [base, r#as, name] if r#as.eq_ignore_ascii_case("as") => (*base, Some(*name)),
        _ => {
            return wrong(
                format!("FROM {rest} makes no sense"),
                "write FROM IMAGE [AS NAME]",
            );
        }
    };
    if let Some(name) = name {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !name.bytes().all(good) {
            return wrong(
                format!("{name:?} is no name for a stage"),
                "begin with a letter and use letters, digits, -, _ and .",
            );
        }
    }
    Ok(Stage {
        place: raw.place.clone(),
        text: format!("FROM {}", raw.rest),
        base: base.to_owned(),
        name: name.map(str::to_ascii_lowercase),
        platform,
        instructions: Vec::new(),
    })
}

fn what(raw: &Raw, escape: char) -> Result<What, Wrong> {
    let rest = raw.rest.as_str();
    let keyword = raw.keyword.as_str();
    if rest.is_empty() && !matches!(keyword, "CMD" | "ENTRYPOINT") && KNOWN.contains(keyword) {
        return wrong(
            format!("{keyword} has no arguments"),
            "give it some, or take the line out",
        );
    }
    Ok(match keyword {
        "ARG" => What::Arg(arguments(rest, escape)?),
        "ENV" => What::Env(pairs("ENV", rest, escape)?),
        "LABEL" => What::Label(pairs("LABEL", rest, escape)?),
        "RUN" => What::Run(run(raw, escape)?),
        "COPY" | "ADD" => What::Copy(copy(raw, escape)?),
        "WORKDIR" => What::Workdir(rest.to_owned()),
        "USER" => What::User(one_word("USER", rest, escape)?),
        "STOPSIGNAL" => What::StopSignal(one_word("STOPSIGNAL", rest, escape)?),
        "CMD" => What::Cmd(command(rest)),
        "ENTRYPOINT" => What::Entrypoint(command(rest)),
        "SHELL" => match command(rest) {
            Command::Exec(list) if !list.is_empty() => What::Shell(list),
            _ => {
                return wrong(
                    "SHELL needs a JSON list of strings",
                    "for example: SHELL [\"/bin/bash\", \"-c\"]",
                );
            }
        },
        "EXPOSE" => What::Expose(words::split(rest, escape)),
        "VOLUME" => What::Volume(match command(rest) {
            Command::Exec(list) => list,
            Command::Shell(text) => words::split(&text, escape),
        }),
        "HEALTHCHECK" => What::Healthcheck(healthcheck(rest, escape)?),
        "ONBUILD" => What::OnBuild(trigger(raw, escape)?),
        "MAINTAINER" => What::Maintainer(rest.to_owned()),
        _ => {
            return wrong(
                format!("unknown instruction {keyword}"),
                format!("the instructions are {KNOWN}; a line that goes on ends with {escape}"),
            );
        }
    })
}

/// `--name=value` at the start, and the rest.
fn flags(text: &str, escape: char) -> (Vec<(String, String)>, &str) {
    let mut flags = Vec::new();
    let mut rest = text;
    while let Some(after) = rest.strip_prefix("--") {
        // Quotes keep spaces in a value: --mount=type=bind,target="/a b".
        let Some(word) = words::split(rest, escape).into_iter().next() else {
            break;
        };
        let Some(flag) = word.strip_prefix("--").filter(|f| !f.is_empty()) else {
            break;
        };
        let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
        flags.push((name.to_owned(), value.to_owned()));
        rest = after.get(flag.len()..).unwrap_or_default().trim_start();
    }
    (flags, rest)
}

fn unknown_flag<T>(keyword: &str, name: &str, known: &str) -> Result<T, Wrong> {
    wrong(
        format!("{keyword} has no flag --{name}"),
        format!("its flags are {known}"),
    )
}

/// The exec form, a JSON list of strings; everything else is for the shell.
fn command(rest: &str) -> Command {
    match serde_json::from_str::<Vec<String>>(rest) {
        Ok(list) if rest.starts_with('[') => Command::Exec(list),
        _ => Command::Shell(rest.to_owned()),
    }
}

fn arguments(rest: &str, escape: char) -> Result<Vec<Argument>, Wrong> {
    words::split(rest, escape)
        .iter()
        .map(|word| {
            let (name, default) = match word.split_once('=') {
                Some((name, default)) => (name, Some(default.to_owned())),
                None => (word.as_str(), None),
            };
            let good = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
            if name.is_empty() || !name.bytes().all(good) {
                return wrong(
                    format!("{name:?} is no name for ARG"),
                    "write ARG NAME[=DEFAULT]",
                );
            }
            Ok(Argument {
                name: name.to_owned(),
                default,
            })
        })
        .collect()
}

/// `A=1 B="2 3"`, or the old form `A the rest`.
fn pairs(keyword: &str, rest: &str, escape: char) -> Result<Vec<(String, String)>, Wrong> {
    let words = words::split(rest, escape);
    let how = || format!("write {keyword} NAME=VALUE, with quotes around spaces");
    if words.first().is_some_and(|w| !w.contains('=')) {
        return match rest.split_once(char::is_whitespace) {
            Some((name, value)) => Ok(vec![(name.to_owned(), value.trim().to_owned())]),
            None => wrong(format!("{keyword} {rest} gives no value"), how()),
        };
    }
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => wrong(format!("{word:?} in {keyword} is not NAME=VALUE"), how()),
        })
        .collect()
}

fn one_word(keyword: &str, rest: &str, escape: char) -> Result<String, Wrong> {
    match words::split(rest, escape).as_slice() {
        [word] => Ok(word.clone()),
        _ => wrong(
            format!("{keyword} takes one argument"),
            "put quotes around it, or take the rest out",
        ),
    }
}

fn run(raw: &Raw, escape: char) -> Result<Run, Wrong> {
    let (flags, rest) = flags(&raw.rest, escape);
    let mut run = Run {
        command: command(rest),
        mounts: Vec::new(),
        network: None,
        heredocs: raw.heredocs.clone(),
    };
    for (name, value) in flags {
        match name.as_str() {
            "mount" => run.mounts.push(value),
            "network" => run.network = Some(value),
            _ => return unknown_flag("RUN", &name, "--mount=... and --network=none|host|default"),
        }
    }
    match &run.command {
        Command::Shell(text) if text.is_empty() => wrong("RUN has no command", "give it one"),
        Command::Exec(list) if list.is_empty() => wrong("RUN has no command", "give it one"),
        _ => Ok(run),
    }
}

fn copy(raw: &Raw, escape: char) -> Result<Copy, Wrong> {
    let keyword = raw.keyword.as_str();
    let (flags, rest) = flags(&raw.rest, escape);
    let mut copy = Copy {
        add: keyword == "ADD",
        heredocs: raw.heredocs.clone(),
        ..Copy::default()
    };
    for (name, value) in flags {
        let value = match name.as_str() {
            "link" if matches!(value.as_str(), "" | "true" | "false") => continue,
            _ if value.is_empty() => {
                return wrong(
                    format!("the flag --{name} of {keyword} has no value"),
                    format!("write --{name}=VALUE"),
                );
            }
            _ => value,
        };
        match name.as_str() {
            "from" if !copy.add => copy.from = Some(value),
            "chown" => copy.chown = Some(value),
            "chmod" => copy.chmod = Some(value),
            "checksum" if copy.add => copy.checksum = Some(value),
            _ => {
                let known = if copy.add {
                    "--checksum, --chown, --chmod and --link"
                } else {
                    "--from, --chown, --chmod and --link"
                };
                return unknown_flag(keyword, &name, known);
            }
        }
    }
    let mut words = match command(rest) {
        Command::Exec(list) => list,
        Command::Shell(text) => words::split(&text, escape),
    };
    let to = words.pop().unwrap_or_default();
    copy.sources = words;
    if !copy.heredocs.is_empty() {
        copy.sources.retain(|w| words::mark(w).is_none());
    }
    if copy.sources.is_empty() && copy.heredocs.is_empty() {
        return wrong(
            format!("{keyword} needs a source and a destination"),
            format!("write {keyword} SOURCE... DESTINATION"),
        );
    }
    if copy.sources.len() + copy.heredocs.len() > 1
        && !to.ends_with(['/', '.', '"', '\'', '}'])
        && !to.contains('$')
    {
        return wrong(
            format!("{keyword} of several sources to {to}, which is not said to be a directory"),
            "end the destination with /",
        );
    }
    copy.to = to;
    Ok(copy)
}

fn healthcheck(rest: &str, escape: char) -> Result<Option<Healthcheck>, Wrong> {
    let (flags, rest) = flags(rest, escape);
    let mut numbers = Vec::new();
    for (name, value) in flags {
        let (member, number) = match name.as_str() {
            "interval" => ("Interval", nanoseconds(&value)),
            "timeout" => ("Timeout", nanoseconds(&value)),
            "start-period" => ("StartPeriod", nanoseconds(&value)),
            "start-interval" => ("StartInterval", nanoseconds(&value)),
            "retries" => ("Retries", value.parse().ok()),
            _ => {
                return unknown_flag(
                    "HEALTHCHECK",
                    &name,
                    "--interval, --timeout, --start-period, --start-interval and --retries",
                );
            }
        };
        let Some(number) = number else {
            return wrong(
                format!("--{name}={value} of HEALTHCHECK makes no sense"),
                "write times as 30s, 1m30s or 500ms, and retries as a number",
            );
        };
        numbers.push((member, number));
    }
    let (word, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    match (word.to_ascii_uppercase().as_str(), rest.trim()) {
        ("NONE", "") if numbers.is_empty() => Ok(None),
        ("CMD", rest) if !rest.is_empty() => Ok(Some(Healthcheck {
            command: command(rest),
            numbers,
        })),
        _ => wrong(
            "HEALTHCHECK needs CMD and a command, or NONE",
            "for example: HEALTHCHECK --interval=30s CMD curl -f http://localhost/",
        ),
    }
}

/// Go's durations: `1h2m3.5s`, `500ms`.
fn nanoseconds(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut sum = 0u64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let letters = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let unit: f64 = match rest.get(..letters)? {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        rest = rest.get(letters..)?;
        // A cast of a float saturates.
        sum = sum.checked_add((number * unit) as u64)?;
    }
    Some(sum)
}

/// Checked now, so that who writes it hears of it, and kept as text.
fn trigger(raw: &Raw, escape: char) -> Result<String, Wrong> {
    let (keyword, rest) = raw
        .rest
        .split_once(char::is_whitespace)
        .unwrap_or((&raw.rest, ""));
    let keyword = keyword.to_ascii_uppercase();
    if matches!(keyword.as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
        return wrong(
            format!("ONBUILD cannot have {keyword}"),
            "take the line out",
        );
    }
    let inner = lines::Raw {
        place: raw.place.clone(),
        keyword,
        rest: rest.trim().to_owned(),
        heredocs: Vec::<Heredoc>::new(),
    };
    what(&inner, escape)?;
    Ok(raw.rest.clone())
}
