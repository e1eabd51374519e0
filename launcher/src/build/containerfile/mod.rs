//! Containerfiles (Dockerfiles): stages of instructions, each with its line.
//!
//! Read by our own code: the parsers on crates.io either take quotes away before variables are
//! replaced, or know no heredocs but a lone one.

mod instruction;
mod lines;
mod words;

use std::sync::Arc;

pub(super) use words::{expand, expand_body, expand_to_words};

use super::{BuildError, Place};

/// A Containerfile.
#[derive(Clone, Debug)]
pub(super) struct Containerfile {
    /// The character that takes the meaning of the next one.
    pub(super) escape: char,
    /// `ARG`s before the first FROM.
    pub(super) args: Vec<(Place, Argument)>,
    /// In the order of the file; at least one.
    pub(super) stages: Vec<Stage>,
}

/// `FROM` and what follows it.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    pub(super) place: Place,
    /// As it is written, for messages and the history.
    pub(super) text: String,
    /// Image or stage, with its variables.
    pub(super) base: String,
    /// `AS name`, in lower case.
    pub(super) name: Option<String>,
    pub(super) platform: Option<String>,
    pub(super) instructions: Vec<Instruction>,
}

/// One line of a stage.
#[derive(Clone, Debug)]
pub(super) struct Instruction {
    pub(super) place: Place,
    pub(super) keyword: String,
    /// All behind the keyword, as it is written.
    pub(super) rest: String,
    pub(super) what: What,
}

impl Instruction {
    /// In one line.
    pub(super) fn text(&self) -> String {
        format!("{} {}", self.keyword, self.rest)
    }
}

/// `ARG name[=default]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Argument {
    pub(super) name: String,
    pub(super) default: Option<String>,
}

/// What an instruction does. Texts still have their quotes and variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Arg(Vec<Argument>),
    Env(Vec<(String, String)>),
    Label(Vec<(String, String)>),
    Run(Run),
    Copy(Copy),
    Workdir(String),
    User(String),
    Cmd(Command),
    Entrypoint(Command),
    Shell(Vec<String>),
    Expose(Vec<String>),
    Volume(Vec<String>),
    StopSignal(String),
    Healthcheck(Option<Healthcheck>),
    /// What a build on top of this one does first.
    OnBuild(String),
    Maintainer(String),
}

/// A command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// For the shell.
    Shell(String),
    /// A JSON list.
    Exec(Vec<String>),
}

/// `RUN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) command: Command,
    /// Values of `--mount`.
    pub(super) mounts: Vec<String>,
    /// Value of `--network`.
    pub(super) network: Option<String>,
    pub(super) heredocs: Vec<Heredoc>,
}

/// `COPY` and `ADD`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Copy {
    /// `ADD`: archives are unpacked.
    pub(super) add: bool,
    pub(super) sources: Vec<String>,
    /// Files that are in the Containerfile itself.
    pub(super) heredocs: Vec<Heredoc>,
    pub(super) to: String,
    pub(super) from: Option<String>,
    pub(super) chown: Option<String>,
    pub(super) chmod: Option<String>,
    /// The digest that what is at the address of an ADD has.
    pub(super) checksum: Option<String>,
}

/// `HEALTHCHECK`, as docker's configurations have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Healthcheck {
    pub(super) command: Command,
    /// `Interval`, `Timeout`, `StartPeriod`, `StartInterval` in nanoseconds, and `Retries`.
    pub(super) numbers: Vec<(&'static str, u64)>,
}

/// A file in the Containerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heredoc {
    /// What ends it.
    pub(super) name: String,
    pub(super) body: String,
    /// The name was not quoted: variables are replaced.
    pub(super) expand: bool,
    pub(super) strip_tabs: bool,
}

/// Reads a Containerfile; `file` is what messages call it.
///
/// # Errors
/// [`BuildError::Bad`] with the line.
pub(super) fn parse(file: &str, text: &[u8]) -> Result<Containerfile, BuildError> {
    let file: Arc<str> = file.into();
    let (escape, raws) = lines::split(&file, text)?;
    let mut args = Vec::new();
    let mut stages: Vec<Stage> = Vec::new();
    for raw in raws {
        if raw.keyword == "FROM" {
            stages.push(instruction::stage(&raw, escape)?);
            continue;
        }
        let instruction = instruction::parse(&raw, escape)?;
        match (stages.last_mut(), instruction.what) {
            (Some(stage), what) => stage.instructions.push(Instruction {
                what,
                ..instruction
            }),
            (None, What::Arg(list)) => {
                args.extend(list.into_iter().map(|a| (raw.place.clone(), a)));
            }
            (None, _) => {
                return Err(BuildError::bad(
                    &raw.place,
                    format!("{} comes before the first FROM", raw.keyword),
                    "begin with FROM; only ARG may come before it",
                ));
            }
        }
    }
    if stages.is_empty() {
        let place = Place { file, line: 1 };
        return Err(BuildError::bad(
            &place,
            "there is no FROM in it",
            "begin with FROM and the name of an image, or FROM scratch",
        ));
    }
    Ok(Containerfile {
        escape,
        args,
        stages,
    })
}

/// One instruction that an image has for builds on top of it.
///
/// # Errors
/// As [`parse`], with the place of the FROM.
pub(super) fn parse_trigger(place: &Place, text: &str) -> Result<Instruction, BuildError> {
    let (escape, mut raws) = lines::split(&place.file, text.as_bytes())?;
    match (raws.pop(), raws.is_empty()) {
        (Some(raw), true) => instruction::parse(
            &lines::Raw {
                place: place.clone(),
                ..raw
            },
            escape,
        ),
        _ => Err(BuildError::bad(
            place,
            format!("the base image's ONBUILD {text:?} is not one instruction"),
            "use another base image, or build that one again",
        )),
    }
}

#[cfg(test)]
mod tests;
