//! Names and passwords for registries, from podman's `auth.json` and docker's `config.json`
//! (containers-auth.json(5), docker's "credential helpers").

use std::{
    collections::BTreeMap,
    env, fmt, fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::RegistryError;

/// More than any real file of credentials has.
const FILE_MAX: u64 = 16 << 20;
/// Docker's own name for its registry in these files.
pub(super) const HUB_KEY: &str = "https://index.docker.io/v1/";
/// What helpers answer where they have nothing (docker-credential-helpers).
const HELPER_HAS_NONE: &str = "credentials not found";

/// A text that must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The user's name at the registry.
    pub user: String,
    /// The password.
    pub password: Secret,
    /// What some registries give for a password (an OAuth2 refresh token).
    pub identity_token: Option<Secret>,
}

impl Credentials {
    /// A user with a password.
    #[must_use]
    pub fn new(user: String, password: String) -> Self {
        Self {
            user,
            password: Secret(password),
            identity_token: None,
        }
    }

    /// The header of HTTP's basic authentication (RFC 7617).
    pub(super) fn basic(&self) -> String {
        format!("Basic {}", self.encoded())
    }

    /// `user:password`, as these files have it.
    pub(super) fn encoded(&self) -> String {
        STANDARD.encode(format!("{}:{}", self.user, self.password.0))
    }

    fn decode(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text.trim_end_matches('\0')).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (user, password) = text.split_once(':')?;
        Some(Self::new(
            user.to_owned(),
            password.trim_end_matches('\0').to_owned(),
        ))
    }
}

/// Where credentials come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Given with the command, for whatever registry it speaks to.
    Given(Credentials),
    /// One file.
    File(PathBuf),
    /// The files that podman and docker use, the first that has any for a registry.
    Usual,
}

impl Source {
    /// The credentials for a repository, `registry/path`; none is no error.
    ///
    /// # Errors
    /// If a file or a helper that is to have them is of no use.
    pub fn find(&self, repository: &str) -> Result<Option<Credentials>, RegistryError> {
        match self {
            Self::Given(credentials) => Ok(Some(credentials.clone())),
            Self::File(path) => AuthFile::read(path)?.find(repository),
            Self::Usual => {
                for path in usual_files() {
                    if let Some(found) = AuthFile::read(&path)?.find(repository)? {
                        return Ok(Some(found));
                    }
                }
                Ok(None)
            }
        }
    }
}

/// The file that a login goes to: `$REGISTRY_AUTH_FILE`, else podman's own.
///
/// # Errors
/// If there is no home directory to put it in.
pub fn login_file() -> Result<PathBuf, RegistryError> {
    usual_files().into_iter().next().ok_or_else(|| {
        RegistryError::invalid(
            "the file for credentials",
            "neither HOME nor XDG_RUNTIME_DIR is set; name one with --authfile",
        )
    })
}

fn usual_files() -> Vec<PathBuf> {
    let dir = |name: &str| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    if let Some(path) = env::var_os("REGISTRY_AUTH_FILE").filter(|p| !p.is_empty()) {
        return vec![PathBuf::from(path)];
    }
    let docker = dir("DOCKER_CONFIG").or_else(|| dir("HOME").map(|home| home.join(".docker")));
    [
        dir("XDG_RUNTIME_DIR").map(|d| d.join("containers/auth.json")),
        super::config_home().map(|d| d.join("containers/auth.json")),
        docker.map(|d| d.join("config.json")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// One file of credentials, with all it has besides.
pub(super) struct AuthFile {
    pub(super) path: PathBuf,
    pub(super) members: Map<String, Value>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default, rename = "identitytoken")]
    identity_token: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

impl AuthFile {
    /// Reads it; one that is not there is empty.
    pub(super) fn read(path: &Path) -> Result<Self, RegistryError> {
        let empty = || Self {
            path: path.to_owned(),
            members: Map::new(),
        };
        let text = match fs::metadata(path) {
            Ok(meta) if meta.len() > FILE_MAX => return Err(bad(path, "it is too large")),
            Ok(_) => fs::read(path).map_err(RegistryError::io("read", path))?,
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(empty());
            }
            Err(e) => return Err(RegistryError::io("read", path)(e)),
        };
        if text.iter().all(u8::is_ascii_whitespace) {
            return Ok(empty());
        }
        // What the parser says could quote a password.
        let members = serde_json::from_slice(&text)
            .map_err(|e| bad(path, &format!("it is no JSON object, at line {}", e.line())))?;
        Ok(Self { members, ..empty() })
    }

    /// The helper that a registry's credentials are kept by, if one is set for it.
    pub(super) fn helper(&self, registry: &str) -> Option<String> {
        let own = self
            .members
            .get("credHelpers")
            .and_then(|h| h.get(registry));
        own.or_else(|| self.members.get("credsStore"))
            .and_then(Value::as_str)
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
    }

    pub(super) fn find(&self, repository: &str) -> Result<Option<Credentials>, RegistryError> {
        let registry = repository.split('/').next().unwrap_or(repository);
        if let Some(helper) = self.helper(registry)
            && let Some(found) = ask(&helper, &server_name(registry))?
        {
            return Ok(Some(found));
        }
        let auths = match self.members.get("auths") {
            Some(Value::Object(auths)) => auths,
            _ => return Ok(None),
        };
        let named: BTreeMap<&str, &Value> = auths.iter().map(|(k, v)| (bare(k), v)).collect();
        // The most particular name first: registry/user/tool, registry/user, registry.
        let mut key = repository;
        loop {
            let found = auths.get(key).or_else(|| named.get(key).copied());
            if let Some(found) = found.map(|v| self.parse(key, v)).transpose()?.flatten() {
                return Ok(Some(found));
            }
            match key.rsplit_once('/') {
                Some((shorter, _)) => key = shorter,
                None => return Ok(None),
            }
        }
    }

    fn parse(&self, key: &str, value: &Value) -> Result<Option<Credentials>, RegistryError> {
        let why = format!("what it has for {key} are no credentials");
        let entry = Entry::deserialize(value).map_err(|_| bad(&self.path, &why))?;
        let identity = Some(entry.identity_token).filter(|t| !t.is_empty());
        let found = match entry.auth.as_str() {
            "" if identity.is_none() => return Ok(None),
            "" => Credentials::new(String::new(), String::new()),
            text => Credentials::decode(text).ok_or_else(|| bad(&self.path, &why))?,
        };
        Ok(Some(Credentials {
            identity_token: identity.map(Secret),
            ..found
        }))
    }
}

fn bad(path: &Path, why: &str) -> RegistryError {
    RegistryError::File {
        path: path.to_owned(),
        why: why.to_owned(),
    }
}

/// A key of `auths` as the name of a registry: docker's older ones are addresses.
pub(super) fn bare(key: &str) -> &str {
    let plain = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"));
    let Some(plain) = plain else {
        return key;
    };
    match plain.split('/').next().unwrap_or(plain) {
        "index.docker.io" => "docker.io",
        host => host,
    }
}

/// What docker calls a registry towards helpers.
pub(super) fn server_name(registry: &str) -> String {
    match registry {
        "docker.io" => HUB_KEY.to_owned(),
        other => other.to_owned(),
    }
}

fn ask(helper: &str, server: &str) -> Result<Option<Credentials>, RegistryError> {
    let (success, text) = call(helper, "get", server)?;
    let failed = |why: String| RegistryError::Helper {
        program: program(helper),
        why,
    };
    if !success {
        let said = String::from_utf8_lossy(&text);
        if said.contains(HELPER_HAS_NONE) {
            return Ok(None);
        }
        return Err(failed(said.trim().chars().take(200).collect()));
    }
    let answer: Answer = serde_json::from_slice(&text)
        .map_err(|_| failed("its answer is no JSON of its kind".to_owned()))?;
    Ok(Some(if answer.username == "<token>" {
        Credentials {
            identity_token: Some(Secret(answer.secret)),
            ..Credentials::new(String::new(), String::new())
        }
    } else {
        Credentials::new(answer.username, answer.secret)
    }))
}

pub(super) fn program(helper: &str) -> String {
    format!("docker-credential-{helper}")
}

/// Runs a helper; whether it succeeded, and what it wrote.
pub(super) fn call(
    helper: &str,
    action: &str,
    input: &str,
) -> Result<(bool, Vec<u8>), RegistryError> {
    let program = program(helper);
    let fail = |e: io::Error| RegistryError::Helper {
        program: program.clone(),
        why: e.to_string(),
    };
    if helper.contains('/') {
        return Err(fail(io::Error::other("its name is a path")));
    }
    let mut child = Command::new(&program)
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(fail)?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input.as_bytes()) {
            // It may not want to know.
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => return Err(fail(e)),
            _ => {}
        }
    }
    let output = child.wait_with_output().map_err(fail)?;
    Ok((output.status.success(), output.stdout))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> AuthFile {
        AuthFile {
            path: "f".into(),
            members: serde_json::from_str(text).unwrap(),
        }
    }

    fn user(file: &AuthFile, repository: &str) -> Option<String> {
        file.find(repository).unwrap().map(|c| c.user)
    }

    #[test]
    fn the_most_particular_entry_counts_and_docker_s_spellings_are_known() {
        let encoded = |u: &str| Credentials::new(u.into(), "p:w".into()).encoded();
        let f = file(&format!(
            r#"{{"auths":{{"quay.io":{{"auth":"{}"}},"quay.io/a/b":{{"auth":"{}"}},
                "{HUB_KEY}":{{"auth":"{}"}},"empty.io":{{}},"id.io":{{"identitytoken":"t"}}}}}}"#,
            encoded("all"),
            encoded("one"),
            encoded("hub")
        ));
        assert_eq!(user(&f, "quay.io/a/b").as_deref(), Some("one"));
        assert_eq!(user(&f, "quay.io/a/b/c").as_deref(), Some("one"));
        assert_eq!(user(&f, "quay.io/a").as_deref(), Some("all"));
        assert_eq!(user(&f, "docker.io/library/debian").as_deref(), Some("hub"));
        assert_eq!(user(&f, "empty.io/x"), None);
        assert_eq!(user(&f, "other.io/x"), None);
        let id = f.find("id.io/x").unwrap().unwrap();
        assert_eq!(id.identity_token, Some(Secret("t".into())));
        let found = f.find("quay.io/x").unwrap().unwrap();
        assert_eq!(found.password.expose(), "p:w");
        assert!(!format!("{found:?}").contains("p:w"));
    }

    #[test]
    fn damage_is_told_without_what_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.json");
        assert!(AuthFile::read(&path).unwrap().members.is_empty());
        fs::write(&path, r#"{"auths": {"x": "c2VjcmV0"#).unwrap();
        let error = AuthFile::read(&path).err().unwrap();
        let text = format!("{error} {error:?}");
        assert!(
            text.contains("auth.json") && !text.contains("c2VjcmV0"),
            "{text}"
        );
        let f = file(r#"{"auths":{"a.io":{"auth":"!!"},"b.io":7}}"#);
        assert!(f.find("a.io/x").is_err() && f.find("b.io/x").is_err());
    }
}
