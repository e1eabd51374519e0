//! `pellicle login`: keep credentials for a registry.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;

use super::registry_args::{RegistryArgs, ask_password, clearly, read_line};
use crate::{
    CliError, Context,
    image::Reference,
    interrupt,
    registry::{Client, Credentials, Registries, RegistryError, Source, login, login_file},
};

/// Log in to a registry
///
/// Name and password are checked with the registry and then kept in a file that only you can read, or
/// with the credential helper that the file names. podman, skopeo and buildah use the same file.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle login quay.io
  pass registry | pellicle login -u me --password-stdin registry.lan:5000
  pellicle login --get-login quay.io")]
pub struct LoginArgs {
    /// Name of the user
    #[arg(short, long)]
    pub username: Option<String>,
    /// The password; --password-stdin does not show it to everyone who can list processes
    #[arg(short, long, conflicts_with = "password_stdin")]
    pub password: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "username")]
    pub password_stdin: bool,
    /// Print who is logged in, and do nothing
    #[arg(long)]
    pub get_login: bool,
    /// The registry [default: docker.io]
    #[arg(value_name = "REGISTRY")]
    pub registry: Option<String>,
    /// How the registry is reached.
    #[command(flatten)]
    pub registry_args: RegistryArgs,
}

/// Runs the command.
///
/// # Errors
/// If the registry does not take the credentials, or they cannot be kept.
pub fn run(cx: &Context, args: LoginArgs) -> Result<ExitCode, CliError> {
    let registry = registry(args.registry.as_deref())?;
    let file = file(&args.registry_args)?;
    if args.get_login {
        let user = login::user_of(&file, registry.domain())?;
        let user = user
            .ok_or_else(|| CliError::failed(format!("not logged in to {}", registry.domain())))?;
        cx.out.line(user)?;
        return Ok(ExitCode::SUCCESS);
    }
    let credentials = credentials(&args)?;
    let mut access = args.registry_args.access(interrupt::cancel_on_signals()?)?;
    access.credentials = Source::Given(credentials.clone());
    check(&access, &registry)
        .map_err(|e| clearly(e).context(format!("cannot log in to {}", registry.domain())))?;
    login::keep(&file, registry.domain(), &credentials)?;
    cx.out.line("Login Succeeded!")?;
    Ok(ExitCode::SUCCESS)
}

fn check(access: &crate::registry::Access, registry: &Reference) -> Result<(), RegistryError> {
    let rules: &Registries = &access.registries;
    let place = rules.home(registry, access.tls_verify)?;
    Client::connect(access, place)?.check_login()
}

/// A registry as a name that the rules for registries can be asked with.
pub(super) fn registry(text: Option<&str>) -> Result<Reference, CliError> {
    let text = text.unwrap_or("docker.io");
    let plain = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
        .unwrap_or(text);
    let host = plain.split('/').next().unwrap_or(plain);
    let host = if host == "index.docker.io" {
        "docker.io"
    } else {
        host
    };
    let bad = || {
        CliError::usage(format!("{text:?} is no registry"))
            .with_hint("give its host, with a port if need be: quay.io, registry.lan:5000")
    };
    let reference: Reference = format!("{host}/login").parse().map_err(|_| bad())?;
    if reference.domain() != host {
        return Err(bad());
    }
    Ok(reference)
}

/// The file that credentials are kept in.
pub(super) fn file(args: &RegistryArgs) -> Result<PathBuf, CliError> {
    match &args.authfile {
        Some(path) => Ok(path.clone()),
        None => Ok(login_file()?),
    }
}

fn credentials(args: &LoginArgs) -> Result<Credentials, CliError> {
    let unread = |e: io::Error| CliError::failed("cannot read standard input").because(e);
    let user = match &args.username {
        Some(user) => user.clone(),
        None if io::stdin().is_terminal() => {
            let mut err = io::stderr();
            let _ = err.write_all(b"Username: ").and_then(|()| err.flush());
            let mut line = String::new();
            io::stdin().lock().read_line(&mut line).map_err(unread)?;
            line.trim().to_owned()
        }
        None => {
            return Err(CliError::usage(
                "no user name is given, and there is no terminal to ask for it",
            )
            .with_hint("give it with -u NAME"));
        }
    };
    let password = match &args.password {
        Some(password) => password.clone(),
        None if args.password_stdin => read_line(&mut io::stdin()).map_err(unread)?,
        None => ask_password()?,
    };
    if user.is_empty() || password.is_empty() || user.contains(':') {
        return Err(CliError::usage(
            "a user name without colons and a password are needed",
        ));
    }
    Ok(Credentials::new(user, password))
}
