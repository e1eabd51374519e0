//! Instructions that only change what an image says of how its containers run.

use serde_json::{Value, json};

use super::{
    BuildError,
    builder::Builder,
    containerfile::{Command, Healthcheck, Instruction, What},
    scope::Scope,
};

impl Builder<'_> {
    /// Instructions that only change settings.
    pub(super) fn settings(
        &self,
        scope: &mut Scope,
        instruction: &Instruction,
    ) -> Result<(), BuildError> {
        let place = &instruction.place;
        match &instruction.what {
            What::Env(pairs) => {
                let mut new = Vec::new();
                for (name, value) in pairs {
                    new.push((scope.expand(name, place)?, scope.expand(value, place)?));
                }
                for (name, value) in new {
                    set(&mut scope.state.settings.env, &name, &value);
                }
            }
            What::Label(pairs) => {
                for (name, value) in pairs {
                    let (name, value) = (scope.expand(name, place)?, scope.expand(value, place)?);
                    scope.state.settings.labels.insert(name, value);
                }
            }
            What::User(text) => scope.state.settings.user = scope.expand(text, place)?,
            What::StopSignal(text) => {
                let signal = scope.expand(text, place)?;
                crate::container::signals::parse(&signal)?;
                scope.state.settings.stop_signal = signal;
            }
            What::Cmd(command) => scope.state.settings.cmd = Some(line(scope, command)),
            What::Entrypoint(command) => {
                let line = line(scope, command);
                let settings = &mut scope.state.settings;
                settings.entrypoint = Some(line);
                // What an image below gave as arguments is no use to another program.
                settings.cmd = None;
            }
            What::Shell(list) => scope.state.set_extra("Shell", Some(json!(list))),
            What::Expose(ports) => {
                for port in ports {
                    for port in scope.words(port, place)? {
                        let line = format!("EXPOSE {port}");
                        let done = scope.state.settings.apply(&line);
                        done.map_err(|e| {
                            BuildError::bad(
                                place,
                                e.to_string(),
                                "write a port as 80, 80/tcp, 80/udp or 8000-8010",
                            )
                        })?;
                    }
                }
            }
            What::Volume(paths) => {
                for path in paths {
                    let path = scope.expand(path, place)?;
                    scope
                        .state
                        .settings
                        .volumes
                        .insert(path, Default::default());
                }
            }
            What::Healthcheck(check) => {
                let value = health(scope, check.as_ref());
                scope.state.set_extra("Healthcheck", Some(value));
            }
            What::OnBuild(text) => scope.state.add_trigger(text),
            What::Maintainer(text) => scope.state.set_member("author", text),
            What::Arg(_) | What::Run(_) | What::Copy(_) | What::Workdir(_) => {}
        }
        Ok(())
    }
}

/// Sets `name` in `env`, in place if it is there.
pub(super) fn set(env: &mut Vec<String>, name: &str, value: &str) {
    let prefix = format!("{name}=");
    let assignment = format!("{prefix}{value}");
    match env.iter_mut().find(|e| e.starts_with(&prefix)) {
        Some(old) => *old = assignment,
        None => env.push(assignment),
    }
}

/// A command as a configuration has it.
fn line(scope: &Scope, command: &Command) -> Vec<String> {
    match command {
        Command::Exec(list) => list.clone(),
        Command::Shell(text) => {
            let mut line = scope.state.shell();
            line.push(text.clone());
            line
        }
    }
}

fn health(scope: &Scope, check: Option<&Healthcheck>) -> Value {
    let Some(check) = check else {
        return json!({"Test": ["NONE"]});
    };
    let test: Vec<String> = match &check.command {
        Command::Exec(list) => std::iter::once("CMD".to_owned())
            .chain(list.iter().cloned())
            .collect(),
        Command::Shell(text) if scope.state.shell() == ["/bin/sh", "-c"] => {
            vec!["CMD-SHELL".to_owned(), text.clone()]
        }
        Command::Shell(_) => std::iter::once("CMD".to_owned())
            .chain(line(scope, &check.command))
            .collect(),
    };
    let mut value = json!({"Test": test});
    if let Some(value) = value.as_object_mut() {
        let numbers = check.numbers.iter();
        value.extend(numbers.map(|(name, n)| ((*name).to_owned(), json!(n))));
    }
    value
}
