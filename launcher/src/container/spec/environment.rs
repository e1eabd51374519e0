//! The environment of a container's command: the image's, then what is asked for.

use oci_spec::{image::Config, runtime::Spec};

use crate::container::{ContainerError, request::Request};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Sets `name` in `env`, in place if it is there.
fn set(env: &mut Vec<String>, assignment: String) {
    let name = assignment.split('=').next().unwrap_or_default();
    let prefix = format!("{name}=");
    match env.iter_mut().find(|e| e.starts_with(&prefix)) {
        Some(old) => *old = assignment,
        None => env.push(assignment),
    }
}

/// Applies `-e NAME=VALUE` and `-e NAME`, which takes the caller's value or unsets.
///
/// # Errors
/// [`ContainerError::Invalid`] for a name that is empty.
pub(in crate::container) fn assign(
    env: &mut Vec<String>,
    text: &str,
) -> Result<(), ContainerError> {
    let name = text.split('=').next().unwrap_or_default();
    if name.is_empty() || text.contains('\0') {
        let why = "give NAME or NAME=VALUE";
        return Err(ContainerError::invalid("environment variable", text, why));
    }
    if text.contains('=') {
        set(env, text.to_owned());
    } else if let Some(value) = std::env::var_os(name) {
        let value = value.into_string().map_err(|_| {
            ContainerError::invalid("environment variable", name, "its value is not UTF-8")
        })?;
        set(env, format!("{name}={value}"));
    } else {
        let prefix = format!("{name}=");
        env.retain(|e| !e.starts_with(&prefix));
    }
    Ok(())
}

pub(super) fn environment(
    config: &Config,
    request: &Request,
    hostname: &str,
) -> Result<Vec<String>, ContainerError> {
    let mut env = vec![PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if request.tty {
        env.push("TERM=xterm".to_owned());
    }
    for assignment in config.env().iter().flatten() {
        if assignment.contains('=') {
            set(&mut env, assignment.clone());
        }
    }
    for file in &request.env_file {
        let text = std::fs::read_to_string(file).map_err(ContainerError::file("read", file))?;
        for line in text.lines().map(str::trim_start) {
            if !line.is_empty() && !line.starts_with('#') {
                assign(&mut env, line)?;
            }
        }
    }
    for text in &request.env {
        assign(&mut env, text)?;
    }
    Ok(env)
}

/// The variables of `spec` that were asked for, by its image or a person: without those that every
/// container is given, unless `image` has them.
#[must_use]
pub fn own_environment(spec: &Spec, image: &[String]) -> Vec<String> {
    let hostname = spec.hostname().as_deref().unwrap_or_default();
    let given = [
        PATH.to_owned(),
        format!("HOSTNAME={hostname}"),
        "TERM=xterm".to_owned(),
    ];
    let env = spec.process().as_ref().and_then(|p| p.env().clone());
    let mut env = env.unwrap_or_default();
    env.retain(|e| image.contains(e) || !given.contains(e));
    env
}
