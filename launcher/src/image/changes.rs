//! Settings of an image given as lines of a Dockerfile (`docker import --change`).

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// The `config` member of an image configuration (OCI image-spec config.md, "Properties"), in an
/// order that is the same for the same settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Settings {
    /// `USER`
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "or_default"
    )]
    pub user: String,
    /// `EXPOSE`
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "or_default"
    )]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// `ENV`
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub env: Vec<String>,
    /// `ENTRYPOINT`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// `CMD`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// `VOLUME`
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "or_default"
    )]
    pub volumes: BTreeMap<String, Empty>,
    /// `WORKDIR`
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "or_default"
    )]
    pub working_dir: String,
    /// `LABEL`
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "or_default"
    )]
    pub labels: BTreeMap<String, String>,
    /// `STOPSIGNAL`
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "or_default"
    )]
    pub stop_signal: String,
}

/// `{}`, the value of sets in a configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// docker writes `null` for what is empty.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// The members that [`Settings`] speaks of.
const MEMBERS: [&str; 9] = [
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
];

/// A line that is no setting.
#[derive(Debug, thiserror::Error)]
#[error("{line:?} is no change of an image's settings: {why}")]
pub struct ChangeError {
    line: String,
    why: &'static str,
}

impl Settings {
    /// The settings in the `config` member of an image configuration; docker's extensions are left
    /// out.
    ///
    /// # Errors
    /// If a member is of another type than the specification says.
    pub fn of(config: &Value) -> Result<Self, serde_json::Error> {
        match config {
            Value::Null => Ok(Self::default()),
            config => Self::deserialize(config),
        }
    }

    /// Whether settings speak of the member `name` of `config`.
    #[must_use]
    pub fn has(name: &str) -> bool {
        MEMBERS.contains(&name)
    }

    /// Puts these settings in place of those in `config`, and leaves the other members.
    ///
    /// # Errors
    /// None in practice.
    pub fn put_into(&self, config: &mut Map<String, Value>) -> Result<(), serde_json::Error> {
        config.retain(|name, _| !MEMBERS.contains(&name.as_str()));
        if let Value::Object(own) = serde_json::to_value(self)? {
            config.extend(own);
        }
        Ok(())
    }

    /// Applies one line, such as `CMD ["bash"]` or `ENV A=1 B="two words"`.
    ///
    /// # Errors
    /// If the line does not parse; then nothing is changed.
    pub fn apply(&mut self, line: &str) -> Result<(), ChangeError> {
        let line = line.trim();
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let changed = self
            .clone()
            .change(&word.to_ascii_uppercase(), rest.trim())
            .map_err(|why| ChangeError {
                line: line.to_owned(),
                why,
            })?;
        *self = changed;
        Ok(())
    }

    fn change(mut self, word: &str, rest: &str) -> Result<Self, &'static str> {
        if !matches!(word, "CMD" | "ENTRYPOINT") && rest.is_empty() && KNOWN.contains(&word) {
            return Err("it gives no value");
        }
        match word {
            "CMD" => self.cmd = Some(command(rest)?),
            "ENTRYPOINT" => self.entrypoint = Some(command(rest)?),
            "USER" => rest.clone_into(&mut self.user),
            "WORKDIR" if rest.starts_with('/') => rest.clone_into(&mut self.working_dir),
            "WORKDIR" => return Err("the directory must begin with /"),
            "STOPSIGNAL" => rest.clone_into(&mut self.stop_signal),
            "ENV" => {
                for (key, value) in pairs(rest)? {
                    let prefix = format!("{key}=");
                    self.env.retain(|e| !e.starts_with(&prefix));
                    self.env.push(format!("{key}={value}"));
                }
            }
            "LABEL" => self.labels.extend(pairs(rest)?),
            "EXPOSE" => {
                for port in words(rest)? {
                    self.exposed_ports.insert(exposed(&port)?, Empty {});
                }
            }
            "VOLUME" => {
                let paths = match json_list(rest) {
                    Some(list) => list?,
                    None => words(rest)?,
                };
                self.volumes
                    .extend(paths.into_iter().map(|p| (p, Empty {})));
            }
            "ONBUILD" => return Err("ONBUILD has no place in an OCI image"),
            _ => {
                return Err(
                    "it must begin with CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME or WORKDIR",
                );
            }
        }
        Ok(self)
    }
}

const KNOWN: [&str; 7] = [
    "ENV",
    "EXPOSE",
    "LABEL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// The exec form, a JSON list, as it is; anything else is a line for the shell.
fn command(rest: &str) -> Result<Vec<String>, &'static str> {
    if rest.is_empty() {
        return Ok(Vec::new());
    }
    match json_list(rest) {
        Some(list) => list,
        None => Ok(["/bin/sh", "-c", rest].map(str::to_owned).to_vec()),
    }
}

fn json_list(rest: &str) -> Option<Result<Vec<String>, &'static str>> {
    rest.starts_with('[').then(|| {
        serde_json::from_str(rest).map_err(|_| "what begins with [ must be a JSON list of strings")
    })
}

fn exposed(port: &str) -> Result<String, &'static str> {
    const WHY: &str = "a port is written 80, 80/tcp, 80/udp or 8000-8010";
    let (numbers, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    let good = numbers.split('-').count() <= 2
        && numbers
            .split('-')
            .all(|n| n.parse::<u16>().is_ok_and(|n| n > 0))
        && matches!(protocol, "tcp" | "udp" | "sctp");
    if good {
        Ok(format!("{numbers}/{protocol}"))
    } else {
        Err(WHY)
    }
}

/// `K=V K2="v w"`, or the old form `K all the rest`.
fn pairs(rest: &str) -> Result<Vec<(String, String)>, &'static str> {
    let words = words(rest)?;
    if let Some(first) = words.first()
        && !first.contains('=')
    {
        let (key, value) = rest
            .split_once(char::is_whitespace)
            .ok_or("write NAME=VALUE")?;
        return Ok(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err("write NAME=VALUE"),
        })
        .collect()
}

/// Splits at spaces outside quotes; takes quotes and backslashes away.
fn words(rest: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = rest.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => {
                let next = chars.next().ok_or("it ends with a backslash")?;
                word.get_or_insert_default().push(next);
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quotation mark is missing");
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lines: &[&str]) -> Settings {
        let mut s = Settings::default();
        for line in lines {
            s.apply(line).unwrap();
        }
        s
    }

    #[test]
    fn commands_have_an_exec_form_and_a_shell_form() {
        assert_eq!(all(&[r#"CMD ["a","b c"]"#]).cmd.unwrap(), ["a", "b c"]);
        assert_eq!(
            all(&["cmd echo $HOME"]).cmd.unwrap(),
            ["/bin/sh", "-c", "echo $HOME"]
        );
        assert_eq!(
            all(&["ENTRYPOINT []"]).entrypoint.unwrap(),
            Vec::<String>::new()
        );
    }

    #[test]
    fn variables_and_labels_take_quotes_and_replace_earlier_ones() {
        let s = all(&[
            r#"ENV A=1 B="two words" C=x\ y"#,
            "ENV A=2",
            "ENV OLD the old form",
        ]);
        assert_eq!(s.env, ["B=two words", "C=x y", "A=2", "OLD=the old form"]);
        assert_eq!(all(&["LABEL a=b", "LABEL a='c d'"]).labels["a"], "c d");
    }

    #[test]
    fn ports_and_volumes_are_sets_in_the_json_of_the_specification() {
        let s = all(&[
            "EXPOSE 80 53/udp",
            "VOLUME /a /b",
            r#"VOLUME ["/c"]"#,
            "WORKDIR /w",
        ]);
        let json = serde_json::to_string(&s).unwrap();
        assert_eq!(
            json,
            r#"{"ExposedPorts":{"53/udp":{},"80/tcp":{}},"Volumes":{"/a":{},"/b":{},"/c":{}},"WorkingDir":"/w"}"#
        );
        let back: oci_spec::image::Config = serde_json::from_str(&json).unwrap();
        assert_eq!(back.volumes().as_ref().unwrap().len(), 3);
    }

    #[test]
    fn settings_are_taken_from_an_image_and_put_back_beside_what_they_do_not_know() {
        let mut config = serde_json::json!({
            "User": "a", "ExposedPorts": null, "Env": ["A=1"], "Cmd": ["x"], "Volumes": {"/v": {}},
            "Healthcheck": {"Test": ["NONE"]}, "OnBuild": null, "Labels": {"k": "v"},
        });
        let mut settings = Settings::of(&config).unwrap();
        assert_eq!((settings.user.as_str(), settings.labels.len()), ("a", 1));
        settings.apply("USER b").unwrap();
        settings.cmd = None;
        let object = config.as_object_mut().unwrap();
        settings.put_into(object).unwrap();
        assert_eq!(
            config,
            serde_json::json!({
                "User": "b", "Env": ["A=1"], "Volumes": {"/v": {}}, "Labels": {"k": "v"},
                "Healthcheck": {"Test": ["NONE"]}, "OnBuild": null,
            })
        );
        assert!(Settings::of(&serde_json::json!({"Env": 7})).is_err());
        assert_eq!(Settings::of(&Value::Null).unwrap(), Settings::default());
    }

    #[test]
    fn what_is_no_setting_is_refused() {
        for bad in [
            "",
            "FROM x",
            "RUN true",
            "ENV",
            "ENV A",
            "ENV =x",
            "ENV A=\"x",
            "CMD [\"a\"",
            "CMD [1]",
            "WORKDIR rel",
            "EXPOSE 0",
            "EXPOSE 80/icmp",
            "EXPOSE x",
            "USER",
            "ONBUILD RUN x",
            "ENV A=\\",
        ] {
            assert!(Settings::default().apply(bad).is_err(), "{bad:?} was taken");
        }
    }
}
