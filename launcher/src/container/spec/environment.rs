//! The environment of a container's command: the image's, then what is asked for.

use oci_spec::{image::Config, runtime::Spec};

use crate::container::{ContainerError, environ::Environment, request::Request};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) fn environment(
    config: &Config,
    request: &Request,
    hostname: &str,
) -> Result<Vec<String>, ContainerError> {
    let mut env = Environment::of([PATH.to_owned(), format!("HOSTNAME={hostname}")]);
    if request.tty {
        env.set("TERM=xterm".to_owned());
    }
    for assignment in config.env().iter().flatten() {
        if assignment.contains('\0') {
            let what = "environment variable of the image";
            let why = "it holds a NUL byte";
            return Err(ContainerError::invalid(what, assignment, why));
        }
        if assignment.contains('=') {
            env.set(assignment.clone());
        }
    }
    for file in &request.env_file {
        let text = std::fs::read_to_string(file).map_err(ContainerError::file("read", file))?;
        for line in text.lines().map(str::trim_start) {
            if !line.is_empty() && !line.starts_with('#') {
                env.assign(line)?;
            }
        }
    }
    for text in &request.env {
        env.assign(text)?;
    }
    Ok(env.into_vec())
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
    env.retain(|e| !given.contains(e) || image.contains(e));
    env
}
