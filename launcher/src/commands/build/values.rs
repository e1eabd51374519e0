//! The values of `build`'s options.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::keys::KeyAgent;
use crate::{
    CliError,
    build::{Secret, Times},
};

pub(super) fn pair(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (name.to_owned(), value.to_owned())
}

pub(super) fn build_args(list: &[String]) -> Result<BTreeMap<String, String>, CliError> {
    let mut all = BTreeMap::new();
    for text in list {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => match std::env::var(text) {
                Ok(value) => (text.as_str(), value),
                // As docker: what is not set here is not set there.
                Err(_) => continue,
            },
        };
        if name.is_empty() {
            return Err(CliError::usage(format!("--build-arg {text:?} has no name"))
                .with_hint("write --build-arg NAME=VALUE"));
        }
        all.insert(name.to_owned(), value);
    }
    Ok(all)
}

pub(super) fn secrets(list: &[String]) -> Result<BTreeMap<String, Secret>, CliError> {
    let mut all = BTreeMap::new();
    for text in list {
        let bad = |why: &str| {
            CliError::usage(format!("--secret {text:?}: {why}"))
                .with_hint("write --secret id=NAME,src=FILE or --secret id=NAME,env=VARIABLE")
        };
        let (mut id, mut secret) = (None, None);
        for field in text.split(',') {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            match (name, value) {
                (_, "") => return Err(bad(&format!("{name} has no value"))),
                ("id", value) => id = Some(value.to_owned()),
                ("src" | "source", path) => secret = Some(Secret::File(PathBuf::from(path))),
                ("env", name) => secret = Some(Secret::Variable(name.to_owned())),
                ("type", "file" | "env") => {}
                _ => return Err(bad(&format!("{field} is not known"))),
            }
        }
        let id = id.ok_or_else(|| bad("it has no id"))?;
        let secret = secret.unwrap_or_else(|| Secret::Variable(id.clone()));
        if let Secret::File(path) = &secret {
            std::fs::metadata(path).map_err(|e| {
                CliError::failed(format!("cannot read the secret {}", path.display())).because(e)
            })?;
        }
        all.insert(id, secret);
    }
    Ok(all)
}

/// The ssh agents of a build.
#[derive(Debug, Default)]
pub(super) struct Agents {
    /// Their sockets, by id.
    pub(super) sockets: BTreeMap<String, PathBuf>,
    /// Those that were started for the build, and end with this.
    own: Vec<KeyAgent>,
}

/// Reads `--ssh`: an agent's socket, or the files of keys.
pub(super) fn agents(list: &[String]) -> Result<Agents, CliError> {
    use std::os::unix::fs::FileTypeExt as _;

    let mut all = Agents::default();
    for text in list {
        let (id, given) = match text.split_once('=') {
            Some((id, given)) => (id, given.to_owned().into()),
            None => match std::env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty()) {
                Some(path) => (text.as_str(), path),
                None => {
                    return Err(CliError::failed(format!(
                        "--ssh {text}: SSH_AUTH_SOCK is not set, so there is no agent"
                    ))
                    .with_hint("start one with eval $(ssh-agent) and give it a key with ssh-add, or name the file of a key: --ssh default=KEY"));
                }
            },
        };
        if id.is_empty() {
            return Err(CliError::usage(format!("--ssh {text:?} has no id"))
                .with_hint("write --ssh default, --ssh ID=SOCKET or --ssh ID=KEY[,KEY...]"));
        }
        let is_socket = |path: &Path| match std::fs::metadata(path) {
            Ok(meta) => Ok(meta.file_type().is_socket()),
            Err(e) => Err(CliError::failed(format!(
                "cannot reach the ssh agent or key at {}",
                path.display()
            ))
            .because(e)),
        };
        // A name with a comma in it is one if it is there.
        let whole = Path::new(&given);
        let paths: Vec<&Path> = match given.to_str() {
            Some(given) if !whole.exists() => given.split(',').map(Path::new).collect(),
            _ => vec![whole],
        };
        let mut keys = Vec::new();
        let mut sockets = Vec::new();
        for path in paths {
            match is_socket(path)? {
                true => sockets.push(path),
                false => keys.push(path),
            }
        }
        let socket = match (sockets.as_slice(), keys.is_empty()) {
            ([socket], true) => socket.to_path_buf(),
            ([], false) => {
                let agent = KeyAgent::start(&keys)
                    .map_err(|e| e.context(format!("cannot give --ssh {id} its keys")))?;
                let socket = agent.socket();
                all.own.push(agent);
                socket
            }
            _ => {
                return Err(CliError::usage(format!(
                    "--ssh {text} names several agents, or an agent and keys"
                ))
                .with_hint("name one agent, or the files of keys"));
            }
        };
        all.sockets.insert(id.to_owned(), socket);
    }
    Ok(all)
}

pub(super) fn times(timestamp: Option<i64>) -> Result<Times, CliError> {
    let at = |sec: i64| {
        // Years that RFC 3339 can write.
        if !(0..=253_402_300_799).contains(&sec) {
            return Err(
                CliError::usage(format!("{sec} is no time that an image can have"))
                    .with_hint("give seconds since 1970"),
            );
        }
        Ok(pellicle_union::Time { sec, nsec: 0 })
    };
    if let Some(sec) = timestamp {
        return at(sec).map(Times::All);
    }
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) if !text.is_empty() => {
            let sec = text.parse::<i64>().map_err(|e| {
                CliError::usage(format!(
                    "SOURCE_DATE_EPOCH={text:?} is no number of seconds"
                ))
                .because(e)
            })?;
            at(sec).map(Times::AtMost)
        }
        _ => Ok(Times::Keep),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_files_or_variables() {
        let one = |t: &str| secrets(&[t.to_owned()]);
        let got = one("id=a,env=B").unwrap();
        assert_eq!(got.get("a"), Some(&Secret::Variable("B".into())));
        let got = one("id=a,src=/dev/null").unwrap();
        assert_eq!(got.get("a"), Some(&Secret::File("/dev/null".into())));
        for bad in ["src=/dev/null", "id=", "id=a,src=/no/such", "id=a,x=1"] {
            assert!(one(bad).is_err(), "{bad}");
        }
    }
}
