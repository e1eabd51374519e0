//! Keeping and dropping credentials, in the file or with the helper that podman and docker would take
//! them from.

use std::{fs, io::Write as _, os::unix::fs::DirBuilderExt as _, path::Path};

use serde_json::{Map, Value, json};

use super::{
    Credentials, RegistryError,
    credentials::{AuthFile, HUB_KEY, bare, call, program, server_name},
};

/// Keeps the credentials for `registry` in `file`, or with the helper that it names.
///
/// # Errors
/// If that fails; the file is as it was then.
pub fn keep(file: &Path, registry: &str, credentials: &Credentials) -> Result<(), RegistryError> {
    let mut auths = AuthFile::read(file)?;
    if let Some(helper) = auths.helper(registry) {
        let entry = json!({
            "ServerURL": server_name(registry),
            "Username": credentials.user,
            "Secret": credentials.password.expose(),
        });
        return helped(&helper, "store", &entry.to_string());
    }
    let entry = json!({"auth": credentials.encoded()});
    let list = list_of(&mut auths)?;
    list.retain(|key, _| !names(key, registry));
    list.insert(registry.to_owned(), entry);
    write(&auths)
}

/// Drops what `file` or its helper has for `registry`; whether there was anything.
///
/// # Errors
/// If that fails; the file is as it was then.
pub fn drop_one(file: &Path, registry: &str) -> Result<bool, RegistryError> {
    let mut auths = AuthFile::read(file)?;
    let mut had = false;
    if let Some(helper) = auths.helper(registry) {
        had = auths.find(registry)?.is_some();
        if had {
            helped(&helper, "erase", &server_name(registry))?;
        }
    }
    let list = list_of(&mut auths)?;
    let before = list.len();
    list.retain(|key, _| !names(key, registry));
    if list.len() == before {
        return Ok(had);
    }
    write(&auths)?;
    Ok(true)
}

/// Drops all that `file` has; how many there were.
///
/// # Errors
/// As [`drop_one`].
pub fn drop_all(file: &Path) -> Result<usize, RegistryError> {
    let mut auths = AuthFile::read(file)?;
    let list = list_of(&mut auths)?;
    let registries: Vec<String> = list.keys().map(|key| bare(key).to_owned()).collect();
    for registry in &registries {
        drop_one(file, registry)?;
    }
    Ok(registries.len())
}

/// The name of the user whose credentials there are for `registry`.
///
/// # Errors
/// If the file or its helper is of no use.
pub fn user_of(file: &Path, registry: &str) -> Result<Option<String>, RegistryError> {
    Ok(AuthFile::read(file)?.find(registry)?.map(|c| c.user))
}

fn names(key: &str, registry: &str) -> bool {
    key == registry || bare(key) == registry || (registry == "docker.io" && key == HUB_KEY)
}

fn list_of(file: &mut AuthFile) -> Result<&mut Map<String, Value>, RegistryError> {
    let path = file.path.clone();
    let list = file.members.entry("auths").or_insert_with(|| json!({}));
    list.as_object_mut().ok_or(RegistryError::File {
        path,
        why: "its member auths is no object".to_owned(),
    })
}

fn helped(helper: &str, action: &str, input: &str) -> Result<(), RegistryError> {
    let (success, said) = call(helper, action, input)?;
    if success {
        return Ok(());
    }
    Err(RegistryError::Helper {
        program: program(helper),
        why: String::from_utf8_lossy(&said)
            .trim()
            .chars()
            .take(200)
            .collect(),
    })
}

/// Replaces the file as a whole; nobody else can read it at any time.
fn write(file: &AuthFile) -> Result<(), RegistryError> {
    // A link to the file stays one.
    let path = fs::canonicalize(&file.path).unwrap_or_else(|_| file.path.clone());
    let fail = |e| RegistryError::io("write", &path)(e);
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty());
    let dir = dir.unwrap_or(Path::new("."));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(RegistryError::io("make", dir))?;
    let text = serde_json::to_vec_pretty(&file.members).map_err(|e| fail(e.into()))?;
    // 0600 from the beginning, whatever the umask.
    let mut new = tempfile::Builder::new()
        .prefix(".auth-")
        .tempfile_in(dir)
        .map_err(fail)?;
    new.write_all(&text)
        .and_then(|()| new.as_file().sync_all())
        .map_err(fail)?;
    new.persist(&path).map_err(|e| fail(e.error)).map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn credentials_are_kept_for_the_owner_only_beside_what_else_is_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/auth.json");
        let of = |user: &str| Credentials::new(user.to_owned(), "secret".to_owned());
        keep(&path, "a.io", &of("one")).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(
            &path,
            format!(r#"{{"other": 1, "auths": {{"{HUB_KEY}": {{"auth": "eDp5"}}}}}}"#),
        )
        .unwrap();
        keep(&path, "docker.io", &of("hub")).unwrap();
        keep(&path, "a.io", &of("two")).unwrap();
        assert_eq!(user_of(&path, "docker.io").unwrap().as_deref(), Some("hub"));
        assert_eq!(user_of(&path, "a.io").unwrap().as_deref(), Some("two"));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("other") && !text.contains(HUB_KEY), "{text}");
        assert!(drop_one(&path, "a.io").unwrap() && !drop_one(&path, "a.io").unwrap());
        assert_eq!(drop_all(&path).unwrap(), 1);
        assert_eq!(user_of(&path, "docker.io").unwrap(), None);
        let left = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(left, 1, "only the file itself");
    }
}
